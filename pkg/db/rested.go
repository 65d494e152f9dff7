package db

import (
	"context"
	"database/sql/driver"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	restsFor    = time.Second // one that was used since is not asked
	pingTimeout = 2 * time.Second
)

// rested asks connections that have rested in the pool whether the server is still there. If
// one gets no answer in time, all that were last heard of before are thrown away with it: else
// each of them would cost as long.
type rested struct {
	after  time.Duration
	silent atomic.Int64 // when a connection was last found to be dead, in Unix nanoseconds
}

const heard = "heard" // when a connection last answered, in its custom data

// made notes that a connection is new.
func (r *rested) made(_ context.Context, conn *pgx.Conn) error {
	conn.PgConn().CustomData()[heard] = time.Now()
	return nil
}

// check is called before a connection is used again.
func (r *rested) check(ctx context.Context, conn *pgx.Conn) error {
	data, now := conn.PgConn().CustomData(), time.Now()
	last := data[heard].(time.Time)
	switch {
	case last.UnixNano() <= r.silent.Load():
		_ = conn.PgConn().Conn().Close() // without the farewell, which would wait for an answer
		return driver.ErrBadConn
	case now.Sub(last) > r.after:
		bounded, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if err := conn.Ping(bounded); err != nil {
			if ctx.Err() == nil {
				r.silent.Store(now.UnixNano())
			}
			return driver.ErrBadConn
		}
	}
	data[heard] = time.Now()
	return nil
}
