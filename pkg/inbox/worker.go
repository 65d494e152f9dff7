package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"example.com/keyline/pkg/db"
)

const (
	scoutEvery  = 50 * time.Millisecond // how often due keys are looked for
	probeEvery  = time.Second           // how often unavailable keys are looked for
	finishFor   = 10                    // attempts at writing the end of a slow effect
	leavePause  = 4                     // an event without a handler waits for as long as after so many failures
	keepTimeout = 2 * time.Second
	probers     = 4 // probes at a time, of different types: a slow one must not hold up the others
)

// Run works on what waits, in any replica, until ctx ends; it returns nil when what was in
// hand is finished. While the database is away it tries again.
func (in *Inbox) Run(ctx context.Context) error {
	unregister, err := in.observe()
	if err != nil {
		return err
	}
	defer unregister()
	in.effects.open(stopping(ctx))
	renewing, renewed := context.WithCancel(context.WithoutCancel(ctx))
	var renewer sync.WaitGroup
	renewer.Go(func() { in.renew(renewing) })
	var wg sync.WaitGroup
	for range in.cfg.Workers {
		wg.Go(func() {
			select { // not at once: the scout wakes one, who wakes the next if there is work
			case <-ctx.Done():
			case <-in.wake:
				in.repeat(ctx, in.workAll, in.wake, 0)
			}
		})
	}
	wg.Go(func() { in.repeat(ctx, in.scout, nil, scoutEvery) })
	for range probers {
		wg.Go(func() { in.repeat(ctx, in.probe, nil, scoutEvery) })
	}
	wg.Go(func() { in.repeat(ctx, in.findUnavailable, nil, probeEvery) })
	wg.Go(func() { in.repeat(ctx, in.mendDue, nil, probeEvery) })
	wg.Go(func() { in.repeat(ctx, in.clean, nil, in.cfg.Clean) })
	wg.Wait()
	in.effects.close()
	renewed()
	renewer.Wait()
	// The consumer has stopped before: nothing is noted any more.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepTimeout)
	defer cancel()
	err = in.beginCleaning(last)
	if err == nil {
		defer in.endCleaning()
		err = in.keepTaken(last)
	}
	if err != nil {
		in.cfg.Log.WarnContext(ctx, "not kept at the end", "error", err)
	}
	return nil
}

// Wake makes a worker look for due keys now. It never blocks.
func (in *Inbox) Wake() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// repeat calls step until ctx ends, when woken or after a pause. What a step has begun is not cut
// off by the end of ctx.
func (in *Inbox) repeat(ctx context.Context, step func(context.Context) error, wake <-chan struct{}, pause time.Duration) {
	failures, reported := 0, ""
	for ctx.Err() == nil {
		if err := step(stopping(ctx)); err != nil {
			failures++
			if text := err.Error(); text != reported {
				reported = text
				in.cfg.Log.WarnContext(ctx, "inbox waits for the database", "error", err)
			}
			wait(ctx, in.backoff(min(failures, 6)))
			continue
		}
		failures, reported = 0, ""
		var timer <-chan time.Time
		if pause > 0 {
			timer = time.After(pause)
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer:
		}
	}
}

// scout wakes a worker when a key is due.
func (in *Inbox) scout(ctx context.Context) error {
	var due bool
	err := in.db.QueryRow(ctx, `select exists (select 1 from waiting_key
		where group_name = $1 and state in ('retrying', 'running') and due <= now_micros())`, in.cfg.Group).Scan(&due)
	if due {
		in.Wake()
	}
	return err
}

// mendDue lets keys go on whose due time lies further ahead than any pause or claim does: a
// clock that has jumped since has written it, and they would wait for the jump's length.
func (in *Inbox) mendDue(ctx context.Context) error {
	longest := max(in.cfg.MaxBackoff, in.lease()) + time.Minute
	_, err := in.db.Exec(ctx, `update waiting_key set due = now_micros() where group_name = $1 and state in ('retrying', 'running') and due > now_micros() + $2`,
		in.cfg.Group, longest.Microseconds())
	return err
}

