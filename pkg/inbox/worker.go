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
	scoutEvery = 50 * time.Millisecond // how often due keys are looked for
	probeEvery = time.Second           // how often unavailable keys are looked for
	finishFor  = 10                    // attempts at writing the end of a slow effect
	leavePause = 4                     // attempts after which a pause is as long as that of an event without a handler
	probers    = 4                     // probes at a time, of different types: a slow one must not hold up the others
)

// Run works on what waits, in any replica, until ctx ends; it returns nil when what was in
// hand is finished. While the database is away it tries again.
func (in *Inbox) Run(ctx context.Context) error {
	unregister, err := in.observe()
	if err != nil {
		return err
	}
	defer unregister()
	var wg sync.WaitGroup
	for range in.cfg.Workers {
		wg.Go(func() { in.repeat(ctx, in.work, in.wake, 0) })
	}
	wg.Go(func() { in.repeat(ctx, in.scout, nil, scoutEvery) })
	for range probers {
		wg.Go(func() { in.repeat(ctx, in.probe, nil, scoutEvery) })
	}
	wg.Go(func() { in.repeat(ctx, in.findUnavailable, nil, probeEvery) })
	wg.Go(func() { in.repeat(ctx, in.mendDue, nil, probeEvery) })
	wg.Go(func() { in.repeat(ctx, in.clean, nil, in.cfg.Clean) })
	wg.Wait()
	return nil
}

// Wake makes a worker look for due keys now. It never blocks.
func (in *Inbox) Wake() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// repeat calls step until ctx ends: again at once while there is more to do, else when
// woken or after a pause. What a step has begun is not cut off by the end of ctx.
func (in *Inbox) repeat(ctx context.Context, step func(context.Context) (more bool, err error), wake <-chan struct{}, pause time.Duration) {
	failures, reported := 0, ""
	for ctx.Err() == nil {
		more, err := step(stopping(ctx))
		switch {
		case err != nil:
			failures++
			if text := err.Error(); text != reported {
				reported = text
				in.cfg.Log.WarnContext(ctx, "inbox waits for the database", "error", err)
			}
			wait(ctx, in.backoff(min(failures, 6)))
		case more:
			failures, reported = 0, ""
		default:
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

// scout wakes a worker when a key is due.
func (in *Inbox) scout(ctx context.Context) (bool, error) {
	var due bool
	err := in.db.QueryRow(ctx, `select exists (select 1 from waiting_key
		where group_name = $1 and state in ('retrying', 'running') and due <= now_micros())`, in.cfg.Group).Scan(&due)
	if due {
		in.Wake()
	}
	return false, err
}

// mendDue lets keys go on whose due time lies further ahead than any pause or claim does: a
// clock that has jumped since has written it, and they would wait for the jump's length.
func (in *Inbox) mendDue(ctx context.Context) (bool, error) {
	longest := max(in.cfg.MaxBackoff, in.lease()) + time.Minute
	_, err := in.db.Exec(ctx, `update waiting_key set due = now_micros() where group_name = $1 and state in ('retrying', 'running') and due > now_micros() + $2`,
		in.cfg.Group, longest.Microseconds())
	return false, err
}

// claimed is a key in a worker's hands.
type claimed struct {
	topic string
	key   []byte
	claim int64
}

// work runs the first event of a key that is due.
func (in *Inbox) work(ctx context.Context) (worked bool, err error) {
	return in.runOne(ctx, `state in ('retrying', 'running') and due <= now_micros() order by due`, nil)
}

// runOne picks a key by a condition, locks it, and runs its first event: in this transaction,
// or, if it is a slow one, under a claim after it. probe is the type whose circuit this is a
// probe of, if it is one.
func (in *Inbox) runOne(ctx context.Context, condition string, probe *string, args ...any) (worked bool, err error) {
	opened := map[int64]*item{}
	for {
		worked, unread, err := in.tryOne(ctx, condition, probe, opened, args...)
		if unread == nil {
			return worked, err
		}
		// Its schema is not known here. The registry is asked outside the transaction, which
		// must not hold the key meanwhile.
		opened[unread.seq] = in.open(ctx, unread.Record)
	}
}

// tryOne is runOne, unless the event's schema is not known and it is not in opened: then it has
// done nothing, and returns the event unread.
func (in *Inbox) tryOne(ctx context.Context, condition string, probe *string, opened map[int64]*item, args ...any) (worked bool, unread *item, err error) {
	var it, slow *item
	var span *processSpan
	var after func()
	c := claimed{}
	err = in.db.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
		row := tx.QueryRow(ctx, `select topic, key, claim from waiting_key where group_name = $1 and `+condition+` limit 1`+in.db.SkipLocked(),
			append([]any{in.cfg.Group}, args...)...)
		switch err := row.Scan(&c.topic, &c.key, &c.claim); {
		case errors.Is(err, sql.ErrNoRows):
			return nil
		case err != nil:
			return fmt.Errorf("pick a key: %w", err)
		}
		c.key = db.Bytes(c.key, false) // that of records without a key is empty
		worked = true
		in.Wake() // there may be more: let another worker look
		stored, err := in.head(ctx, tx, c.topic, c.key)
		switch {
		case err != nil:
			return err
		case stored == nil:
			return in.next(ctx, tx, c.topic, c.key)
		case opened[stored.seq] == nil && !in.codec.Knows(stored.Value):
			unread = stored
			return nil
		}
		it = in.reopen(ctx, stored, opened[stored.seq])
		it.probe = probe
		switch {
		case it.err != nil:
			after, err = in.settle(ctx, tx, it, it.err)
			return err
		case it.handler == nil && stored.meta.Type == "": // nobody handles it, which could not be told before
			after, err = in.settle(ctx, tx, it, nil)
			return err
		case it.handler == nil:
			return in.leave(ctx, tx, it)
		case !in.admit(it):
			return in.shelve(ctx, tx, it)
		case it.handler.slow != nil:
			slow = it
			c.claim++
			return in.claimKey(ctx, tx, c)
		}
		after, span, err = in.runFast(ctx, tx, it)
		return err
	})
	var broken *db.BrokenError
	switch {
	case db.IsConflict(err):
		wait(ctx, conflictPause)
		return true, nil, nil // again; nothing has been counted
	case errors.As(err, &broken) && it != nil:
		return true, nil, in.blame(ctx, it, c, err)
	case err != nil || !worked || unread != nil:
		return false, unread, err
	case slow != nil:
		return true, nil, in.runSlow(ctx, slow, c)
	}
	if span != nil {
		in.attempt(ctx, span)
	}
	if after != nil {
		after()
	}
	return true, nil, nil
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
