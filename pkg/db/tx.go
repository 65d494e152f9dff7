package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Tx is a transaction. It belongs to one goroutine.
type Tx struct {
	tx       *sql.Tx
	dialect  dialect
	deferred []Deferred
	after    []func()
}

// Deferred is work that is gathered during a transaction and written in one go right
// before its commit, such as the rows of an outbox. What was gathered behind a savepoint
// that is rolled back is forgotten.
type Deferred interface {
	// Len is how much has been gathered.
	Len() int
	// Truncate forgets all but the first n.
	Truncate(n int)
	// Flush writes all of it.
	Flush(ctx context.Context, tx *Tx) error
}

const (
	conflictAttempts = 5
	txTimeout        = time.Minute // a transaction that lasts longer hangs, and holds others up
)

// InTx runs fn in a transaction and commits it; when fn fails or panics, nothing of it is
// kept. A transaction that fails by a conflict with others is run again, up to five times,
// so fn must be safe to repeat. fn's error is returned as it is. After an error from the
// commit the outcome may be unknown: the connection was lost meanwhile. It may also be that of
// a statement that was sent with the commit, see [Tx.ExecLater].
func (d *DB) InTx(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := d.Once(ctx, fn)
		if attempt == conflictAttempts || !IsConflict(err) {
			return err
		}
		pause := time.Duration(rand.IntN(10*attempt)+1) * time.Millisecond
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// Once is [DB.InTx] without the repetition. fn's context ends after a minute, and what the
// transaction has done by then is undone.
func (d *DB) Once(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, txTimeout)
	defer cancel()
	raw, err := d.begin(ctx)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	tx := &Tx{tx: raw, dialect: d.dialect}
	// On every way out but a commit: an error, a panic of fn, runtime.Goexit in a test.
	defer func() { _ = raw.Rollback() }()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	for _, d := range tx.deferred {
		if err := d.Flush(ctx, tx); err != nil {
			return err
		}
	}
	if err := raw.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	for _, fn := range tx.after {
		fn()
	}
	return nil
}

func (d *DB) begin(ctx context.Context) (tx *sql.Tx, err error) {
	err = asked(func() (err error) {
		tx, err = d.write.BeginTx(ctx, d.dialect.txOptions())
		return err
	})
	return tx, err
}

// Savepoint runs fn and undoes what it did when it fails, while the transaction goes on. It may
// be called inside another's fn. fn's error is returned as it is; fn also fails if a statement
// of it has failed on PostgreSQL and it has ignored that. If the savepoint itself cannot be made
// or undone, the error is a [*BrokenError]: the transaction is lost.
func (t *Tx) Savepoint(ctx context.Context, fn func() error) error {
	if _, err := t.tx.ExecContext(ctx, `savepoint s`); err != nil {
		return &BrokenError{err}
	}
	lens, deferred, after := t.lens(), len(t.deferred), len(t.after)
	err := fn()
	if err == nil {
		if _, err = t.tx.ExecContext(ctx, `release savepoint s`); err == nil {
			return nil
		}
		err = fmt.Errorf("a statement failed: %w", err)
	}
	// Released too: the name would hide an outer savepoint, and each one left costs.
	for _, q := range []string{`rollback to savepoint s`, `release savepoint s`} {
		if _, undo := t.tx.ExecContext(marked(ctx, forget), q); undo != nil {
			return &BrokenError{errors.Join(err, undo)}
		}
	}
	for i, n := range lens {
		t.deferred[i].Truncate(n)
	}
	t.deferred, t.after = t.deferred[:deferred], t.after[:after]
	return err
}

// BrokenError is the error of a savepoint whose transaction is lost.
type BrokenError struct{ Err error }

func (e *BrokenError) Error() string { return "transaction lost: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Err }

func (t *Tx) lens() []int {
	lens := make([]int, len(t.deferred))
	for i, d := range t.deferred {
		lens[i] = d.Len()
	}
	return lens
}

// Defer registers work for right before the commit, in the order of registration. find
// tells whether an already registered one serves; then that one is returned, else what
// make makes.
func Defer[D Deferred](t *Tx, find func(D) bool, make func() D) D {
	for _, d := range t.deferred {
		if found, ok := d.(D); ok && find(found) {
			return found
		}
	}
	made := make()
	t.deferred = append(t.deferred, made)
	return made
}

// AfterCommit runs fn once the transaction is committed, and never if it is not. fn must
// not block.
func (t *Tx) AfterCommit(fn func()) { t.after = append(t.after, fn) }

// Exec runs a statement and returns how many rows it affected.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	return affected(t.tx.ExecContext(ctx, query, args...))
}

