package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kotel"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/schemas"
)

// traceRing is how many records B2 goes round; of them the rate is sampled, exactly.
const traceRing = 1000

// rate is how much is sampled.
type rate struct {
	name             string
	publish, consume string // the gates
	sampled          int    // of traceRing
}

var rates = []rate{
	{"0 %", ">= 4, moonshot 8, 150 ns, 2 allocs", ">= 4, moonshot 40, 100 ns, 1 alloc", 0},
	{"1 %", "", "", traceRing / 100},
	{"100 %", "moonshot 8, 1,300 ns", "moonshot 8, 1,300 ns", traceRing},
}

func traceWorks(ctx context.Context, r *rig) (works []work, err error) {
	for _, rate := range rates {
		t, err := newTracing(ctx, r, rate)
		if err != nil {
			return nil, err
		}
		works = append(works,
			work{name: "B2 publish, sampled " + rate.name, sides: t.publish()},
			work{name: "B2 consume, sampled " + rate.name, sides: t.consume()})
		if err := t.verify(ctx, works[len(works)-2:]); err != nil {
			return nil, fmt.Errorf("sampled %s: %w", rate.name, err)
		}
	}
	return works, nil
}

// tracing is one tracer for both sides, and the records of a ring before and after their trip.
type tracing struct {
	rate     rate
	provider *sdktrace.TracerProvider
	ended    discard
	inbox    *inbox.Inbox
	ring     []traced
}

// traced is a record of the ring.
type traced struct {
	ctx     context.Context // of the span that publishes
	parent  trace.SpanContext
	headers []event.Header // without trace context
	sent    event.Record   // with
	item    unsafe.Pointer // what the inbox has made of sent

	theirs     []kgo.RecordHeader // headers
	theirsSent []kgo.RecordHeader // sent.Headers
}

// discard takes spans like an exporter's queue does, and counts them.
type discard struct{ n atomic.Int64 }

