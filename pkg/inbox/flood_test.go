package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// flood is a rig whose handler fails every event, while broken says so.
func flood(t *testing.T, failure error) (r *rig, broken *atomic.Bool) {
	r, broken = newRig(t, inbox.Config{Attempts: 2}), &atomic.Bool{}
	broken.Store(true)
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if broken.Load() {
			return failure
		}
		return r.onStep(ctx, tx, e)
	})
	inbox.Handle(r.Inbox, r.onJump)
	return r, broken
}

func (r *rig) waiting(state string) int {
	return r.count(`select count(*) from waiting_key where state = $1`, state)
}

func TestFlood_a_bug_that_fails_every_event_makes_few_dead_letters(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"at once": inbox.Permanent(errOops), "after the last attempt": errOops} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, broken := flood(t, failure)
			const keys = 300
			for n := range keys {
				r.steps(fmt.Sprintf("k%d", n), 1, 2)
			}
			r.write(jump{"other", 1}, 1)
			r.run()
			r.poll(0)
			r.until("all that is not dead is unavailable", func() bool { return r.waiting("dead")+r.waiting("unavailable") == keys })
			if dead := r.waiting("dead"); dead == 0 || dead > 20 {
				t.Errorf("%d keys are dead, want 1 to 20", dead)
			}
			if got := of(r.done(), "other"); len(got) != 1 {
				t.Errorf("the other type's effects are %v, want one", got)
			}
			dead := r.waiting("dead")

			broken.Store(false)
			r.until("all resume by themselves", func() bool { return r.waiting("unavailable")+r.waiting("retrying")+r.waiting("running") == 0 })
			want := 2*(keys-dead) + 1
			r.until("all of theirs are done", func() bool { return len(r.done()) >= want })
			if got := len(r.done()); got != want {
				t.Errorf("%d effects, want %d", got, want)
			}
			if now := r.waiting("dead"); now != dead {
				t.Errorf("%d keys are dead, want still %d", now, dead)
			}
		})
	}
}

func TestFlood_bad_events_among_good_ones_are_dead_letters(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	const keys = 100
	for n := range keys {
		key := fmt.Sprintf("k%d", n)
		r.steps(key, 1, 1)
		if n%2 == 0 {
			r.setFail(key+"1", inbox.Permanent(errOops))
		}
	}
	r.poll(0)
	if dead := r.waiting("dead"); dead != keys/2 {
		t.Errorf("%d keys are dead, want %d: what succeeds in between is a working handler", dead, keys/2)
	}
}

func TestFlood_one_bad_event_does_not_hold_the_mended_rest(t *testing.T) {
	t.Parallel()
	r, broken := flood(t, inbox.Permanent(errOops))
	for n := range 40 {
		r.steps(fmt.Sprintf("k%d", n), 1, 1)
	}
	r.poll(0)
	// The first that waits, which is the first to be a probe, is a bad one for good.
	bad := "k20"
	r.setFail(bad+"1", errors.New("really bad"))
	if r.states()[bad] != "unavailable" {
		t.Fatalf("%s is %s, want unavailable", bad, r.states()[bad])
	}
	broken.Store(false)
	r.run()
	r.until("all others are done", func() bool { return len(r.done()) == 19 })
	r.until("the bad one is dead", func() bool { return r.states()[bad] == "dead" })
}

// Events that are bad for good, and many of them, must not hold those that a working handler
// could do: a new one is tried now and then, and its success lets all go on.
func TestFlood_of_bad_events_does_not_hold_good_ones(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	const bad = 100
	for n := range bad {
		r.setFail(fmt.Sprintf("bad%d1", n), inbox.Permanent(errOops))
		r.steps(fmt.Sprintf("bad%d", n), 1, 1)
	}
	r.run()
	r.poll(0)
	if n := r.waiting("unavailable"); n == 0 {
		t.Fatalf("%d keys are dead, none unavailable: it is no flood", r.waiting("dead"))
	}
	good := 0
	r.until("the bad ones are dead letters", func() bool {
		good++
		r.steps(fmt.Sprintf("good%d", good), 1, 1)
		r.poll(int64(len(r.log) - 1))
		r.until("a good one is done", func() bool { return len(r.done()) == good })
		return r.waiting("dead") == bad
	})
	t.Logf("%d good ones were done meanwhile", good)
}
