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
	tell(in, s, Confirmation)
	tell(in, s, Rejection)
	tell(in, s, Cancellation)
}

func (s *Service) onOrdersPlaced(ctx context.Context, tx *db.Tx, placed []event.Event[schemas.OrderPlaced]) error {
	for _, e := range placed {
		if a, err := mail.ParseAddress(e.Data.CustomerEmail); err != nil || a.Address != e.Data.CustomerEmail {
			return inbox.Permanent(errAddress)
		}
	}
	return keepRecipients(ctx, tx, placed)
}

// tell registers the mail that a type of event calls for.
func tell[P event.Payload](in *inbox.Inbox, s *Service, letter func(P) Letter) {
	inbox.HandleEffect(in, inbox.Effect[P, *Mail]{
		Begin: func(ctx context.Context, tx *db.Tx, settled []event.Event[P]) ([]*Mail, error) {
			mails := make([]*Mail, len(settled))
			for i, e := range settled {
				mails[i] = s.newMail(e.Meta, letter(e.Data))
			}
			return mails, begin(ctx, tx, mails)
		},
		Do: func(ctx context.Context, _ event.Event[P], m *Mail) error { return s.send(ctx, m) },
		End: func(ctx context.Context, tx *db.Tx, settled []event.Event[P], mails []*Mail) error {
			causes := make([]event.Cause, len(settled))
			for i, e := range settled {
				causes[i] = event.By(e.Meta)
			}
			return s.sent(ctx, tx, causes, mails)
		},
	})
}
