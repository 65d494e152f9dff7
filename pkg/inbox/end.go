package inbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"example.com/keyline/pkg/db"
)

// endLinger is for the ends of effects that have begun together.
const endLinger = 2 * time.Millisecond

// enders are the effects of a topic whose ends are to be written now.
func (in *Inbox) enders(topic string) *db.GroupCommit[*effect] {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ending[topic] == nil {
		in.ending[topic] = db.NewGroupCommit(endLinger, maxTake, func(*effect) int { return 1 }, in.end)
	}
	return in.ending[topic]
}

// end writes the ends of effects of one topic, in one transaction. If it fails it is run again, with
// the handlers one by one: it may be one event's fault.
func (in *Inbox) end(ctx context.Context, all []*effect) error {
	e := &ending{Inbox: in, topic: all[0].topic, all: all}
	defer e.release()
	err := in.db.InTx(ctx, e.run)
	if err != nil && ctx.Err() == nil {
		// The commit may have come about all the same: then nobody would follow what it claimed.
		_ = in.unclaim(ctx, e.reserved...) // else its lease runs out
		e.oneByOne = true
		err = in.db.InTx(ctx, e.run)
	}
	if err != nil {
		for _, r := range all {
			r.next = nil
		}
	}
	return err
}

// ending is one transaction that writes ends.
type ending struct {
	*Inbox
	topic    string
	all      []*effect
	oneByOne bool               // the handlers run, each with a way back
	queues   map[*effect]*queue // of those that are still claimed
	reserved []*effect          // next ones, with slots that are theirs only after the commit
}

// release gives back the slots of what will not run.
func (e *ending) release() {
	for _, next := range e.reserved {
		if !slices.ContainsFunc(e.all, func(r *effect) bool { return r.next == next }) {
			e.effects.free(next)
		}
	}
	e.reserved = nil
}

// run ends claims. If a key's claim number has moved on, somebody else has the key; if it is not
// running any more, the claim has been ended: by an earlier attempt whose commit was not answered, or
// by who took it over. Then nothing is written.
//
// The effect has happened by then, so that an error of the handler's end is no reason to have it
// again: it is another attempt at the end alone. Only the last one counts it as a failure.
func (e *ending) run(ctx context.Context, tx *db.Tx) error {
	for _, r := range e.all {
		r.after, r.again, r.next = nil, nil, nil
	}
	e.release() // a transaction that was run before may have reserved some
	if err := e.lock(ctx, tx); err != nil {
		return err
	}
	var worked, gone []*effect
	for _, r := range e.all {
		switch q := e.queues[r]; {
		case q == nil:
		case q.own == 0:
			gone = append(gone, r)
			if err := e.remove(ctx, tx, q.ran); err != nil {
				return err
			}
		case r.failure == nil:
			worked = append(worked, r)
		default:
			if err := e.settleSlow(ctx, tx, r, r.failure); err != nil {
				return err
			}
		}
	}
	done, err := e.endAll(ctx, tx, worked)
	if err != nil {
		return err
	}
	done = append(done, gone...)
	for _, r := range done {
		r.after = func() { e.reached(ctx, r.item, nil) }
	}
	if err := e.goOn(ctx, tx, done); err != nil {
		return err
	}
	for _, r := range e.all {
		if r.after == nil && r.again == nil {
			tx.AfterCommit(func() {
				e.cfg.Log.WarnContext(ctx, "claim lost", "topic", r.Topic, "key", short(r.meta.Subject), "event_id", r.meta.ID)
			})
		}
	}
	return nil
}

// endAll deletes events whose effects have worked and has their handlers write it down. It returns
// those of which that was possible.
func (e *ending) endAll(ctx context.Context, tx *db.Tx, worked []*effect) (done []*effect, err error) {
	if !e.oneByOne {
		return worked, e.endSome(ctx, tx, worked)
	}
	for _, r := range worked {
		err := tx.Savepoint(ctx, func() error {
			return e.endSome(ctx, tx, []*effect{r})
		})
		switch {
		case err == nil:
			done = append(done, r)
		case e.lost(ctx, err):
			return nil, err
		case !r.last && !classed(err):
			r.again = err
		default:
			if err := e.settleSlow(ctx, tx, r, err); err != nil {
				return nil, err
			}
		}
	}
	return done, nil
}

