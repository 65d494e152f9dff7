package inbox_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// full says whether the long rounds are wanted, as `make faults` does.
func full() bool { return os.Getenv("KEYLINE_FAULTS") == "full" }

// TestPressure_many_waiting_keys lets very many keys wait while others flow, with a restart in
// the middle and another replica, and then lets all of them go.
func TestPressure_many_waiting_keys(t *testing.T) {
	keys, rounds := 1_000, 20
	if full() {
		keys, rounds = 100_000, 200
	}
	var broken atomic.Bool
	broken.Store(true)
	r := newRig(t, inbox.Config{Attempts: 1000, MaxBackoff: time.Minute})
	replica, err := inbox.New(r.db, r.codec, r.outbox, inbox.Config{Group: "test", Attempts: 1000, MaxBackoff: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []*inbox.Inbox{r.Inbox, replica} {
		inbox.Handle(in, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
			if broken.Load() && e.Data.Agg[0] == 'w' {
				return errOops
			}
			return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
		})
		inbox.Handle(in, r.onJump)
	}
	good := int64(0)
	flow := func(in *inbox.Inbox) (p99 time.Duration) {
		var took []time.Duration
		for range rounds {
			from := len(r.log)
			good++
			for k := range 50 {
				r.write(jump{fmt.Sprintf("good-%d", k), good}, good)
			}
			begun := time.Now()
			if err := in.Process(r.Context(), r.batch(int64(from), 0)); err != nil {
				t.Fatal(err)
			}
			took = append(took, time.Since(begun))
			r.log = r.log[:from] // its positions are used again, by other events
		}
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	baseline := flow(r.Inbox)

	stop := r.run()
	before := heap()
	for n := range keys {
		key := fmt.Sprintf("w%d", n)
		r.write(step{key, 1}, 1)
		r.write(step{key, 2}, 2)
		if len(r.log) == 500 || n == keys-1 {
			r.poll(0)
			r.log = r.log[:0]
		}
	}
	if got := r.count(`select count(*) from waiting_key`); got != keys {
		t.Fatalf("%d keys wait, want %d", got, keys)
	}
	retrying := flow(r.Inbox)
	grown := heap() - before
	stop() // a restart: what waits is in the database
	restarted := flow(replica)

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	broken.Store(false)
	if _, err := r.db.Exec(ctx, `update waiting_key set due = 0`); err != nil { // as if the pauses were over
		t.Fatal(err)
	}
	begun := time.Now()
	go func() { ended <- replica.Run(ctx) }()
	eventuallyWithin(t, 10*time.Minute, "all have gone on", func() bool { return r.count(`select count(*) from waiting_event`) == 0 })
	drained := time.Since(begun)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := r.count(`select count(*) from agg where key like 'w%' and last = 2`); got != keys {
		t.Errorf("%d keys have both effects, want %d", got, keys)
	}
	if got := r.count(`select count(*) from waiting_key`); got != 0 {
		t.Errorf("%d keys wait, want none", got)
	}
	t.Logf("%d keys waited with 2 events each: a batch of 50 others took %v at the 99th percentile without them, %v beside them while they retry, %v after a restart; drained at %.0f events/s; heap grew by %d KiB",
		keys, baseline, retrying, restarted, float64(2*keys)/drained.Seconds(), grown>>10)
	if grown > 64<<20 {
		t.Errorf("the heap grew by %d bytes, want it not to grow with what waits", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func eventuallyWithin(tb testing.TB, within time.Duration, what string, cond func() bool) {
	tb.Helper()
	deadline := time.After(within)
	for !cond() {
		select {
		case <-deadline:
			tb.Fatalf("waited in vain until %s", what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// TestSize_of_an_inbox_row measures what one readable record costs in the database: the row
// stands until the record has left its topic.
func TestSize_of_an_inbox_row(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	inbox.Handle(r.Inbox, func(context.Context, *db.Tx, event.Event[step]) error { return nil })
	const rows = 10_000
	size := func() (bytes int) {
		if dbtest.Postgres() {
			return r.count(`select pg_total_relation_size('inbox')`)
		}
		return r.count(`select page_count * page_size from pragma_page_count(), pragma_page_size()`)
	}
	empty := size()
	offset := int64(0)
	for n := range int64(rows) {
		r.write(step{fmt.Sprintf("01a20b59-bec0-759e-974f-%012d", n%500), n}, n)
		if len(r.log) == 500 {
			for i := range r.log {
				r.log[i].Offset = offset
				offset++
			}
			r.poll(0)
			r.log = r.log[:0]
		}
	}
	each := (size() - empty) / rows
	t.Logf("one row of the inbox takes %d bytes, its indexes included", each)
	if each < 50 || each > 350 {
		t.Errorf("one row takes %d bytes, want what the documentation says: up to 350", each)
	}
}
