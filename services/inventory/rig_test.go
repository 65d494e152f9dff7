package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/telemetry"
	"example.com/keyline/schemas"
	"example.com/keyline/services/inventory"
)

var contract = eventtest.NewContract(schemas.Topics(), schemas.Subjects())

// rig is the service with real parts, without a broker: the tests hand it events, and find
// its own in the outbox.
type rig struct {
	*eventtest.Parts
	*inventory.Service
	keys  *idempotency.Keys
	spans *tracetest.SpanRecorder
	url   string // once it serves
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{spans: tracetest.NewSpanRecorder()}
	r.Parts = eventtest.NewParts(t, contract, eventtest.PartsConfig{
		Service: "inventory", Payloads: inventory.Payloads(), Migrations: []db.Migrations{idempotency.Migrations, inventory.Migrations},
		Telemetry: telemetry.Config{SpanProcessors: []sdktrace.SpanProcessor{r.spans}},
	})
	r.Service = inventory.New(r.DB, r.Outbox, r.Telemetry.Log)
	r.Register(r.Inbox)
	r.keys = idempotency.New(r.DB, time.Hour)
	return r
}

// receive books goods.
func (r *rig) receive(sku string, quantity int64) {
	r.Helper()
	err := r.DB.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) error {
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
	r.Take(r.batch(events...).Records...)
}

func (r *rig) batch(events ...event.Payload) event.Batch {
	r.Helper()
	var records []event.Record
	for _, p := range events {
		records = append(records, r.Event("/order", p))
	}
	return r.Batch(records...)
}

// under is the record of an event with a key that is not its own.
func (r *rig) under(key string, p event.Payload) event.Record {
	r.Helper()
	return r.Record(p, event.Meta{ID: "under " + key, Source: "/order", Subject: key})
}

// answers are the events that were published about an order, in order; it fails unless their
// versions count from 1 without gaps.
func (r *rig) answers(orderID string) (all []event.Payload) {
	r.Helper()
	for _, e := range r.Published(schemas.TopicInventory, orderID) {
		all = append(all, r.decode(e))
		if m := e.Meta; m.Version != int64(len(all)) || m.Source != "/inventory" || m.CausationID == "" {
			r.Errorf("answer %d about %s has version %d, source %s, cause %q", len(all), orderID, m.Version, m.Source, m.CausationID)
		}
	}
	return all
}

func (r *rig) decode(e eventtest.Published) (p event.Payload) {
	r.Helper()
	var err error
	switch e.Meta.Type {
	case "shop.inventory.StockReserved":
		p, err = codec.Decode[schemas.StockReserved](r.Context(), r.Codec, e.Value)
	case "shop.inventory.StockRejected":
		p, err = codec.Decode[schemas.StockRejected](r.Context(), r.Codec, e.Value)
	case "shop.inventory.StockReleased":
		p, err = codec.Decode[schemas.StockReleased](r.Context(), r.Codec, e.Value)
	default:
		r.Fatalf("an event of type %s", e.Meta.Type)
	}
	if err != nil {
		r.Fatal(err)
	}
	return p
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

// serve serves the routes as a process would, until the end of the test.
func (r *rig) serve() *rig {
	r.Helper()
	r.url = r.Serve(r.Mux(r.keys), inventory.OpenAPI)
	return r
}

// do sends a request and holds the answer against openapi.yaml. header are pairs.
func (r *rig) do(method, path, body string, header ...string) eventtest.Answer {
	r.Helper()
	return eventtest.Ask(r, inventory.OpenAPI, method, r.url+path, body, header...)
}
