package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// ringSize is how many different messages a run goes round.
const ringSize = 10_000

// message is one order on its way: what our side is given, and the bytes that have to come of
// it, which the other sides are given.
type message struct {
	order schemas.OrderPlaced
	meta  event.Meta // with a trace that is not sampled

	key, value []byte
	headers    []kgo.RecordHeader
}

// keys draws the keys of a ring: uniform, or as skewed as the keys of real topics are.
type keys struct {
	name string
	draw func(*rand.Rand) func() uint64
}

var distributions = []keys{
	{"uniform keys", func(r *rand.Rand) func() uint64 { return func() uint64 { return r.Uint64N(ringSize) } }},
	{"Zipf keys", func(r *rand.Rand) func() uint64 { return rand.NewZipf(r, 1.1, 1, ringSize-1).Uint64 }},
}

// ring makes messages, the same ones in every run of the program.
func (r *rig) ring(k keys) ([]message, error) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := k.draw(random)
	ring := make([]message, ringSize)
	for i := range ring {
		m := &ring[i]
		m.order = newOrder(random, draw())
		m.meta = event.Meta{
			ID:   event.NewID("/order", event.Because("bench", strconv.Itoa(i)), orderPlaced, 0),
			Type: orderPlaced, Source: "/order", Subject: m.order.OrderID, Time: m.order.PlacedAt, Version: 1,
			Trace: newSpanContext(random, 0),
		}
		var err error
		if m.value, err = r.codec.Encode(m.order); err != nil {
			return nil, err
		}
		m.key = []byte(m.order.Key())
		for _, h := range m.meta.Headers() {
			m.headers = append(m.headers, kgo.RecordHeader(h))
		}
	}
	return ring, nil
}

const orderPlaced = "shop.order.OrderPlaced"

func newOrder(random *rand.Rand, key uint64) schemas.OrderPlaced {
	o := schemas.OrderPlaced{
		OrderID:       event.NewID("/order", event.Because(strconv.FormatUint(key, 10)), "order", 0),
		CustomerID:    fmt.Sprintf("customer-%06d", random.IntN(1_000_000)),
		CustomerEmail: fmt.Sprintf("customer-%06d@example.org", random.IntN(1_000_000)),
		PlacedAt:      time.UnixMilli(1_790_000_000_000 + random.Int64N(1_000_000)).UTC(),
		Currency:      "EUR",
	}
	for range 3 {
		o.Lines = append(o.Lines, schemas.OrderLine{
			SKU:            fmt.Sprintf("SKU-%08d", random.IntN(100_000_000)),
			Quantity:       1 + random.IntN(9),
			UnitPriceCents: 100 + random.Int64N(100_000),
		})
	}
	return o
}

func newSpanContext(random *rand.Rand, flags trace.TraceFlags) trace.SpanContext {
	var cfg trace.SpanContextConfig
	for i := range cfg.TraceID {
		cfg.TraceID[i] = byte(random.Uint32())
	}
	for i := range cfg.SpanID {
		cfg.SpanID[i] = byte(random.Uint32())
	}
	cfg.TraceID[0], cfg.SpanID[0], cfg.TraceFlags = 1, 1, flags // never zero
	return trace.NewSpanContext(cfg)
}

// record is the message as the event of a number.
func (m *message) record(topic string, number int, version int64) event.Record {
	meta := m.meta
	meta.ID = eventID(number)
	meta.Version = version
	return event.Record{Topic: topic, Key: m.key, Value: m.value, Headers: meta.Headers()}
}

func eventID(number int) string {
	return event.NewID("/order", event.Because("bench", strconv.Itoa(number)), orderPlaced, 0)
}

// numbered is an event whose ID is a number.
func (r *rig) numbered(topic string, i int, data event.Payload) (*kgo.Record, error) {
	value, err := r.codec.Encode(data)
	if err != nil {
		return nil, err
	}
	m := event.Meta{ID: strconv.Itoa(i), Type: r.codec.Name(data), Source: "/bench", Subject: data.Key(), Time: started, Version: 1}
	return kafkaRecord(event.Record{Topic: topic, Key: []byte(data.Key()), Value: value, Headers: m.Headers()}), nil
}

// kafkaRecord is a record as the raw client takes it.
func kafkaRecord(r event.Record) *kgo.Record {
	k := &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: make([]kgo.RecordHeader, len(r.Headers))}
	for i, h := range r.Headers {
		k.Headers[i] = kgo.RecordHeader(h)
	}
	return k
}

// ownRecord is what the raw client has read, in our words.
func ownRecord(k *kgo.Record) event.Record {
	r := event.Record{Topic: k.Topic, Key: k.Key, Value: k.Value, Headers: make([]event.Header, len(k.Headers))}
	for i, h := range k.Headers {
		r.Headers[i] = event.Header(h)
	}
	return r
}

// header is empty if the record has no such one.
func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// renamed hands records of the benchmark's topics to an inbox as if they were of the events' own,
// which on a real Kafka may be somebody's.
type renamed struct{ kafka.Processor }

// Process implements kafka.Processor.
func (r renamed) Process(ctx context.Context, b event.Batch) error {
	b.Topic = schemas.TopicOrders
	for i := range b.Records {
		b.Records[i].Topic = b.Topic
	}
	return r.Processor.Process(ctx, b)
}
