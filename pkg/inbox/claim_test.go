package inbox_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// A mail server that is slow must not make two mails of one: while the effect is at work its
// claim is renewed before it has run out, and no worker, of any replica, takes the key.
func TestHandleSlow_keeps_its_claim_while_it_works(t *testing.T) {
	t.Parallel()
	const lease = 3 * time.Second // of a claim that is not renewed: a sixth
	r := newRig(t, inbox.Config{Workers: 2, Claim: 6 * lease})
	due := func() int { return r.count(`select due from waiting_key`) }
	var calls atomic.Int64
	inbox.HandleSlow(r.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
		if calls.Add(1) > 1 {
			return nil, nil
		}
		first, last := due(), 0
		r.until("the claim was renewed", func() bool { last = due(); return last != first })
		if late := time.Duration(last-first)*time.Microsecond - lease; late >= 0 {
			t.Errorf("the claim was renewed %v after it had run out", late)
		}
		return nil, nil
	})
	r.once(&calls)
}

// once has an event whose effect counts its calls, and wants one.
func (r *rig) once(calls *atomic.Int64) {
	r.Helper()
	r.steps("a", 1, 1)
	r.run()
	r.poll(0)
	r.until("it is done", func() bool { return len(r.states()) == 0 })
	if n := calls.Load(); n != 1 {
		r.Errorf("the effect ran %d times, want once", n)
	}
}

// A claim that was taken over is not its first owner's to keep: should the second one die, the key
// must be free when its lease is over.
func TestHandleSlow_keeps_no_claim_that_was_taken_over(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Workers: 2, Claim: 6 * time.Second})
	hold := make(chan struct{})
	var underWay atomic.Int64
	inbox.HandleSlow(r.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
		underWay.Add(1)
		<-hold
		return nil, nil
	})
	due := func(key string) int { return r.count(`select due from waiting_key where key = $1`, []byte(key)) }
	r.steps("a", 1, 1)
	r.steps("b", 1, 1)
	r.run()
	defer close(hold)
	r.until("Run has begun", r.Runs)
	r.poll(0)
	r.until("both are under way", func() bool { return underWay.Load() == 2 })
	if _, err := r.db.Exec(t.Context(), `update waiting_key set claim = claim + 1, due = due + 30000000 where key = $1`, []byte("a")); err != nil {
		t.Fatal(err)
	}
	taken := due("a")
	for range 2 { // one may have been under way before
		last := due("b")
		r.until("the other one was renewed", func() bool { return due("b") != last })
	}
	if now := due("a"); now != taken {
		t.Errorf("the claim that was taken over is due %d µs later than its owner has said", now-taken)
	}
}

// A claim that was taken over has another number: its first owner, which was stopped or slow,
// must not write its end over that of the second, nor free the key for a third.
func TestHandleSlow_end_of_a_claim_that_was_taken_over_is_not_written(t *testing.T) {
	t.Parallel()
	lost := lostClaim("a-1")
	r := newRig(t, inbox.Config{Workers: 3, Claim: time.Hour, Log: slog.New(lost)})
	second := newRigOn(t, r.db, inbox.Config{Workers: 3, Claim: time.Hour})
	var calls atomic.Int64
	taken, over := make(chan struct{}), make(chan struct{})
	inbox.HandleSlow(r.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
		calls.Add(1)
		first := r.count(`select claim from waiting_key`)
		r.until("the second one has taken the key", func() bool {
			if _, err := r.db.Exec(t.Context(), `update waiting_key set due = 0 where claim = $1`, first); err != nil { // the claim runs out
				t.Error(err)
			}
			select {
			case <-taken:
				return true
			default:
				return false
			}
		})
		return nil, errOops
	})
	inbox.HandleSlow(second.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
		if calls.Add(1) == 2 {
			close(taken)
			<-over
		}
		return nil, nil
	})
	r.steps("a", 1, 1)
	r.run()
	r.until("Run has begun", r.Runs)
	second.run()
	r.poll(0)
	var state string
	r.until("the first owner has ended", func() bool {
		state = r.states()["a"]
		select {
		case <-lost.seen:
			return true
		default:
			return calls.Load() > 1 && state != "running"
		}
	})
	close(over)
	if state != "running" {
		t.Errorf("the key is %s, want running still, as the second owner's", state)
	}
	r.until("it is done", func() bool { return len(r.states()) == 0 })
	if n := calls.Load(); n != 2 {
		t.Errorf("the effect ran %d times, want twice", n)
	}
}

// notice is a log that tells when the claim of an event was lost.
type notice struct {
	event string
	seen  chan struct{}
}

func lostClaim(event string) notice { return notice{event, make(chan struct{}, 1)} }

func (n notice) Enabled(context.Context, slog.Level) bool { return true }
func (n notice) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n notice) WithGroup(string) slog.Handler            { return n }
func (n notice) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		if r.Message == "claim lost" && a.Key == "event_id" && a.Value.String() == n.event {
			select {
			case n.seen <- struct{}{}:
			default:
			}
		}
		return true
	})
	return nil
}

// A mail that was sent is not sent again because its end could not be written at first.
func TestHandleSlow_an_end_that_fails_does_not_repeat_the_effect(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	var effects, ends atomic.Int64
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
		effects.Add(1)
		return func(ctx context.Context, tx *db.Tx) error {
			if ends.Add(1) < 5 {
				return errOops
			}
			return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
		}, nil
	})
	r.steps("a", 1, 1)
	r.poll(0)
	r.run()
	r.until("it is done", func() bool { return len(r.done()) == 1 })
	if n := effects.Load(); n != 1 {
		t.Errorf("the effect happened %d times, want once", n)
	}
}

// Nor does this process have an effect again that it has in hand, when the database was away or
// slow for so long that its claim has run out.
func TestHandleSlow_in_hand_is_not_picked_again(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Workers: 2, Claim: time.Hour})
	var calls atomic.Int64
	inbox.HandleSlow(r.Inbox, func(ctx context.Context, _ event.Event[step]) (inbox.Done, error) {
		if calls.Add(1) > 1 {
			return nil, nil
		}
		if _, err := r.db.Exec(ctx, `update waiting_key set due = 0`); err != nil {
			return nil, err
		}
		r.Inbox.Wake()
		r.until("the claim holds again, or somebody else has taken the key", func() bool {
			return r.count(`select due from waiting_key`) > 0
		})
		return nil, nil
	})
	r.once(&calls)
}
