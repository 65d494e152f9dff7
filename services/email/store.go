package email

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"slices"
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

	letter  Letter
	address string    // empty if nobody knows it
	sentNow time.Time // by this attempt
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

// begin notes that mails are about to be sent, each about another order, and fills in where to, and
// which were sent before. One whose recipient nobody knows is left as it is.
func begin(ctx context.Context, tx *db.Tx, mails []*Mail) error {
	if err := lookUp(ctx, tx, mails); err != nil {
		return err
	}
	var ids, events, orders, kinds, messages []string
	for _, m := range mails {
		if m.address != "" && m.SentAt == nil {
			ids, events, orders, kinds, messages = append(ids, m.ID), append(events, m.EventID), append(orders, m.OrderID), append(kinds, m.Kind), append(messages, m.MessageID)
		}
	}
	err := tx.InsertAll(ctx, "mail", "on conflict (mail_id) do nothing",
		db.Column{Name: "mail_id", Values: ids}, db.Column{Name: "event_id", Values: events}, db.Column{Name: "order_id", Values: orders},
		db.Column{Name: "kind", Values: kinds}, db.Column{Name: "message_id", Values: messages},
		db.Column{Name: "sent_at", Values: db.SQL("0")}, db.Column{Name: "begun_at", Values: db.SQL("now_micros()")})
	if err != nil {
		return fmt.Errorf("begin mails: %w", err)
	}
	return nil
}

// lookUp fills in where mails go to, and which the ledger knows as sent.
func lookUp(ctx context.Context, tx *db.Tx, mails []*Mail) error {
	orders, ids := make([]string, len(mails)), make([]string, len(mails))
	byOrder, byID := map[string]*Mail{}, map[string]*Mail{}
	for i, m := range mails {
		orders[i], ids[i] = m.OrderID, m.ID
		byOrder[m.OrderID], byID[m.ID] = m, m
	}
	withOrder, orderArg := tx.In("order_id", 1, orders)
	withID, idArg := tx.In("mail_id", 2, ids)
	rows, err := tx.Query(ctx, `select order_id, address, 0 from recipient where `+withOrder+`
		union all select mail_id, '', sent_at from mail where `+withID+` and sent_at > 0`, orderArg, idArg)
	_, err = db.Collect(rows, err, func(r *sql.Rows, _ *struct{}) error {
		var id, address string
		var at int64
		err := r.Scan(&id, &address, &at)
		switch {
		case err != nil:
		case at > 0:
			byID[id].SentAt = new(db.Time(at))
		default:
			byOrder[id].address = address
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read recipients and mails: %w", err)
	}
	return nil
}

// finish notes that mails were sent by this attempt. Each is an event that the service publishes
// for its order: it returns their versions by order, whose rows are locked.
func finish(ctx context.Context, tx *db.Tx, mails []*Mail) (versions map[string]int64, err error) {
	var ids, orders []string
	var at []int64
	for _, m := range mails {
		if m.SentAt == nil {
			ids, orders, at = append(ids, m.ID), append(orders, m.OrderID), append(at, db.Micros(m.sentNow))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	slices.Sort(orders) // not ids, which go with at
	cond, arg := tx.In("order_id", 1, orders)
	rows, err := tx.Query(ctx, `update recipient set version = version + 1 where `+cond+` returning order_id, version`, arg)
	versions = map[string]int64{}
	_, err = db.Collect(rows, err, func(r *sql.Rows, _ *struct{}) error {
		var order string
		var version int64
		err := r.Scan(&order, &version)
		versions[order] = version
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("raise versions: %w", err)
	}
	for _, order := range orders {
		if versions[order] == 0 {
			return nil, ErrRecipientUnknown
		}
	}
	if err := tx.UpdateAll(ctx, "mail", db.Column{Name: "mail_id", Values: ids}, db.Column{Name: "sent_at", Values: at}); err != nil {
		return nil, fmt.Errorf("finish mails: %w", err)
	}
	return versions, nil
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
