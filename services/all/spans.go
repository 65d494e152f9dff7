package all

import (
	"context"
	"slices"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// spans collects the finished spans of the services in this process, for the page. It keeps
// the latest traces and is safe for concurrent use.
type spans struct {
	mu     sync.Mutex
	traces map[trace.TraceID][]sdktrace.ReadOnlySpan
	order  []trace.TraceID // oldest first
}

const (
	maxTraces = 1000
	maxSpans  = 100 // of one trace
)

func newSpans() *spans { return &spans{traces: map[trace.TraceID][]sdktrace.ReadOnlySpan{}} }

// OnStart is part of [sdktrace.SpanProcessor].
func (*spans) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd is part of [sdktrace.SpanProcessor].
func (s *spans) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	id := span.SpanContext().TraceID()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.traces[id]; !known {
		s.order = append(s.order, id)
		if len(s.order) > maxTraces {
			delete(s.traces, s.order[0])
			s.order = slices.Delete(s.order, 0, 1)
		}
	}
	if len(s.traces[id]) < maxSpans {
		s.traces[id] = append(s.traces[id], span)
	}
}

// Shutdown is part of [sdktrace.SpanProcessor].
func (*spans) Shutdown(context.Context) error { return nil }

// ForceFlush is part of [sdktrace.SpanProcessor].
func (*spans) ForceFlush(context.Context) error { return nil }

// Trace returns the spans of a trace, by their start.
func (s *Shop) Trace(id trace.TraceID) []sdktrace.ReadOnlySpan {
	s.spans.mu.Lock()
	defer s.spans.mu.Unlock()
	all := slices.Clone(s.spans.traces[id])
	slices.SortStableFunc(all, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	return all
}

// bar is one line of a waterfall.
type bar struct {
	Service, Name string
	Depth         int
	Left, Width   float64 // percent of the whole
	Start, Took   time.Duration
	Failed        bool
}

// waterfall draws a trace: every span below its parent, by start.
func waterfall(all []sdktrace.ReadOnlySpan) (bars []bar, took time.Duration) {
	if len(all) == 0 {
		return nil, 0
	}
	begin, end := all[0].StartTime(), all[0].EndTime()
	children := map[trace.SpanID][]sdktrace.ReadOnlySpan{}
	known := map[trace.SpanID]bool{}
	for _, s := range all {
		known[s.SpanContext().SpanID()] = true
		if s.EndTime().After(end) {
			end = s.EndTime()
		}
	}
	var roots []sdktrace.ReadOnlySpan
	for _, s := range all {
		if parent := s.Parent().SpanID(); known[parent] {
			children[parent] = append(children[parent], s)
		} else {
			roots = append(roots, s)
		}
	}
	took = max(end.Sub(begin), time.Microsecond)
	var draw func(s sdktrace.ReadOnlySpan, depth int)
	draw = func(s sdktrace.ReadOnlySpan, depth int) {
		b := bar{Name: s.Name(), Depth: depth, Start: s.StartTime().Sub(begin), Took: s.EndTime().Sub(s.StartTime()), Failed: s.Status().Code == 1}
		for _, a := range s.Resource().Attributes() {
			if a.Key == "service.name" {
				b.Service = a.Value.AsString()
			}
		}
		b.Left = 100 * float64(b.Start) / float64(took)
		b.Width = max(0.4, 100*float64(b.Took)/float64(took))
		bars = append(bars, b)
		for _, c := range children[s.SpanContext().SpanID()] {
			draw(c, depth+1)
		}
	}
	for _, r := range roots {
		draw(r, 0)
	}
	return bars, took
}
