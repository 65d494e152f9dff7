package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// enders are the effects of a topic whose ends are to be written now.
func (in *Inbox) enders(topic string) *db.GroupCommit[*effect] {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ending[topic] == nil {
		in.ending[topic] = db.NewGroupCommit(maxTake, func(*effect) int { return 1 }, in.end)
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
	oneByOne bool      // the handlers run, each with a way back
	reserved []*effect // next ones, with slots that are theirs only after the commit
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
// running any more, or the event has gone, the claim has been ended: by an earlier attempt whose
// commit was not answered, or by who took it over. Then nothing is written.
//
// The effect has happened by then, so that an error of the handler's end is no reason to have it
// again: it is another attempt at the end alone. Only the last one counts it as a failure.
func (e *ending) run(ctx context.Context, tx *db.Tx) error {
	for _, r := range e.all {
		r.after, r.again, r.next = nil, nil, nil
	}
	e.release() // a transaction that was run before may have reserved some
	mine, err := e.lock(ctx, tx)
	if err != nil {
		return err
	}
	var worked, done []*effect
	for _, r := range mine {
		if r.failure == nil {
			worked = append(worked, r)
		} else if err := e.settleSlow(ctx, tx, r, r.failure); err != nil {
			return err
		}
	}
	if done, err = e.endAll(ctx, tx, worked); err != nil {
		return err
	}
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

// lock locks the keys, and returns what is still claimed.
func (e *ending) lock(ctx context.Context, tx *db.Tx) (mine []*effect, err error) {
	type row struct {
		key   []byte
		claim int64
		state string
	}
	cond, arg := tx.In("key", 3, claimedKeys(e.all))
	rows, err := tx.Query(ctx, `select key, claim, state from waiting_key where group_name = $1 and topic = $2 and `+cond+` order by key`+tx.ForUpdate(), e.cfg.Group, e.topic, arg)
	found, err := db.Collect(rows, err, func(r *sql.Rows, k *row) error { return r.Scan(&k.key, &k.claim, &k.state) })
	if err != nil {
		return nil, fmt.Errorf("lock claimed keys: %w", err)
	}
	claims := map[string]int64{}
	for _, k := range found {
		if state(k.state) == running {
			claims[string(k.key)] = k.claim
		}
	}
	for _, r := range e.all {
		if claim, ok := claims[string(r.claimed.key)]; ok && claim == r.claim {
			mine = append(mine, r)
		}
	}
	return mine, nil
}

// endAll deletes events whose effects have worked and has their handlers write it down. It returns
// those that were there to be ended.
func (e *ending) endAll(ctx context.Context, tx *db.Tx, worked []*effect) (done []*effect, err error) {
	if !e.oneByOne {
		return e.endSome(ctx, tx, worked)
	}
	for _, r := range worked {
		var one []*effect
		err := tx.Savepoint(ctx, func() (err error) {
			one, err = e.endSome(ctx, tx, []*effect{r})
			return err
		})
		switch {
		case err == nil:
			done = append(done, one...)
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

func (e *ending) endSome(ctx context.Context, tx *db.Tx, worked []*effect) (done []*effect, err error) {
	if len(worked) == 0 {
		return nil, nil
	}
	there, err := e.take(ctx, tx, worked)
	if err != nil {
		return nil, err
	}
	for _, r := range worked {
		if there[r.identity] {
			done = append(done, r)
		}
	}
	for _, batch := range byHandler(done) {
		ds, begun := make([]delivery, len(batch)), make([]any, len(batch))
		for i, r := range batch {
			ds[i], begun[i] = r.delivery(r.span), r.begun
		}
		if err := guard(func() error { return batch[0].handler.slow.end(ctx, tx, ds, begun) }); err != nil {
			return nil, err
		}
	}
	return done, nil
}

// take deletes the first events of their keys' queues, and says which were there. One that was
// replayed may be in the queue again.
func (e *ending) take(ctx context.Context, tx *db.Tx, worked []*effect) (there map[event.Identity]bool, err error) {
	ids := make([][]byte, len(worked))
	for i, r := range worked {
		ids[i] = r.identity[:]
	}
	withKey, keyArg := tx.In("e.key", 3, claimedKeys(worked))
	withID, idArg := tx.In("e.identity", 4, ids)
	rows, err := tx.Query(ctx, `delete from waiting_event as e where e.group_name = $1 and e.topic = $2 and `+withKey+` and not e.set_aside and `+withID+`
		and e.seq = (select min(h.seq) from waiting_event h where h.group_name = e.group_name and h.topic = e.topic and h.key = e.key and not h.set_aside)
		returning identity`, e.cfg.Group, e.topic, keyArg, idArg)
	found, err := db.Collect(rows, err, func(r *sql.Rows, id *[]byte) error { return r.Scan(id) })
	if err != nil {
		return nil, fmt.Errorf("delete events that are done: %w", err)
	}
	there = make(map[event.Identity]bool, len(found))
	for _, id := range found {
		there[event.Identity(id)] = true
	}
	return there, nil
}

// settleSlow writes a failure, if the event is still the first of its key.
func (e *ending) settleSlow(ctx context.Context, tx *db.Tx, r *effect, failure error) error {
	head, err := e.head(ctx, tx, r.topic, r.claimed.key)
	if err != nil || head == nil || head.identity != r.identity {
		return err
	}
	it := *r.item // a repetition must not count the attempt twice
	it.seq = head.seq
	r.after, err = e.settle(ctx, tx, &it, failure)
	return err
}

// goOn lets keys whose events are done go on. A row goes if its queue is empty. Else the next event
// is due; if it is a slow one, too, it is claimed at once, and follows this transaction.
func (e *ending) goOn(ctx context.Context, tx *db.Tx, done []*effect) error {
	if len(done) == 0 {
		return nil
	}
	heads, err := e.heads(ctx, tx, done)
	if err != nil {
		return err
	}
	var empty, due, claimed [][]byte
	var going []*effect // the next ones that follow
	for _, r := range done {
		switch head := heads[string(r.claimed.key)]; {
		case head == nil:
			empty = append(empty, r.claimed.key)
		case e.claimNext(ctx, r, head):
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
		if _, err := tx.Exec(ctx, w.query+` where group_name = $1 and topic = $2 and `+cond, append([]any{e.cfg.Group, e.topic, arg}, w.args...)...); err != nil {
			return fmt.Errorf("let keys go on: %w", err)
		}
	}
	return nil
}

// heads are the first events of the queues of keys, as they are stored.
func (e *ending) heads(ctx context.Context, tx *db.Tx, done []*effect) (map[string]*item, error) {
	cond, arg := tx.In("key", 3, claimedKeys(done))
	rows, err := tx.Query(ctx, `select `+eventColumns+` from waiting_event where seq in (
		select min(seq) from waiting_event where group_name = $1 and topic = $2 and `+cond+` and not set_aside group by key)`, e.cfg.Group, e.topic, arg)
	found, err := db.Collect(rows, err, func(r *sql.Rows, it *item) error { return scanItem(r, it) })
	if err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	heads := make(map[string]*item, len(found))
	for i := range found {
		heads[found[i].key()] = &found[i]
	}
	return heads, nil
}

// claimNext sets r.next if the key's next event may follow at once.
func (e *ending) claimNext(ctx context.Context, r *effect, head *item) bool {
	if e.oneByOne || stopped(ctx) || e.asks(ctx, head.Record) { // one that cannot begin is not the fault of the one before
		return false
	}
	it := e.reopen(ctx, head, nil)
	if it.err != nil || it.handler == nil || it.handler.slow == nil {
		return false
	}
	next := &effect{item: it, claimed: claimed{r.topic, r.claimed.key, r.claim + 1}, kept: time.Now()}
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
