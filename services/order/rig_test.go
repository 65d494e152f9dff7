package order_test

import (
	"context"
	"strings"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/telemetry"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

var contract = eventtest.NewContract(schemas.Topics(), schemas.Subjects())

// rig is the service with real parts, without a broker: the tests hand it events, and find
// its own in the outbox.
type rig struct {
	*eventtest.Parts
	*order.Service
	parts order.Parts
	keys  *idempotency.Keys
	spans *tracetest.SpanRecorder
	url   string // once it serves
}

// generous are limits that no test reaches unless it wants to.
var generous = order.Limits{OutboxAge: time.Hour, Lag: time.Hour}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{spans: tracetest.NewSpanRecorder()}
	r.Parts = eventtest.NewParts(t, contract, eventtest.PartsConfig{
		Service: "order", Payloads: order.Payloads(), Migrations: []db.Migrations{idempotency.Migrations, order.Migrations},
		Telemetry: telemetry.Config{SpanProcessors: []sdktrace.SpanProcessor{r.spans}},
	})
	settled, err := r.Telemetry.Meter.Int64Counter("orders_settled")
	if err != nil {
		t.Fatal(err)
	}
	r.parts = order.Parts{DB: r.DB, Outbox: r.Outbox, Tracer: r.Telemetry.Tracer, Log: r.Telemetry.Log, Settled: settled, Patience: time.Hour, Limits: generous}
	r.Service = order.New(r.parts)
	r.Register(r.Inbox)
	r.keys = idempotency.New(r.DB, time.Hour)
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
	r.Take(r.record(p, eventID))
}

func (r *rig) record(p event.Payload, eventID string) event.Record {
	r.Helper()
	return r.Record(p, event.Meta{ID: eventID, Source: "/inventory"})
}

// published are the order's events in the order in which the relay would publish them.
func (r *rig) published(orderID string) (all []event.Meta) {
	r.Helper()
	for _, e := range r.Published("", orderID) {
		all = append(all, e.Meta)
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

// serve serves the routes as a process would, until the end of the test.
func (r *rig) serve() *rig {
	r.Helper()
	r.url = r.Serve(r.Mux(r.keys), order.OpenAPI)
	return r
}

// do sends a request and holds the answer against openapi.yaml. header are pairs.
func (r *rig) do(method, path, body string, header ...string) eventtest.Answer {
	r.Helper()
	return eventtest.Ask(r, order.OpenAPI, method, r.url+path, body, header...)
}
