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
	inbox.Handle(in, s.onStockReserved)
	inbox.Handle(in, s.onStockRejected)
	inbox.Handle(in, s.onStockReleased)
}

// An answer for an order that is not there is an error like any other: nothing is promised
// about the order of events across topics, so the order may come later.

func (s *Service) onStockReserved(ctx context.Context, tx *db.Tx, e event.Event[schemas.StockReserved]) error {
	return s.change(ctx, tx, e.Data.OrderID, event.By(e.Meta), func(o *Order) event.Payload { return o.StockReserved(now()) })
}

func (s *Service) onStockRejected(ctx context.Context, tx *db.Tx, e event.Event[schemas.StockRejected]) error {
	missing := make([]string, len(e.Data.Missing))
	for i, m := range e.Data.Missing {
		missing[i] = m.SKU
	}
	return s.change(ctx, tx, e.Data.OrderID, event.By(e.Meta), func(o *Order) event.Payload { return o.StockRejected(missing, now()) })
}

func (s *Service) onStockReleased(ctx context.Context, tx *db.Tx, e event.Event[schemas.StockReleased]) error {
	return s.change(ctx, tx, e.Data.OrderID, event.By(e.Meta), func(o *Order) event.Payload { o.StockReleased(now()); return nil })
}
