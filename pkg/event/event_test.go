package event_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
)

func TestNewID(t *testing.T) {
	t.Parallel()
	m := event.Meta{ID: "e1", Source: "/order"}
	first := event.NewID("/inventory", event.By(m), "shop.StockReserved", 0)
	t.Run("is the same for the same work, for ever", func(t *testing.T) {
		t.Parallel()
		if want := "e92c23f0-cc83-509c-9e7f-cfdb1adaa420"; first != want {
			t.Errorf("NewID = %s, want %s: changing it makes every consumer see old events as new", first, want)
		}
	})
	t.Run("differs in every part", func(t *testing.T) {
		t.Parallel()
		seen := map[string]string{first: "the first"}
		for what, id := range map[string]string{
			"source":            event.NewID("/email", event.By(m), "shop.StockReserved", 0),
			"type":              event.NewID("/inventory", event.By(m), "shop.StockRejected", 0),
			"ordinal":           event.NewID("/inventory", event.By(m), "shop.StockReserved", 1),
			"cause's ID":        event.NewID("/inventory", event.By(event.Meta{ID: "e2", Source: "/order"}), "shop.StockReserved", 0),
			"cause's source":    event.NewID("/inventory", event.By(event.Meta{ID: "e1", Source: "/x"}), "shop.StockReserved", 0),
			"kind of cause":     event.NewID("/inventory", event.Because("/order", "e1"), "shop.StockReserved", 0),
			"parts' boundaries": event.NewID("/inventory", event.Because("/ordere", "1"), "shop.StockReserved", 0),
			"no cause":          event.NewID("/inventory", event.Cause{}, "shop.StockReserved", 0),
		} {
			if other := seen[id]; other != "" {
				t.Errorf("%s and %s have one ID", what, other)
			}
			seen[id] = what
		}
	})
}

func TestHeaders_round_trip(t *testing.T) {
	t.Parallel()
	m := event.Meta{ID: "e1", Type: "shop.OrderPlaced", Source: "/order", Subject: "o1", Time: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Version: 3, CausationID: "e0", Attempt: 1}
	r := &event.Record{Key: []byte("o1"), Headers: m.Headers()}
	if diff := cmp.Diff(event.ReadMeta(r, m.Type), m, cmp.Comparer(trace.SpanContext.Equal)); diff != "" {
		t.Error(diff)
	}
	if got := event.SpanContext(r.Headers); got.IsValid() {
		t.Errorf("a trace out of nothing: %+v", got)
	}
	state, err := trace.ParseTraceState("a=1,b=2")
	if err != nil {
		t.Fatal(err)
	}
	m.Trace = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true})
	m.CausationID = strings.Repeat("long", 100) // more than there is room for
	r.Headers = m.Headers()
	if got := event.SpanContext(r.Headers); !got.Equal(m.Trace) || event.ReadMeta(r, m.Type).CausationID != m.CausationID {
		t.Errorf("%+v", got)
	}
	stored, err := event.ParseHeaders(event.AppendHeaders(nil, r.Headers))
	if diff := cmp.Diff(stored, r.Headers); err != nil || diff != "" {
		t.Error(err, diff)
	}
}