func (e *ending) endSome(ctx context.Context, tx *db.Tx, worked []*effect) error {
	var seqs []int64
	var end []*effect
	for _, r := range worked {
		q := e.queues[r]
		seqs = append(append(seqs, q.ran...), q.own)
		if !r.quiet() {
			end = append(end, r)
		}
	}
	if err := e.remove(ctx, tx, seqs); err != nil {
		return err
	}
	for _, batch := range byHandler(end) {
		ds, left := make([]delivery, len(batch)), make([]any, len(batch))
		for i, r := range batch {
			ds[i], left[i] = r.delivery(r.span), r.begun
		}
		if err := guard(func() error { return batch[0].handler.slow.end(ctx, tx, ds, left) }); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes events of queues.
func (e *ending) remove(ctx context.Context, tx *db.Tx, seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	cond, arg := tx.In("seq", 1, seqs)
	if err := tx.ExecLater(ctx, `delete from waiting_event where `+cond, arg); err != nil {
		return fmt.Errorf("delete events that are done: %w", err)
	}
	return nil
}

// settleSlow writes a failure, and that what came before it has worked.
func (e *ending) settleSlow(ctx context.Context, tx *db.Tx, r *effect, failure error) error {
	q := e.queues[r]
	if err := e.remove(ctx, tx, q.ran); err != nil {
		return err
	}
	it := *r.item // a repetition must not count the attempt twice
	it.seq = q.own
	var err error
	r.after, err = e.settle(ctx, tx, &it, failure)
	return err
}

// goOn lets keys whose events are done go on. A row goes if its queue is empty. Else the next event
// is due; if it is a slow one, too, it is claimed at once, and follows this transaction.
func (e *ending) goOn(ctx context.Context, tx *db.Tx, done []*effect) error {
	if len(done) == 0 {
		return nil
	}
	var empty, due, claimed [][]byte
	var going []*effect // the next ones that follow
	for _, r := range done {
		switch q := e.queues[r]; {
		case q.after == 0:
			empty = append(empty, r.claimed.key)
		case e.claimNext(ctx, r, q.next):
			going, claimed = append(going, r.next), append(claimed, r.claimed.key)
		default:
			due = append(due, r.claimed.key)
		}
	}
	for _, batch := range byHandler(going) {
		if err := e.begin(ctx, tx, batch); err != nil {
			return err
		}
	}
	if len(due) > 0 {
		tx.AfterCommit(e.Wake)
	}
	for _, w := range []struct {
		keys  [][]byte
		query string
		args  []any
	}{
		{empty, `delete from waiting_key`, nil},
		{due, `update waiting_key set state = 'retrying', due = now_micros()`, nil},
		{claimed, `update waiting_key set claim = claim + 1, due = now_micros() + $4`, []any{e.lease().Microseconds()}},
	} {
		if len(w.keys) == 0 {
			continue
		}
		cond, arg := tx.In("key", 3, w.keys)
		if err := tx.ExecLater(ctx, w.query+` where group_name = $1 and topic = $2 and `+cond, append([]any{e.cfg.Group, e.topic, arg}, w.args...)...); err != nil {
			return fmt.Errorf("let keys go on: %w", err)
		}
	}
	return nil
}

// claimNext sets r.next if the key's next event may follow at once.
func (e *ending) claimNext(ctx context.Context, r *effect, queue []*item) bool {
	// One that cannot begin is not the fault of the one before.
	if e.oneByOne || len(queue) == 0 || stopped(ctx) || e.asks(ctx, queue[0].Record) {
		return false
	}
	it := e.reopen(ctx, queue[0], nil)
	if it.err != nil || it.handler == nil || it.handler.slow == nil {
		return false
	}
	next := &effect{item: it, claimed: claimed{r.topic, r.claimed.key, r.claim + 1}, kept: time.Now()}
	if e.quick(r) && it.handler.slow.begin == nil {
		next.behind = queue[1:]
	}
	if !e.admitsSlow(next) {
		return false
	}
	r.next, e.reserved = next, append(e.reserved, next)
	return true
}

// claimedKeys are the keys of effects.
func claimedKeys(all []*effect) [][]byte {
	keys := make([][]byte, len(all))
	for i, r := range all {
		keys[i] = r.claimed.key
	}
	return keys
}
