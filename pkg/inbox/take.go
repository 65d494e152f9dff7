package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

const (
	maxTake = 500 // records of one transaction
	// takeLinger is for what one transaction of another service has caused, which arrives in pieces, one
	// for each partition.
	takeLinger       = time.Millisecond
	conflictAttempts = 10
	conflictPause    = 5 * time.Millisecond
)

// Process takes responsibility for a partition's records, in one transaction or a few, which the
// partitions of a topic share: the handlers of those that may run now have run, the others wait
// in the database. After nil their offsets may be committed. An error means that the database
// could not be reached or ctx has ended; what was taken before it is known, and handing the batch
// over again is right. Partitions may be processed concurrently, but not one at two places in its
// order.
func (in *Inbox) Process(ctx context.Context, b event.Batch) error {
	items := make([]*item, 0, len(b.Records))
	for i := range b.Records {
		it := in.open(ctx, &b.Records[i])
		if err := ctx.Err(); err != nil {
			return err // it.err may be the end of ctx, not the record's fault
		}
		if it.ignored() {
			in.metrics.handled(ctx, it, outcomeIgnored)
			continue
		}
		items = append(items, it)
	}
	for chunk := range slices.Chunk(items, maxTake) {
		if err := in.takers(&b).Do(ctx, chunk); err != nil {
			return fmt.Errorf("take %d records of %s/%d: %w", len(chunk), b.Topic, b.Partition, err)
		}
	}
	in.note(&b)
	return nil
}

// topicKey is a topic in one of its lives.
type topicKey struct {
	name string
	id   [16]byte
}

// takers are those that take records of a topic now.
func (in *Inbox) takers(b *event.Batch) *db.GroupCommit[[]*item] {
	in.mu.Lock()
	defer in.mu.Unlock()
	key := topicKey{b.Topic, b.TopicID}
	if in.taking[key] == nil {
		in.taking[key] = db.NewGroupCommit(takeLinger, maxTake, func(items []*item) int { return len(items) }, in.takeAll)
	}
	return in.taking[key]
}

