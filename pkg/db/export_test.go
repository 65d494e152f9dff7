package db

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// SetBound sets how long a statement outside a transaction may take.
func (d *DB) SetBound(bound time.Duration) { d.bound = bound }

// PingTimeout is how long a connection that has rested may take to answer.
const PingTimeout = pingTimeout

// AskAlways has each connection asked whether the server is there before it is used again.
func (d *DB) AskAlways() { d.rested.after = 0 }

// IsDuplicate reports whether a statement broke a unique constraint.
func IsDuplicate(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code == "23505"
	}
	code := sqliteCode(err)
	return code == 2067 || code == 1555 // unique, primary key
}
