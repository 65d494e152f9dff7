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

// claimKey marks a key as running, for others to leave alone until the claim ends.
func (in *Inbox) claimKey(ctx context.Context, tx *db.Tx, c claimed) error {
	_, err := tx.Exec(ctx, `update waiting_key set state = 'running', claim = $4, due = now_micros() + $5 where group_name = $1 and topic = $2 and key = $3`,
		in.cfg.Group, c.topic, c.key, c.claim, in.lease().Microseconds())
	if err != nil {
		return fmt.Errorf("claim a key: %w", err)
	}
	return nil
}

// lease is how long a claim lasts that is not renewed.
func (in *Inbox) lease() time.Duration { return in.cfg.Claim / 6 }

// renew keeps a claim until stop is called or somebody else has the key. done stops it too,
// and waits for it.
func (in *Inbox) renew(ctx context.Context, c claimed) (stop context.CancelFunc, done func()) {
	until, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(in.lease() / 3)
		defer tick.Stop()
		for {
			select {
			case <-until.Done():
				return
			case <-tick.C:
			}
			// Not under until: its end must not break a connection in the middle of a statement.
			n, err := in.db.Exec(ctx, `update waiting_key set due = now_micros() + $5
				where group_name = $1 and topic = $2 and key = $3 and claim = $4 and state = 'running'`,
				in.cfg.Group, c.topic, c.key, c.claim, in.lease().Microseconds())
			if err == nil && n == 0 {
				return
			}
		}
	})
	return stop, func() { stop(); wg.Wait() }
}

// runSlow runs an effect outside any transaction and then writes its end, if the claim still
// holds. A database that is away meanwhile is waited for: the effect has happened.
func (in *Inbox) runSlow(ctx context.Context, it *item, c claimed) error {
	hctx, cancel := context.WithTimeout(ctx, in.cfg.Claim)
	defer cancel()
	stop, done := in.renew(ctx, c)
	defer done()
	expire := time.AfterFunc(in.cfg.Claim, stop)
	sctx, span := in.span(hctx, it)
	var rest Done
	var broken *db.BrokenError
	failure := guard(func() (err error) {
		rest, err = it.handler.slow(sctx, it.delivery(span))
		return err
	})
	span.done(failure)
	expire.Stop() // in time: the claim is kept until the end is written
	for attempt := 1; ; attempt++ {
		after, err := in.finish(ctx, it, c, rest, failure, attempt >= finishFor)
		switch {
		case err == nil && after == nil: // the claim was lost
			span.finish()
			return nil
		case err == nil:
			in.attempt(ctx, span)
			after()
			return nil
		case errors.As(err, &broken) && attempt >= finishFor: // what is to be written loses its transaction
			rest, failure = nil, err
		}
		if stopped(ctx) && attempt >= finishFor {
			return err
		}
		in.cfg.Log.WarnContext(ctx, "a slow effect's end cannot be written yet", "key", it.meta.Subject, "error", err)
		wait(ctx, in.backoff(min(attempt, 5)))
	}
}

// finish ends a claim. If the key's claim number has moved on, somebody else has the key; if it
// is not running any more, or the event has gone, the claim has been ended: by an earlier
// attempt whose commit was not answered, or by who took it over. Then nothing is written. The
// number alone does not tell: a key that waits anew counts from the beginning.
//
// The effect has happened by then, so that an error of done is no reason to have it again: it is
// returned, for another attempt at the end alone. Only the last one counts it as a failure.
func (in *Inbox) finish(ctx context.Context, it *item, c claimed, done Done, failure error, last bool) (after func(), err error) {
	err = in.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		var claim int64
		var now string
		row := tx.QueryRow(ctx, `select claim, state from waiting_key where group_name = $1 and topic = $2 and key = $3
			and exists (select 1 from waiting_event where seq = $4 and not set_aside)`+tx.ForUpdate(), in.cfg.Group, c.topic, c.key, it.seq)
		switch err := row.Scan(&claim, &now); {
		case errors.Is(err, sql.ErrNoRows), err == nil && (claim != c.claim || state(now) != running):
			in.cfg.Log.WarnContext(ctx, "claim lost", "topic", it.Topic, "key", it.meta.Subject, "event_id", it.meta.ID)
			after = nil
			return nil
		case err != nil:
			return err
		}
		result := failure
		if result == nil && done != nil {
			result = tx.Savepoint(ctx, func() error { return guard(func() error { return done(ctx, tx) }) })
			if result != nil && (in.lost(ctx, result) || !last && !classed(result)) {
				return result
			}
		}
		it := *it // a repetition must not count the attempt twice
		after, err = in.settle(ctx, tx, &it, result)
		return err
	})
	return after, err
}
