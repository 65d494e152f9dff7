package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"

	server "github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/wneessen/go-mail"
)

func TestMailbox_Messages(t *testing.T) {
	t.Parallel()
	t.Run("a mail is kept as its reader sees it", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{})
		if err := send(t, m, "one", "Grüße an Jörg", "Ihre Bestellung für 3 €"); err != nil {
			t.Fatalf("send: %v", err)
		}
		got := m.Messages()[0]
		want := embedded.Mail{
			ID:      "<one@example.com>",
			From:    "shop@example.com",
			To:      []string{"joerg@example.com"},
			Subject: "Grüße an Jörg",
			Text:    "Ihre Bestellung für 3 €",
			HTML:    "<p>Ihre Bestellung für 3 €</p>",
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(embedded.Mail{}, "Headers", "ReceivedAt")); diff != "" {
			t.Errorf("mail (-want +got):\n%s", diff)
		}
		if got.Headers.Get("X-Order") != "one" || time.Since(got.ReceivedAt) > time.Minute {
			t.Errorf("header X-Order is %q, received at %v", got.Headers.Get("X-Order"), got.ReceivedAt)
		}
	})
	t.Run("only the newest are kept, the oldest first", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{Keep: 2})
		for _, id := range []string{"a", "b", "b", "c"} {
			if err := send(t, m, id, "s", "t"); err != nil {
				t.Fatalf("send %s: %v", id, err)
			}
		}
		var got []string
		for _, mail := range m.Messages() {
			got = append(got, mail.ID)
		}
		if want := []string{"<b@example.com>", "<c@example.com>"}; !cmp.Equal(got, want) {
			t.Errorf("kept %v, want %v", got, want)
		}
	})
	t.Run("a Message-ID that came twice is counted twice", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{})
		for range 2 {
			if err := send(t, m, "twin", "s", "t"); err != nil {
				t.Fatal(err)
			}
		}
		if got := m.Count("<twin@example.com>"); got != 2 {
			t.Errorf("count is %d, want 2", got)
		}
	})
}

func TestMailbox_hostile(t *testing.T) {
	t.Parallel()
	nested := strings.Builder{}
	for i := range 20 {
		fmt.Fprintf(&nested, "Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n", i, i)
	}
	for name, c := range map[string]struct {
		raw  string
		code int
	}{
		"a mail over 1 MiB":      {"Subject: big\r\n\r\n" + strings.Repeat(strings.Repeat("x", 998)+"\r\n", 1100), 552},
		"a mail without headers": {"no colon here\r\n\r\n", 554},
		"a broken multipart":     {"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nhalf", 554},
		"nested multiparts":      {nested.String(), 554},
		"a broken base64 part":   {"Content-Transfer-Encoding: base64\r\n\r\n!!!\r\n", 554},
		"a broken content type":  {"Content-Type: text/;;\r\n\r\n", 554},
	} {
		t.Run(name+" is refused and not kept", func(t *testing.T) {
			t.Parallel()
			m := startMailbox(t, embedded.MailboxConfig{})
			err := smtp.SendMail(m.Addr(), nil, "a@example.com", []string{"b@example.com"}, []byte(c.raw))
			var got *textproto.Error
			if !errors.As(err, &got) || got.Code != c.code {
				t.Errorf("answer is %v, want a %d", err, c.code)
			}
			if n := len(m.Messages()); n != 0 {
				t.Errorf("%d mails kept, want none", n)
			}
		})
	}
	t.Run("a mail that breaks off is not kept", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{})
		c, err := net.Dial("tcp", m.Addr())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "EHLO a\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: half\r\n\r\nDear")
		c.Close()
		if err := send(t, m, "next", "s", "t"); err != nil {
			t.Fatalf("send: %v", err)
		}
		m.Close() // ends the first connection's session for sure
		if n := len(m.Messages()); n != 1 {
			t.Errorf("%d mails kept, want the whole one only", n)
		}
	})
}

