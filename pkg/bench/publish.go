package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// window is how many records are handed to Publish at a time: an outbox's default.
const window = 1000

// publishing is one ring of messages on its way to a broker.
type publishing struct {
	*rig
	ring []message
}

func publishWorks(ctx context.Context, r *rig) (works []work, err error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	for _, k := range distributions {
		p := &publishing{rig: r}
		if p.ring, err = r.ring(k); err != nil {
			return nil, err
		}
		if err := p.verify(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		works = append(works, work{
			name: "B3 publish, " + k.name, unit: unitRate, n: r.plan.produced,
			sides: []side{
				p.side("keyline", "", p.wrapped),
				p.side("raw kgo", ">= 0.60, moonshot 0.85", p.raw),
				p.side("keyline in turn", "", p.inTurn),
			},
		})
	}
	return works, nil
}

// side gives every run a fresh topic, and looks whether all of it arrived.
func (p *publishing) side(name, gate string, publish func(ctx context.Context, topic string, n int, w *watch) error) side {
	return side{name, gate, func(ctx context.Context, n int, w *watch) error {
		return p.broker.onTopic(ctx, func(topic string) error {
			if err := publish(ctx, topic, n, w); err != nil {
				return err
			}
			got, err := p.broker.end(ctx, topic)
			if err == nil && got != n {
				err = fmt.Errorf("%d records were written, not %d", got, n)
			}
			return err
		})
	}}
}

// wrapped makes records of events, as handlers do with an outbox, and meanwhile publishes the
// windows before, as its relay does: one at a time. None is sampled.
func (p *publishing) wrapped(ctx context.Context, topic string, n int, w *watch) error {
	return p.produce(ctx, w, func(ctx context.Context, producer *kafka.Producer) error {
		windows := make(chan []event.Record, 1)
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			defer close(windows)
			return p.windows(topic, n, func(records []event.Record) error {
				select {
				case windows <- records:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
		group.Go(func() error {
			for records := range windows {
				if errs := producer.Publish(ctx, records); errs != nil {
					return errors.Join(errs...)
				}
			}
			return nil
		})
		return group.Wait()
	})
}

// inTurn makes a window, publishes it, makes the next: what a single caller sees.
func (p *publishing) inTurn(ctx context.Context, topic string, n int, w *watch) error {
	return p.produce(ctx, w, func(ctx context.Context, producer *kafka.Producer) error {
		return p.windows(topic, n, func(records []event.Record) error {
			return errors.Join(producer.Publish(ctx, records)...)
		})
	})
}

// produce runs send with a producer that is connected.
func (p *publishing) produce(ctx context.Context, w *watch, send func(context.Context, *kafka.Producer) error) error {
	producer, err := p.newProducer(ctx)
	if err != nil {
		return err
	}
	defer producer.Close()
	w.start()
	defer w.stop()
	return send(ctx, producer)
}

// newProducer is connected, and samples no trace.
func (r *rig) newProducer(ctx context.Context) (*kafka.Producer, error) {
	producer, err := kafka.NewProducer(kafka.Config{Brokers: []string{r.broker.addr}, Tracer: unsampled()})
	if err != nil {
		return nil, err
	}
	if err := producer.Ping(ctx); err != nil {
		producer.Close()
		return nil, err
	}
	return producer, nil
}

func unsampled() trace.Tracer {
	return sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("keyline")
}

// windows hands n records over to send, in windows that are send's to keep.
func (p *publishing) windows(topic string, n int, send func([]event.Record) error) error {
	for from := 0; from < n; from += window {
		records := make([]event.Record, min(window, n-from))
		for i := range records {
			var err error
			if records[i], err = p.record(topic, &p.ring[(from+i)%ringSize]); err != nil {
				return err
			}
		}
		if err := send(records); err != nil {
			return err
		}
	}
	return nil
}

func (p *publishing) record(topic string, m *message) (event.Record, error) {
	value, err := p.codec.Encode(m.order)
	return event.Record{Topic: topic, Key: []byte(m.order.Key()), Value: value, Headers: m.meta.Headers()}, err
}

// raw hands the same bytes, which are there already, to the client as fast as it takes them.
func (p *publishing) raw(ctx context.Context, topic string, n int, w *watch) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.broker.addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		return err
	}
	var failed atomic.Pointer[error]
	acked := func(_ *kgo.Record, err error) {
		if err != nil {
			failed.Store(&err)
		}
	}
	w.start()
	defer w.stop()
	for i := range n {
		m := &p.ring[i%ringSize]
		cl.Produce(ctx, &kgo.Record{Topic: topic, Key: m.key, Value: m.value, Headers: m.headers}, acked)
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// verify publishes one window with each side and compares what can be read back.
func (p *publishing) verify(ctx context.Context) error {
	var logs [3][]string
	for i, publish := range []func(context.Context, string, int, *watch) error{p.wrapped, p.raw, p.inTurn} {
		err := p.broker.onTopic(ctx, func(topic string) (err error) {
			if err := publish(ctx, topic, window, new(watch)); err != nil {
				return err
			}
			logs[i], err = p.read(ctx, topic, window)
			return err
		})
		if err != nil {
			return err
		}
	}
	if !slices.Equal(logs[0], logs[1]) || !slices.Equal(logs[0], logs[2]) {
		return errors.New("the sides do not write the same records")
	}
	return nil
}

// read returns n records of a topic, by partition and offset.
func (p *publishing) read(ctx context.Context, topic string, n int) ([]string, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(p.broker.addr), kgo.DisableClientMetrics(),
		kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var logs [partitions]bytes.Buffer
	for n > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			n--
			fmt.Fprintf(&logs[r.Partition], "%d %q %x %q\n", r.Offset, r.Key, r.Value, r.Headers)
		})
	}
	var all []string
	for i := range logs {
		all = append(all, logs[i].String())
	}
	return all, nil
}
