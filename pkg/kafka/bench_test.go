package kafka

import (
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"example.com/keyline/pkg/event"
)

// BenchmarkPublishTrace is what tracing costs a published record of ours, without the client:
// the look at its headers, and where it is sampled its span and the new header.
func BenchmarkPublishTrace(b *testing.B) {
	sdk := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample())).Tracer("bench")
	for name, of := range map[string]struct {
		tracer trace.Tracer
		flags  string
	}{"unsampled": {sdk, "00"}, "sampled": {sdk, "01"}, "no tracer": {noop.Tracer{}, "00"}} {
		b.Run(name, func(b *testing.B) {
			r := event.Record{Topic: "orders", Key: []byte("order-1"), Headers: event.Meta{ID: "id-1", Type: "t", Source: "/order", Subject: "order-1"}.Headers()}
			r.Headers = append(r.Headers, event.Header{Key: event.HeaderTraceparent, Value: []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-" + of.flags)})
			s := slot{of: &r}
			b.ReportAllocs()
			for b.Loop() {
				s.span = nil
				s.trace(of.tracer)
				if s.span != nil {
					endSend(s.span, &s.rec, nil)
				}
			}
		})
	}
}
