package inbox_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
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
		begun := time.Now()
		r.run()
		r.until("both are done", func() bool { return r.count("select count(*) from waiting_event") == 0 })
		soon(t, begun)
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
	t.Run("that was a failure, of which one is counted", func(t *testing.T) {
		t.Parallel()
		r, lose := losingRig(t, inbox.Config{Workers: 1})
		var ends atomic.Int64
		inbox.HandleSlow(r.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
			return func(context.Context, *db.Tx) error {
				if ends.Add(1) == 2 { // alone
					lose.Store(1)
				}
				return inbox.Permanent(errOops)
			}, nil
		})
		r.steps("a", 1, 1)
		stop := r.run()
		r.poll(0)
		r.until("it is a dead letter", func() bool { return r.states()["a"] == "dead" })
		stop()
		if got := r.count("select attempts from waiting_event"); got != 1 || ends.Load() != 2 || lose.Load() != 2 {
			t.Errorf("%d attempts, %d calls of its end; an answer was lost: %t; want one and two", got, ends.Load(), lose.Load() == 2)
		}
	})
}

// soon fails if something has waited for the end of a lease, which is ten seconds.
func soon(t *testing.T, begun time.Time) {
	t.Helper()
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v: somebody's claim had to run out", took)
	}
}

// So it may be with the commit that takes an event and claims its key: the effect comes once, and
// soon.
func TestHandleSlow_lostCommit_of_its_taking(t *testing.T) {
	t.Parallel()
	r, lose := losingRig(t, inbox.Config{})
	var effects atomic.Int64
	inbox.HandleSlow(r.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
		effects.Add(1)
		return nil, nil
	})
	r.steps("a", 1, 1)
	r.run()
	r.until("Run has begun", r.Runs)
	lose.Store(1)
	begun := time.Now()
	r.poll(0)
	r.until("it is done", func() bool { return r.count("select count(*) from waiting_event") == 0 })
	soon(t, begun)
	if n := effects.Load(); n != 1 || lose.Load() != 2 {
		t.Errorf("%d effects; an answer was lost: %t", n, lose.Load() == 2)
	}
}

// losingRig is a rig whose database does not tell of the next commit once the number is 1; it is 2
// then.
func losingRig(t *testing.T, cfg inbox.Config) (*rig, *atomic.Int64) {
	t.Helper()
	lose := &atomic.Int64{}
	d := breaking(t, dbtest.Breaks{Committed: func() error {
		if lose.CompareAndSwap(1, 2) {
			return errors.New("the connection broke")
		}
		return nil
	}})
	return newRigOn(t, d, cfg), lose
}
