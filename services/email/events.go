package email

import (
	"context"
	"net/mail"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/schemas"
)

// payloads are the events that this service writes or reads.
func payloads() []event.Payload {
	return []event.Payload{
		schemas.OrderPlaced{}, schemas.OrderConfirmed{}, schemas.OrderRejected{}, schemas.OrderCancelled{},
		schemas.EmailSent{},
	}
}

func (s *Service) register(in *inbox.Inbox) {
	inbox.HandleBatch(in, s.onOrdersPlaced, inbox.Repeatable) // it keeps an address, once or twice is the same
	inbox.HandleSlow(in, s.onOrderConfirmed)
	inbox.HandleSlow(in, s.onOrderRejected)
	inbox.HandleSlow(in, s.onOrderCancelled)
}

func (s *Service) onOrdersPlaced(ctx context.Context, tx *db.Tx, placed []event.Event[schemas.OrderPlaced]) error {
	for _, e := range placed {
		if a, err := mail.ParseAddress(e.Data.CustomerEmail); err != nil || a.Address != e.Data.CustomerEmail {
			return inbox.Permanent(errAddress)
		}
	}
	return keepRecipients(ctx, tx, placed)
}

func (s *Service) onOrderConfirmed(ctx context.Context, e event.Event[schemas.OrderConfirmed]) (inbox.Done, error) {
	return s.Tell(ctx, e.Meta, Confirmation(e.Data))
}

func (s *Service) onOrderRejected(ctx context.Context, e event.Event[schemas.OrderRejected]) (inbox.Done, error) {
	return s.Tell(ctx, e.Meta, Rejection(e.Data))
}

func (s *Service) onOrderCancelled(ctx context.Context, e event.Event[schemas.OrderCancelled]) (inbox.Done, error) {
	return s.Tell(ctx, e.Meta, Cancellation(e.Data))
}
