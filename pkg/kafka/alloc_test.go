package kafka_test

import (
	"errors"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// What Publish, the client and the broker in this process allocate, they allocate for windows and
// batches: a single allocation for each record would be seen.
func TestProducer_AllocatesForWindowsNotForRecords(t *testing.T) {
	addrs := fake(t).ListenAddrs()
	p := newProducer(t, kafka.Config{Brokers: addrs, Tracer: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample())).Tracer("test")})
	headers := event.Meta{ID: "id", Type: "shop.OrderPlaced", Source: "/order", Subject: "order-1"}.Headers()
	headers = append(headers, event.Header{Key: event.HeaderTraceparent, Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")})
	window := numbered(newTopic(t, addrs, 1), 0, 10, keys(100)...)
	for i := range window {
		window[i].Headers = headers
	}
	publish := func() {
		if errs := p.Publish(t.Context(), window); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
	}
	publish() // the topic is looked up
	if got := testing.AllocsPerRun(5, publish) / float64(len(window)); got > 0.2 {
		t.Errorf("%.2f allocations for each record, want at most 0.2", got)
	}
}
