package order

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
)

// What the tests use beside what is exported.
var (
	Migrations = migrations
	Payloads   = payloads
	OpenAPI    = openAPI
)

const (
	MaxBody  = maxBody
	MaxSteps = maxSteps
)

type Parts struct {
	DB       *db.DB
	Outbox   *outbox.Outbox
	Tracer   trace.Tracer
	Log      *slog.Logger
	Settled  metric.Int64Counter
	Patience time.Duration
	Limits   Limits
}

func New(p Parts) *Service {
	return &Service{db: p.DB, outbox: p.Outbox, tracer: p.Tracer, log: p.Log, settled: p.Settled, patience: p.Patience, limits: p.Limits}
}

func (s *Service) Register(in *inbox.Inbox) { s.register(in) }

func (s *Service) Routes(keys *idempotency.Keys) map[string]http.HandlerFunc {
	return s.routes(idempotency.NewBatch(keys, s.place))
}

func (s *Service) Mux(keys *idempotency.Keys) *http.ServeMux {
	return s.mux(idempotency.NewBatch(keys, s.place))
}

// Place places one order.
func (s *Service) Place(ctx context.Context, tx *db.Tx, d Draft, idempotencyKey string) (*Order, error) {
	p, err := newOrder(ctx, d, idempotencyKey)
	if err != nil {
		return nil, err
	}
	return p.order, s.place(ctx, tx, []*placing{p})
}

// Insert saves an order without its event.
func Insert(ctx context.Context, tx *db.Tx, o *Order) error {
	return insert(ctx, tx, []*placing{{order: o}})
}

func (s *Service) CancelAllOverdue(ctx context.Context) error { return s.cancelAllOverdue(ctx) }

func (s *Service) MeasurePressure(ctx context.Context) error { return s.measurePressure(ctx) }

// OnChange calls fn with the ID of each order that this process changes.
func (s *Service) OnChange(fn func(orderID string)) (off func()) {
	return s.changes.On(func(_ context.Context, c change) { fn(c.orderID) })
}
