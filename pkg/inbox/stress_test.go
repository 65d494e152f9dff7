package inbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// TestOrderAndOnce_under_everything is the model of the protocol run against the real thing:
// partitions whose owners go on as zombies after others took over, commits of offsets that
// are lost, republished twins, handlers that fail, slow ones whose claims run out, workers of
// two replicas, rows shared by several keys, clean-up while all that goes on. Every effect
// checks that it is the next of its key.
func TestOrderAndOnce_under_everything(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	const partitions, keys, events = 3, 12, 400
	cfg := inbox.Config{Attempts: 1000, Workers: 3, Claim: 240 * time.Millisecond, Clean: 20 * time.Millisecond}
	r := newRig(t, cfg)
	cfg.Group, cfg.MaxBackoff = "test", 2*time.Millisecond
	replica, err := inbox.New(r.db, r.codec, r.outbox, cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.db.Exec(t.Context(), `insert into agg (key, last) values ('shared a', 0), ('shared b', 0)`)
	if err != nil {
		t.Fatal(err)
	}
	chance := newChance(seed)
	for _, in := range []*inbox.Inbox{r.Inbox, replica} {
		inbox.Handle(in, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
			if chance.of(30) {
				return errOops
			}
			chance.pause(ctx, 60)
			if err := touchShared(ctx, tx); err != nil {
				return err
			}
			return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
		})
		inbox.HandleSlow(in, func(ctx context.Context, e event.Event[jump]) (inbox.Done, error) {
			if chance.of(10) {
				return nil, errOops
			}
			if chance.of(25) { // longer than the claim, whatever ctx says
				<-time.After(cfg.Claim + 100*time.Millisecond)
			}
			return func(ctx context.Context, tx *db.Tx) error { return r.apply(ctx, tx, e.Data.Agg, e.Data.N) }, nil
		})
	}
	logs := r.makeLogs(chance, partitions, keys, events)
	t.Cleanup(func() { r.explain(logs) })

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, in := range []*inbox.Inbox{r.Inbox, replica} {
		wg.Go(func() {
			if err := in.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for _, p := range logs {
		wg.Go(func() { p.rebalance(ctx, r, []*inbox.Inbox{r.Inbox, replica}, chance) })
	}
	r.until("every event is done", func() bool {
		return r.count(`select coalesce(sum(last), 0) from agg where key like 'p%'`) == partitions*events && r.count(`select count(*) from waiting_event`) == 0
	})
	cancel()
	wg.Wait()
	t.Logf("%d events, %d rows left in the inbox, mark at most %d", partitions*events, r.count(`select count(*) from inbox`), r.count(`select coalesce(max(position), 0) from inbox_mark`))
}

// explain tells, after a failure, what is left.
func (r *rig) explain(logs []*partition) {
	if !r.Failed() {
		return
	}
	r.Logf("%d effects, %d waiting events, keys %v", r.count(`select coalesce(sum(last), 0) from agg where key like 'p%'`),
		r.count(`select count(*) from waiting_event`), r.states())
	for _, p := range logs {
		p.mu.Lock()
		r.Logf("partition %d: %d of %d committed", p.id, p.committed, len(p.log))
		p.mu.Unlock()
	}
}

// touchShared updates rows that events of different keys share, in one order, as a handler
// has to.
func touchShared(ctx context.Context, tx *db.Tx) error {
	for _, row := range []string{"shared a", "shared b"} {
		if _, err := tx.Exec(ctx, `update agg set last = last + 1 where key = $1`, row); err != nil {
			return err
		}
	}
	return nil
}

// logKept is how many records before an owner's position the broker still holds.
const logKept = 30

// chance is a seeded source of accidents for several goroutines.
type chance struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newChance(seed uint64) *chance { return &chance{r: rand.New(rand.NewPCG(seed, 1))} }

func (c *chance) n(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.r.IntN(n)
}

func (c *chance) of(n int) bool { return c.n(n) == 0 }

// pause waits for up to 100 ms, once in n times.
func (c *chance) pause(ctx context.Context, n int) {
	if c.of(n) {
		c.wait(ctx, c.n(100))
	}
}

func (c *chance) wait(ctx context.Context, milliseconds int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
	}
}

// partition is a partition whose owner changes.
type partition struct {
	id  int32
	log []event.Record

	mu         sync.Mutex
	committed  int64
	generation int
	moved      chan struct{} // holds one: this generation's owner has finished a batch
}

// makeLogs fills the partitions: events of a few keys, of two types, with twins in between.
func (r *rig) makeLogs(c *chance, partitions, keys, events int) (all []*partition) {
	for id := range partitions {
		p := &partition{id: int32(id), moved: make(chan struct{}, 1)}
		last := map[string]int64{}
		r.log = nil
		for range events {
			key := fmt.Sprintf("p%d-k%d-", id, c.n(keys))
			last[key]++
			if c.of(4) {
				r.write(jump{key, last[key]}, last[key])
			} else {
				r.write(step{key, last[key]}, last[key])
			}
			if c.of(15) {
				// A relay republishes soon: long before the first sight leaves the topic.
				twin := r.log[len(r.log)-1-c.n(min(len(r.log), logKept/2))]
				r.raw(event.Record{Key: twin.Key, Value: twin.Value, Headers: twin.Headers})
			}
		}
		p.log = r.log
		for i := range p.log {
			p.log[i].Partition = p.id
		}
		all = append(all, p)
	}
	return all
}

// rebalance gives the partition to a new owner again and again; the old one goes on for a
// while.
func (p *partition) rebalance(ctx context.Context, r *rig, replicas []*inbox.Inbox, c *chance) {
	var owners sync.WaitGroup
	defer owners.Wait()
	for ctx.Err() == nil {
		p.mu.Lock()
		p.generation++
		generation := p.generation
		p.mu.Unlock()
		owners.Go(func() { p.own(ctx, r, replicas[c.n(len(replicas))], generation, c) })
		c.wait(ctx, 20+c.n(150))
		// On a busy machine an owner needs longer than that for its first batch; if none came
		// to an end, no offset would ever be committed.
		select {
		case <-ctx.Done():
		case <-p.moved:
		}
	}
}

func (p *partition) own(ctx context.Context, r *rig, in *inbox.Inbox, generation int, c *chance) {
	p.mu.Lock()
	position := p.committed
	p.mu.Unlock()
	zombie := 1 + c.n(6) // batches after it has lost the partition
	for ctx.Err() == nil {
		p.mu.Lock()
		mine := p.generation == generation
		p.mu.Unlock()
		if !mine {
			if zombie--; zombie == 0 {
				return
			}
		}
		end := min(int64(len(p.log)), position+int64(1+c.n(40)))
		if position == end {
			return
		}
		logStart := max(0, position-logKept)
		b := event.Batch{Topic: "steps", TopicID: [16]byte{9}, Partition: p.id, LogStart: logStart, Records: p.log[position:end]}
		if err := in.Process(ctx, b); err != nil {
			continue // handed over again
		}
		position = end
		c.pause(ctx, 20)
		p.mu.Lock()
		if p.generation == generation {
			select {
			case p.moved <- struct{}{}:
			default:
			}
		}
		if p.generation == generation && !c.of(3) { // a zombie's commit is refused; some are lost
			p.committed = position
		}
		p.mu.Unlock()
	}
}