func TestReadMeta_of_a_foreign_record(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	plain := event.Record{Topic: "orders", TopicID: [16]byte{1}, Partition: 2, Offset: 3, Timestamp: at, Key: []byte("o1")}
	t.Run("takes what is missing from its place", func(t *testing.T) {
		t.Parallel()
		m := event.ReadMeta(&plain, "shop.OrderPlaced")
		if m.ID == "" || m.Subject != "o1" || !m.Time.Equal(at) || m.Version != 0 || m.Source != "" {
			t.Errorf("%+v", m)
		}
		next, again := plain, plain
		next.Offset++
		again.TopicID = [16]byte{2} // the topic was recreated
		if event.ReadMeta(&next, "").ID == m.ID || event.ReadMeta(&again, "").ID == m.ID {
			t.Error("other places have the same ID")
		}
	})
	t.Run("ignores what is hostile", func(t *testing.T) {
		t.Parallel()
		for name, value := range map[string]string{
			"ce_id": strings.Repeat("x", 513), "ce_source": "a\x00b", "ce_causationid": "\xff",
			"ce_time": "yesterday", "ce_aggregateversion": "-1",
		} {
			r := plain
			r.Headers = []event.Header{{Key: name, Value: []byte(value)}}
			if diff := cmp.Diff(event.ReadMeta(&r, "t"), event.ReadMeta(&plain, "t"), cmp.Comparer(trace.SpanContext.Equal)); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		bad := plain
		bad.Key = []byte("a\xff")
		if got := event.ReadMeta(&bad, "").Subject; got != "a\uFFFD" {
			t.Errorf("Subject = %q", got)
		}
	})
}

func TestIdentityOf(t *testing.T) {
	t.Parallel()
	headers := func(source, id string) []event.Header {
		return []event.Header{{Key: "ce_source", Value: []byte(source)}, {Key: "ce_id", Value: []byte(id)}}
	}
	first := event.Record{Topic: "orders", Offset: 1, Headers: headers("/a", "1")}
	twin := event.Record{Topic: "orders", Offset: 9, Partition: 0, Headers: headers("/a", "1")}
	if event.IdentityOf(&first) != event.IdentityOf(&twin) {
		t.Error("a republished twin has another identity")
	}
	for what, other := range map[string]event.Record{
		"another source that counts alike": {Topic: "orders", Offset: 1, Headers: headers("/b", "1")},
		"another topic":                    {Topic: "emails", Offset: 1, Headers: headers("/a", "1")},
		"no headers":                       {Topic: "orders", Offset: 1},
	} {
		if event.IdentityOf(&first) == event.IdentityOf(&other) {
			t.Errorf("%s: the same identity", what)
		}
	}
}

func TestSpanContext(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	with := func(values ...string) (h []event.Header) {
		for _, v := range values {
			h = append(h, event.Header{Key: "traceparent", Value: []byte(v)})
		}
		return h
	}
	t.Run("reads a traceparent and writes it back", func(t *testing.T) {
		t.Parallel()
		sc := event.SpanContext(append(with(good), event.Header{Key: "tracestate", Value: []byte("a=1,b=2")}))
		if !sc.IsValid() || !sc.IsRemote() || !sc.IsSampled() || sc.TraceState().String() != "a=1,b=2" {
			t.Errorf("%+v", sc)
		}
		if got := string(event.Traceparent(sc)); got != good {
			t.Errorf("Traceparent = %s, want %s", got, good)
		}
		out := event.WithSpanContext([]event.Header{{Key: "x"}, {Key: "traceparent"}, {Key: "traceparent"}, {Key: "tracestate"}}, sc)
		var names []string
		for _, h := range out {
			names = append(names, h.Key)
		}
		if diff := cmp.Diff(names, []string{"x", "traceparent", "tracestate"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("takes nothing malformed, doubled or too long", func(t *testing.T) {
		t.Parallel()
		for _, bad := range []string{
			"", good[:54], good + "0", strings.ToUpper(good), "01" + good[2:], "00-" + strings.Repeat("0", 32) + good[35:],
			good[:36] + strings.Repeat("0", 16) + "-01", strings.Replace(good, "-", "_", 1), good[:53] + "zz",
		} {
			if sc := event.SpanContext(with(bad)); sc.IsValid() {
				t.Errorf("%q was taken", bad)
			}
		}
		if sc := event.SpanContext(with(good, good)); sc.IsValid() {
			t.Error("two of them were taken")
		}
		long := append(with(good), event.Header{Key: "tracestate", Value: []byte("a=" + strings.Repeat("x", 600))})
		if sc := event.SpanContext(long); sc.TraceState().Len() != 0 || !sc.IsValid() {
			t.Error("a tracestate of 600 bytes was carried on")
		}
	})
}

// Each of these is done for every record.
func TestAllocations(t *testing.T) {
	m := event.Meta{ID: "e92c23f0-cc83-509c-9e7f-cfdb1adaa420", Type: "shop.StockReserved", Source: "/inventory", Subject: "e92c23f0-cc83-509c-9e7f-cfdb1adaa421",
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), Version: 3, CausationID: "e92c23f0-cc83-509c-9e7f-cfdb1adaa422",
		Trace: trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})}
	r := event.Record{Key: []byte(m.Subject), Headers: m.Headers()}
	for name, tt := range map[string]struct {
		of   func()
		want float64
	}{
		"headers in one piece, trace and all": {func() { r.Headers = m.Headers() }, 1},
		"a copy of them, and a traceparent":   {func() { event.WithSpanContext(r.Headers, m.Trace) }, 2},
		"reading a trace":                     {func() { event.SpanContext(r.Headers) }, 0},
		"ID, source, subject and cause":       {func() { event.ReadMeta(&r, m.Type) }, 4},
		"an identity":                         {func() { event.IdentityOf(&r) }, 0},
	} {
		if got := testing.AllocsPerRun(100, tt.of); got > tt.want {
			t.Errorf("%s: %.0f allocations, want %.0f", name, got, tt.want)
		}
	}
}

func FuzzParseHeaders(f *testing.F) {
	f.Add(event.AppendHeaders(nil, event.Meta{ID: "a"}.Headers()))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		headers, err := event.ParseHeaders(b)
		if err != nil {
			return
		}
		again, err := event.ParseHeaders(event.AppendHeaders(nil, headers))
		if diff := cmp.Diff(again, headers); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
}
