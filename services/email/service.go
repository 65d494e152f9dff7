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

func (s *Service) newMail(cause event.Meta, l Letter) *Mail {
	id := mailID(cause)
	return &Mail{ID: id, EventID: cause.ID, OrderID: l.OrderID, Kind: string(l.Kind), MessageID: s.mailer.messageID(id), letter: l}
}

// send sends a mail that has been begun. One that the ledger knows as sent is not sent again.
func (s *Service) send(ctx context.Context, m *Mail) error {
	switch {
	case m.address == "":
		return inbox.Permanent(ErrRecipientUnknown) // per-key order means that it will not come later
	case m.SentAt != nil:
		return nil
	}
	if err := s.mailer.send(ctx, m.address, m.MessageID, m.letter); err != nil {
		return err
	}
	m.sentNow = time.Now().UTC().Truncate(time.Millisecond)
	return nil
}

// sent writes down that mails were sent, and says so.
func (s *Service) sent(ctx context.Context, tx *db.Tx, causes []event.Cause, mails []*Mail) error {
	versions, err := finish(ctx, tx, mails)
	if err != nil {
		return err
	}
	for i, m := range mails {
		if m.SentAt != nil {
			continue
		}
		err := s.outbox.Append(ctx, tx, versions[m.OrderID], causes[i], schemas.EmailSent{
			OrderID: m.OrderID, EventID: m.EventID, MessageID: m.MessageID, Kind: m.letter.Kind, SentAt: m.sentNow,
		})
		if err != nil {
			return err
		}
	}
	return nil
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
