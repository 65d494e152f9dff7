package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// consuming is a topic that is read again and again, each time by a new group.
type consuming struct {
	*rig
	topic string
}

func consumeWorks(ctx context.Context, r *rig) (works []work, err error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	for _, k := range distributions {
		c := &consuming{rig: r}
		p := publishing{rig: r}
		if p.ring, err = r.ring(k); err != nil {
			return nil, err
		}
		if c.topic, err = r.newTopic(ctx, partitions); err != nil {
			return nil, err
		}
		if err := p.raw(ctx, c.topic, r.plan.consumed, new(watch)); err != nil {
			return nil, err
		}
		works = append(works, work{
			name: "B4 consume, " + k.name, unit: unitRate, n: r.plan.consumed,
			sides: []side{
				{"keyline", "", c.wrapped},
				{"raw kgo", ">= 0.30, moonshot 0.50", c.raw},
				{"watermill", "moonshot 3", c.watermill},
			},
		})
	}
	return works, nil
}

// wrapped reads with pkg/kafka. The time is from the start to the last record's handler, so
// that nobody gains by what is fetched beforehand; joining the group is in it.
func (c *consuming) wrapped(ctx context.Context, n int, w *watch) error {
	d := &dispatcher{progress: newProgress(n), codec: c.codec, handlers: map[string]func(context.Context, *event.Record, event.Meta) error{}}
	var pieces atomic.Int64
	handle(d, func(_ context.Context, e event.Event[schemas.OrderPlaced]) error {
		pieces.Add(int64(len(e.Data.Lines)))
		return nil
	})
	consumer, err := kafka.NewConsumer(kafka.Config{Brokers: []string{c.broker.addr}, Group: c.broker.newGroup(c.topic)}, []string{c.topic}, d)
	if err != nil {
		return err
	}
	if err := runUntil(ctx, w, d.wait, consumer.Run); err != nil {
		return err
	}
	if got := pieces.Load(); got != 3*int64(n) {
		return fmt.Errorf("%d lines of %d orders", got, n)
	}
	return nil
}

// dispatcher is a processor without a database: it hands every event to the function of its
// type, with what an inbox tells a handler.
type dispatcher struct {
	*progress
	codec    *codec.Codec
	handlers map[string]func(context.Context, *event.Record, event.Meta) error
}

func handle[P event.Payload](d *dispatcher, fn func(context.Context, event.Event[P]) error) {
	var zero P
	d.handlers[codec.FullName(zero.Schema())] = func(ctx context.Context, r *event.Record, m event.Meta) error {
		data, err := codec.Decode[P](ctx, d.codec, r.Value)
		if err != nil {
			return err
		}
		m.Trace = event.SpanContext(r.Headers)
		return fn(trace.ContextWithRemoteSpanContext(ctx, m.Trace), event.Event[P]{Data: data, Meta: m})
	}
}

// Process implements kafka.Processor.
func (d *dispatcher) Process(ctx context.Context, b event.Batch) error {
	for i := range b.Records {
		r := &b.Records[i]
		typ, err := d.codec.Type(ctx, r.Value)
		if err != nil {
			return err
		}
		if err := d.handlers[typ](ctx, r, event.ReadMeta(r, typ)); err != nil {
			return err
		}
	}
	d.add(len(b.Records))
	return nil
}

// raw polls as a member of a group, with the client's own defaults, and looks at no record.
func (c *consuming) raw(ctx context.Context, n int, w *watch) error {
	w.start()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.broker.addr), kgo.DisableClientMetrics(),
		kgo.ConsumerGroup(c.broker.newGroup(c.topic)), kgo.ConsumeTopics(c.topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	for n > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(*kgo.Record) { n-- })
	}
	w.stop()
	return nil
}
