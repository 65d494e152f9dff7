package inventory

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// What the tests use beside what is exported.
var (
	Migrations = migrations
	Payloads   = payloads
	OpenAPI    = openAPI
	CheckOrder = checkOrder
)

const (
	SnapshotEvery = snapshotEvery
	MaxOnHand     = maxOnHand
)

func New(d *db.DB, o *outbox.Outbox, log *slog.Logger) *Service {
	return &Service{db: d, outbox: o, log: log}
}

func (s *Service) Register(in *inbox.Inbox) { s.register(in) }

func (s *Service) Routes(keys *idempotency.Keys) map[string]http.HandlerFunc { return s.routes(keys) }

func (s *Service) Mux(keys *idempotency.Keys) *http.ServeMux { return s.mux(keys) }

func (s *Service) Current(ctx context.Context, sku string) (*Stock, error) {
	return current(ctx, s.db, sku)
}

func (s *Service) AsOf(ctx context.Context, sku string, at time.Time) (*Stock, error) {
	return asOf(ctx, s.db, sku, at)
}

func (s *Service) Movements(ctx context.Context, sku string, after int64, limit int) ([]Movement, error) {
	return movements(ctx, s.db, sku, after, limit)
}

func (s *Stock) Move(k Kind, quantity int64, orderID, cause string, at time.Time) Movement {
	return s.move(k, quantity, orderID, cause, at)
}

// Shelf is stock in memory.
type Shelf = shelf

func (s shelf) Reserve(o schemas.OrderPlaced, at time.Time) (Reservation, []Movement, []schemas.MissingLine) {
	return s.reserve(o, "cause", at)
}

func (s shelf) Release(r *Reservation, at time.Time) []Movement { return s.release(r, "cause", at) }

// Append writes movements that a test has made up, with their times.
func (s *Service) Append(ctx context.Context, sku string, move func(*Stock) []Movement) error {
	return s.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		on, err := lockShelf(ctx, tx, []string{sku})
		if err != nil {
			return err
		}
		if on[sku] == nil {
			on[sku] = &Stock{SKU: sku}
		}
		return appendMovements(ctx, tx, on, move(on[sku]))
	})
}
