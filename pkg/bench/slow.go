package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// slow is a topic of one partition whose events have effects that wait up to maxEffect, as for
// another server; nobody burns the processor meanwhile.
type slow struct {
	*rig
	topic string
	waits []time.Duration // of each event, by its number in the topic
}

const (
	maxEffect = 5 * time.Millisecond
	// manyWorkers is more than the default of 16, for effects that do nothing but wait.
	manyWorkers = 256
)

func slowWorks(ctx context.Context, r *rig) (works []work, err error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	for _, k := range []struct {
		name, gate string
		n          int
		draw       func(*rand.Rand) func() uint64
	}{
		// What goes in turn takes the sum of the waits; fewer events will do.
		{"1 key", "bound: 400/s, one after the other", r.plan.slow / fewer, uniform(1)},
		{"20 keys", ">= 4,000/s (10,000 in 2.5 s)", r.plan.slow, uniform(20)},
		{"1,000 keys", "moonshot 20,000/s (10,000 in 0.5 s)", r.plan.slow, uniform(1000)},
		{"Zipf keys", "", r.plan.slow, distributions[1].draw},
	} {
		s := &slow{rig: r}
		if err := s.fill(ctx, k.n, k.draw); err != nil {
			return nil, err
		}
		works = append(works, work{
			name: "B10 slow effects, " + k.name, unit: unitRate, n: k.n, rounds: 3,
			sides: []side{
				{"keyline", k.gate, s.ours(0)},
				{fmt.Sprintf("keyline, %d workers", manyWorkers), "", s.ours(manyWorkers)},
				{"partition in turn, kgo", "", s.inTurn},
				{"goroutine per key, not durable, kgo", "", s.perKey},
			},
		})
	}
	return works, nil
}

func uniform(n uint64) func(*rand.Rand) func() uint64 {
	return func(r *rand.Rand) func() uint64 { return func() uint64 { return r.Uint64N(n) } }
}

// fill writes n events; the ID of each is its number.
func (s *slow) fill(ctx context.Context, n int, draw func(*rand.Rand) func() uint64) (err error) {
	if s.topic, err = s.newTopic(ctx, 1); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(3, 4))
	next := draw(random)
	s.waits = make([]time.Duration, n)
	return s.broker.write(ctx, n, func(i int) (*kgo.Record, error) {
		s.waits[i] = time.Duration(random.Int64N(int64(maxEffect)))
		return s.numbered(s.topic, i, newOrder(random, next()))
	})
}

// ours has every event in the database until its effect's end is committed, which is when it is
// done.
func (s *slow) ours(workers int) runFunc {
	return func(ctx context.Context, n int, w *watch) error {
		return s.onTables(ctx, func(_ string, d *db.DB) error {
			group := s.broker.newGroup(s.topic)
			in, err := inbox.New(d, s.codec, outbox.New(d, s.codec, outbox.Config{Source: "/bench"}), inbox.Config{Group: group, Workers: workers})
			if err != nil {
				return err
			}
			e := newEffects(s.waits, n)
			inbox.HandleSlow(in, func(ctx context.Context, o event.Event[schemas.OrderPlaced]) (inbox.Done, error) {
				return nil, e.run(ctx, o.Data.OrderID, o.Meta.ID)
			})
			consumer, err := kafka.NewConsumer(kafka.Config{Brokers: []string{s.broker.addr}, Group: group}, []string{s.topic}, renamed{in})
			if err != nil {
				return err
			}
			done := func(ctx context.Context) error {
				if err := e.wait(ctx); err != nil {
					return err
				}
				return untilEmpty(ctx, d)
			}
			return errors.Join(runUntil(ctx, w, done, consumer.Run, in.Run), e.verdict(n))
		})
	}
}

// untilEmpty waits for the last events of the queues to be deleted.
func untilEmpty(ctx context.Context, d *db.DB) error {
	for {
		var waits bool
		if err := d.QueryRow(ctx, `select exists (select 1 from waiting_event)`).Scan(&waits); err != nil || !waits {
			return err
		}
	}
}

// inTurn is the loop of most consumers: a record after the other.
func (s *slow) inTurn(ctx context.Context, n int, w *watch) error {
	w.did = min(n, s.plan.slow/fewer)
	return s.read(ctx, w.did, w, func(ctx context.Context, e *effects, r *kgo.Record) error {
		return e.run(ctx, string(r.Key), header(r, event.HeaderID))
	})
}

// maxHeld bounds what perKey holds in memory, and so what a crash loses.
const maxHeld = 2000

// perKey runs the keys beside each other, and the events of each in turn. The offsets of what is
// in hand may be committed before it is done.
func (s *slow) perKey(ctx context.Context, n int, w *watch) error {
	var mu sync.Mutex
	queues := map[string][]*kgo.Record{} // of the keys at work
	held := make(chan struct{}, maxHeld)
	work := func(ctx context.Context, e *effects, key string) {
		for {
			mu.Lock()
			queue := queues[key]
			if len(queue) == 0 {
				delete(queues, key)
				mu.Unlock()
				return
			}
			queues[key] = queue[1:]
			mu.Unlock()
			_ = e.run(ctx, key, header(queue[0], event.HeaderID)) // the verdict tells
			<-held
		}
	}
	return s.read(ctx, n, w, func(ctx context.Context, e *effects, r *kgo.Record) error {
		select {
		case held <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		mu.Lock()
		defer mu.Unlock()
		key := string(r.Key)
		queue, working := queues[key]
		queues[key] = append(queue, r)
		if !working {
			go work(ctx, e, key)
		}
		return nil
	})
}

// read hands n records over, with the client's defaults, and waits for the end of their effects.
func (s *slow) read(ctx context.Context, n int, w *watch, handle func(context.Context, *effects, *kgo.Record) error) error {
	e := newEffects(s.waits, n)
	w.start()
	if err := readSome(ctx, s.broker.addr, s.topic, s.broker.newGroup(s.topic), n, func(r *kgo.Record) error { return handle(ctx, e, r) }); err != nil {
		return err
	}
	if err := e.wait(ctx); err != nil {
		return err
	}
	w.stop()
	return e.verdict(n)
}

// readSome polls n records as the only member of a group, with the client's defaults.
func readSome(ctx context.Context, broker, topic, group string, n int, handle func(*kgo.Record) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DisableClientMetrics(),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for n > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for _, r := range fetches.Records() {
			if n--; n < 0 {
				break
			}
			if err := handle(r); err != nil {
				return err
			}
		}
	}
	return nil
}
