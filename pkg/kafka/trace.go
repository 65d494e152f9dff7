package kafka

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
)

// headerDeadLetter is on every dead letter: a copy for people and tools, whose headers are
// the original's and are not touched.
const headerDeadLetter = "dlt-topic"

// maxAttribute bounds what a span keeps of a record's key or ID, in bytes.
const maxAttribute = 256

// startSend starts the producer span of a record that belongs to a sampled trace, and returns
// the headers that carry it on. For any other record it returns no span and the headers as
// they are: that costs a look at the headers and no allocation, because nothing is built
// before it is known to be kept.
func startSend(tracer trace.Tracer, r *event.Record) (trace.Span, []event.Header) {
	parent := event.SpanContext(r.Headers)
	if !parent.IsSampled() || r.Header(headerDeadLetter) != nil {
		return nil, r.Headers
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), parent)
	_, span := tracer.Start(ctx, "send "+r.Topic, trace.WithSpanKind(trace.SpanKindProducer))
	if !span.IsRecording() {
		return nil, r.Headers // our own sampler decided otherwise
	}
	return span, event.WithSpanContext(r.Headers, span.SpanContext())
}

// endSend ends a span with the broker's answer. All attributes are set here, in one go.
func endSend(span trace.Span, r *kgo.Record, err error) {
	attrs := make([]attribute.KeyValue, 0, 8)
	attrs = append(attrs,
		semconv.MessagingSystemKafka,
		semconv.MessagingOperationName("send"),
		semconv.MessagingOperationTypeSend,
		semconv.MessagingDestinationName(r.Topic),
	)
	if r.Key != nil {
		attrs = append(attrs, semconv.MessagingKafkaMessageKey(printable(r.Key)))
	}
	for _, h := range r.Headers {
		switch h.Key {
		case event.HeaderID:
			attrs = append(attrs, semconv.MessagingMessageID(printable(h.Value)))
		case event.HeaderType:
			attrs = append(attrs, semconv.CloudEventsEventType(printable(h.Value)))
		}
	}
	if err == nil {
		attrs = append(attrs,
			semconv.MessagingDestinationPartitionID(strconv.Itoa(int(r.Partition))),
			semconv.MessagingKafkaOffset(int(r.Offset)))
	} else {
		attrs = append(attrs, errorType(err))
		span.SetStatus(codes.Error, err.Error())
	}
	span.SetAttributes(attrs...)
	span.End()
}

// errorType is Kafka's own name of an error, of which there are about a hundred, or _OTHER.
func errorType(err error) attribute.KeyValue {
	if e, ok := errors.AsType[*kerr.Error](err); ok {
		return semconv.ErrorTypeKey.String(e.Message)
	}
	return semconv.ErrorTypeOther
}

func printable(b []byte) string {
	return strings.ToValidUTF8(string(b[:min(len(b), maxAttribute)]), "\uFFFD")
}
