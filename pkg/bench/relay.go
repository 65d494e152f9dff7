package main

import (
	"context"
	"errors"
	"fmt"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

// relaying empties an outbox that was filled beforehand.
type relaying struct {
	*rig
	ring []message
}

func relayWorks(_ context.Context, r *rig) (works []work, err error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	var b *relaying
	for _, k := range distributions {
		b = &relaying{rig: r}
		if b.ring, err = r.ring(k); err != nil {
			return nil, err
		}
		works = append(works, work{
			name: "B6 backlog, " + k.name, unit: unitRate, n: r.plan.backlog, rounds: 3,
			sides: []side{
				{"keyline", ">= 60 k/s; moonshot 200 k/s", b.drain(b.wrapped)},
				{"SKIP LOCKED poller", "", r.onPostgres(b.drain(b.poller))},
				{"watermill forwarder", "", r.onPostgres(b.forwarded)},
			},
		})
	}
	return append(works, b.trickles()...), nil
}

// filled is an outbox in a database of its own, whose events go to a topic of their own.
type filled struct {
	url   string
	db    *db.DB
	out   *outbox.Outbox
	story *story
}

// newFilled gives fn an outbox that is empty, and removes all of it afterwards.
func (b *relaying) newFilled(ctx context.Context, fn func(*filled) error, more ...string) error {
	return b.broker.onTopic(ctx, func(topic string) error {
		return b.onTables(ctx, func(url string, d *db.DB) error {
			return fn(&filled{url: url, db: d, out: outbox.New(d, b.codec, outbox.Config{Source: "/order"}), story: newStory(b.ring, topic)})
		}, more...)
	})
}

// drain is a side that empties the outbox. Afterwards all of it has arrived, each key in order.
func (b *relaying) drain(empty func(context.Context, *filled, *watch) error) runFunc {
	return func(ctx context.Context, n int, w *watch) error {
		return b.newFilled(ctx, func(f *filled) error {
			if err := f.fill(ctx, n); err != nil {
				return err
			}
			if err := empty(ctx, f, w); err != nil {
				return err
			}
			return f.relayed(ctx, b.broker, n)
		})
	}
}

// fill appends n events, many in a transaction.
func (f *filled) fill(ctx context.Context, n int) error {
	for from := 0; from < n; from += window {
		err := f.db.Once(ctx, func(ctx context.Context, tx *db.Tx) error {
			for range min(window, n-from) {
				if err := f.out.AppendRaw(tx, f.story.next()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// relayed reports whether all n events have left the outbox and are in the topic.
func (f *filled) relayed(ctx context.Context, b *broker, n int) error {
	all, _, err := f.out.Stats(ctx)
	if err != nil {
		return err
	}
	if all.Events > 0 {
		return fmt.Errorf("%d events are left in the outbox", all.Events)
	}
	return b.whole(ctx, f.story.topic, n)
}

// wrapped relays with the outbox. The time is from the start to the relay's end, the delete of the
// last window included.
func (b *relaying) wrapped(ctx context.Context, f *filled, w *watch) error {
	producer, err := b.newProducer(ctx)
	if err != nil {
		return err
	}
	defer producer.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all := newProgress(f.story.told)
	ended := make(chan error, 1)
	w.start()
	go func() { ended <- f.out.Relay(ctx, acknowledged{producer, all}) }()
	select {
	case <-all.done:
		cancel()
		err = <-ended
		w.stop()
		return err
	case err := <-ended:
		return errors.Join(errors.New("stopped early"), err)
	}
}

// acknowledged counts what was published.
type acknowledged struct {
	outbox.Publisher
	progress *progress
}

func (a acknowledged) Publish(ctx context.Context, window []event.Record) []error {
	errs := a.Publisher.Publish(ctx, window)
	if errs == nil {
		a.progress.add(len(window))
	}
	return errs
}