// workAll runs the first events of keys that are due, one after the other. A failure behind one that
// has worked counts when it comes again: else those that come now and then would add up.
func (in *Inbox) workAll(ctx context.Context) error {
	for worked := false; !stopped(ctx); worked = true {
		more, err := in.runOne(ctx, `state in ('retrying', 'running') and due <= now_micros() order by due`, nil)
		if err != nil && worked {
			in.Wake()
			return nil
		}
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// runOne picks a key by a condition, locks it, and runs its first event: in this transaction,
// or, if it is a slow one, under a claim after it. probe is the type whose circuit this is a
// probe of, if it is one.
func (in *Inbox) runOne(ctx context.Context, condition string, probe *string, args ...any) (worked bool, err error) {
	opened := map[int64]*item{}
	for {
		t := trying{Inbox: in, probe: probe, opened: opened}
		err := in.db.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
			worked, err := t.pick(ctx, tx, condition, args...)
			if err != nil || !worked {
				return err
			}
			return t.run(ctx, tx)
		})
		if err != nil || t.unread == nil {
			return t.end(ctx, err)
		}
		// Its schema is not known here, or doubted. The registry is asked outside the transaction, which
		// must not hold the key meanwhile.
		opened[t.unread.seq] = in.open(ctx, t.unread.Record)
	}
}

// trying is one transaction of a worker.
type trying struct {
	*Inbox
	probe  *string
	opened map[int64]*item // events whose schemas had to be asked for

	claimed
	picked bool
	unread *item   // its schema has to be asked for, and it is not in opened: nothing has been done
	it     *item   // what was tried
	slow   *effect // it is claimed, and runs after the commit
	span   *processSpan
	after  func() // what to do after the commit
}

// pick locks a key; false if there is none.
func (t *trying) pick(ctx context.Context, tx *db.Tx, condition string, args ...any) (bool, error) {
	var found string
	row := tx.QueryRow(ctx, `select topic, key, claim, state from waiting_key where group_name = $1 and `+condition+` limit 1`+t.db.SkipLocked(),
		append([]any{t.cfg.Group}, args...)...)
	switch err := row.Scan(&t.topic, &t.key, &t.claim, &found); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("pick a key: %w", err)
	}
	t.key = db.Bytes(t.key, false) // that of records without a key is empty
	t.Wake()                       // there may be more: let another worker look
	if state(found) == running {
		if r := t.effects.holder(t.claimed); r != nil {
			return false, t.keepHeld(ctx, tx, r)
		}
	}
	t.picked = true
	return true, nil
}

// run runs the key's first event.
func (t *trying) run(ctx context.Context, tx *db.Tx) error {
	stored, err := t.head(ctx, tx, t.topic, t.key)
	switch {
	case err != nil:
		return err
	case stored == nil:
		return t.next(ctx, tx, t.topic, t.key)
	case t.opened[stored.seq] == nil && t.asks(ctx, stored.Record):
		t.unread = stored
		return nil
	}
	it := t.reopen(ctx, stored, t.opened[stored.seq])
	it.probe = t.probe
	t.it = it
	switch {
	case it.err != nil:
		t.after, err = t.settle(ctx, tx, it, it.err)
		return err
	case it.handler == nil && stored.meta.Type == "": // nobody handles it, which could not be told before
		t.after, err = t.settle(ctx, tx, it, nil)
		return err
	case it.handler == nil:
		return t.leave(ctx, tx, it)
	case !t.admit(it):
		return t.shelve(ctx, tx, it)
	case it.handler.slow != nil:
		return t.runNext(ctx, tx, it)
	}
	t.after, t.span, err = t.runFast(ctx, tx, it)
	return err
}

