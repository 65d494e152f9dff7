package inventory

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// ErrNotFound is the error for an article that was never received.
var ErrNotFound = errors.New("no such SKU")

// Service is the verbs of the inventory service.
type Service struct {
	db     *db.DB
	outbox *outbox.Outbox
	log    *slog.Logger
}

// Reserve sets stock aside for orders, for each all lines or none, and answers each with an
// event. An order that is known already is left as it is.
func (s *Service) Reserve(ctx context.Context, tx *db.Tx, placed []event.Event[schemas.OrderPlaced]) error {
	var ids, skus []string
	for _, e := range placed {
		if err := checkOrder(e.Meta, e.Data); err != nil {
			return inbox.Permanent(err)
		}
		ids = append(ids, e.Data.OrderID)
		for _, l := range e.Data.Lines {
			skus = append(skus, l.SKU)
		}
	}
	known, err := lockReservations(ctx, tx, ids)
	if err != nil {
		return err
	}
	shelf, err := lockShelf(ctx, tx, distinct(skus))
	if err != nil {
		return err
	}
	at := now()
	var saved []Reservation
	var moved []Movement
	for _, e := range placed {
		if known[e.Data.OrderID] != nil {
			continue
		}
		r, moves, missing := shelf.reserve(e.Data, e.Meta.ID, at)
		saved, moved = append(saved, r), append(moved, moves...)
		if err := s.outbox.Append(ctx, tx, r.Version, event.By(e.Meta), answer(r, missing, at)); err != nil {
			return err
		}
	}
	if err := saveReservations(ctx, tx, saved); err != nil {
		return err
	}
	return appendMovements(ctx, tx, shelf, moved)
}

func answer(r Reservation, missing []schemas.MissingLine, at time.Time) event.Payload {
	if r.State == refused {
		return schemas.StockRejected{OrderID: r.OrderID, Missing: missing, RejectedAt: at}
	}
	reserved := schemas.StockReserved{OrderID: r.OrderID, ReservedAt: at}
	for _, l := range r.Lines {
		reserved.Lines = append(reserved.Lines, schemas.ReservedLine{SKU: l.SKU, Quantity: int(l.Quantity)})
	}
	return reserved
}

// Release gives back what cancelled orders hold, and answers each with an event. For an
// order that was never seen it notes that there is nothing to give back.
func (s *Service) Release(ctx context.Context, tx *db.Tx, cancelled []event.Event[schemas.OrderCancelled]) error {
	var ids, skus []string
	for _, e := range cancelled {
		if err := checkKey(e.Meta, e.Data.OrderID); err != nil {
			return inbox.Permanent(err)
		}
		ids = append(ids, e.Data.OrderID)
	}
	known, err := lockReservations(ctx, tx, ids)
	if err != nil {
		return err
	}
	for _, r := range known {
		for _, l := range r.Lines {
			skus = append(skus, l.SKU)
		}
	}
	shelf, err := lockShelf(ctx, tx, distinct(skus))
	if err != nil {
		return err
	}
	at := now()
	var saved []Reservation
	var moved []Movement
	for _, e := range cancelled {
		r := known[e.Data.OrderID]
		if r == nil {
			r = &Reservation{OrderID: e.Data.OrderID}
		}
		if r.State == released {
			continue
		}
		gave := schemas.StockReleased{OrderID: r.OrderID, ReleasedAt: at}
		for _, l := range r.Lines {
			gave.Lines = append(gave.Lines, schemas.ReleasedLine{SKU: l.SKU, Quantity: int(l.Quantity)})
		}
		moved = append(moved, shelf.release(r, e.Meta.ID, at)...)
		saved = append(saved, *r)
		if err := s.outbox.Append(ctx, tx, r.Version, event.By(e.Meta), gave); err != nil {
			return err
		}
	}
	if err := saveReservations(ctx, tx, saved); err != nil {
		return err
	}
	return appendMovements(ctx, tx, shelf, moved)
}

// Receive books goods that came in; the first receipt introduces the article.
func (s *Service) Receive(ctx context.Context, tx *db.Tx, sku string, quantity int64, cause string) (*Stock, error) {
	// The row must be there to be locked.
	_, err := tx.Exec(ctx, `insert into stock (sku, version, on_hand, reserved, at) values ($1, 0, 0, 0, 0) on conflict (sku) do nothing`, sku)
	if err != nil {
		return nil, err
	}
	shelf, err := lockShelf(ctx, tx, []string{sku})
	if err != nil {
		return nil, err
	}
	stock := shelf[sku]
	if stock.OnHand > maxOnHand-quantity {
		return nil, ErrTooMuch
	}
	moved := stock.move(Received, quantity, "", cause, now())
	return stock, appendMovements(ctx, tx, shelf, []Movement{moved})
}

// ErrTooMuch is the error of a receipt beyond what can be counted.
var ErrTooMuch = errors.New("more than the stock of an article can be")

const maxOnHand = 1 << 53 // what a JSON number holds exactly

func distinct(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

// now is the time to the millisecond, as the events carry it.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
