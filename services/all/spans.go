package all

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// spans collects the finished spans of the services in this process, for the page. It keeps
// the latest traces and is safe for concurrent use.
type spans struct {
	mu     sync.Mutex
	traces map[trace.TraceID][]sdktrace.ReadOnlySpan
	later  map[trace.TraceID][]trace.TraceID // traces that a redrive of this one's events began
	order  []trace.TraceID                   // oldest first
}

const (
	maxTraces = 1000
	maxSpans  = 100 // of one trace
	maxLater  = 10  // traces that follow one
)

func newSpans() *spans {
	return &spans{traces: map[trace.TraceID][]sdktrace.ReadOnlySpan{}, later: map[trace.TraceID][]trace.TraceID{}}
}

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
			delete(s.later, s.order[0])
			s.order = slices.Delete(s.order, 0, 1)
		}
	}
	if len(s.traces[id]) < maxSpans {
		s.traces[id] = append(s.traces[id], span)
	}
	if span.Parent().IsValid() {
		return
	}
	for _, l := range span.Links() {
		if of := l.SpanContext.TraceID(); of != id && len(s.later[of]) < maxLater && !slices.Contains(s.later[of], id) {
			s.later[of] = append(s.later[of], id)
		}
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

// Later returns the traces that began where an event of the given one was redriven, oldest
// first.
func (s *Shop) Later(id trace.TraceID) []trace.TraceID {
	s.spans.mu.Lock()
	defer s.spans.mu.Unlock()
	return slices.Clone(s.spans.later[id])
}

// fall is a trace as the page shows it.
type fall struct {
	TraceID string
	Bars    []bar
	Took    time.Duration
}

// falls are the waterfalls of a trace, and of those that followed it.
func (s *Shop) falls(id trace.TraceID) (all []fall) {
	for _, one := range append([]trace.TraceID{id}, s.Later(id)...) {
		bars, took := waterfall(s.Trace(one))
		all = append(all, fall{one.String(), bars, took})
	}
	return all
}

// bar is one line of a waterfall.
type bar struct {
	Service, Name string
	Type          string // of the event, without its namespace
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
		for _, a := range s.Attributes() {
			if a.Key == semconv.CloudEventsEventTypeKey {
				full := a.Value.AsString()
				b.Type = full[strings.LastIndexByte(full, '.')+1:]
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
