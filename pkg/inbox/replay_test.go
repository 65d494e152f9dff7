package inbox_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// repeatable is a rig whose handler of steps may run again, unlike that of jumps.
func repeatable(t *testing.T) *rig {
	r := newRig(t, inbox.Config{})
	inbox.Handle(r.Inbox, func(_ context.Context, tx *db.Tx, e event.Event[step]) error {
		r.committed(tx, fmt.Sprint(e.Data.Agg, e.Data.N))
		return nil
	}, inbox.SkipDead, inbox.Repeatable)
	inbox.Handle(r.Inbox, r.onJump)
	r.steps("a", 1, 2)
	r.steps("b", 1, 1)
	r.write(jump{"c", 1}, 1)
	r.raw(event.Record{Key: []byte("d"), Value: []byte("junk")})
	return r
}

func TestReplay(t *testing.T) {
	t.Parallel()
	t.Run("runs the events of repeatable handlers again, in order", func(t *testing.T) {
		t.Parallel()
		r := repeatable(t)
		r.poll(0)
		got, err := r.Replay(t.Context(), r.batch(0, 0), "", false)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got.Matched, map[string]int{"test.Step": 3, "test.Jump": 1, "(unreadable)": 1}); diff != "" || got.Queued != 3 {
			t.Errorf("queued %d, matched %s", got.Queued, diff)
		}
		if !strings.Contains(got.Refused["test.Jump"], "Repeatable") || got.Refused["(unreadable)"] == "" || len(got.Refused) != 2 {
			t.Errorf("refused %v, want test.Jump and what cannot be read", got.Refused)
		}
		r.run()
		r.until("all three have run again", func() bool { return r.count(`select count(*) from waiting_key`) == 0 && len(r.done()) == 7 })
		if diff := cmp.Diff(of(r.done(), "a"), []string{"a1", "a2", "a1", "a2"}); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(of(r.done(), "c"), []string{"c1"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("changes nothing when it is dry", func(t *testing.T) {
		t.Parallel()
		r := repeatable(t)
		r.poll(0)
		got, err := r.Replay(t.Context(), r.batch(0, 0), "test.Step", true)
		if err != nil || got.Queued != 0 || got.Matched["test.Step"] != 3 {
			t.Errorf("Replay = %+v, %v; want 3 steps matched, none queued", got, err)
		}
		if len(got.Matched) != 1 || len(got.Refused) != 0 {
			t.Errorf("matched %v, refused %v; want only the type that was asked for", got.Matched, got.Refused)
		}
		if n := r.count(`select count(*) from waiting_event where not set_aside`); n != 0 {
			t.Errorf("%d events wait, want none", n)
		}
	})
	t.Run("queues behind what waits", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		inbox.Handle(r.Inbox, func(_ context.Context, tx *db.Tx, e event.Event[step]) error {
			r.committed(tx, fmt.Sprint(e.Data.Agg, e.Data.N))
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.fail[fmt.Sprint(e.Data.Agg, e.Data.N)]
		}, inbox.Repeatable)
		r.steps("a", 1, 2)
		r.setFail("a2", inbox.Permanent(errOops))
		r.poll(0)
		if _, err := r.Replay(t.Context(), r.batch(0, 0), "", false); err != nil {
			t.Fatal(err)
		}
		r.setFail("a2", nil)
		d := desk{r, r.Routes()}
		d.call("POST", "/admin/waiting/redrive", `{"dry_run": false}`)
		r.run()
		r.until("all have run", func() bool { return len(r.done()) == 4 })
		if diff := cmp.Diff(r.done(), []string{"a1", "a2", "a1", "a2"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("leaves what the group has not had yet to its delivery", func(t *testing.T) {
		t.Parallel()
		r := repeatable(t)
		if got, err := r.Replay(t.Context(), r.batch(0, 0), "", false); err != nil || got.Queued != 0 {
			t.Fatalf("Replay = %+v, %v; want none queued", got, err)
		}
		r.poll(0)
		r.run()
		r.until("nothing waits", func() bool { return r.count(`select count(*) from waiting_key`) == 0 })
		if diff := cmp.Diff(of(r.done(), "a"), []string{"a1", "a2"}); diff != "" {
			t.Error(diff)
		}
	})
}

// Events that are replayed while they wait, the first with its effect under way, wait behind themselves,
// be their effects slow or so quick that they follow one another.
func TestReplay_of_an_effect_under_way(t *testing.T) {
	t.Parallel()
	for _, runFor := range []time.Duration{1, time.Hour} {
		for n := range int64(5) {
			t.Run(fmt.Sprintf("%d events, together for %v", n+1, runFor), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, inbox.Config{})
				r.SetRunFor(runFor)
				hold := make(chan struct{})
				inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
					r.effect(fmt.Sprint(e.Data.N))
					<-hold
					return nil, nil
				}, inbox.Repeatable)
				var want []string
				for i := range 2 * (n + 1) {
					want = append(want, fmt.Sprint(i%(n+1)+1))
				}
				r.steps("a", 1, n+1)
				r.run()
				r.until("Run has begun", r.Runs)
				r.poll(0)
				r.until("it is under way", func() bool { return len(r.done()) == 1 })
				if got, err := r.Replay(t.Context(), r.batch(0, 0), "", false); err != nil || int64(got.Queued) != n+1 {
					t.Errorf("Replay = %+v, %v", got, err)
				}
				close(hold)
				r.until("nothing waits", func() bool { return len(r.states()) == 0 })
				if diff := cmp.Diff(want, r.done()); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}
