package inbox

import (
	"context"
	"database/sql"
	"fmt"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// spot is that of an event in its key's queue.
type spot struct {
	seq      int64
	identity event.Identity
}

// queue is the begin of a claimed key's queue, under the key's lock.
type queue struct {
	ran   []int64 // the events that the effect follows, in the order of the queue
	own   int64   // the effect's event; 0: somebody has deleted it
	after int64   // the one behind it; 0: the queue is empty then
	next  []*item // that and more, as they are stored: what may follow the effect
}

// lock locks the keys, and reads the begins of the queues that are still claimed. The three
// statements go together, and each sees what the lock has waited for.
func (e *ending) lock(ctx context.Context, tx *db.Tx) error {
	keys := claimedKeys(e.all)
	claims, places := map[string]int64{}, map[string][]spot{}
	cond, arg := tx.In("key", 3, keys)
	err := tx.QueryLater(ctx, func(row db.Scanner) error {
		var key []byte
		var claim int64
		var found string
		err := row.Scan(&key, &claim, &found)
		if state(found) == running {
			claims[string(key)] = claim
		}
		return err
	}, `select key, claim, state from waiting_key where group_name = $1 and topic = $2 and `+cond+` order by key`+tx.ForUpdate(), e.cfg.Group, e.topic, arg)
	if err != nil {
		return fmt.Errorf("lock claimed keys: %w", err)
	}
	query, arg := tx.FirstEach("waiting_event", "key, seq, identity", inQueue, "key", "seq", 3, keys, e.longest()+1+runMost)
	err = tx.QueryLater(ctx, func(row db.Scanner) error {
		var key, identity []byte
		var p spot
		if err := row.Scan(&key, &p.seq, &identity); err != nil {
			return err
		}
		p.identity = event.Identity(identity)
		places[string(key)] = append(places[string(key)], p)
		return nil
	}, query+` order by seq`, e.cfg.Group, e.topic, arg)
	if err != nil {
		return fmt.Errorf("read the begins of queues: %w", err)
	}
	next, err := e.readNext(ctx, tx, keys)
	if err != nil {
		return err
	}
	e.queues = map[*effect]*queue{}
	for _, r := range e.all {
		key := r.claimed.key
		if claim, ok := claims[string(key)]; ok && claim == r.claim {
			e.queues[r] = r.queue(places[string(key)], next[string(key)])
		}
	}
	return nil
}

const inQueue = "group_name = $1 and topic = $2 and not set_aside"

// longest is how many events at most an effect has followed.
func (e *ending) longest() (n int) {
	for _, r := range e.all {
		n = max(n, len(r.ran))
	}
	return n
}

// readNext reads the events behind those that are in this process's hands: the first of each key, and
// where one has ended quickly some more, as far as they are together no larger than what may be in hand.
func (e *ending) readNext(ctx context.Context, tx *db.Tx, keys [][]byte) (map[string][]*item, error) {
	most := 1
	var inHand [][]byte
	for _, r := range e.all {
		inHand = append(inHand, r.identity[:])
		for _, s := range r.ran {
			inHand = append(inHand, s.item.identity[:])
		}
		if e.quick(r) {
			most = runMost
		}
	}
	cond, idArg := tx.In("identity", 4, inHand)
	query, arg := tx.FirstEach("waiting_event", eventColumns, inQueue+" and not ("+cond+")", "key", "seq", 3, keys, most)
	rows, err := tx.Query(ctx, `select `+eventColumns+` from (select events.*, row_number() over (partition by key order by seq) as nth,
		sum(length(value)) over (order by seq) as upto from (`+query+`) as events) as events where nth = 1 or upto <= $5 order by seq`,
		e.cfg.Group, e.topic, arg, idArg, maxSlotBytes)
	found, err := db.Collect(rows, err, func(r *sql.Rows, it *item) error { return scanItem(r, it) })
	if err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	next := map[string][]*item{}
	for _, it := range found { // each on its own: one that is kept must not keep the others
		next[it.key()] = append(next[it.key()], &it)
	}
	return next, nil
}

// queue finds an effect's event, those before it, and those right behind it. One that was replayed may
// be in the queue again, which next leaves out.
func (r *effect) queue(places []spot, next []*item) *queue {
	q := &queue{}
	for _, ran := range r.ran {
		if len(places) > 0 && places[0].identity == ran.item.identity {
			q.ran, places = append(q.ran, places[0].seq), places[1:]
		}
	}
	if len(places) > 0 && places[0].identity == r.identity {
		q.own, places = places[0].seq, places[1:]
	}
	if len(places) > 0 {
		q.after = places[0].seq
	}
	n := 0
	for n < min(len(next), len(places)) && next[n].seq == places[n].seq {
		n++
	}
	q.next = next[:n]
	return q
}
