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
// one gets no answer in time, all that were last taken before are thrown away with it: else
// each of them would cost as long.
type rested struct {
	after  time.Duration
	silent atomic.Int64 // when a connection was last found to be dead, by sinceStart
}

var start = time.Now()

// sinceStart is a clock that no jump of the machine's reaches.
func sinceStart() time.Duration { return time.Since(start) }

const taken = "taken" // in a connection's custom data: when it was made, or last taken from the pool

// made notes that a connection is new.
func (r *rested) made(_ context.Context, conn *pgx.Conn) error {
	conn.PgConn().CustomData()[taken] = sinceStart()
	return nil
}

// check is called before a connection is used again.
func (r *rested) check(ctx context.Context, conn *pgx.Conn) error {
	data, now := conn.PgConn().CustomData(), sinceStart()
	last := data[taken].(time.Duration)
	switch {
	case int64(last) < r.silent.Load():
		_ = conn.PgConn().Conn().Close() // without the farewell, which would wait for an answer
		return driver.ErrBadConn
	case now-last > r.after:
		bounded, cancel := context.WithTimeout(ctx, pingTimeout)
		defer cancel()
		if err := conn.Ping(bounded); err != nil {
			if ctx.Err() == nil {
				r.silent.Store(int64(now))
			}
			return driver.ErrBadConn
		}
	}
	data[taken] = sinceStart()
	return nil
}
