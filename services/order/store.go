package order

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/keyline/pkg/db"
)

//go:embed migrations/*.sql
var files embed.FS

var migrations = db.Migrations{Owner: "order", Files: files}

const columns = `order_id, customer_id, customer_email, currency, lines, total_cents, status, reason, version, placed_at, history, traceparent`

func scan(r interface{ Scan(...any) error }, o *Order) error {
	var lines, history string
	var placed int64
	err := r.Scan(&o.ID, &o.CustomerID, &o.CustomerEmail, &o.Currency, &lines, &o.TotalCents, &o.Status, &o.Reason, &o.Version, &placed, &history, &o.Traceparent)
	if err != nil {
		return err
	}
	o.PlacedAt = db.Time(placed)
	return errors.Join(json.Unmarshal([]byte(lines), &o.Lines), json.Unmarshal([]byte(history), &o.History))
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs
	}
	return string(b)
}

func insert(ctx context.Context, tx *db.Tx, all []*placing) error {
	texts := func(get func(*Order) string) []string {
		v := make([]string, len(all))
		for i, p := range all {
			v[i] = get(p.order)
		}
		return v
	}
	numbers := func(get func(*Order) int64) []int64 {
		v := make([]int64, len(all))
		for i, p := range all {
			v[i] = get(p.order)
		}
		return v
	}
	err := tx.InsertAll(ctx, "orders", "",
		db.Column{Name: "order_id", Values: texts(func(o *Order) string { return o.ID })},
		db.Column{Name: "customer_id", Values: texts(func(o *Order) string { return o.CustomerID })},
		db.Column{Name: "customer_email", Values: texts(func(o *Order) string { return o.CustomerEmail })},
		db.Column{Name: "currency", Values: texts(func(o *Order) string { return o.Currency })},
		db.Column{Name: "lines", Values: texts(func(o *Order) string { return text(o.Lines) })},
		db.Column{Name: "total_cents", Values: numbers(func(o *Order) int64 { return o.TotalCents })},
		db.Column{Name: "status", Values: texts(func(o *Order) string { return string(o.Status) })},
		db.Column{Name: "reason", Values: texts(func(o *Order) string { return o.Reason })},
		db.Column{Name: "version", Values: numbers(func(o *Order) int64 { return o.Version })},
		db.Column{Name: "placed_at", Values: numbers(func(o *Order) int64 { return db.Micros(o.PlacedAt) })},
		db.Column{Name: "history", Values: texts(func(o *Order) string { return text(o.History) })},
		db.Column{Name: "traceparent", Values: texts(func(o *Order) string { return o.Traceparent })},
		db.Column{Name: "pending_since", Values: db.SQL("now_micros()")})
	if err != nil {
		return fmt.Errorf("insert orders: %w", err)
	}
	return nil
}

// lock reads an order and locks its row until the end of the transaction.
func lock(ctx context.Context, tx *db.Tx, id string) (*Order, error) {
	all, err := lockAll(ctx, tx, []string{id})
	if err != nil {
		return nil, err
	}
	return all[id], nil
}

// lockAll is lock for many orders. It is ErrNotFound if one is not there.
func lockAll(ctx context.Context, tx *db.Tx, ids []string) (map[string]*Order, error) {
	cond, arg := tx.In("order_id", 1, ids)
	rows, err := tx.Query(ctx, `select `+columns+` from orders where `+cond+` order by order_id`+tx.ForUpdate(), arg)
	found, err := db.Collect(rows, err, func(r *sql.Rows, o *Order) error { return scan(r, o) })
	if err != nil {
		return nil, fmt.Errorf("lock orders: %w", err)
	}
	all := make(map[string]*Order, len(found))
	for i := range found {
		all[found[i].ID] = &found[i]
	}
	for _, id := range ids {
		if all[id] == nil {
			return nil, ErrNotFound
		}
	}
	return all, nil
}

func get(ctx context.Context, d *db.DB, id string) (*Order, error) {
	o := &Order{}
	return found(o, scan(d.QueryRow(ctx, `select `+columns+` from orders where order_id = $1`, id), o))
}

func found(o *Order, err error) (*Order, error) {
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("read order: %w", err)
	}
	return o, nil
}

// update writes what the transitions change.
func update(ctx context.Context, tx *db.Tx, all []*Order) error {
	n := len(all)
	ids, statuses, reasons, histories := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	versions := make([]int64, n)
	for i, o := range all {
		ids[i], statuses[i], reasons[i], versions[i], histories[i] = o.ID, string(o.Status), o.Reason, o.Version, text(o.History)
	}
	err := tx.UpdateAll(ctx, "orders", db.Column{Name: "order_id", Values: ids}, db.Column{Name: "status", Values: statuses},
		db.Column{Name: "reason", Values: reasons}, db.Column{Name: "version", Values: versions}, db.Column{Name: "history", Values: histories})
	if err != nil {
		return fmt.Errorf("update orders: %w", err)
	}
	return nil
}

// list reads a page of orders, newest first; after is the last order of the page before.
func list(ctx context.Context, d *db.DB, customerID, after string, limit int) ([]Order, error) {
	where, args := `true`, []any{limit} // conditions that an index can serve, which "or" would not be
	if customerID != "" {
		args = append(args, customerID)
		where += fmt.Sprintf(` and customer_id = $%d`, len(args))
	}
	if after != "" {
		args = append(args, after)
		where += fmt.Sprintf(` and order_id < $%d`, len(args))
	}
	rows, err := d.Query(ctx, `select `+columns+` from orders where `+where+` order by order_id desc limit $1`, args...)
	orders, err := db.Collect(rows, err, func(r *sql.Rows, o *Order) error { return scan(r, o) })
	if err != nil {
		return nil, fmt.Errorf("list orders: %w", err)
	}
	return orders, nil
}

// overdue picks an order that has been pending for longer than patience and locks it, and
// nil if there is none.
func overdue(ctx context.Context, d *db.DB, tx *db.Tx, patience time.Duration) (*Order, error) {
	o := &Order{}
	row := tx.QueryRow(ctx, `select `+columns+` from orders where status = 'pending' and pending_since <= now_micros() - $1
		order by pending_since limit 1`+d.SkipLocked(), patience.Microseconds())
	switch err := scan(row, o); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("find overdue orders: %w", err)
	}
	return o, nil
}

// behind reports whether inventory is: no order has been answered that was placed after one that has
// waited for so long. An order that waits while later ones are answered is stuck for a reason of its
// own, which says nothing about the others. (Order IDs sort by time, of the replicas' clocks: where these
// differ it may be noticed as much later.) Mostly none has waited that long, which the index tells at once.
func behind(ctx context.Context, d *db.DB, lag time.Duration) (bool, error) {
	var n int
	err := d.QueryRow(ctx, `select count(*) from (select order_id from orders where status = 'pending' and pending_since <= now_micros() - $1
		order by pending_since desc, order_id desc limit 1) as waits
		where not exists (select 1 from orders where status in ('confirmed', 'rejected') and order_id > waits.order_id)`, lag.Microseconds()).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("find an order that has waited for too long: %w", err)
	}
	return n > 0, nil
}
