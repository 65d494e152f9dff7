package main

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

const (
	trickle     = time.Millisecond // between two events
	warmTrickle = 32               // events that connect everybody, before the time is taken
)

// trickles are events that come one by one, when they are due and not when the one before is
// through, while a relay is on duty.
func (b *relaying) trickles() (works []work) {
	for _, what := range []struct {
		name   string
		commit bool
	}{{"commit to consumer", true}, {"due to consumer", false}} {
		gate := ""
		if what.commit {
			gate = "p99 <= 10 ms; moonshot 3 ms"
		}
		works = append(works, work{
			name: "B6 trickle of 1 k/s, " + what.name, unit: unitLate, n: b.plan.trickle, rounds: 3,
			sides: []side{
				{"keyline", gate, b.trickle(what.commit, b.ours)},
				{"SKIP LOCKED poller", "", b.onPostgres(b.trickle(what.commit, b.poll))},
				{"watermill forwarder", "", b.onPostgres(b.trickle(what.commit, b.forward))},
			},
		})
	}
	return works
}

// duty is what a service has that appends events, and relays them meanwhile.
type duty interface {
	// relay publishes until ctx ends.
	relay(ctx context.Context) error
	// save commits the event of a number.
	save(ctx context.Context, i int) error
	close()
}

// flow is the events of one run: when each was due, committed, and seen by a consumer.
type flow struct {
	duty
	broker string
	topic  string
	number map[string]int // of an event, by its ID
	due    []time.Time
	commit []time.Time
	seen   []time.Time
}

// aggregates is the table of the aggregates, whose row each event's transaction locks.
const (
	aggregates   = `create table aggregate (key text primary key, version bigint not null)`
	raiseVersion = `insert into aggregate (key, version) values ($1, 1)
		on conflict (key) do update set version = aggregate.version + 1 returning version`
)

// trickle is a side whose relay is on duty while n events are appended.
func (b *relaying) trickle(fromCommit bool, open func(context.Context, *filled) (duty, error)) runFunc {
	return func(ctx context.Context, n int, w *watch) error {
		return b.newFilled(ctx, func(f *filled) error {
			d, err := open(ctx, f)
			if err != nil {
				return err
			}
			defer d.close()
			l := newFlow(n + warmTrickle)
			l.duty, l.broker, l.topic = d, b.broker.addr, f.story.topic
			if err := l.run(ctx, w); err != nil {
				return err
			}
			w.latencies = l.latencies(fromCommit)
			return b.broker.whole(ctx, l.topic, len(l.due))
		}, aggregates)
	}
}

func newFlow(all int) *flow {
	l := &flow{number: map[string]int{}, due: make([]time.Time, all), commit: make([]time.Time, all), seen: make([]time.Time, all)}
	for i := range all {
		l.number[eventID(i)] = i
	}
	return l
}

func (l *flow) latencies(fromCommit bool) (took []time.Duration) {
	from := l.due
	if fromCommit {
		from = l.commit
	}
	for i := warmTrickle; i < len(from); i++ {
		// A consumer may have an event before its writer hears of the commit.
		took = append(took, max(0, l.seen[i].Sub(from[i])))
	}
	return took
}

func (l *flow) run(ctx context.Context, w *watch) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	warm, rest := newProgress(warmTrickle), newProgress(len(l.due))
	group.Go(func() error { return l.relay(ctx) })
	group.Go(func() error { return l.consume(ctx, warm, rest) })
	group.Go(func() error {
		defer cancel()
		if err := l.write(ctx, 0, warmTrickle, 0, warm); err != nil {
			return err
		}
		w.start()
		if err := l.write(ctx, warmTrickle, len(l.due), trickle, rest); err != nil {
			return err
		}
		w.stop()
		return nil
	})
	return group.Wait()
}

// write appends the events from one number to another, each when it is due, and waits until a
// consumer has seen them.
func (l *flow) write(ctx context.Context, from, to int, pause time.Duration, seen *progress) error {
	writers, wctx := errgroup.WithContext(ctx)
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := from; i < to && wctx.Err() == nil; i++ {
		l.due[i] = start.Add(time.Duration(i-from) * pause)
		timer.Reset(time.Until(l.due[i]))
		select {
		case <-timer.C:
		case <-wctx.Done():
		}
		writers.Go(func() error {
			err := l.save(wctx, i)
			l.commit[i] = time.Now()
			return err
		})
	}
	if err := writers.Wait(); err != nil {
		return err
	}
	return seen.wait(ctx)
}

// consume notes when each event is there for consumers.
func (l *flow) consume(ctx context.Context, told ...*progress) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.broker), kgo.DisableClientMetrics(),
		kgo.ConsumeTopics(l.topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	return poll(ctx, cl, func(p kgo.FetchTopicPartition) {
		now := time.Now()
		for _, k := range p.Records {
			r := ownRecord(k)
			l.seen[l.number[string(r.Header(event.HeaderID))]] = now
		}
		for _, t := range told {
			t.add(len(p.Records))
		}
	})
}

// outboxDuty is ours: the relay is woken by the commits.
type outboxDuty struct {
	*filled
	ring     []message
	producer *kafka.Producer
}

func (b *relaying) ours(ctx context.Context, f *filled) (duty, error) {
	producer, err := b.newProducer(ctx)
	return &outboxDuty{f, b.ring, producer}, err
}

func (d *outboxDuty) relay(ctx context.Context) error { return d.out.Relay(ctx, d.producer) }

func (d *outboxDuty) close() { d.producer.Close() }

func (d *outboxDuty) save(ctx context.Context, i int) error {
	m := &d.ring[i%ringSize]
	return d.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		var version int64
		if err := tx.QueryRow(ctx, raiseVersion, string(m.key)).Scan(&version); err != nil {
			return err
		}
		return d.out.AppendRaw(tx, m.record(d.story.topic, i, version))
	})
}

// pollerDuty appends as ours does, and polls.
type pollerDuty struct {
	outboxDuty
	poller *poller
}

func (b *relaying) poll(ctx context.Context, f *filled) (duty, error) {
	p, err := newPoller(ctx, f.url, b.broker.addr)
	return &pollerDuty{outboxDuty{filled: f, ring: b.ring}, p}, err
}

func (d *pollerDuty) relay(ctx context.Context) error { return d.poller.run(ctx) }

func (d *pollerDuty) close() { d.poller.close(context.Background()) }

func (b *relaying) forward(ctx context.Context, f *filled) (duty, error) {
	return b.newForwarders(ctx, f)
}
