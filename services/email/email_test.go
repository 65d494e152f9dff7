package email_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/schemas"
	"example.com/keyline/services/email"
)

func TestLetters(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		got     email.Letter
		want    email.Letter
		subject string
	}{
		{"a confirmed order",
			email.Confirmation(schemas.OrderConfirmed{OrderID: "o-1", TotalCents: 123456, Currency: "EUR"}),
			email.Letter{Kind: schemas.EmailKindConfirmation, OrderID: "o-1", Total: "1234.56 EUR"}, "Your order is confirmed"},
		{"an order that is out of stock",
			email.Rejection(schemas.OrderRejected{OrderID: "o-1", Unavailable: []string{"tea", "cup"}}),
			email.Letter{Kind: schemas.EmailKindRejection, OrderID: "o-1", Reason: "We are out of tea, cup."}, "Your order cannot be fulfilled"},
		{"an order rejected for no known reason",
			email.Rejection(schemas.OrderRejected{OrderID: "o-1", Reason: schemas.RejectionReasonUnknown}),
			email.Letter{Kind: schemas.EmailKindRejection, OrderID: "o-1", Reason: "We could not reserve what you ordered."}, "Your order cannot be fulfilled"},
		{"an order that its customer cancelled",
			email.Cancellation(schemas.OrderCancelled{OrderID: "o-1", Reason: schemas.CancellationReasonCustomer}),
			email.Letter{Kind: schemas.EmailKindCancellation, OrderID: "o-1", Reason: "You cancelled it."}, "Your order is cancelled"},
		{"an order that the deadline cancelled",
			email.Cancellation(schemas.OrderCancelled{OrderID: "o-1", Reason: schemas.CancellationReasonDeadline}),
			email.Letter{Kind: schemas.EmailKindCancellation, OrderID: "o-1", Reason: "Our warehouse did not answer in time."}, "Your order is cancelled"},
		{"an order cancelled for a reason from the future is not said to be the customer's doing",
			email.Cancellation(schemas.OrderCancelled{OrderID: "o-1", Reason: schemas.CancellationReasonUnknown}),
			email.Letter{Kind: schemas.EmailKindCancellation, OrderID: "o-1", Reason: "We could not keep it open."}, "Your order is cancelled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.got, tt.want); diff != "" {
				t.Error(diff)
			}
			if got := tt.got.Subject(); got != tt.subject {
				t.Errorf("subject %q, want %q", got, tt.subject)
			}
		})
	}
}

// What a letter says is text, whoever has written it, and each of its words stands once.
func TestLetter_hostile(t *testing.T) {
	t.Parallel()
	const evil = `<script>alert("1")</script> & '{{reason}}{{total}}{{order_id}}{{.Reason}}' $1 %s \` + "\x00茶\r\n"
	const escaped = `&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt; &amp; &#39;{{reason}}{{total}}{{order_id}}{{.Reason}}&#39; $1 %s \` + "\x00茶\r\n"
	for _, tt := range []struct {
		name       string
		l          email.Letter
		text, html string // the lines around the letter's own
	}{
		{"the order's ID", email.Letter{OrderID: evil, Total: "1.00 EUR"},
			"\nOrder " + evil + "\nTotal 1.00 EUR\n\n", "<p>Order <code>" + escaped + "</code></p>\n<p>Total <strong>1.00 EUR</strong></p>\n<p>Your"},
		{"the total", email.Confirmation(schemas.OrderConfirmed{OrderID: "o-1", TotalCents: 100, Currency: evil}),
			"\nOrder o-1\nTotal 1.00 " + evil + "\n\n", "<p>Order <code>o-1</code></p>\n<p>Total <strong>1.00 " + escaped + "</strong></p>\n<p>Your"},
		{"the reason", email.Rejection(schemas.OrderRejected{OrderID: "o-1", Unavailable: []string{evil}}),
			"\nOrder o-1\nWe are out of " + evil + ".\n\n", "<p>Order <code>o-1</code></p>\n<p>We are out of " + escaped + ".</p>\n<p>Your"},
		{"all of it", email.Letter{OrderID: evil, Total: evil, Reason: evil},
			"\nOrder " + evil + "\nTotal " + evil + "\n" + evil + "\n\n",
			"<p>Order <code>" + escaped + "</code></p>\n<p>Total <strong>" + escaped + "</strong></p>\n<p>" + escaped + "</p>\n<p>Your"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.l.Text(); !strings.Contains(got, tt.text) || !strings.HasPrefix(got, tt.l.Subject()+"\n\nOrder") {
				t.Errorf("the text is %q, want %q in it", got, tt.text)
			}
			got := tt.l.HTML()
			if !strings.Contains(got, tt.html) || !strings.Contains(got, ">"+tt.l.Subject()+"</h1>") || strings.Contains(got, "<script") {
				t.Errorf("the HTML is %q, want %q in it", got, tt.html)
			}
		})
	}
}

