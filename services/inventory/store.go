package inventory

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"fmt"

	"example.com/keyline/pkg/db"
)

//go:embed migrations/*.sql
var files embed.FS

var migrations = db.Migrations{Owner: "inventory", Files: files}

// lockReservations reads what is known of the orders, and locks it until the end of the
// transaction.
func lockReservations(ctx context.Context, tx *db.Tx, orderIDs []string) (map[string]*Reservation, error) {
	cond, arg := tx.In("order_id", 1, orderIDs)
	rows, err := tx.Query(ctx, `select order_id, state, lines, version from reservation where `+cond+` order by order_id`+tx.ForUpdate(), arg)
	all, err := db.Collect(rows, err, func(r *sql.Rows, res *Reservation) error {
		var lines string
		if err := r.Scan(&res.OrderID, &res.State, &lines, &res.Version); err != nil {
			return err
		}
		return json.Unmarshal([]byte(lines), &res.Lines)
	})
	if err != nil {
		return nil, fmt.Errorf("lock reservations: %w", err)
	}
	known := map[string]*Reservation{}
	for i := range all {
		known[all[i].OrderID] = &all[i]
	}
	return known, nil
}

// saveReservations writes reservations, new ones and changed ones. A new one that another
// transaction has made meanwhile is an error, and must not be written over: the stock it
// holds would be lost. Tried again, the event finds it.
func saveReservations(ctx context.Context, tx *db.Tx, all []Reservation) error {
	var made, changed []Reservation
	for _, r := range all {
		if r.Version == 1 {
			made = append(made, r)
		} else {
			changed = append(changed, r)
		}
	}
	if err := writeReservations(ctx, tx, made, ""); err != nil {
		return err
	}
	return writeReservations(ctx, tx, changed, `on conflict (order_id) do update set state = excluded.state, lines = excluded.lines, version = excluded.version`)
}

func writeReservations(ctx context.Context, tx *db.Tx, all []Reservation, tail string) error {
	if len(all) == 0 {
		return nil
	}
	n := len(all)
	ids, states, lines, versions := make([]string, n), make([]string, n), make([]string, n), make([]int64, n)
	for i, r := range all {
		text, err := json.Marshal(r.Lines)
		if err != nil {
			return err
		}
		ids[i], states[i], lines[i], versions[i] = r.OrderID, string(r.State), string(text), r.Version
	}
	err := tx.InsertAll(ctx, "reservation", tail,
		db.Column{Name: "order_id", Values: ids}, db.Column{Name: "state", Values: states}, db.Column{Name: "lines", Values: lines}, db.Column{Name: "version", Values: versions})
	if err != nil {
		return fmt.Errorf("save reservations: %w", err)
	}
	return nil
}
