package eventtest_test

import (
	"context"
	"net/http"
	"testing"
	"testing/fstest"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
)

// Moved says that pieces of an article came or went.
type Moved struct {
	SKU    string `avro:"sku"`
	Pieces int64  `avro:"pieces"`
}

func (Moved) Schema() string {
	return `{"type": "record", "name": "Moved", "namespace": "test.shelf", "doc": "Pieces came or went.", "fields": [
		{"name": "sku", "type": "string", "doc": "The article."}, {"name": "pieces", "type": "long", "doc": "How many came."}]}`
}
func (Moved) Topic() string { return "moves" }
func (m Moved) Key() string { return m.SKU }

// Counted says how many pieces of an article there are.
type Counted struct {
	SKU    string `avro:"sku"`
	Pieces int64  `avro:"pieces"`
}

func (Counted) Schema() string {
	return `{"type": "record", "name": "Counted", "namespace": "test.shelf", "doc": "Pieces were counted.", "fields": [
		{"name": "sku", "type": "string", "doc": "The article."}, {"name": "pieces", "type": "long", "doc": "How many there are."}]}`
}
func (Counted) Topic() string { return "counts" }
func (c Counted) Key() string { return c.SKU }

var migrations = db.Migrations{Owner: "shelf", Files: fstest.MapFS{"migrations/1_shelf.sql": {Data: []byte(`-- +goose Up
create table shelf (sku text primary key, pieces bigint not null, version bigint not null);
-- +goose Down
drop table shelf;
`)}}}

// Config is what the service reads from its variables.
type Config struct{ app.Config }

// Run runs a service with one handler and one table.
func Run(ctx context.Context, cfg Config) error {
	a, err := app.New(ctx, "shelf", cfg.Config, []event.Payload{Moved{}, Counted{}}, migrations)
	if err != nil {
		return err
	}
	s := &Service{outbox: a.Outbox}
	inbox.Handle(a.Inbox, s.onMoved)
	return a.Run(ctx, http.NotFoundHandler(), nil)
}

// Service is the verbs of the service.
type Service struct{ outbox *outbox.Outbox }

// The effect, and the event that follows from it, are in the transaction that takes the event.
func (s *Service) onMoved(ctx context.Context, tx *db.Tx, e event.Event[Moved]) error {
	var pieces, version int64
	row := tx.QueryRow(ctx, `insert into shelf (sku, pieces, version) values ($1, $2, 1)
		on conflict (sku) do update set pieces = shelf.pieces + excluded.pieces, version = shelf.version + 1 returning pieces, version`, e.Data.SKU, e.Data.Pieces)
	if err := row.Scan(&pieces, &version); err != nil {
		return err
	}
	return s.outbox.Append(ctx, tx, version, event.By(e.Meta), Counted{SKU: e.Data.SKU, Pieces: pieces})
}

// A repository has its topics and schemas in one place: eventtest.NewContract(schemas.Topics(),
// schemas.Subjects()).
var contract = eventtest.NewContract(
	[]kafka.Topic{{Name: "moves", Partitions: 4}, {Name: "moves.shelf.dlt", Partitions: 4}, {Name: "counts", Partitions: 4}},
	[]codec.Subject{
		{Name: "moves-test.shelf.Moved", Versions: []string{Moved{}.Schema()}},
		{Name: "counts-test.shelf.Counted", Versions: []string{Counted{}.Schema()}},
	},
)

// testHandlers is what you write as TestHandlers.
func testHandlers(t *testing.T) {
	eventtest.Trial{
		Contract: contract,
		Service:  eventtest.NewService("shelf", Run),
		Source:   "/door",
		Events:   []event.Payload{Moved{"tea", 5}, Moved{"cup", 3}, Moved{"tea", -2}, Moved{"pot", 1}, Moved{"cup", 4}, Moved{"tea", 10}},
		State:    func(r *eventtest.Rig) any { return r.Rows(`select sku, pieces from shelf order by sku`) },
	}.Run(t)
}

func ExampleTrial() {
	var t *testing.T // your test's
	testHandlers(t)
}
