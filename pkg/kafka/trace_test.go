package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

const (
	traceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	spanID  = "00f067aa0ba902b7"
)

func recordWith(topic, traceparent string, more ...event.Header) event.Record {
	headers := []event.Header{{Key: event.HeaderID, Value: []byte("id-1")}, {Key: event.HeaderTraceparent, Value: []byte(traceparent)}}
	return event.Record{Topic: topic, Key: []byte("order-1"), Value: []byte("v"), Headers: append(headers, more...)}
}

func TestPublish_Spans(t *testing.T) {
	t.Parallel()

	t.Run("a sampled record gets a producer span, which its header then carries", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		spans := tracetest.NewSpanRecorder()
		p := newProducer(t, kafka.Config{Brokers: addrs, Tracer: tracer(spans, sdktrace.AlwaysSample())})
		state := event.Header{Key: event.HeaderTracestate, Value: []byte("vendor=1")}
		if errs := p.Publish(t.Context(), []event.Record{recordWith(topic, "00-"+traceID+"-"+spanID+"-01", state)}); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
		ended := spans.Ended()
		if len(ended) != 1 {
			t.Fatalf("got %d spans, want 1", len(ended))
		}
		s := ended[0]
		if s.Name() != "send "+topic || s.SpanKind() != trace.SpanKindProducer || s.SpanContext().TraceID().String() != traceID || s.Parent().SpanID().String() != spanID {
			t.Errorf("got span %q %v %v, parent %v", s.Name(), s.SpanKind(), s.SpanContext(), s.Parent())
		}
		want := map[string]string{
			"messaging.system": "kafka", "messaging.operation.name": "send", "messaging.operation.type": "send",
			"messaging.destination.name": topic, "messaging.destination.partition.id": "0", "messaging.kafka.offset": "0",
			"messaging.kafka.message.key": "order-1", "messaging.message.id": "id-1",
		}
		if diff := cmp.Diff(want, attributes(s.Attributes())); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		wire := readAll(t, addrs, topic)[0]
		carried := fmt.Sprintf("00-%s-%s-01", traceID, s.SpanContext().SpanID())
		if got := headers(wire); got[event.HeaderTraceparent] != carried || got[event.HeaderTracestate] != "vendor=1" || got[event.HeaderID] != "id-1" || len(wire.Headers) != 3 {
			t.Errorf("headers: got %v, want traceparent %s beside the others", got, carried)
		}
	})

	t.Run("a record that fails ends its span with the error's type", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		spans := tracetest.NewSpanRecorder()
		p := newProducer(t, kafka.Config{Brokers: addrs, Tracer: tracer(spans, sdktrace.AlwaysSample())})
		if errs := p.Publish(t.Context(), []event.Record{recordWith(unique(t, "missing"), "00-"+traceID+"-"+spanID+"-01")}); errs == nil {
			t.Fatal("got nil, want an error")
		}
		if got := attributes(spans.Ended()[0].Attributes())["error.type"]; got != "UNKNOWN_TOPIC_OR_PARTITION" {
			t.Errorf("error.type: got %q", got)
		}
	})

	huge := string(bytes.Repeat([]byte("a"), 10_000))
	for name, r := range map[string]event.Record{
		"unsampled":                      recordWith("", "00-"+traceID+"-"+spanID+"-00"),
		"a dead letter":                  recordWith("", "00-"+traceID+"-"+spanID+"-01", event.Header{Key: "dlt-topic", Value: []byte("orders")}),
		"a dead letter's empty topic":    recordWith("", "00-"+traceID+"-"+spanID+"-01", event.Header{Key: "dlt-topic", Value: []byte{}}),
		"without trace context":          {Value: []byte("v")},
		"a traceparent of another shape": recordWith("", "01-"+traceID+"-"+spanID+"-01"),
		"a traceparent in capitals":      recordWith("", "00-4BF92F3577B34DA6A3CE929D0E0E4736-"+spanID+"-01"),
		"an all-zero trace":              recordWith("", "00-00000000000000000000000000000000-"+spanID+"-01"),
		"10 kB of traceparent":           recordWith("", huge),
		"two traceparents":               recordWith("", "00-"+traceID+"-"+spanID+"-01", event.Header{Key: event.HeaderTraceparent, Value: []byte("x")}),
		"bytes that are no text":         recordWith("", "00-\xff\xfe\x00"),
	} {
		t.Run(name+": no span, and headers untouched", func(t *testing.T) {
			t.Parallel()
			addrs := brokers(t)
			r.Topic = newTopic(t, addrs, 1)
			spans := tracetest.NewSpanRecorder()
			p := newProducer(t, kafka.Config{Brokers: addrs, Tracer: tracer(spans, sdktrace.AlwaysSample())})
			if errs := p.Publish(t.Context(), []event.Record{r}); errs != nil {
				t.Fatal(errors.Join(errs...))
			}
			if got := len(spans.Started()); got != 0 {
				t.Errorf("got %d spans, want none", got)
			}
			var got []event.Header
			for _, h := range readAll(t, addrs, r.Topic)[0].Headers {
				got = append(got, event.Header(h))
			}
			if diff := cmp.Diff(r.Headers, got); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}

	t.Run("a sampler that says no leaves the header as it is", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		spans := tracetest.NewSpanRecorder()
		p := newProducer(t, kafka.Config{Brokers: addrs, Tracer: tracer(spans, sdktrace.NeverSample())})
		traceparent := "00-" + traceID + "-" + spanID + "-01"
		if errs := p.Publish(t.Context(), []event.Record{recordWith(topic, traceparent)}); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
		if got := headers(readAll(t, addrs, topic)[0])[event.HeaderTraceparent]; got != traceparent {
			t.Errorf("got %s, want %s", got, traceparent)
		}
	})
}

