package email_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/service/spectest"
	"example.com/keyline/pkg/telemetry"
	"example.com/keyline/schemas"
	"example.com/keyline/services/email"
)

var registryURL string // of a registry that has all schemas

func TestMain(m *testing.M) {
	registry, err := embedded.NewRegistry("")
	if err != nil {
		panic(err)
	}
	srv := httptest.NewServer(registry)
	registryURL = srv.URL
	var subjects []codec.Subject
	for _, s := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(s))
	}
	if err := codec.Provision(context.Background(), codec.Config{URL: srv.URL}, subjects); err != nil {
		panic(err)
	}
	code := m.Run()
	srv.Close()
	os.Exit(code)
}

// rig is the service with real parts, a mail server among them, without a broker: the tests
// hand it events, and find its own in the outbox.
type rig struct {
	testing.TB
	*email.Service
	box    *embedded.Mailbox
	db     *db.DB
	codec  *codec.Codec
	inbox  *inbox.Inbox
	tel    *telemetry.Telemetry
	spans  *tracetest.SpanRecorder
	logs   *logBuffer
	offset atomic.Int64
	url    string // once it serves
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
	r := &rig{TB: t, spans: tracetest.NewSpanRecorder(), logs: new(logBuffer)}
	var err error
	r.tel, err = telemetry.New(t.Context(), telemetry.Config{
		Service: "email", LogLevel: slog.LevelDebug, LogWriter: r.logs, SpanProcessors: []sdktrace.SpanProcessor{r.spans},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.db = dbtest.Open(t, outbox.Migrations, inbox.Migrations, email.Migrations)
	if r.codec, err = codec.New(codec.Config{URL: registryURL, Log: r.tel.Log}, email.Payloads()...); err != nil {
		t.Fatal(err)
	}
	if err := r.codec.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := outbox.New(r.db, r.codec, outbox.Config{Source: "/email", Log: r.tel.Log})
	cfg.Group, cfg.MaxBackoff, cfg.Workers, cfg.Tracer, cfg.Log = "email", time.Millisecond, 4, r.tel.Tracer, r.tel.Log
	if r.inbox, err = inbox.New(r.db, r.codec, o, cfg); err != nil {
		t.Fatal(err)
	}
	if r.Service, err = email.New(r.db, o, smtp, r.tel.Tracer, r.tel.Log); err != nil {
		t.Fatal(err)
	}
	r.Register(r.inbox)
	return r
}

// work runs the inbox's workers until the end of the test: slow effects are theirs.
func (r *rig) work() *rig {
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context()))
	ended := make(chan error)
	go func() { ended <- r.inbox.Run(ctx) }()
	r.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			r.Errorf("Run = %v", err)
		}
	})
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
	value, err := r.codec.Encode(p)
	if err != nil {
		r.Fatal(err)
	}
	meta := event.Meta{ID: eventID, Type: codec.FullName(p.Schema()), Source: source, Subject: p.Key(), Time: time.Now()}
	return event.Record{
		Topic: p.Topic(), TopicID: [16]byte{7}, Offset: r.offset.Add(1), Timestamp: time.Now(),
		Key: []byte(p.Key()), Value: value, Headers: event.WithSpanContext(meta.Headers(), sampled),
	}
}

// eventID is the ID of the n-th event of the tests.
func eventID(n int64) string { return fmt.Sprintf("00000000-0000-5000-8000-%012d", n) }

// take hands the service events, each with a new ID.
func (r *rig) take(events ...event.Payload) {
	r.Helper()
	var records []event.Record
	for _, p := range events {
		records = append(records, r.record(p, eventID(r.offset.Load()+1), "/order"))
	}
	r.takeRecords(records...)
}

func (r *rig) takeRecords(records ...event.Record) {
	r.Helper()
	err := r.inbox.Process(r.Context(), event.Batch{Topic: schemas.TopicOrders, TopicID: [16]byte{7}, Records: records})
	if err != nil {
		r.Fatal(err)
	}
}

