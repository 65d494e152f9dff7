package inbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// A batch that fails is run again event by event, and its queues are made anew: what had to
// wait in the first run, being slow, must not stand before an earlier event that fails.
func TestProcess_a_batch_run_again_queues_in_offset_order(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	inbox.Handle(r.Inbox, r.onStep)
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[jump]) (inbox.Done, error) {
		return func(ctx context.Context, tx *db.Tx) error { return r.apply(ctx, tx, e.Data.Agg, e.Data.N) }, nil
	})
	r.setFail("a1", errOops)
	r.write(step{"a", 1}, 1)
	r.write(jump{"a", 2}, 2)
	r.steps("b", 1, 1)
	r.poll(0)
	rows, err := r.db.Query(t.Context(), `select position from waiting_event order by seq`)
	queue, err := db.Collect(rows, err, func(s *sql.Rows, n *int64) error { return s.Scan(n) })
	if diff := cmp.Diff([]int64{0, 1}, queue); err != nil || diff != "" {
		t.Errorf("the queue by offset: %v %s", err, diff)
	}
	r.setFail("a1", nil)
	r.run()
	r.until("all are done", func() bool { return len(r.done()) == 3 })
}

// What is due waits for the next start, of whatever replica.
func TestRun_takes_no_further_key_when_it_is_stopped(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Workers: 1})
	ctx, stop := context.WithCancel(t.Context())
	var mended atomic.Bool
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if !mended.Load() {
			return errOops
		}
		stop()
		return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
	})
	inbox.Handle(r.Inbox, r.onJump)
	const keys = 20
	for i := range keys {
		r.steps(fmt.Sprint("k", i), 1, 1)
	}
	r.poll(0)
	if _, err := r.db.Exec(t.Context(), `update waiting_key set due = 0`); err != nil {
		t.Fatal(err)
	}
	mended.Store(true)
	if err := r.Run(ctx); err != nil {
		t.Error(err)
	}
	if left := r.count(`select count(*) from waiting_key`); left != keys-1 {
		t.Errorf("%d of %d keys are left, want all but the one that was being worked on", left, keys)
	}
}
