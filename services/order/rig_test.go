package order_test

import (
	"bytes"
	"context"
	"database/sql"
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

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/service/spectest"
	"example.com/keyline/pkg/telemetry"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
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

// rig is the service with real parts, without a broker: the tests hand it events, and find
// its own in the outbox.
type rig struct {
	testing.TB
	*order.Service
	parts  order.Parts
	codec  *codec.Codec
	inbox  *inbox.Inbox
	keys   *idempotency.Keys
	tel    *telemetry.Telemetry
	spans  *tracetest.SpanRecorder
	logs   *logBuffer
	offset atomic.Int64
	url    string // once it serves
}

// generous are limits that no test reaches unless it wants to.
var generous = order.Limits{OutboxAge: time.Hour, Lag: time.Hour}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{TB: t, spans: tracetest.NewSpanRecorder(), logs: new(logBuffer)}
	var err error
	r.tel, err = telemetry.New(t.Context(), telemetry.Config{
		Service: "order", LogLevel: slog.LevelDebug, LogWriter: r.logs, SpanProcessors: []sdktrace.SpanProcessor{r.spans},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := dbtest.Open(t, outbox.Migrations, inbox.Migrations, idempotency.Migrations, order.Migrations)
	if r.codec, err = codec.New(codec.Config{URL: registryURL, Log: r.tel.Log}, order.Payloads()...); err != nil {
		t.Fatal(err)
	}
	if err := r.codec.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := outbox.New(d, r.codec, outbox.Config{Source: "/order", Log: r.tel.Log})
	r.inbox, err = inbox.New(d, r.codec, o, inbox.Config{Group: "order", MaxBackoff: time.Millisecond, Tracer: r.tel.Tracer, Log: r.tel.Log})
	if err != nil {
		t.Fatal(err)
	}
	settled, err := r.tel.Meter.Int64Counter("orders_settled")
	if err != nil {
		t.Fatal(err)
	}
	r.parts = order.Parts{DB: d, Outbox: o, Tracer: r.tel.Tracer, Log: r.tel.Log, Settled: settled, Patience: time.Hour, Limits: generous}
	r.Service = order.New(r.parts)
	r.Register(r.inbox)
	r.keys = idempotency.New(d, time.Hour)
	return r
}

// replica is another service on the same database.
func (r *rig) replica(change func(*order.Parts)) *order.Service {
	p := r.parts
	change(&p)
	return order.New(p)
}

var draft = order.Draft{
	CustomerID: "ada", CustomerEmail: "ada@example.com",
	Lines: []order.Line{{SKU: "tea", Quantity: 2, UnitPriceCents: 450}, {SKU: "cup", Quantity: 1, UnitPriceCents: 1200}},
}

// place places an order and commits it.
func (r *rig) place(key string) *order.Order {
	r.Helper()
	var o *order.Order
	err := r.parts.DB.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) (err error) {
		o, err = r.Place(ctx, tx, draft, key)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	return o
}

// get reads an order as it is.
func (r *rig) get(id string) *order.Order {
	r.Helper()
	o, err := r.Wait(r.Context(), id, 0)
	if err != nil {
		r.Fatal(err)
	}
	return o
}

var (
	reserved = func(id string) event.Payload { return schemas.StockReserved{OrderID: id, ReservedAt: time.Now()} }
	rejected = func(id string) event.Payload {
		return schemas.StockRejected{OrderID: id, RejectedAt: time.Now(), Missing: []schemas.MissingLine{{SKU: "cup", Requested: 1}}}
	}
	released = func(id string) event.Payload { return schemas.StockReleased{OrderID: id, ReleasedAt: time.Now()} }
)

// answer hands the service an event of inventory's. Twins have the same event ID.
func (r *rig) answer(p event.Payload, eventID string) {
	r.Helper()
	if err := r.inbox.Process(r.Context(), r.batch(r.record(p, eventID))); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) record(p event.Payload, eventID string) event.Record {
	r.Helper()
	value, err := r.codec.Encode(p)
	if err != nil {
		r.Fatal(err)
	}
	meta := event.Meta{ID: eventID, Type: codec.FullName(p.Schema()), Source: "/inventory", Subject: p.Key(), Time: time.Now()}
	return event.Record{
		Topic: p.Topic(), TopicID: [16]byte{7}, Offset: r.offset.Add(1), Timestamp: time.Now(),
		Key: []byte(p.Key()), Value: value, Headers: meta.Headers(),
	}
}

func (r *rig) batch(records ...event.Record) event.Batch {
	return event.Batch{Topic: schemas.TopicInventory, TopicID: [16]byte{7}, Records: records}
}

// published are the order's events in the order in which the relay would publish them.
func (r *rig) published(orderID string) (all []event.Meta) {
	r.Helper()
	rows, err := r.parts.DB.Query(r.Context(), `select topic, key, value, headers from outbox order by id`)
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
		if string(rec.Key) != orderID {
			continue
		}
		typ, err := r.codec.Type(r.Context(), rec.Value)
		if err != nil {
			r.Fatal(err)
		}
		m := event.ReadMeta(&rec, typ)
		m.Trace = event.SpanContext(rec.Headers)
		all = append(all, m)
	}
	return all
}

// types are the published events' short names; it fails unless their versions count from 1
// without gaps.
func (r *rig) types(orderID string) (names []string) {
	r.Helper()
	for i, m := range r.published(orderID) {
		names = append(names, strings.TrimPrefix(m.Type, "shop.order."))
		if m.Version != int64(i+1) || m.Source != "/order" || m.Subject != orderID {
			r.Errorf("event %d of %s has version %d, source %s, subject %s", i, orderID, m.Version, m.Source, m.Subject)
		}
	}
	return names
}

func (r *rig) count(query string, args ...any) (n int) {
	r.Helper()
	if err := r.parts.DB.QueryRow(r.Context(), query, args...).Scan(&n); err != nil {
		r.Fatal(err)
	}
	return n
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
		Name: "order", Telemetry: r.tel, Public: r.Mux(r.keys), OpenAPI: order.OpenAPI,
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

// do sends a request and holds the answer against openapi.yaml. header are pairs.
func (r *rig) do(method, path, body string, header ...string) answered {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, strings.NewReader(body))
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
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
	if err := spectest.Read(order.OpenAPI).Judge(res, a.text); err != nil {
		r.Errorf("%s %s answers what openapi.yaml does not promise: %v\n%s", method, path, err, a.text)
	}
	if v, err := spectest.Decode(a.text); err == nil {
		a.json, _ = v.(map[string]any)
	}
	return a
}

func (a answered) String() string { return fmt.Sprintf("%d %s", a.StatusCode, a.text) }

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