// ExecLater is Exec whose answer nobody needs: on PostgreSQL it is sent with the next statement that
// is answered, or with the commit, and so its error may be theirs. It saves a round trip. Slices among
// args must not be changed until then.
func (t *Tx) ExecLater(ctx context.Context, query string, args ...any) error {
	_, err := t.tx.ExecContext(marked(ctx, later), query, args...)
	return err
}

// Scanner is a row that a query has found.
type Scanner interface{ Scan(dest ...any) error }

// QueryLater is a query that is sent like [Tx.ExecLater]: scan has been called with each row when the
// next statement has been answered, and must not use the transaction. Statements that go together
// see each what is committed when the server comes to it.
func (t *Tx) QueryLater(ctx context.Context, scan func(Scanner) error, query string, args ...any) error {
	if t.dialect == postgres {
		return t.ExecLater(scanned(ctx, scan), query, args...)
	}
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Await sends what is still to be sent, and returns when it has been answered.
func (t *Tx) Await(ctx context.Context) error {
	if t.dialect != postgres {
		return nil
	}
	_, err := t.tx.ExecContext(marked(ctx, await), "")
	return err
}

// Query reads rows; the caller closes them before the next statement.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*Rows, error) {
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return &Rows{rows, func() {}}, nil
}

// QueryRow reads one row.
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(ctx, query, args...)
}

// InsertAll inserts rows given by their columns, in their order: in one statement, but on
// SQLite in as many as its limit on parameters asks for. tail follows it, such as "on conflict
// do nothing". It is sent like [Tx.ExecLater].
func (t *Tx) InsertAll(ctx context.Context, table, tail string, cols ...Column) error {
	return t.inserts(table, tail, cols, func(query string, args []any) error { return t.ExecLater(ctx, query, args...) })
}

// InsertReturning is InsertAll whose tail returns rows, which scan is given as that of
// [Tx.QueryLater] is.
func (t *Tx) InsertReturning(ctx context.Context, table, tail string, scan func(Scanner) error, cols ...Column) error {
	return t.inserts(table, tail, cols, func(query string, args []any) error { return t.QueryLater(ctx, scan, query, args...) })
}

// UpdateAll sets columns of the rows that key names, in one statement, but on SQLite in as many as
// its limit on parameters asks for. No row may be named twice. It is sent like [Tx.ExecLater].
func (t *Tx) UpdateAll(ctx context.Context, table string, key Column, cols ...Column) error {
	cols = append([]Column{key}, cols...)
	most, n := t.dialect.rowsPerInsert(len(cols)), length(key.Values)
	for from := 0; from < n; from += most {
		query, args := t.dialect.updateAll(table, cols, from, min(from+most, n))
		if err := t.ExecLater(ctx, query, args...); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tx) inserts(table, tail string, cols []Column, do func(query string, args []any) error) error {
	most, n := t.dialect.rowsPerInsert(len(cols)), length(cols[0].Values)
	for from := 0; from < n; from += most {
		if err := do(t.dialect.insertAll(table, tail, cols, from, min(from+most, n))); err != nil {
			return err
		}
	}
	return nil
}

// Collect scans all rows with scan and closes them.
func Collect[T any](rows *Rows, err error, scan func(*sql.Rows, *T) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var one T
		if err := scan(rows.Rows, &one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// LockTimeout bounds how long a statement of the transaction waits for others' locks; then
// it fails with a conflict. On SQLite, where transactions queue before they begin, it does
// nothing.
func (t *Tx) LockTimeout(ctx context.Context, d time.Duration) error {
	if t.dialect != postgres {
		return nil
	}
	return t.ExecLater(ctx, fmt.Sprintf(`set local lock_timeout = %d`, d.Milliseconds()))
}
