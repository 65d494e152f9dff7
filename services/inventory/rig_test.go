package inventory_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
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
	"example.com/keyline/services/inventory"
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
	*inventory.Service
	db     *db.DB
	codec  *codec.Codec
	inbox  *inbox.Inbox
	keys   *idempotency.Keys
	tel    *telemetry.Telemetry
	spans  *tracetest.SpanRecorder
	logs   *logBuffer
	offset atomic.Int64
	url    string // once it serves
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{TB: t, spans: tracetest.NewSpanRecorder(), logs: new(logBuffer)}
	var err error
	r.tel, err = telemetry.New(t.Context(), telemetry.Config{
		Service: "inventory", LogLevel: slog.LevelDebug, LogWriter: r.logs, SpanProcessors: []sdktrace.SpanProcessor{r.spans},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.db = dbtest.Open(t, outbox.Migrations, inbox.Migrations, idempotency.Migrations, inventory.Migrations)
	if r.codec, err = codec.New(codec.Config{URL: registryURL, Log: r.tel.Log}, inventory.Payloads()...); err != nil {
		t.Fatal(err)
	}
	if err := r.codec.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := outbox.New(r.db, r.codec, outbox.Config{Source: "/inventory", Log: r.tel.Log})
	r.inbox, err = inbox.New(r.db, r.codec, o, inbox.Config{Group: "inventory", MaxBackoff: time.Millisecond, Tracer: r.tel.Tracer, Log: r.tel.Log})
	if err != nil {
		t.Fatal(err)
	}
	r.Service = inventory.New(r.db, o, r.tel.Log)
	r.Register(r.inbox)
	r.keys = idempotency.New(r.db, time.Hour)
	return r
}

// receive books goods.
func (r *rig) receive(sku string, quantity int64) {
	r.Helper()
	err := r.db.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) error {
		_, err := r.Receive(ctx, tx, sku, quantity, "receipt")
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
}

// order is an order of one piece of each SKU, unless a count comes before it, as in "3 tea".
func order(id string, lines ...string) schemas.OrderPlaced {
	o := schemas.OrderPlaced{OrderID: id, CustomerID: "ada", CustomerEmail: "ada@example.com", Currency: "EUR", PlacedAt: time.Now()}
	for _, text := range lines {
		l := schemas.OrderLine{SKU: text, Quantity: 1}
		if n, err := fmt.Sscanf(text, "%d %s", &l.Quantity, &l.SKU); n != 2 || err != nil {
			l = schemas.OrderLine{SKU: text, Quantity: 1}
		}
		o.Lines = append(o.Lines, l)
	}
	return o
}

func cancelled(id string) schemas.OrderCancelled {
	return schemas.OrderCancelled{OrderID: id, Reason: schemas.CancellationReasonCustomer, CancelledAt: time.Now()}
}

// take hands the service events of the order service's, as one batch.
func (r *rig) take(events ...event.Payload) {
	r.Helper()
	if err := r.inbox.Process(r.Context(), r.batch(events...)); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) batch(events ...event.Payload) event.Batch {
	r.Helper()
	b := event.Batch{Topic: schemas.TopicOrders, TopicID: [16]byte{7}}
	for _, p := range events {
		b.Records = append(b.Records, r.record(p, p.Key()))
	}
	return b
}

// record is a new record of an event, each with an ID of its own.
func (r *rig) record(p event.Payload, key string) event.Record {
	r.Helper()
	value, err := r.codec.Encode(p)
	if err != nil {
		r.Fatal(err)
	}
	offset := r.offset.Add(1)
	meta := event.Meta{ID: fmt.Sprint("event-", offset), Type: codec.FullName(p.Schema()), Source: "/order", Subject: key, Time: time.Now()}
	return event.Record{
		Topic: p.Topic(), TopicID: [16]byte{7}, Offset: offset, Timestamp: time.Now(),
		Key: []byte(key), Value: value, Headers: meta.Headers(),
	}
}

// answers are the events that were published about an order, in order; it fails unless their
// versions count from 1 without gaps.
func (r *rig) answers(orderID string) (all []event.Payload) {
	r.Helper()
	rows, err := r.db.Query(r.Context(), `select topic, key, value, headers from outbox order by id`)
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
		if string(rec.Key) != orderID || rec.Topic != schemas.TopicInventory {
			continue
		}
		p, typ := r.decode(rec.Value)
		all = append(all, p)
		if m := event.ReadMeta(&rec, typ); m.Version != int64(len(all)) || m.Source != "/inventory" || m.CausationID == "" {
			r.Errorf("answer %d about %s has version %d, source %s, cause %q", len(all), orderID, m.Version, m.Source, m.CausationID)
		}
	}
	return all
}

func (r *rig) decode(value []byte) (p event.Payload, typ string) {
	r.Helper()
	typ, err := r.codec.Type(r.Context(), value)
	var bad error
	switch typ {
	case "shop.inventory.StockReserved":
		p, bad = codec.Decode[schemas.StockReserved](r.Context(), r.codec, value)
	case "shop.inventory.StockRejected":
		p, bad = codec.Decode[schemas.StockRejected](r.Context(), r.codec, value)
	case "shop.inventory.StockReleased":
		p, bad = codec.Decode[schemas.StockReleased](r.Context(), r.codec, value)
	default:
		r.Fatalf("an event of type %s", typ)
	}
	if err := errors.Join(err, bad); err != nil {
		r.Fatal(err)
	}
	return p, typ
}

// stock is "on hand/reserved" of an article.
func (r *rig) stock(sku string) string {
	r.Helper()
	s, err := r.Current(r.Context(), sku)
	if errors.Is(err, inventory.ErrNotFound) {
		return "none"
	}
	if err != nil {
		r.Fatal(err)
	}
	return fmt.Sprintf("%d/%d", s.OnHand, s.Reserved)
}

func (r *rig) wantStock(sku, want string) {
	r.Helper()
	if got := r.stock(sku); got != want {
		r.Errorf("stock of %s is %s, want %s", sku, got, want)
	}
}

// ledger is an article's whole ledger.
func (r *rig) ledger(sku string) []inventory.Movement {
	r.Helper()
	moved, err := r.Movements(r.Context(), sku, 0, 1_000_000)
	if err != nil {
		r.Fatal(err)
	}
	return moved
}

func (r *rig) count(query string, args ...any) (n int) {
	r.Helper()
	if err := r.db.QueryRow(r.Context(), query, args...).Scan(&n); err != nil {
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
		Name: "inventory", Telemetry: r.tel, Public: r.Mux(r.keys), OpenAPI: inventory.OpenAPI,
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
	if err := spectest.Read(inventory.OpenAPI).Judge(res, a.text); err != nil {
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
