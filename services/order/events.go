package order

import (
	"context"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/schemas"
)

// payloads are the events that this service writes or reads.
func payloads() []event.Payload {
	return []event.Payload{
		schemas.OrderPlaced{}, schemas.OrderConfirmed{}, schemas.OrderRejected{}, schemas.OrderCancelled{},
		schemas.StockReserved{}, schemas.StockRejected{}, schemas.StockReleased{},
	}
}

func (s *Service) register(in *inbox.Inbox) {
	inbox.HandleBatch(in, func(ctx context.Context, tx *db.Tx, all []event.Event[schemas.StockReserved]) error {
		return changeAll(ctx, tx, s, all, func(o *Order, _ schemas.StockReserved) event.Payload { return o.StockReserved(now()) })
	})
	inbox.HandleBatch(in, func(ctx context.Context, tx *db.Tx, all []event.Event[schemas.StockRejected]) error {
		return changeAll(ctx, tx, s, all, func(o *Order, e schemas.StockRejected) event.Payload {
			missing := make([]string, len(e.Missing))
			for i, m := range e.Missing {
				missing[i] = m.SKU
			}
			return o.StockRejected(missing, now())
		})
	})
	inbox.HandleBatch(in, func(ctx context.Context, tx *db.Tx, all []event.Event[schemas.StockReleased]) error {
		return changeAll(ctx, tx, s, all, func(o *Order, _ schemas.StockReleased) event.Payload { o.StockReleased(now()); return nil })
	})
}

// changeAll lets each of inventory's answers change its order, whose ID is the event's key, and
// saves the orders with the events that this has caused. An answer for an order that is not there
// is an error like any other: nothing is promised about the order of events across topics, so the
// order may come later.
func changeAll[P event.Payload](ctx context.Context, tx *db.Tx, s *Service, answers []event.Event[P], fn func(*Order, P) event.Payload) error {
	ids := make([]string, len(answers))
	for i, e := range answers {
		ids[i] = e.Data.Key()
	}
	orders, err := lockAll(ctx, tx, ids)
	if err != nil {
		return err
	}
	steps := make([]step, len(answers))
	for i, e := range answers {
		o := orders[ids[i]]
		steps[i] = step{o, event.By(e.Meta), fn(o, e.Data)}
	}
	return s.save(ctx, tx, steps)
}
