package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"sync"
	"time"

	"example.com/keyline/pkg/db"
)

// The bounds of what this process has claimed without having picked it: more waits in the
// database.
const (
	maxSlots     = 1000
	maxSlotBytes = 32 << 20
)

// claimed is a key in a worker's hands.
type claimed struct {
	topic string
	key   []byte
	claim int64
}

// effects are the slow effects in this process's hands: those that workers have picked, and those
// that follow a transaction at once, which have slots.
type effects struct {
	turns chan struct{} // one for each effect under way
	tasks sync.WaitGroup

	mu     sync.Mutex
	ctx    context.Context // of those that have slots; nil until Run does
	closed bool
	slots  int
	bytes  int
	held   map[*effect]bool // those whose claims are to be kept
}

func newEffects(workers int) *effects {
	return &effects{turns: make(chan struct{}, workers), held: map[*effect]bool{}}
}

// open lets effects have slots, until ctx's parent stops.
func (e *effects) open(ctx context.Context) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ctx, e.closed = ctx, false
}

// close waits until nobody has a slot, and gives none any more.
func (e *effects) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.tasks.Wait()
}

// reserve gives r a slot if there is one, and leaves out what is behind it if there is no room for that.
func (e *effects) reserve(r *effect) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.bytes = len(r.Value)
	if e.ctx == nil || e.closed || stopped(e.ctx) || e.slots >= maxSlots || e.bytes+r.bytes > maxSlotBytes {
		return false
	}
	for i, it := range r.behind {
		if e.bytes+r.bytes+len(it.Value) > maxSlotBytes {
			r.behind = r.behind[:i]
			break
		}
		r.bytes += len(it.Value)
	}
	e.slots++
	e.bytes += r.bytes
	e.tasks.Add(1)
	return true
}

// free takes r's slot back.
func (e *effects) free(r *effect) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slots--
	e.bytes -= r.bytes
	e.tasks.Done()
}

// start runs an effect that has a slot.
func (e *effects) start(r *effect, run func(context.Context)) {
	e.mu.Lock()
	ctx := e.ctx
	e.mu.Unlock()
	go func() {
		defer e.free(r)
		run(ctx)
	}()
}

// hold keeps r's claim until drop, but not for longer than an effect may take.
func (e *effects) hold(r *effect) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.held[r] = true
}

func (e *effects) drop(r *effect) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.held, r)
}

// begin waits for r's turn; from then on it may take so long. It is false if the process stops
// before. A probe waits for nobody: what holds the others up may be of another type.
func (e *effects) begin(ctx context.Context, r *effect, most time.Duration) bool {
	if r.probe == nil {
		if stopped(ctx) {
			return false
		}
		select {
		case <-ctx.Value(stopKey{}).(context.Context).Done():
			return false
		case e.turns <- struct{}{}:
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r.until = time.Now().Add(most)
	return true
}

// end notes that r is over. If it is in time, its claim is kept until that is written.
func (e *effects) end(r *effect) {
	if r.probe == nil {
		<-e.turns
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Now().Before(r.until) {
		r.until = time.Time{}
	}
}

// keptAt is when r's claim was last known to hold.
func (e *effects) keptAt(r *effect) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return r.kept
}

// holder is the effect that keeps a claim, if it is in this process's hands.
func (e *effects) holder(c claimed) *effect {
	e.mu.Lock()
	defer e.mu.Unlock()
	for r := range e.held {
		if r.claim == c.claim && r.claimed.topic == c.topic && bytes.Equal(r.claimed.key, c.key) && r.keeps(time.Now()) {
			return r
		}
	}
	return nil
}

// keeps reports whether the claim is still to be kept.
func (r *effect) keeps(now time.Time) bool { return r.until.IsZero() || !now.After(r.until) }

// claims are the effects whose claims are to be kept, by topic and key.
func (e *effects) claims() map[string]map[string]*effect {
	e.mu.Lock()
	defer e.mu.Unlock()
	all, now := map[string]map[string]*effect{}, time.Now()
	for r := range e.held {
		if !r.keeps(now) {
			continue
		}
		if all[r.topic] == nil {
			all[r.topic] = map[string]*effect{}
		}
		all[r.topic][string(r.claimed.key)] = r
	}
	return all
}

// renewed notes that r's claim still held at a time.
func (e *effects) renewed(r *effect, at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r.kept = at
}

// renew keeps the claims until ctx ends.
func (in *Inbox) renew(ctx context.Context) {
	tick := time.NewTicker(in.lease() / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for topic, held := range in.effects.claims() {
			// Should it fail, the next one may still be in time.
			if err := in.renewTopic(ctx, topic, held); err != nil {
				in.cfg.Log.WarnContext(ctx, "claims of slow effects cannot be renewed yet", "topic", topic, "error", err)
			}
		}
	}
}

// renewTopic renews claims of one topic; no two have one number. Keys that are locked are left
// out: one must not hold up the others, and the next time is soon.
func (in *Inbox) renewTopic(ctx context.Context, topic string, held map[string]*effect) error {
	ctx, cancel := context.WithTimeout(ctx, in.lease()/3)
	defer cancel()
	keys, claims := make([][]byte, 0, len(held)), make([]int64, 0, len(held))
	for key, r := range held {
		keys, claims = append(keys, []byte(key)), append(claims, r.claim)
	}
	at := time.Now()
	var kept [][]byte
	err := in.db.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
		withKey, keyArg := tx.In("key", 4, keys)
		withClaim, claimArg := tx.In("claim", 5, claims)
		rows, err := tx.Query(ctx, `update waiting_key set due = now_micros() + $3 where group_name = $1 and topic = $2 and state = 'running' and key in (
			select key from waiting_key where group_name = $1 and topic = $2 and state = 'running' and `+withKey+` and `+withClaim+in.db.SkipLocked()+`) returning key`,
			in.cfg.Group, topic, in.lease().Microseconds(), keyArg, claimArg)
		kept, err = db.Collect(rows, err, func(r *sql.Rows, key *[]byte) error { return r.Scan(key) })
		return err
	})
	if err != nil {
		return err
	}
	for _, k := range kept {
		in.effects.renewed(held[string(k)], at)
	}
	return nil
}

// keepHeld renews the claim of an effect that is in this process's hands, of which the database has
// not heard in time: it was away, or everything is slow. To have the effect again would not help.
func (in *Inbox) keepHeld(ctx context.Context, tx *db.Tx, r *effect) error {
	at := time.Now()
	_, err := tx.Exec(ctx, `update waiting_key set due = now_micros() + $4 where group_name = $1 and topic = $2 and key = $3`,
		in.cfg.Group, r.topic, r.claimed.key, in.lease().Microseconds())
	tx.AfterCommit(func() { in.effects.renewed(r, at) })
	return err
}
