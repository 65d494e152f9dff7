package inbox_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

func TestProcessSpan(t *testing.T) {
	t.Parallel()
	record := func() (*tracetest.SpanRecorder, trace.Tracer) {
		rec := tracetest.NewSpanRecorder()
		return rec, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec)).Tracer("test")
	}
	t.Run("is a child of the producer's span and linked to it, with the messaging attributes", func(t *testing.T) {
		t.Parallel()
		rec, tracer := record()
		r := newRig(t, inbox.Config{Tracer: tracer})
		var during, meta trace.SpanContext
		inbox.Handle(r.Inbox, func(ctx context.Context, _ *db.Tx, e event.Event[step]) error {
			during, meta = trace.SpanContextFromContext(ctx), e.Meta.Trace
			return nil
		})
		r.steps("a", 1, 1)
		r.poll(0)
		span := rec.Ended()[0]
		if span.Name() != "process steps" || span.SpanKind() != trace.SpanKindConsumer || span.Parent().SpanID() != sampled.SpanID() ||
			span.SpanContext().TraceID() != sampled.TraceID() || len(span.Links()) != 1 || span.Links()[0].SpanContext.SpanID() != sampled.SpanID() {
			t.Errorf("%s of kind %v below %v, links %v", span.Name(), span.SpanKind(), span.Parent(), span.Links())
		}
		if !during.Equal(span.SpanContext()) || !meta.Equal(span.SpanContext()) {
			t.Error("the handler ran in another span")
		}
		got := map[attribute.Key]string{}
		for _, a := range span.Attributes() {
			got[a.Key] = a.Value.String()
		}
		want := map[attribute.Key]string{
			"messaging.system": "kafka", "messaging.operation.name": "process", "messaging.operation.type": "process",
			"messaging.destination.name": "steps", "messaging.destination.partition.id": "0", "messaging.kafka.offset": "0",
			"messaging.kafka.message.key": "a", "messaging.consumer.group.name": "test", "messaging.message.id": "a-1", "cloudevents.event_type": "test.Step", "attempt": "1",
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an attempt that was rolled back for another event's sake leaves none, a failed one an error", func(t *testing.T) {
		t.Parallel()
		rec, tracer := record()
		r := newRig(t, inbox.Config{Tracer: tracer}).handlers()
		r.setFail("b1", errOops)
		r.steps("a", 1, 1)
		r.steps("b", 1, 1)
		r.poll(0)
		byKey := map[string][]sdktrace.ReadOnlySpan{}
		for _, s := range rec.Ended() {
			for _, a := range s.Attributes() {
				if a.Key == "messaging.kafka.message.key" {
					byKey[a.Value.AsString()] = append(byKey[a.Value.AsString()], s)
				}
			}
		}
		if len(byKey["a"]) != 1 || len(byKey["b"]) != 1 || byKey["b"][0].Status().Description != "oops" {
			t.Errorf("spans of a: %d, of b: %v", len(byKey["a"]), byKey["b"])
		}
	})
	t.Run("a redriven event begins a trace that is linked to the old one", func(t *testing.T) {
		t.Parallel()
		rec, tracer := record()
		r := newRig(t, inbox.Config{Tracer: tracer}).handlers()
		r.setFail("a1", inbox.Permanent(errOops))
		r.steps("a", 1, 1)
		r.poll(0)
		r.setFail("a1", nil)
		d := desk{r, r.Routes()}
		d.call("POST", "/admin/waiting/redrive", `{"dry_run": false}`)
		r.run()
		r.until("it is done", func() bool { return len(r.done()) == 1 })
		r.until("its span has ended", func() bool { return len(rec.Ended()) == 2 })
		span := rec.Ended()[1]
		if span.Parent().IsValid() || span.SpanContext().TraceID() == sampled.TraceID() || span.Links()[0].SpanContext.TraceID() != sampled.TraceID() {
			t.Errorf("trace %s below %v, links %v", span.SpanContext().TraceID(), span.Parent(), span.Links())
		}
	})
	t.Run("a trace that is not sampled costs no span and is carried on", func(t *testing.T) {
		t.Parallel()
		rec, tracer := record()
		r := newRig(t, inbox.Config{Tracer: tracer})
		var during trace.SpanContext
		inbox.Handle(r.Inbox, func(ctx context.Context, _ *db.Tx, _ event.Event[step]) error {
			during = trace.SpanContextFromContext(ctx)
			return nil
		})
		r.steps("a", 1, 1)
		unsampled := sampled.WithTraceFlags(0)
		r.log[0].Headers = event.WithSpanContext(r.log[0].Headers, unsampled)
		r.poll(0)
		if len(rec.Ended()) != 0 || during.TraceID() != sampled.TraceID() || during.IsSampled() {
			t.Errorf("%d spans, ran in %v", len(rec.Ended()), during)
		}
	})
}
