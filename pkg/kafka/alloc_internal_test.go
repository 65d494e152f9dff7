package kafka

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"example.com/keyline/pkg/event"
)

func TestConvert_allocatesOnce(t *testing.T) {
	fetched := make([]*kgo.Record, 500)
	for i := range fetched {
		fetched[i] = &kgo.Record{Headers: []kgo.RecordHeader{{Key: event.HeaderID}, {Key: event.HeaderType}}}
	}
	if got := testing.AllocsPerRun(10, func() { convert([16]byte{}, fetched) }); got > 1 {
		t.Errorf("%.0f allocations for a batch, want the records themselves", got)
	}
}

func TestStartSend_unsampled(t *testing.T) {
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample())).Tracer("test")
	r := event.Record{Topic: "orders", Headers: event.Meta{ID: "id"}.Headers()}
	r.Headers = append(r.Headers, event.Header{Key: event.HeaderTraceparent, Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")})
	got := testing.AllocsPerRun(100, func() {
		if span, _ := startSend(tracer, &r); span != nil {
			t.Error("a span of a trace that is not sampled")
		}
	})
	if got > 0 {
		t.Errorf("%.0f allocations, want none", got)
	}
}

// The client's hooks may append to a record's headers, and a processor to an event's. Neither
// writes into what the other sees, or behind it.
func TestHeaders_sharedButNotAppendedTo(t *testing.T) {
	t.Parallel()
	ours := append(make([]event.Header, 0, 3), event.Header{Key: "a", Value: []byte("1")}, event.Header{Key: "b"})
	theirs := toClient(ours)
	if len(theirs) != 2 || theirs[0].Key != "a" || string(theirs[0].Value) != "1" || theirs[1].Key != "b" || theirs[1].Value != nil {
		t.Errorf("toClient(%v) = %v", ours, theirs)
	}
	_ = append(theirs, kgo.RecordHeader{Key: "behind"})
	if got := ours[:3][2].Key; got != "" {
		t.Errorf("an append to the client's headers wrote %q behind ours", got)
	}
	back := fromClient(append(make([]kgo.RecordHeader, 0, 3), theirs...))
	if len(back) != 2 || back[0].Key != "a" || string(back[0].Value) != "1" || cap(back) != 2 {
		t.Errorf("fromClient(%v) = %v with room for %d", theirs, back, cap(back))
	}
	if toClient(nil) != nil || fromClient(nil) != nil {
		t.Error("no headers became some")
	}
}
