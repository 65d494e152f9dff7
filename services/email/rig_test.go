package email_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/telemetry"
	"example.com/keyline/schemas"
	"example.com/keyline/services/email"
)

var contract = eventtest.NewContract(schemas.Topics(), schemas.Subjects())

// rig is the service with real parts, a mail server among them, without a broker: the tests
// hand it events, and find its own in the outbox.
type rig struct {
	*eventtest.Parts
	*email.Service
	box   *embedded.Mailbox
	spans *tracetest.SpanRecorder
	url   string // once it serves
}

// sender is how the tests' service writes mails to a server.
func sender(addr string) email.SMTPConfig {
	return email.SMTPConfig{Addr: addr, From: "Keyline Shop <shop@keyline.example>"}
}

func newMailbox(t testing.TB) *embedded.Mailbox {
	t.Helper()
	box, err := embedded.StartMailbox(embedded.MailboxConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	})
	return box
}

func newRig(t testing.TB) *rig {
	t.Helper()
	box := newMailbox(t)
	r := newRigWith(t, sender(box.Addr()), inbox.Config{})
	r.box = box
	return r
}

func newRigWith(t testing.TB, smtp email.SMTPConfig, cfg inbox.Config) *rig {
	t.Helper()
	r := &rig{spans: tracetest.NewSpanRecorder()}
	cfg.Workers = 4
	r.Parts = eventtest.NewParts(t, contract, eventtest.PartsConfig{
		Service: "email", Payloads: email.Payloads(), Migrations: []db.Migrations{email.Migrations},
		Telemetry: telemetry.Config{SpanProcessors: []sdktrace.SpanProcessor{r.spans}}, Inbox: cfg,
	})
	r.Trace = sampled
	var err error
	if r.Service, err = email.New(r.DB, r.Outbox, smtp, r.Telemetry.Tracer, r.Telemetry.Log); err != nil {
		t.Fatal(err)
	}
	r.Register(r.Inbox)
	return r
}

// work runs the inbox's workers until the end of the test: slow effects are theirs.
func (r *rig) work() *rig {
	r.Work()
	return r
}

func placed(id, address string) event.Payload {
	return schemas.OrderPlaced{
		OrderID: id, CustomerID: "ada", CustomerEmail: address, Currency: "EUR", PlacedAt: time.Now(),
		Lines: []schemas.OrderLine{{SKU: "tea", Quantity: 2, UnitPriceCents: 450}},
	}
}

func confirmed(id string) event.Payload {
	return schemas.OrderConfirmed{OrderID: id, TotalCents: 900, Currency: "EUR", ConfirmedAt: time.Now()}
}

func rejected(id string) event.Payload {
	return schemas.OrderRejected{OrderID: id, Reason: schemas.RejectionReasonOutOfStock, Unavailable: []string{"tea"}, RejectedAt: time.Now()}
}

func cancelled(id string) event.Payload {
	return schemas.OrderCancelled{OrderID: id, Reason: schemas.CancellationReasonCustomer, CancelledAt: time.Now()}
}

var sampled = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true})

// record is a new record of an event of the order service's, or of another source.
func (r *rig) record(p event.Payload, eventID, source string) event.Record {
	r.Helper()
	return r.Record(p, event.Meta{ID: eventID, Source: source})
}

// take hands the service events, each with a new ID.
func (r *rig) take(events ...event.Payload) {
	r.Helper()
	var records []event.Record
	for _, p := range events {
		records = append(records, r.Event("/order", p))
	}
	r.Take(records...)
}

// mails waits until there are n mails and nothing waits to be sent, and returns the mails.
func (r *rig) mails(n int) []embedded.Mail {
	r.Helper()
	eventtest.Until(r, fmt.Sprintf("%d mails are sent", n), func() bool {
		return len(r.box.Messages()) >= n && r.Count(`select count(*) from waiting_event`) == 0
	})
	all := r.box.Messages()
	if len(all) != n {
		r.Errorf("%d mails, want %d", len(all), n)
	}
	return all
}

// sentEvent is an EmailSent with what its headers say.
type sentEvent struct {
	schemas.EmailSent
	meta event.Meta
}

// published are the service's events, in order.
func (r *rig) published() (all []sentEvent) {
	r.Helper()
	for _, e := range r.Published(schemas.TopicEmails, "") {
		p, err := codec.Decode[schemas.EmailSent](r.Context(), r.Codec, e.Value)
		if err != nil {
			r.Fatal(err)
		}
		all = append(all, sentEvent{p, e.Meta})
	}
	return all
}

// waits is the state of an order's key with the attempts at its first event, and "done" if
// it does not wait.
func (r *rig) waits(id string) string {
	r.Helper()
	var state string
	var attempts int
	err := r.DB.QueryRow(r.Context(), `select k.state, e.attempts from waiting_key k join waiting_event e on e.key = k.key
		where k.key = $1 order by e.seq limit 1`, []byte(id)).Scan(&state, &attempts)
	if err == sql.ErrNoRows {
		return "done"
	}
	if err != nil {
		r.Fatal(err)
	}
	return fmt.Sprintf("%s after %d", state, attempts)
}

func (r *rig) untilWaits(id, want string) {
	r.Helper()
	eventtest.Until(r, id+" is "+want, func() bool { return r.waits(id) == want })
}

// ledger is an order's mails as HTTP tells them.
func (r *rig) ledger(id string) []email.Mail {
	r.Helper()
	var page struct{ Items []email.Mail }
	if a := r.do("GET", "/v1/emails?order_id="+id); json.Unmarshal([]byte(a.Text), &page) != nil || a.StatusCode != http.StatusOK {
		r.Fatalf("GET = %s", a)
	}
	return page.Items
}

// serve serves the routes as a process would, until the end of the test.
func (r *rig) serve() *rig {
	r.Helper()
	r.url = r.Serve(r.Mux(), email.OpenAPI)
	return r
}

// do sends a request and holds the answer against openapi.yaml.
func (r *rig) do(method, path string) eventtest.Answer {
	r.Helper()
	return eventtest.Ask(r, email.OpenAPI, method, r.url+path, "")
}

// noAddress fails if a part of the tests' addresses is in a log line, a span, an error that
// is kept for the operator, a copy of a dead letter's headers, or an event.
func (r *rig) noAddress() {
	r.Helper()
	seen, spans := r.Logs.String(), r.spans.Ended()
	if len(spans) == 0 {
		r.Fatal("there are no spans to look at")
	}
	for _, s := range spans {
		seen += "\n" + fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status())
	}
	for _, query := range []string{`select error from waiting_event`, `select headers from outbox`, `select value from outbox where topic = 'emails'`} {
		rows, err := r.DB.Query(r.Context(), query)
		texts, err := db.Collect(rows, err, func(s *sql.Rows, b *[]byte) error { return s.Scan(b) })
		if err != nil {
			r.Fatal(err)
		}
		seen += "\n" + string(bytes.Join(texts, []byte("\n")))
	}
	for line := range strings.Lines(seen) {
		if strings.Contains(line, "ada@") || strings.Contains(line, "customer.example") {
			r.Errorf("an address is in %q", line)
		}
	}
}
