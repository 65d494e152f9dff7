package email

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

//go:embed migrations/*.sql
var files embed.FS

var migrations = db.Migrations{Owner: "email", Files: files}

// Mail is an entry of the ledger.
type Mail struct {
	ID        string     `json:"-"`
	EventID   string     `json:"event_id"`
	OrderID   string     `json:"order_id"`
	Kind      string     `json:"kind"`
	MessageID string     `json:"message_id"`
	SentAt    *time.Time `json:"sent_at,omitempty"` // absent while it is being sent
}

// keepRecipients notes where to write to; the first address of an order stays.
func keepRecipients(ctx context.Context, tx *db.Tx, placed []event.Event[schemas.OrderPlaced]) error {
	n := len(placed)
	ids, addresses, versions := make([]string, n), make([]string, n), make([]int64, n)
	for i, e := range placed {
		ids[i], addresses[i] = e.Data.OrderID, e.Data.CustomerEmail
	}
	err := tx.InsertAll(ctx, "recipient", "on conflict (order_id) do nothing",
		db.Column{Name: "order_id", Values: ids}, db.Column{Name: "address", Values: addresses}, db.Column{Name: "version", Values: versions})
	if err != nil {
		return fmt.Errorf("keep recipients: %w", err)
	}
	return nil
}

func recipient(ctx context.Context, d *db.DB, orderID string) (string, error) {
	var address string
	err := d.QueryRow(ctx, `select address from recipient where order_id = $1`, orderID).Scan(&address)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return "", ErrRecipientUnknown
	case err != nil:
		return "", fmt.Errorf("read recipient: %w", err)
	}
	return address, nil
}

// raiseVersion counts an event that the service publishes for the order, and locks the row.
func raiseVersion(ctx context.Context, tx *db.Tx, orderID string) (version int64, err error) {
	err = tx.QueryRow(ctx, `update recipient set version = version + 1 where order_id = $1 returning version`, orderID).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("raise version: %w", err)
	}
	return version, nil
}

// begin notes that a mail is about to be sent. It reports whether it was sent before.
func begin(ctx context.Context, d *db.DB, m Mail) (sent bool, err error) {
	err = d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, `insert into mail (mail_id, event_id, order_id, kind, message_id, begun_at, sent_at) values ($1, $2, $3, $4, $5, now_micros(), 0)
			on conflict (mail_id) do nothing`, m.ID, m.EventID, m.OrderID, m.Kind, m.MessageID)
		if err != nil {
			return err
		}
		var at int64
		err = tx.QueryRow(ctx, `select sent_at from mail where mail_id = $1`, m.ID).Scan(&at)
		sent = at > 0
		return err
	})
	if err != nil {
		return false, fmt.Errorf("begin a mail: %w", err)
	}
	return sent, nil
}

// finish notes that a mail was sent.
func finish(ctx context.Context, tx *db.Tx, mailID string, at time.Time) error {
	if _, err := tx.Exec(ctx, `update mail set sent_at = $2 where mail_id = $1`, mailID, db.Micros(at)); err != nil {
		return fmt.Errorf("finish a mail: %w", err)
	}
	return nil
}

func list(ctx context.Context, d *db.DB, orderID string, limit int) ([]Mail, error) {
	rows, err := d.Query(ctx, `select mail_id, event_id, order_id, kind, message_id, sent_at from mail where order_id = $1 order by begun_at, mail_id limit $2`, orderID, limit)
	mails, err := db.Collect(rows, err, func(r *sql.Rows, m *Mail) error {
		var at int64
		err := r.Scan(&m.ID, &m.EventID, &m.OrderID, &m.Kind, &m.MessageID, &at)
		if at > 0 {
			m.SentAt = new(db.Time(at))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list mails: %w", err)
	}
	return mails, nil
}
