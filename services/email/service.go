package email

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// ErrRecipientUnknown is the error for an order whose OrderPlaced was never seen, because it
// was dropped or has expired.
var ErrRecipientUnknown = errors.New("recipient unknown")

// Service is the verbs of the email service.
type Service struct {
	db     *db.DB
	outbox *outbox.Outbox
	mailer *mailer
	log    *slog.Logger
}

// Tell sends the mail that an event calls for, and returns what remains to be written. A
// mail that the ledger knows as sent is not sent again.
func (s *Service) Tell(ctx context.Context, cause event.Meta, letter Letter) (inbox.Done, error) {
	address, err := recipient(ctx, s.db, letter.OrderID)
	if errors.Is(err, ErrRecipientUnknown) {
		return nil, inbox.Permanent(err) // per-key order means that it will not come later
	}
	if err != nil {
		return nil, err
	}
	id := mailID(cause)
	m := Mail{ID: id, EventID: cause.ID, OrderID: letter.OrderID, Kind: string(letter.Kind), MessageID: s.mailer.messageID(id)}
	sent, err := begin(ctx, s.db, m)
	if err != nil || sent {
		return nil, err
	}
	if err := s.mailer.send(ctx, address, m.MessageID, letter); err != nil {
		return nil, err
	}
	at := time.Now().UTC().Truncate(time.Millisecond)
	return func(ctx context.Context, tx *db.Tx) error {
		version, err := raiseVersion(ctx, tx, m.OrderID)
		if err != nil {
			return err
		}
		if err := finish(ctx, tx, m.ID, at); err != nil {
			return err
		}
		return s.outbox.Append(ctx, tx, version, event.By(cause), schemas.EmailSent{
			OrderID: m.OrderID, EventID: m.EventID, MessageID: m.MessageID, Kind: letter.Kind, SentAt: at,
		})
	}, nil
}

// mailID names the mail that an event calls for: by the event's ID if that is a UUID, as ours
// are. Another producer's may be any text, harmful in a header, and two producers may count
// alike: then it is made of source and ID.
func mailID(cause event.Meta) string {
	if id, err := uuid.Parse(cause.ID); err == nil && id.String() == cause.ID {
		return cause.ID
	}
	return event.NewID("/email", event.By(cause), "mail", 0)
}