func TestPublish_Metrics(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	topic, missing, m := newTopic(t, addrs, 1), unique(t, "missing"), newMetrics()
	p := newProducer(t, kafka.Config{Brokers: addrs, Meter: m.meter})
	p.Publish(t.Context(), append(numbered(topic, 0, 7, "k"), numbered(missing, 0, 3, "k")...))
	if got := m.value(t, "messaging.client.sent.messages", "messaging.destination.name", topic); got != 7 {
		t.Errorf("sent: got %v, want 7", got)
	}
	if got := m.value(t, "messaging.client.sent.messages", "messaging.destination.name", missing, "error.type", "UNKNOWN_TOPIC_OR_PARTITION"); got != 3 {
		t.Errorf("failed: got %v, want 3", got)
	}
}

func TestConsumer_Lag(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	topic, m := newTopic(t, addrs, 2), newMetrics()
	rec, carryOn := newRecorder(), make(chan struct{})
	rec.before = func(_ context.Context, b event.Batch) error {
		if b.Partition == 1 { // where Java's table has "abc"
			<-carryOn
		}
		return nil
	}
	c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group"), Meter: m.meter}, rec, nil, topic)
	eventually(t, "the group", c.Joined)
	publish(t, addrs, numbered(topic, 0, 10, "abc", "foobar")...)
	rec.waitFor(t, 10)
	lag := func(partition string) float64 {
		return m.value(t, "consumer_lag_records", "partition", partition, "topic", topic)
	}
	eventually(t, "a lag of 10", func() bool { return lag("1") == 10 })
	eventually(t, "no lag", func() bool { return lag("0") == 0 })
	if got := m.value(t, "consumer_lag_seconds", "partition", "1"); got < 0 || got > 60 {
		t.Errorf("consumer_lag_seconds of the blocked partition: got %v", got)
	}
	if got := m.value(t, "consumer_lag_seconds", "partition", "0"); got != 0 {
		t.Errorf("consumer_lag_seconds of the other: got %v, want 0", got)
	}
	close(carryOn)
	rec.waitFor(t, 20)
	eventually(t, "no lag", func() bool { return lag("1") == 0 })
	_ = c.stop(t)
	if got := lag("0"); got != -1 {
		t.Errorf("lag after the stop: got %v, want none of what is not owned", got)
	}
}

func tracer(spans *tracetest.SpanRecorder, sampler sdktrace.Sampler) trace.Tracer {
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithSampler(sampler)).Tracer("test")
}

func attributes(kvs []attribute.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range kvs {
		out[string(kv.Key)] = kv.Value.String()
	}
	return out
}

func headers(r *kgo.Record) map[string]string {
	out := map[string]string{}
	for _, h := range r.Headers {
		out[h.Key] = string(h.Value)
	}
	return out
}