// runNext claims the key of a slow event, which runs after the commit.
func (t *trying) runNext(ctx context.Context, tx *db.Tx, it *item) error {
	next := t.claimed
	next.claim = newClaim()
	r := &effect{item: it, claimed: next, kept: time.Now()}
	failure := tx.Savepoint(ctx, func() error { return t.begin(ctx, tx, []*effect{r}) })
	switch {
	case failure == nil:
		t.slow = r
		return t.claimKey(ctx, tx, next)
	case t.lost(ctx, failure):
		return failure
	}
	var err error
	t.after, err = t.settle(ctx, tx, it, failure)
	return err
}

// end does what comes after the transaction, which may have failed.
func (t *trying) end(ctx context.Context, err error) (worked bool, _ error) {
	var broken *db.BrokenError
	switch {
	case db.IsConflict(err):
		wait(ctx, conflictPause)
		return true, nil // again; nothing has been counted
	case errors.As(err, &broken) && t.it != nil:
		return true, t.blame(ctx, t.it, t.claimed, err)
	case err != nil || !t.picked:
		return false, err
	case t.slow != nil:
		return true, t.runSlow(ctx, t.slow)
	}
	if t.span != nil {
		t.attempt(ctx, t.span)
	}
	if t.after != nil {
		t.after()
	}
	return true, nil
}

// leave lets an event wait for another version of the service: it was taken by one that handles
// its type, which this one does not.
func (in *Inbox) leave(ctx context.Context, tx *db.Tx, it *item) error {
	_, err := tx.Exec(ctx, `update waiting_event set error = $2 where seq = $1`, it.seq, "this version of the service has no handler for it: it waits for one that has")
	if err == nil {
		_, err = tx.Exec(ctx, `update waiting_key set due = now_micros() + $4 where group_name = $1 and topic = $2 and key = $3`,
			in.cfg.Group, it.Topic, it.keyBytes(), in.backoff(leavePause).Microseconds())
	}
	return err
}

// blame counts an attempt of an event whose handler has lost its transaction, be it that it
// took too long: without that it would be the first to be tried again, for ever. If the
// database is away, this fails too, and nothing is counted.
func (in *Inbox) blame(ctx context.Context, it *item, c claimed, failure error) error {
	var after func()
	err := in.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		var claim int64
		row := tx.QueryRow(ctx, `select claim from waiting_key where group_name = $1 and topic = $2 and key = $3`+tx.ForUpdate(), in.cfg.Group, c.topic, c.key)
		err := row.Scan(&claim)
		if errors.Is(err, sql.ErrNoRows) || err == nil && claim != c.claim {
			return nil // somebody else has it
		}
		if err != nil {
			return err
		}
		head, err := in.head(ctx, tx, c.topic, c.key)
		if err != nil || head == nil || head.seq != it.seq {
			return err
		}
		again := *it // InTx may run this twice
		after, err = in.settle(ctx, tx, &again, failure)
		return err
	})
	if err == nil && after != nil {
		after()
	}
	return err
}

// runFast runs an event in the transaction that removes it.
func (in *Inbox) runFast(ctx context.Context, tx *db.Tx, it *item) (after func(), span *processSpan, err error) {
	hctx, span := in.span(ctx, it)
	failure := tx.Savepoint(ctx, func() error {
		return guard(func() error {
			if it.handler.batch != nil {
				return it.handler.batch(hctx, tx, []delivery{it.delivery(span)})
			}
			return it.handler.one(hctx, tx, it.delivery(span))
		})
	})
	if in.lost(ctx, failure) {
		return nil, nil, failure
	}
	span.done(failure)
	after, err = in.settle(ctx, tx, it, failure)
	return after, span, err
}

// settle writes what became of an attempt, and returns what to do after the commit.
func (in *Inbox) settle(ctx context.Context, tx *db.Tx, it *item, failure error) (after func(), err error) {
	if failure == nil {
		return func() { in.reached(ctx, it, nil) }, in.remove(ctx, tx, it)
	}
	v := in.judge(it, failure)
	if err := in.keep(ctx, tx, it, &v); err != nil {
		return nil, err
	}
	return func() {
		in.failed(ctx, it, &v)
		in.reached(ctx, it, &v)
	}, nil
}
