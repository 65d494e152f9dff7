package inbox_test

import (
	"context"
	"database/sql"
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