// mails waits until there are n mails and nothing waits to be sent, and returns the mails.
func (r *rig) mails(n int) []embedded.Mail {
	r.Helper()
	eventually(r, fmt.Sprintf("%d mails are sent", n), func() bool {
		return len(r.box.Messages()) >= n && r.count(`select count(*) from waiting_event`) == 0
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
	rows, err := r.db.Query(r.Context(), `select topic, key, value, headers from outbox where topic = 'emails' order by id`)
	records, err := db.Collect(rows, err, func(s *sql.Rows, rec *event.Record) error {
		var headers []byte
		if err := s.Scan(&rec.Topic, &rec.Key, &rec.Value, &headers); err != nil {
			return err
		}
		rec.Headers, err = event.ParseHeaders(headers)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	for _, rec := range records {
		p, err := codec.Decode[schemas.EmailSent](r.Context(), r.codec, rec.Value)
		if err != nil {
			r.Fatal(err)
		}
		one := sentEvent{p, event.ReadMeta(&rec, codec.FullName(p.Schema()))}
		one.meta.Trace = event.SpanContext(rec.Headers)
		all = append(all, one)
	}
	return all
}

// waits is the state of an order's key with the attempts at its first event, and "done" if
// it does not wait.
func (r *rig) waits(id string) string {
	r.Helper()
	var state string
	var attempts int
	err := r.db.QueryRow(r.Context(), `select k.state, e.attempts from waiting_key k join waiting_event e on e.key = k.key
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
	eventually(r, id+" is "+want, func() bool { return r.waits(id) == want })
}

func (r *rig) count(query string, args ...any) (n int) {
	r.Helper()
	if err := r.db.QueryRow(r.Context(), query, args...).Scan(&n); err != nil {
		r.Fatal(err)
	}
	return n
}

// ledger is an order's mails as HTTP tells them.
func (r *rig) ledger(id string) []email.Mail {
	r.Helper()
	var page struct{ Items []email.Mail }
	if a := r.do("GET", "/v1/emails?order_id="+id); json.Unmarshal([]byte(a.text), &page) != nil || a.StatusCode != http.StatusOK {
		r.Fatalf("GET = %s", a)
	}
	return page.Items
}

// serve serves the routes as a process would, until the end of the test.
func (r *rig) serve() *rig {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	r.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context()))
	ended := make(chan error)
	s := service.Service{
		Name: "email", Telemetry: r.tel, Public: r.Mux(), OpenAPI: email.OpenAPI,
		Config: service.Config{Listener: l, TrustTraceparent: true},
	}
	go func() { ended <- s.Run(ctx) }()
	r.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			r.Errorf("Run = %v", err)
		}
	})
	eventually(r, "the service is ready", func() bool {
		res, err := http.Get(r.url + "/readyz")
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return r
}

// answered is an HTTP answer.
type answered struct {
	*http.Response
	text string
	json map[string]any
}

// do sends a request and holds the answer against openapi.yaml.
func (r *rig) do(method, path string) answered {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	a := answered{Response: res, text: string(text)}
	if err := spectest.Read(email.OpenAPI).Judge(res, a.text); err != nil {
		r.Errorf("%s %s answers what openapi.yaml does not promise: %v\n%s", method, path, err, a.text)
	}
	if v, err := spectest.Decode(a.text); err == nil {
		a.json, _ = v.(map[string]any)
	}
	return a
}

func (a answered) String() string { return fmt.Sprintf("%d %s", a.StatusCode, a.text) }

// noAddress fails if a part of the tests' addresses is in a log line, a span, an error that
// is kept for the operator, a copy of a dead letter's headers, or an event.
func (r *rig) noAddress() {
	r.Helper()
	seen, spans := r.logs.String(), r.spans.Ended()
	if len(spans) == 0 {
		r.Fatal("there are no spans to look at")
	}
	for _, s := range spans {
		seen += "\n" + fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status())
	}
	for _, query := range []string{`select error from waiting_event`, `select headers from outbox`, `select value from outbox where topic = 'emails'`} {
		rows, err := r.db.Query(r.Context(), query)
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

func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for !cond() {
		select {
		case <-deadline:
			tb.Fatalf("waited in vain until %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
