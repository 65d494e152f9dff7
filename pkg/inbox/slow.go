package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"example.com/keyline/pkg/db"
)

// effect is a slow event in this process's hands: its key is claimed.
type effect struct {
	*item
	claimed
	begun  any            // what the handler's begin has made of it, and then what its do has left to write
	ran    []*processSpan // of the key's events before it, whose effects have worked and whose ends it writes
	behind []*item        // the key's next events, as they are stored, which may follow at once
	bytes  int            // of all of them, while it has a slot

	// Under effects.mu once it is held.
	kept  time.Time // when its claim was last known to hold
	until time.Time // when its time is over; zero before it has begun and once it has ended

	failure error // of the effect
	span    *processSpan
	last    bool // the next attempt at writing the end is the last one

	// What became of the end.
	after func()  // what to do after the commit; nil: the claim was lost, nothing was written
	again error   // the end could not be written, and is to be tried again
	next  *effect // the key's next event, claimed in the same transaction
}

// newClaim is a claim number that no other claim has. That of a key's next event is one more.
func newClaim() int64 { return rand.Int64N(1<<62) + 1 }

// claimKey marks a key as running, for others to leave alone until the claim ends.
func (in *Inbox) claimKey(ctx context.Context, tx *db.Tx, c claimed) error {
	_, err := tx.Exec(ctx, `update waiting_key set state = 'running', claim = $4, due = now_micros() + $5 where group_name = $1 and topic = $2 and key = $3`,
		in.cfg.Group, c.topic, c.key, c.claim, in.lease().Microseconds())
	if err != nil {
		return fmt.Errorf("claim a key: %w", err)
	}
	return nil
}

// unclaim lets others have keys of one topic whose events have not been tried, if they are claimed.
func (in *Inbox) unclaim(ctx context.Context, all ...*effect) error {
	if len(all) == 0 {
		return nil
	}
	claims := make([]int64, len(all))
	for i, r := range all {
		claims[i] = r.claim
	}
	withKey, keyArg := in.db.In("key", 3, claimedKeys(all))
	withClaim, claimArg := in.db.In("claim", 4, claims)
	_, err := in.db.Exec(ctx, `update waiting_key set state = 'retrying', due = now_micros() where group_name = $1 and topic = $2 and state = 'running' and `+withKey+` and `+withClaim,
		in.cfg.Group, all[0].topic, keyArg, claimArg)
	if err != nil {
		return fmt.Errorf("give claims back: %w", err)
	}
	in.Wake()
	return nil
}

// stillMine reports whether an effect whose turn has come may begin. It may have waited for long:
// its claim may have run out, or what it needs be down by now.
func (in *Inbox) stillMine(r *effect) bool {
	if time.Since(in.effects.keptAt(r)) > in.lease() {
		return false
	}
	ok, _ := in.breaker.admits(r.meta.Type)
	return ok || r.probe != nil
}

// lease is how long a claim lasts that is not renewed.
func (in *Inbox) lease() time.Duration { return in.cfg.Claim / 6 }

// runSlow runs an effect outside any transaction and then writes its end, if the claim still
// holds. A database that is away meanwhile is waited for: the effect has happened. The key's next
// event follows.
func (in *Inbox) runSlow(ctx context.Context, r *effect) error {
	in.effects.hold(r)
	defer in.effects.drop(r)
	if !in.effects.begin(ctx, r, in.cfg.Claim+in.runFor) {
		return in.unclaim(ctx, r)
	}
	if !in.stillMine(r) {
		in.effects.end(r)
		return in.unclaim(ctx, r)
	}
	in.do(ctx, r)
	for first := r.span.start; time.Since(first) < in.runFor && in.stillMine(r) && in.goOn(ctx, r); {
		in.do(ctx, r)
	}
	r.behind = nil // writing the end may take long
	in.effects.end(r)
	return in.writeEnd(ctx, r)
}

// do has one effect.
func (in *Inbox) do(ctx context.Context, r *effect) {
	ctx, cancel := context.WithTimeout(ctx, in.cfg.Claim)
	defer cancel()
	ctx, r.span = in.span(ctx, r.item)
	r.failure = guard(func() (err error) {
		r.begun, err = r.handler.slow.do(ctx, r.delivery(r.span), r.begun)
		return err
	})
	r.span.done(r.failure)
}

