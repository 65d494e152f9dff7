package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// left is how many events of a key are in its queue: those that have had their effect are there until
// that is written.
func (r *rig) left(agg string) int {
	return r.count(`select count(*) from waiting_event where key = $1`, []byte(agg))
}

// Effects after which nothing is to be written follow one another, and are written as done together.
func TestHandleSlow_effects_of_a_key_that_follow_one_another(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	written := func(*testing.T, *rig, int64) inbox.Done { return nil }
	for _, tt := range []struct {
		name   string
		runFor time.Duration
		done   func(t *testing.T, r *rig, n int64) inbox.Done
		left   []int // in the queue, when each effect happens
	}{
		{"up to eight at a time, behind the first", hour, written, []int{12, 11, 11, 11, 11, 11, 11, 11, 11, 3, 3, 3}},
		{"none that would begin too late", 1, written, []int{12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		{"none before what the one before it leaves is written", hour, func(t *testing.T, r *rig, n int64) inbox.Done {
			if last := r.count(`select coalesce(sum(last), 0) from agg`); int64(last) != n-1 {
				t.Errorf("the effect of event %d happens when that of %d is written", n, last)
			}
			return func(ctx context.Context, tx *db.Tx) error { return r.apply(ctx, tx, "a", n) }
		}, []int{12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, inbox.Config{})
			r.SetRunFor(tt.runFor)
			var left []int
			inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
				if left = append(left, r.left("a")); int(e.Data.N) != len(left) {
					t.Errorf("event %d is the %d. to have its effect", e.Data.N, len(left))
				}
				return tt.done(t, r, e.Data.N), nil
			})
			r.steps("a", 1, 12)
			r.run()
			r.until("Run has begun", r.Runs)
			r.poll(0)
			r.until("all are done", func() bool { return len(r.states()) == 0 && r.left("a") == 0 })
			if !slices.Equal(left, tt.left) {
				t.Errorf("in the queue at each effect: %v, want %v", left, tt.left)
			}
		})
	}
}

// When they have taken long enough, they are written as done before the next one.
func TestHandleSlow_that_follow_one_another_for_long_are_written(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	const long = 100 * time.Millisecond
	r.SetRunFor(long)
	var left int
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
		switch e.Data.N {
		case 4:
			<-time.After(long)
		case 5:
			left = r.left("a")
		}
		return nil, nil
	})
	r.steps("a", 1, 6)
	r.run()
	r.until("Run has begun", r.Runs)
	r.poll(0)
	r.until("all are done", func() bool { return len(r.states()) == 0 && r.left("a") == 0 })
	if left != 2 {
		t.Errorf("%d events were left when the fifth of six had its effect, want 2", left)
	}
}

// One that fails has its attempts, and those before it are not had again; those behind it wait. So
// they do behind one of another type, which may need something else.
func TestHandleSlow_that_fails_behind_others(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Attempts: 3})
	r.SetRunFor(time.Hour)
	var failed atomic.Int64
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
		r.effect(fmt.Sprintf("%d of %d", e.Meta.Attempt, e.Data.N))
		if e.Data.N == 4 && failed.Add(1) < 3 {
			return nil, errOops
		}
		return nil, nil
	})
	var left int
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[jump]) (inbox.Done, error) {
		left = r.left("a")
		r.effect(fmt.Sprintf("%d of %d", e.Meta.Attempt, e.Data.N))
		return nil, nil
	})
	r.steps("a", 1, 6)
	r.write(jump{"a", 7}, 7)
	r.write(step{"a", 8}, 8)
	r.run()
	r.until("Run has begun", r.Runs)
	r.poll(0)
	r.until("all are done", func() bool { return len(r.states()) == 0 && r.left("a") == 0 })
	want := []string{"1 of 1", "1 of 2", "1 of 3", "1 of 4", "2 of 4", "3 of 4", "1 of 5", "1 of 6", "1 of 7", "1 of 8"}
	if got := r.done(); !slices.Equal(got, want) {
		t.Errorf("effects %q, want %q", got, want)
	}
	if left != 2 {
		t.Errorf("%d events were left when that of the other type had its effect, want 2: those before it were written", left)
	}
}

// A stop lets the effect under way end, and writes down what has been; the others are for the next one.
func TestHandleSlow_that_follow_one_another_end_with_the_process(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	r.SetRunFor(time.Hour)
	third, stopping := make(chan struct{}), make(chan struct{})
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
		r.effect(fmt.Sprint(e.Data.N))
		if e.Data.N == 3 {
			close(third)
			<-stopping
		}
		return nil, nil
	})
	r.steps("a", 1, 6)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	r.until("Run has begun", r.Runs)
	r.poll(0)
	<-third
	cancel()
	close(stopping)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := r.done(); !slices.Equal(got, []string{"1", "2", "3"}) || r.left("a") != 3 {
		t.Errorf("effects %q and %d events in the queue; want the first three, and three", got, r.left("a"))
	}
	r.run()
	r.until("all are done", func() bool { return len(r.states()) == 0 })
	if got := r.done(); !slices.Equal(got, []string{"1", "2", "3", "4", "5", "6"}) {
		t.Errorf("effects %q, want each once", got)
	}
}

// An event that somebody has deleted by hand while it had its effect takes none of its key with it,
// neither those behind it nor those that it has followed.
func TestHandleSlow_whose_event_is_deleted_meanwhile(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"if it has worked": nil, "if it has failed": inbox.Permanent(errOops)} {
		for _, deleted := range []int64{1, 4} {
			t.Run(fmt.Sprintf("%s, number %d", name, deleted), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, inbox.Config{})
				r.SetRunFor(time.Hour)
				inbox.HandleSlow(r.Inbox, func(ctx context.Context, e event.Event[step]) (inbox.Done, error) {
					r.effect(fmt.Sprint(e.Data.N))
					if e.Data.N != deleted {
						return nil, nil
					}
					_, err := r.db.Exec(ctx, `delete from waiting_event where identity = (select identity from waiting_event order by seq limit 1 offset $1)`, max(0, deleted-2))
					return nil, errors.Join(err, failure)
				})
				r.steps("a", 1, 6)
				r.run()
				r.until("Run has begun", r.Runs)
				r.poll(0)
				r.until("the others are done", func() bool { return len(r.states()) == 0 || r.states()["a"] == "dead" })
				if got := r.done(); !slices.Equal(got, []string{"1", "2", "3", "4", "5", "6"}) {
					t.Errorf("effects %q, want each once", got)
				}
			})
		}
	}
}