func TestMoney(t *testing.T) {
	t.Parallel()
	for cents, want := range map[int64]string{
		0: "0.00 EUR", 5: "0.05 EUR", 99: "0.99 EUR", 100: "1.00 EUR", 123456789: "1234567.89 EUR", math.MaxInt64: "92233720368547758.07 EUR",
	} {
		if got := email.Money(cents, "EUR"); got != want {
			t.Errorf("money(%d) = %q, want %q", cents, got, want)
		}
	}
}

// What a mail says, as the recipient's program shows it.
func TestMail(t *testing.T) {
	t.Parallel()
	t.Run("a confirmation, in text and HTML", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		m := r.mails(1)[0]
		if diff := cmp.Diff(m.To, []string{"ada@customer.example"}); diff != "" || m.From != "shop@keyline.example" {
			t.Errorf("from %s to %s", m.From, m.To)
		}
		if got, want := m.Headers.Get("From"), `"Keyline Shop" <shop@keyline.example>`; got != want {
			t.Errorf("From is %s, want %s", got, want)
		}
		if got, want := m.ID, "<"+eventtest.ID(2)+"@keyline.example>"; got != want || m.Subject != "Your order is confirmed" {
			t.Errorf("Message-ID %s, want %s; subject %q", got, want, m.Subject)
		}
		text := strings.ReplaceAll(m.Text, "\r\n", "\n")
		if want := "Your order is confirmed\n\nOrder o-1\nTotal 9.00 EUR\n\nYour Keyline shop\n"; text != want {
			t.Errorf("the text is %q, want %q", text, want)
		}
		for _, want := range []string{"<h1", "Your order is confirmed", "<code>o-1</code>", "<strong>9.00 EUR</strong>"} {
			if !strings.Contains(m.HTML, want) {
				t.Errorf("the HTML has no %q:\n%s", want, m.HTML)
			}
		}
		for _, header := range []string{"Date", "Mime-Version"} {
			if m.Headers.Get(header) == "" {
				t.Errorf("no header %s", header)
			}
		}
	})
	t.Run("what others wrote is text in HTML, and no header", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		evil := `<script>alert("1")</script> & 茶` + "\r\nBcc: eve@customer.example\r\n.\r\n"
		r.take(placed("o-1", "ada@customer.example"), schemas.OrderRejected{
			OrderID: "o-1", Reason: schemas.RejectionReasonOutOfStock, Unavailable: []string{evil},
		})
		m := r.mails(1)[0]
		if strings.Contains(m.HTML, "<script") || !strings.Contains(m.HTML, "&lt;script&gt;") || !strings.Contains(m.HTML, "&amp; 茶") {
			t.Errorf("the HTML is not escaped:\n%s", m.HTML)
		}
		if !strings.Contains(m.Text, `<script>alert("1")</script> & 茶`) || !strings.Contains(m.Text, "Your Keyline shop") {
			t.Errorf("the text is escaped or cut:\n%s", m.Text)
		}
		if len(m.To) != 1 || m.Headers.Get("Bcc") != "" {
			t.Errorf("the mail goes to %v, Bcc %q", m.To, m.Headers.Get("Bcc"))
		}
	})
	t.Run("an address beyond ASCII", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(placed("o-1", "jörg@exämple.example"), confirmed("o-1"))
		if m := r.mails(1)[0]; m.To[0] != "jörg@exämple.example" {
			t.Errorf("the mail goes to %v", m.To)
		}
	})
}