// takeAll takes what several callers have, each in offset order. Two of them may have the same partition,
// one that has lost it and its new owner.
func (in *Inbox) takeAll(ctx context.Context, all [][]*item) error {
	items := slices.Concat(all...)
	slices.SortStableFunc(items, func(a, b *item) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return in.take(ctx, items)
}

// take runs one transaction for records of one topic, of each partition in offset order. If it
// fails it is run again, with the handlers one by one: it may be one event's fault. If it conflicts
// with others it is run again in halves, down to single events, so that two batches which keep
// crossing each other come apart. So it is if it was lost, for it may be a handler that has lost
// it: an event that loses two of its own is at fault, and waits.
func (in *Inbox) take(ctx context.Context, items []*item) error {
	var broken *db.BrokenError
	var blamed error
	oneByOne := false
	for attempt := 1; ; attempt++ {
		t := &taking{Inbox: in, items: items, oneByOne: oneByOne, blamed: blamed, died: map[string]int{}}
		err := t.once(ctx)
		lost := errors.As(err, &broken) || errors.Is(err, context.DeadlineExceeded)
		if lost && len(items) == 1 && attempt > 1 {
			blamed = err
		}
		switch {
		case err == nil:
			t.report(ctx)
			return nil
		case ctx.Err() != nil || attempt == conflictAttempts:
			return err
		case !db.IsConflict(err) && !lost:
			if oneByOne {
				return err
			}
			oneByOne = true
			continue
		case len(items) > 1:
			half := len(items) / 2
			if err := in.take(ctx, items[:half]); err != nil {
				return err
			}
			return in.take(ctx, items[half:])
		}
		wait(ctx, time.Duration(attempt)*conflictPause)
	}
}

// once runs the transaction. If it fails, nothing of it has been counted or follows it.
func (t *taking) once(ctx context.Context) (err error) {
	committed := false
	defer func() { // also if it panics
		if !committed {
			t.breaker.undo(t.died)
			t.giveBack()
		}
	}()
	if err = t.db.Once(ctx, t.run); err != nil {
		// The commit may have come about all the same: then nobody would follow what it claimed.
		_ = t.unclaim(ctx, slices.Collect(maps.Values(t.slow))...) // else its lease runs out
		return err
	}
	committed = true
	return nil
}

// taking is one transaction of Process.
type taking struct {
	*Inbox
	items    []*item
	oneByOne bool  // the handlers run, each with a way back
	blamed   error // the only item's, which is not run then

	fresh   []*item           // those this transaction is the first to see
	waiting map[string]bool   // keys with a queue, as the transaction goes on
	queue   []queued          // what goes into the queues
	died    map[string]int    // dead letters that were counted, by type
	slow    map[*item]*effect // those that follow the transaction; their keys are claimed
	spans   []*processSpan    // the attempts
}

func (t *taking) run(ctx context.Context, tx *db.Tx) error {
	for _, it := range t.items {
		it.letter = letter{} // a transaction that was run before may have counted an attempt
	}
	if err := t.claim(ctx, tx); err != nil {
		return err
	}
	if err := t.handle(ctx, tx); err != nil {
		return err
	}
	return t.enqueue(ctx, tx, t.queue)
}

// split queues what cannot run now, in offset order, and returns the rest.
func (t *taking) split() (ready []*item) {
	for _, it := range t.fresh {
		if t.runnable(it) {
			ready = append(ready, it)
		}
	}
	return ready
}

// runnable reports whether an event's handler may run now. If not, it is in the queue then; so is
// a slow one that may begin.
func (t *taking) runnable(it *item) bool {
	switch {
	case it.err != nil:
		t.fail(it, it.err)
	case t.blamed != nil:
		t.fail(it, t.blamed)
	case t.waiting[it.key()]:
		t.park(queued{item: it, behind: true})
	case it.handler.slow != nil:
		return t.claims(it)
	case !t.admit(it):
		t.park(queued{item: it, state: unavailable})
	default:
		return true
	}
	return false
}

// claims puts a slow event into its key's queue, like one that waits. If it may follow this
// transaction at once, the key is claimed, and its handler may begin.
func (t *taking) claims(it *item) bool {
	r := &effect{item: it, claimed: claimed{it.Topic, it.keyBytes(), newClaim()}, kept: time.Now()}
	if !t.admitsSlow(r) {
		t.park(queued{item: it, state: retrying})
		return false
	}
	if t.slow == nil {
		t.slow = map[*item]*effect{}
	}
	t.slow[it] = r
	t.park(queued{item: it, state: running, claim: r.claim})
	return true
}

// withdraw takes back what claims did for the event that was parked last.
func (t *taking) withdraw(it *item) {
	if r := t.slow[it]; r != nil {
		t.effects.free(r)
		delete(t.slow, it)
		delete(t.waiting, it.key())
		t.queue = t.queue[:len(t.queue)-1]
	}
}

// giveBack frees the slots of effects that do not follow.
func (t *taking) giveBack() {
	for _, r := range t.slow {
		t.effects.free(r)
	}
	t.slow = nil
}

// park puts an event into its key's queue, and the key's later events behind it.
func (t *taking) park(q queued) {
	if !q.setAside {
		q.behind = q.behind || t.waiting[q.key()]
		t.waiting[q.key()] = true
	}
	t.queue = append(t.queue, q)
}

// fail parks an event whose attempt has failed.
func (t *taking) fail(it *item, err error) {
	if t.waiting[it.key()] && !errors.Is(err, codec.ErrUndecodable) {
		// It is not its turn: it fails again when it is.
		t.park(queued{item: it, behind: true})
		return
	}
	v := t.judge(it, err)
	if v.floods() {
		t.died[it.meta.Type]++
	}
	if v.state == unavailable {
		t.unreachable(context.Background(), it.meta.Type, &v)
	}
	it.setAside = v.setAside
	t.park(queued{item: it, state: v.state, verdict: &v})
}

// report tells the traces and metrics what was committed.
func (t *taking) report(ctx context.Context) {
	for _, s := range t.spans {
		t.attempt(ctx, s)
		if s.item.probe != nil && s.err == nil {
			t.reached(ctx, s.item, nil)
		}
	}
	for _, q := range t.queue {
		if r := t.slow[q.item]; r != nil {
			t.follow(r)
		} else if q.verdict != nil {
			t.failed(ctx, q.item, q.verdict)
			if q.probe != nil {
				t.reached(ctx, q.item, q.verdict)
			}
		} else {
			t.metrics.handled(ctx, q.item, outcomeWaits)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