// writeEnd ends a claim, whatever it takes, and starts what comes next.
func (in *Inbox) writeEnd(ctx context.Context, r *effect) error {
	var broken *db.BrokenError
	for attempt := 1; ; attempt++ {
		var err error
		if r.last = attempt >= finishFor; attempt == 1 {
			err = in.enders(r.topic).Do(ctx, r)
		} else { // alone: another one may be at fault
			err = in.end(ctx, []*effect{r})
		}
		if err = cmp.Or(err, r.again); err == nil {
			break
		}
		if errors.As(err, &broken) && r.last { // what is to be written loses its transaction
			r.failure = err
		}
		if stopped(ctx) && r.last {
			return err
		}
		in.cfg.Log.WarnContext(ctx, "a slow effect's end cannot be written yet", "key", short(r.meta.Subject), "error", err)
		wait(ctx, in.backoff(min(attempt, 5)))
	}
	for _, s := range append(r.ran, r.span) {
		if r.after == nil {
			s.finish()
			continue
		}
		in.attempt(ctx, s)
	}
	if r.after == nil {
		return nil
	}
	r.after()
	if r.next != nil {
		in.follow(r.next)
	}
	return nil
}

// follow runs an effect that has a slot, after the transaction that has claimed its key.
func (in *Inbox) follow(r *effect) {
	in.effects.start(r, func(ctx context.Context) {
		if err := in.runSlow(ctx, r); err != nil {
			in.cfg.Log.WarnContext(ctx, "a slow effect is left to who takes its key over", "key", short(r.meta.Subject), "error", err)
		}
	})
}

// begin has the handler of effects write down that they are about to happen.
func (in *Inbox) begin(ctx context.Context, tx *db.Tx, all []*effect) error {
	if all[0].handler.slow.begin == nil {
		return nil
	}
	ds := make([]delivery, len(all))
	for i, r := range all {
		ds[i] = r.delivery(&processSpan{sc: r.producer})
	}
	var begun []any
	err := guard(func() (err error) {
		begun, err = all[0].handler.slow.begin(ctx, tx, ds)
		return err
	})
	if err != nil {
		return err
	}
	for i, r := range all {
		r.begun = begun[i]
	}
	return nil
}

// The bounds of the effects that follow one another before they are written as done, which spares
// the commits in between: a crash repeats those.
const (
	runFor  = 20 * time.Millisecond // none begins later than this after the first
	runMost = 8
)

// goOn makes the key's next event r, if its effect may follow at once: nothing is left to be written
// of the one before, and it is of the same type, which needs nothing that has just been missed.
func (in *Inbox) goOn(ctx context.Context, r *effect) bool {
	if r.failure != nil || !r.quiet() || len(r.behind) == 0 || stopped(ctx) || in.asks(ctx, r.behind[0].Record) {
		return false
	}
	next := in.reopen(ctx, r.behind[0], nil)
	if next.err != nil || next.handler != r.handler {
		return false
	}
	r.ran = append(r.ran, r.span)
	r.item, r.behind = next, r.behind[1:]
	return true
}

// quiet reports whether nothing is to be written of r but that it is done.
func (r *effect) quiet() bool { return r.handler.slow.begin == nil && r.begun == nil }

// quick reports whether effects like r may follow one another.
func (in *Inbox) quick(r *effect) bool {
	return r.failure == nil && r.quiet() && r.probe == nil && r.span.end.Sub(r.span.start) < in.runFor
}

// admitsSlow reports whether an effect may follow at once: nothing is known to be down that it
// needs, and there is room for it.
func (in *Inbox) admitsSlow(r *effect) bool {
	ok, probe := in.breaker.admits(r.meta.Type)
	return ok && !probe && in.effects.reserve(r)
}

type stopKey struct{}

// stopping is a context that goes on when ctx ends, and remembers it.
func stopping(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), stopKey{}, ctx)
}

func stopped(ctx context.Context) bool {
	parent, ok := ctx.Value(stopKey{}).(context.Context)
	return ok && parent.Err() != nil
}