func TestMailbox_Fail(t *testing.T) {
	t.Parallel()
	t.Run("a fault's code is what the sender gets, and nil ends it", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{})
		for _, code := range []int{451, 550} {
			m.Fail(func(_ context.Context, mail embedded.Mail) error {
				if mail.Subject != "s" {
					t.Errorf("fault sees subject %q, want %q", mail.Subject, "s")
				}
				return &server.SMTPError{Code: code, Message: "no"}
			})
			var got *mail.SendError
			if err := send(t, m, "x", "s", "t"); !errors.As(err, &got) || got.ErrorCode() != code {
				t.Errorf("error is %v, want a %d", err, code)
			}
		}
		m.Fail(nil)
		if err := send(t, m, "x", "s", "t"); err != nil {
			t.Errorf("after the faults: %v", err)
		}
		if n := m.Count("<x@example.com>"); n != 1 {
			t.Errorf("kept %d times, want once", n)
		}
	})
	t.Run("a dropped connection is an error, with the mail kept or not", func(t *testing.T) {
		t.Parallel()
		for fault, want := range map[error]int{embedded.ErrDrop: 0, embedded.ErrDropTaken: 1} {
			m := startMailbox(t, embedded.MailboxConfig{})
			m.Fail(func(context.Context, embedded.Mail) error { return fault })
			if err := send(t, m, "x", "s", "t"); err == nil {
				t.Errorf("%v: the sender got no error", fault)
			}
			if got := m.Count("<x@example.com>"); got != want {
				t.Errorf("%v: kept %d times, want %d", fault, got, want)
			}
		}
	})
	t.Run("a fault that blocks makes one sender wait, and no other", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{})
		blocked, release, sent := make(chan struct{}), make(chan struct{}), make(chan error)
		m.Fail(func(_ context.Context, mail embedded.Mail) error {
			if mail.Subject == "slow" {
				close(blocked)
				<-release
			}
			return nil
		})
		go func() { sent <- send(t, m, "slow", "slow", "t") }()
		<-blocked
		if err := send(t, m, "quick", "quick", "t"); err != nil || m.Count("<slow@example.com>") != 0 {
			t.Errorf("beside a slow mail: %v", err)
		}
		close(release)
		if err := <-sent; err != nil || m.Count("<slow@example.com>") != 1 {
			t.Errorf("slow mail: %v", err)
		}
	})
}

func TestMailbox_Wait(t *testing.T) {
	t.Parallel()
	t.Run("it returns when the mail that it waits for has come", func(t *testing.T) {
		t.Parallel()
		m := startMailbox(t, embedded.MailboxConfig{})
		waited := make(chan error)
		go func() {
			waited <- m.Wait(t.Context(), func(mails []embedded.Mail) bool { return len(mails) == 2 })
		}()
		for _, id := range []string{"a", "b"} {
			if err := send(t, m, id, "s", "t"); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-waited; err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
	t.Run("it ends with its context and with the mailbox", func(t *testing.T) {
		t.Parallel()
		never := func([]embedded.Mail) bool { return false }
		m := startMailbox(t, embedded.MailboxConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Wait(ctx, never); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v, want context.Canceled", err)
		}
		m.Close()
		wantError(t, m.Wait(t.Context(), never), "mailbox was closed")
	})
}

func TestMailbox_Close(t *testing.T) {
	m, err := embedded.StartMailbox(embedded.MailboxConfig{})
	if err != nil {
		t.Fatal(err)
	}
	inHand := make(chan struct{})
	m.Fail(func(ctx context.Context, _ embedded.Mail) error {
		close(inHand)
		<-ctx.Done()
		return ctx.Err()
	})
	idle, err := net.Dial("tcp", m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	sent := make(chan error)
	go func() { sent <- send(t, m, "x", "s", "t") }()
	if _, err := textproto.NewConn(idle).ReadLine(); err != nil {
		t.Fatalf("greeting: %v", err)
	}
	<-inHand
	for range 2 {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	for _, left := range []string{"emersion/go-smtp.(*", "embedded.(*Mailbox)"} {
		stacks := make([]byte, 1<<20)
		for begun := time.Now(); ; runtime.Gosched() { // what Close has waited for has still to return
			all := stacks[:runtime.Stack(stacks, true)]
			if !strings.Contains(string(all), left) {
				break
			}
			if time.Since(begun) > 10*time.Second {
				t.Fatalf("a goroutine is left in %s:\n%s", left, all)
			}
		}
	}
	if err := <-sent; err == nil {
		t.Error("the sender of a mail in hand got no error")
	}
}

func startMailbox(t *testing.T, cfg embedded.MailboxConfig) *embedded.Mailbox {
	t.Helper()
	m, err := embedded.StartMailbox(cfg)
	if err != nil {
		t.Fatalf("StartMailbox: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// send sends as the email service does: two alternative parts and a Message-ID of our own.
func send(t *testing.T, m *embedded.Mailbox, id, subject, text string) error {
	msg := mail.NewMsg()
	if err := errors.Join(msg.From("shop@example.com"), msg.To("joerg@example.com")); err != nil {
		return err
	}
	msg.SetMessageIDWithValue(id + "@example.com")
	msg.SetGenHeader("X-Order", id)
	msg.Subject(subject)
	msg.SetBodyString(mail.TypeTextPlain, text)
	msg.AddAlternativeString(mail.TypeTextHTML, "<p>"+text+"</p>")

	addr, err := net.ResolveTCPAddr("tcp", m.Addr())
	if err != nil {
		return err
	}
	client, err := mail.NewClient("127.0.0.1", mail.WithPort(addr.Port), mail.WithTLSPolicy(mail.NoTLS))
	if err != nil {
		return err
	}
	return client.DialAndSendWithContext(t.Context(), msg)
}
