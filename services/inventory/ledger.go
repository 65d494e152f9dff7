package inventory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"example.com/keyline/pkg/db"
)

// snapshotEvery is how many movements lie between two snapshots.
const snapshotEvery = 100

// lockShelf locks the stock of the articles until the end of the transaction, sorted and
// in one statement, which keeps transactions from waiting for each other in a circle.
// Articles that nobody has received are not on it.
func lockShelf(ctx context.Context, tx *db.Tx, skus []string) (shelf, error) {
	cond, arg := tx.In("sku", 1, skus)
	rows, err := tx.Query(ctx, `select sku, version, on_hand, reserved, at from stock where `+cond+` order by sku`+tx.ForUpdate(), arg)
	all, err := db.Collect(rows, err, scanStock)
	if err != nil {
		return nil, fmt.Errorf("lock stock: %w", err)
	}
	s := shelf{}
	for i := range all {
		all[i].before = all[i].Version
		s[all[i].SKU] = &all[i]
	}
	return s, nil
}

func scanStock(r *sql.Rows, s *Stock) error {
	var at int64
	err := r.Scan(&s.SKU, &s.Version, &s.OnHand, &s.Reserved, &at)
	s.At = db.Time(at)
	return err
}

// appendMovements writes the ledger's next entries and the folds behind them: the newest of
// every article, and those that become snapshots.
func appendMovements(ctx context.Context, tx *db.Tx, s shelf, moved []Movement) error {
	if len(moved) == 0 {
		return nil
	}
	n := len(moved)
	skus, kinds, orders, causes := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	versions, quantities, ats := make([]int64, n), make([]int64, n), make([]int64, n)
	touched := map[string]bool{}
	for i, m := range moved {
		skus[i], kinds[i], orders[i], causes[i] = m.SKU, string(m.Kind), m.OrderID, m.Cause
		versions[i], quantities[i], ats[i] = m.Version, m.Quantity, db.Micros(m.At)
		touched[m.SKU] = true
	}
	err := tx.InsertAll(ctx, "movement", "", db.Column{Name: "sku", Values: skus}, db.Column{Name: "version", Values: versions},
		db.Column{Name: "kind", Values: kinds}, db.Column{Name: "quantity", Values: quantities}, db.Column{Name: "order_id", Values: orders},
		db.Column{Name: "cause", Values: causes}, db.Column{Name: "at", Values: ats})
	if err != nil {
		return fmt.Errorf("append movements: %w", err)
	}
	var names []string
	for sku := range touched {
		names = append(names, sku)
	}
	slices.Sort(names)
	return writeFolds(ctx, tx, s, names)
}

func writeFolds(ctx context.Context, tx *db.Tx, s shelf, skus []string) error {
	var folds, snapshots []*Stock
	for _, sku := range skus {
		folds = append(folds, s[sku])
		if s[sku].Version/snapshotEvery > s[sku].before/snapshotEvery {
			snapshots = append(snapshots, s[sku])
		}
	}
	err := tx.InsertAll(ctx, "stock", `on conflict (sku) do update set version = excluded.version, on_hand = excluded.on_hand, reserved = excluded.reserved, at = excluded.at`, foldColumns(folds)...)
	if err != nil {
		return fmt.Errorf("write stock: %w", err)
	}
	if len(snapshots) == 0 {
		return nil
	}
	if err := tx.InsertAll(ctx, "stock_snapshot", "", foldColumns(snapshots)...); err != nil {
		return fmt.Errorf("write snapshots: %w", err)
	}
	return nil
}

func foldColumns(folds []*Stock) []db.Column {
	n := len(folds)
	skus := make([]string, n)
	versions, onHand, reserved, ats := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, f := range folds {
		skus[i], versions[i], onHand[i], reserved[i], ats[i] = f.SKU, f.Version, f.OnHand, f.Reserved, db.Micros(f.At)
	}
	return []db.Column{
		{Name: "sku", Values: skus}, {Name: "version", Values: versions}, {Name: "on_hand", Values: onHand},
		{Name: "reserved", Values: reserved}, {Name: "at", Values: ats},
	}
}

// current reads an article's stock as it is.
func current(ctx context.Context, d *db.DB, sku string) (*Stock, error) {
	s := &Stock{SKU: sku}
	err := d.QueryRow(ctx, `select version, on_hand, reserved from stock where sku = $1`, sku).Scan(&s.Version, &s.OnHand, &s.Reserved)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, ErrNotFound
	case err != nil:
		return nil, fmt.Errorf("read stock: %w", err)
	}
	return s, nil
}

// asOf folds an article's stock as it was: from the last snapshot before, over the movements
// until then, of which none lies behind the next snapshot.
func asOf(ctx context.Context, d *db.DB, sku string, at time.Time) (*Stock, error) {
	if _, err := current(ctx, d, sku); err != nil {
		return nil, err
	}
	s := &Stock{SKU: sku}
	row := d.QueryRow(ctx, `select version, on_hand, reserved from stock_snapshot where sku = $1 and at <= $2 order by version desc limit 1`, sku, db.Micros(at))
	if err := row.Scan(&s.Version, &s.OnHand, &s.Reserved); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	rows, err := d.Query(ctx, `select `+movementColumns+` from movement where sku = $1 and version > $2 and at <= $3
		and version < coalesce((select min(version) from stock_snapshot where sku = $1 and at > $3), $4) order by version`,
		sku, s.Version, db.Micros(at), int64(math.MaxInt64))
	moved, err := db.Collect(rows, err, scanMovement)
	if err != nil {
		return nil, fmt.Errorf("read movements: %w", err)
	}
	for _, m := range moved {
		s.Apply(m)
	}
	return s, nil
}

const movementColumns = `sku, version, kind, quantity, order_id, cause, at`

func scanMovement(r *sql.Rows, m *Movement) error {
	var at int64
	err := r.Scan(&m.SKU, &m.Version, &m.Kind, &m.Quantity, &m.OrderID, &m.Cause, &at)
	m.At = db.Time(at)
	return err
}

// movements reads a page of an article's ledger, from the version behind after.
func movements(ctx context.Context, d *db.DB, sku string, after int64, limit int) ([]Movement, error) {
	if _, err := current(ctx, d, sku); err != nil {
		return nil, err
	}
	rows, err := d.Query(ctx, `select `+movementColumns+` from movement where sku = $1 and version > $2 order by version limit $3`, sku, after, limit)
	moved, err := db.Collect(rows, err, scanMovement)
	if err != nil {
		return nil, fmt.Errorf("read movements: %w", err)
	}
	return moved, nil
}
