package inbox_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
)

// TestHandleSlow_lostCommit lets the answer to the commit of a slow effect's end be lost: the
// end must not be written a second time.
func TestHandleSlow_lostCommit(t *testing.T) {
	t.Parallel()
	t.Run("while another event waits behind it", func(t *testing.T) {
		t.Parallel()
		// One worker: no other takes the key before the first has tried again.
		r, lose := losingRig(t, inbox.Config{Workers: 1})
		inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
			return func(ctx context.Context, tx *db.Tx) error {
				if e.Data.N == 1 {
					lose.CompareAndSwap(0, 1) // the first attempt's
				}
				return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
			}, nil
		})
		r.steps("a", 1, 2)
		r.poll(0)
		r.run()
		r.until("both are done", func() bool { return r.count("select count(*) from waiting_event") == 0 })
		if got := r.count("select last from agg"); got != 2 || lose.Load() != 2 {
			t.Errorf("%d effects of two events; an answer was lost: %t", got, lose.Load() == 2)
		}
	})
	t.Run("and the key waits anew, under a claim of the same number", func(t *testing.T) {
		t.Parallel()
		r, lose := losingRig(t, inbox.Config{Workers: 2, MaxBackoff: time.Second})
		second := make(chan struct{}) // the first event's end is written once more
		var ends atomic.Int64
		inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
			if e.Data.N == 2 {
				select {
				case <-second:
				case <-time.After(500 * time.Millisecond): // longer than the first one's pause
				}
			}
			return func(ctx context.Context, tx *db.Tx) error {
				if e.Data.N == 1 && !lose.CompareAndSwap(0, 1) && ends.Add(1) == 1 {
					close(second)
				}
				return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
			}, nil
		})
		r.steps("a", 1, 2)
		r.run()
		if err := r.Process(t.Context(), event.Batch{Topic: "steps", TopicID: [16]byte{9}, Records: r.log[:1]}); err != nil {
			t.Fatal(err)
		}
		r.until("the answer is lost", func() bool { return lose.Load() == 2 })
		r.poll(1)
		r.until("both are done", func() bool { return r.count("select count(*) from waiting_event") == 0 })
		if got := r.count("select last from agg"); got != 2 || ends.Load() != 0 {
			t.Errorf("%d effects of two events, the first one's end was written %d times more", got, ends.Load())
		}
	})
}

// losingRig is a rig whose database does not tell of a commit once the number is 1.
func losingRig(t *testing.T, cfg inbox.Config) (*rig, *atomic.Int64) {
	t.Helper()
	lose := &atomic.Int64{}
	d, err := db.Open(db.Config{URL: dbtest.URL(t), Wrap: func(c driver.Connector) driver.Connector { return losing{c, lose} }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Migrate(t.Context(), outbox.Migrations, inbox.Migrations, tables); err != nil {
		t.Fatal(err)
	}
	return newRigOn(t, d, cfg), lose
}

// losing makes connections that do not tell of one commit.
type losing struct {
	driver.Connector
	state *atomic.Int64 // 1: the next commit; 2: it has been
}

func (l losing) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := l.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &losingConn{c.(wholeConn), l.state}, nil
}

// wholeConn is what the drivers of both databases offer.
type wholeConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.SessionResetter
}

type losingConn struct {
	wholeConn
	state *atomic.Int64
}

// CheckNamedValue leaves PostgreSQL's arrays to its driver.
func (c *losingConn) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.wholeConn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}

func (c *losingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := c.wholeConn.BeginTx(ctx, opts)
	return losingTx{tx, c.state}, err
}

type losingTx struct {
	driver.Tx
	state *atomic.Int64
}

func (t losingTx) Commit() error {
	err := t.Tx.Commit()
	if err == nil && t.state.CompareAndSwap(1, 2) {
		return errors.New("the connection broke")
	}
	return err
}
