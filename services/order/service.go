package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/emitter"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("no such order")
	ErrRejected = errors.New("the order has been rejected")
)

// Service is the verbs of the order service.
type Service struct {
	db      *db.DB
	outbox  *outbox.Outbox
	tracer  trace.Tracer
	log     *slog.Logger
	settled metric.Int64Counter
	changes emitter.Emitter[change]

	patience time.Duration // of an order, for inventory's answer
	limits   Limits
	pressure atomic.Pointer[string] // why no order is taken now; nil if orders are
}

// change says that an order has changed, to those who wait for it in this process.
type change struct{ orderID string }

// placing is an order on its way into the tables.
type placing struct {
	ctx    context.Context // of the request, for its trace
	order  *Order
	key    string // the request's idempotency key
	placed event.Payload
}

// newOrder makes an order of a draft. The error is a [*FieldError] if the draft is at fault.
func newOrder(ctx context.Context, d Draft, idempotencyKey string) (*placing, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	o, placed, err := Place(id.String(), d, now())
	if err != nil {
		return nil, err
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		o.Traceparent = string(event.Traceparent(sc))
	}
	return &placing{ctx, o, idempotencyKey, placed}, nil
}

// place takes orders in tx: they and their events are there when tx commits, and nothing of them
// is if it does not.
func (s *Service) place(ctx context.Context, tx *db.Tx, all []*placing) error {
	if err := insert(ctx, tx, all); err != nil {
		return err
	}
	for _, p := range all {
		if err := s.outbox.Append(p.ctx, tx, p.order.Version, event.Because(p.order.ID, p.key), p.placed); err != nil {
			return err
		}
	}
	return nil
}

// Cancel cancels an order for its customer. Cancelling twice is the same as once. The
// error is ErrNotFound or ErrRejected.
func (s *Service) Cancel(ctx context.Context, id string) (*Order, error) {
	var o *Order
	err := s.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
		if o, err = lock(ctx, tx, id); err != nil {
			return err
		}
		return s.cancel(ctx, tx, o, schemas.CancellationReasonCustomer)
	})
	return o, err
}

func (s *Service) cancel(ctx context.Context, tx *db.Tx, o *Order, reason schemas.CancellationReason) error {
	caused, err := o.Cancel(reason, now())
	if err != nil || caused == nil {
		return err
	}
	return s.save(ctx, tx, []step{{o, event.Because(o.ID, string(reason)), caused}})
}

// step is an order that has changed, and the event that the change has caused, if any.
type step struct {
	order  *Order
	cause  event.Cause
	caused event.Payload
}

// save writes orders that have changed, with what that has caused.
func (s *Service) save(ctx context.Context, tx *db.Tx, steps []step) error {
	orders := make([]*Order, len(steps))
	for i, st := range steps {
		orders[i] = st.order
		if st.caused != nil {
			st.order.Version++
		}
	}
	if err := update(ctx, tx, orders); err != nil {
		return err
	}
	for _, st := range steps {
		tx.AfterCommit(func() { s.changes.Emit(ctx, change{st.order.ID}) })
		if st.caused == nil {
			continue
		}
		tx.AfterCommit(func() { s.settled.Add(ctx, 1, statusLabel(st.order.Status)) })
		if err := s.outbox.Append(ctx, tx, st.order.Version, st.cause, st.caused); err != nil {
			return err
		}
	}
	return nil
}

// Wait returns the order once it has settled, or as it is when the time is over or ctx ends.
// It wakes on changes made by this process, and looks now and then for those of other
// replicas.
func (s *Service) Wait(ctx context.Context, id string, patience time.Duration) (*Order, error) {
	over := time.NewTimer(patience)
	defer over.Stop()
	changed := make(chan struct{}, 1)
	defer s.changes.On(func(_ context.Context, c change) {
		if c.orderID == id {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		o, err := get(ctx, s.db, id)
		if err != nil || o.Status != Pending {
			return o, err
		}
		select {
		case <-ctx.Done():
			return o, nil
		case <-over.C:
			return o, nil
		case <-changed:
		case <-look.C:
		}
	}
}

const lookEvery = 200 * time.Millisecond

// cancelAllOverdue cancels the orders that inventory has not answered in time.
func (s *Service) cancelAllOverdue(ctx context.Context) error {
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = s.cancelOverdue(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) cancelOverdue(ctx context.Context) (more bool, err error) {
	err = s.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		o, err := overdue(ctx, s.db, tx, s.patience)
		if err != nil || o == nil {
			return err
		}
		more = true
		// The deadline belongs to the trace of the request that placed the order.
		ctx = trace.ContextWithRemoteSpanContext(ctx, event.SpanContext([]event.Header{{Key: event.HeaderTraceparent, Value: []byte(o.Traceparent)}}))
		ctx, span := s.tracer.Start(ctx, "order deadline")
		defer span.End()
		return s.cancel(ctx, tx, o, schemas.CancellationReasonDeadline)
	})
	return more, err
}

// Limits are when the service refuses new orders, so that those it has taken complete.
type Limits struct {
	// OutboxAge is how long the oldest event may wait to be published.
	OutboxAge time.Duration `env:"OVERLOAD_OUTBOX_AGE" envDefault:"2m"`
	// Lag is how long the oldest order may wait for inventory.
	Lag time.Duration `env:"OVERLOAD_LAG" envDefault:"10s"`
}

// maxOutbox is how many events may wait to be published.
const maxOutbox = 100_000

// stuckOutbox is from which age on the outbox is what orders wait for, not inventory: a
// broker that is away is no reason to refuse orders.
const stuckOutbox = time.Second

// measurePressure decides whether orders are taken.
func (s *Service) measurePressure(ctx context.Context) error {
	all, flowing, err := s.outbox.Stats(ctx)
	if err != nil {
		return err
	}
	late, err := behind(ctx, s.db, s.limits.Lag)
	if err != nil {
		return err
	}
	var reason *string
	switch {
	case flowing.Oldest > s.limits.OutboxAge || all.Events > maxOutbox:
		reason = new(fmt.Sprintf("%d events wait to be published, the oldest for %s", all.Events, all.Oldest.Round(time.Millisecond)))
	case late && flowing.Oldest < stuckOutbox:
		reason = new(fmt.Sprintf("inventory is more than %s behind", s.limits.Lag))
	}
	s.pressure.Store(reason)
	return nil
}

// now is the time to the millisecond, as the events carry it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
