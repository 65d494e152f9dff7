package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The traces of the three orders: each span as "service: name" below its parent.
var (
	wantPlaced = []string{
		"order: POST /v1/orders",
		"  order: send orders",
		"    email: process orders",
		"    inventory: process orders",
		"      inventory: send inventory",
		"        order: process inventory",
		"          order: send orders",
		"            email: process orders",
		"              email: send emails",
		"              email: smtp send",
	}
	wantCancelled = []string{
		"order: POST /v1/orders/{id}/cancel",
		"  order: send orders",
		"    email: process orders",
		"      email: send emails",
		"      email: smtp send",
		"    inventory: process orders",
		"      inventory: send inventory",
		"        order: process inventory",
	}
)

// jaegerTrace is a trace as Jaeger's API answers it.
type jaegerTrace struct {
	ID        string `json:"traceID"`
	Spans     []span `json:"spans"`
	Processes map[string]struct {
		Service string `json:"serviceName"`
	} `json:"processes"`
}

type span struct {
	TraceID    string `json:"traceID"`
	ID         string `json:"spanID"`
	Name       string `json:"operationName"`
	Process    string `json:"processID"`
	Start      int64  `json:"startTime"` // microseconds
	Duration   int64  `json:"duration"`
	References []struct {
		Kind    string `json:"refType"`
		TraceID string `json:"traceID"`
		SpanID  string `json:"spanID"`
	} `json:"references"`
}

// parent is the span that caused this one, empty for the first. Where a span is linked to its
// parent, as those that process events are, Jaeger answers the link alone, FOLLOWS_FROM.
func (s span) parent() (id string) {
	for _, r := range s.References {
		if r.TraceID == s.TraceID && (id == "" || r.Kind == "CHILD_OF") {
			id = r.SpanID
		}
	}
	return id
}

// tree draws the spans below their parents, those of one parent in alphabetical order. A span
// whose parent is not there stands at the left, as the root does.
func (t jaegerTrace) tree() []string {
	known := map[string]bool{}
	for _, s := range t.Spans {
		known[s.ID] = true
	}
	var draw func(parent, indent string) []string
	draw = func(parent, indent string) []string {
		var below [][]string
		for _, s := range t.Spans {
			if p := s.parent(); p == parent || parent == "" && !known[p] {
				head := indent + t.Processes[s.Process].Service + ": " + s.Name
				below = append(below, append([]string{head}, draw(s.ID, indent+"  ")...))
			}
		}
		slices.SortFunc(below, slices.Compare)
		return slices.Concat(below...)
	}
	return draw("", "")
}

// took is the time from the first span's begin to the last one's end.
func (t jaegerTrace) took() time.Duration {
	var first, last int64
	for i, s := range t.Spans {
		if i == 0 || s.Start < first {
			first = s.Start
		}
		last = max(last, s.Start+s.Duration)
	}
	return time.Duration(last-first) * time.Microsecond
}

// trace waits until Jaeger has a trace as it should be.
func (r *run) trace(ctx context.Context, id string, want []string) (jaegerTrace, error) {
	// Spans come in batches, each service's by itself.
	over := time.Now().Add(30 * time.Second)
	for {
		t, err := r.lookUp(ctx, id)
		got := t.tree()
		if err == nil && slices.Equal(got, want) {
			return t, nil
		}
		if time.Now().After(over) {
			return t, errors.Join(err, fmt.Errorf("trace %s is not as it should be; have:\n%s\nwant:\n%s", id, strings.Join(got, "\n"), strings.Join(want, "\n")))
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return t, err
		}
	}
}

func (r *run) lookUp(ctx context.Context, id string) (jaegerTrace, error) {
	var found struct {
		Data []jaegerTrace `json:"data"`
	}
	status, answer, err := r.jaeger.once(ctx, "GET", "/api/traces/"+id, "", nil)
	switch {
	case err != nil:
		return jaegerTrace{}, fmt.Errorf("ask Jaeger for a trace: %w", err)
	case status == http.StatusNotFound:
		return jaegerTrace{}, nil // not yet
	case status != http.StatusOK:
		return jaegerTrace{}, fmt.Errorf("ask Jaeger for trace %s: %d %.200s", id, status, answer)
	}
	if err := decode(answer, &found); err != nil || len(found.Data) == 0 {
		return jaegerTrace{}, err
	}
	return found.Data[0], nil
}
