package inbox

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// processSpan is the span of one attempt at one event, with what its metrics need.
type processSpan struct {
	trace.Span // nil if the trace is not sampled
	sc         trace.SpanContext
	start, end time.Time
	item       *item
	err        error
}

// span starts the span of an attempt, as a child of the producer's span and linked to it; a
// redriven event starts a new trace that is linked to the old one. Where the producer's
// trace is not sampled there is no span, only its context to carry on, because that must
// cost next to nothing.
func (in *Inbox) span(ctx context.Context, it *item) (context.Context, *processSpan) {
	s := &processSpan{start: time.Now(), item: it, sc: it.producer}
	if s.sc.IsValid() && !s.sc.IsSampled() {
		return trace.ContextWithRemoteSpanContext(ctx, s.sc), s
	}
	opts := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(s.start), trace.WithAttributes(
		semconv.MessagingSystemKafka,
		semconv.MessagingOperationName("process"),
		semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(it.Topic),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(it.Partition))),
		semconv.MessagingKafkaOffset(int(it.Offset)),
		semconv.MessagingKafkaMessageKey(it.meta.Subject),
		semconv.MessagingConsumerGroupName(in.cfg.Group),
		semconv.MessagingMessageID(it.meta.ID),
		semconv.CloudEventsEventType(it.meta.Type),
		attribute.Int("attempt", it.attempts+1),
	)}
	if s.sc.IsValid() {
		ctx = trace.ContextWithRemoteSpanContext(ctx, s.sc)
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: s.sc}))
	}
	if it.redrives > 0 {
		opts = append(opts, trace.WithNewRoot())
	}
	ctx, s.Span = in.cfg.Tracer.Start(ctx, "process "+it.Topic, opts...)
	s.sc = s.SpanContext()
	return ctx, s
}

func (s *processSpan) done(err error) { s.end, s.err = time.Now(), err }

// finish ends the span. Until then it is not exported: an attempt that was rolled back for
// another event's sake leaves none.
func (s *processSpan) finish() {
	if s.Span == nil {
		return
	}
	if s.err != nil {
		s.SetAttributes(semconv.ErrorTypeKey.String(errorType(s.err)))
		s.SetStatus(codes.Error, errorText(s.err))
	}
	s.End(trace.WithTimestamp(s.end))
}

// errorType is what an error is called in a span: few values, and no data of the event.
func errorType(err error) string {
	for {
		wrapped, ok := err.(interface{ Unwrap() error })
		if !ok || wrapped.Unwrap() == nil {
			return fmt.Sprintf("%T", err)
		}
		err = wrapped.Unwrap()
	}
}