func (*discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (d *discard) OnEnd(sdktrace.ReadOnlySpan)                   { d.n.Add(1) }
func (*discard) Shutdown(context.Context) error                  { return nil }
func (*discard) ForceFlush(context.Context) error                { return nil }

// newTracing samples like pkg/telemetry: the ratio decides for roots and for remote parents,
// local children follow their parent.
func newTracing(ctx context.Context, r *rig, rate rate) (*tracing, error) {
	ratio := sdktrace.TraceIDRatioBased(float64(rate.sampled) / traceRing)
	t := &tracing{rate: rate}
	t.provider = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(&t.ended), sdktrace.WithSampler(
		sdktrace.ParentBased(ratio, sdktrace.WithRemoteParentSampled(ratio), sdktrace.WithRemoteParentNotSampled(ratio))))
	var err error
	if t.inbox, err = inbox.New(nil, r.codec, nil, inbox.Config{Group: "bench", Tracer: t.provider.Tracer("keyline")}); err != nil {
		return nil, err
	}
	inbox.Handle(t.inbox, func(context.Context, *db.Tx, event.Event[schemas.OrderPlaced]) error { return nil })
	messages, err := r.ring(distributions[0])
	if err != nil {
		return nil, err
	}
	t.ring = make([]traced, traceRing)
	for i := range t.ring {
		t.ring[i] = t.newTraced(ctx, &messages[i], i < rate.sampled)
		t.ring[i].item = openItem(t.inbox, ctx, &t.ring[i].sent)
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(traceRing, func(i, j int) { t.ring[i], t.ring[j] = t.ring[j], t.ring[i] })
	return t, nil
}

// newTraced starts requests until one is sampled, or not, as asked.
func (t *tracing) newTraced(ctx context.Context, m *message, sampled bool) traced {
	for {
		ctx, span := t.provider.Tracer("http").Start(ctx, "POST /v1/orders")
		if span.SpanContext().IsSampled() != sampled {
			continue
		}
		meta := m.meta
		meta.Trace = trace.SpanContext{}
		out := traced{ctx: ctx, parent: span.SpanContext(), headers: meta.Headers()}
		out.sent = event.Record{
			Topic: schemas.TopicOrders, Partition: 3, Offset: 12345, Timestamp: m.meta.Time, Key: m.key, Value: m.value,
			Headers: event.WithSpanContext(out.headers, out.parent),
		}
		for _, h := range out.headers {
			out.theirs = append(out.theirs, kgo.RecordHeader(h))
		}
		for _, h := range out.sent.Headers {
			out.theirsSent = append(out.theirsSent, kgo.RecordHeader(h))
		}
		out.theirs = out.theirs[:len(out.theirs):len(out.theirs)] // as a literal is
		return out
	}
}

func (t *tracing) kotel() *kotel.Tracer {
	return kotel.NewTracer(kotel.TracerProvider(t.provider), kotel.TracerPropagator(propagation.TraceContext{}), kotel.ConsumerGroup("bench"))
}

// publish is what is between the event's headers and the broker's answer: ours in the outbox
// (the request's span goes into the headers, here into a copy of them) and in the producer,
// kotel's in the client's hooks.
func (t *tracing) publish() []side {
	tracer, hooks := t.provider.Tracer("keyline"), t.kotel()
	var ours event.Record
	theirs := &kgo.Record{Topic: schemas.TopicOrders}
	acked := &kgo.Record{Topic: schemas.TopicOrders, Partition: 3, Offset: 12345}
	return []side{
		each("keyline", "", func(i int) error {
			m := &t.ring[i%traceRing]
			ours.Topic, ours.Key = m.sent.Topic, m.sent.Key
			ours.Headers = event.WithSpanContext(m.headers, m.parent)
			span, headers := startSend(tracer, &ours)
			if span != nil {
				acked.Key, acked.Headers = m.sent.Key, m.theirsSent
				endSend(span, acked, nil)
			}
			if len(headers) != len(m.headers)+1 {
				return errors.New("no traceparent")
			}
			return nil
		}),
		each("kotel", t.rate.publish, func(i int) error {
			m := &t.ring[i%traceRing]
			theirs.Context, theirs.Headers, theirs.Key = m.ctx, m.theirs, m.sent.Key
			hooks.OnProduceRecordBuffered(theirs)
			hooks.OnProduceRecordUnbuffered(theirs, nil)
			if len(theirs.Headers) != len(m.headers)+1 {
				return errors.New("no traceparent")
			}
			return nil
		}),
	}
}

// consume is what is between the fetched headers and the end of the handler. kotel makes two
// spans of it, received and processed.
func (t *tracing) consume() []side {
	hooks, batch := t.kotel(), context.Background()
	theirs := &kgo.Record{}
	return []side{
		each("keyline", "", func(i int) error {
			m := &t.ring[i%traceRing]
			if sc := event.SpanContext(m.sent.Headers); sc.TraceID() != m.parent.TraceID() {
				return errors.New("another trace")
			}
			_, span := startProcess(t.inbox, batch, m.item)
			doneProcess(span, nil)
			finishProcess(span)
			return nil
		}),
		each("kotel", t.rate.consume, func(i int) error {
			m := &t.ring[i%traceRing]
			*theirs = kgo.Record{Topic: m.sent.Topic, Partition: 3, Offset: 12345, Key: m.sent.Key, Value: m.sent.Value, Headers: m.theirsSent}
			hooks.OnFetchRecordBuffered(theirs)
			hooks.OnFetchRecordUnbuffered(theirs, true)
			ctx, span := hooks.WithProcessSpan(theirs)
			span.End()
			if trace.SpanContextFromContext(ctx).TraceID() != m.parent.TraceID() {
				return errors.New("another trace")
			}
			return nil
		}),
	}
}

// verify goes round once with every side and counts the spans that came of it.
func (t *tracing) verify(ctx context.Context, works []work) error {
	for i, spans := range []map[string]int{{"keyline": 1, "kotel": 1}, {"keyline": 1, "kotel": 2}} {
		for _, s := range works[i].sides {
			before := t.ended.n.Load()
			if err := s.run(ctx, traceRing, new(watch)); err != nil {
				return fmt.Errorf("%s: %s: %w", works[i].name, s.name, err)
			}
			if got, want := int(t.ended.n.Load()-before), spans[s.name]*t.rate.sampled; got != want {
				return fmt.Errorf("%s: %s makes %d spans of %d records, not %d", works[i].name, s.name, got, traceRing, want)
			}
		}
	}
	return nil
}
