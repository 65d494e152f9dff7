package kafka_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/event"
)

// recorder is a processor that remembers what it was given.
type recorder struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced with every batch
	batches []event.Batch
	values  map[string]int // how often each value was done
	byKey   map[string][]string
	// before decides about a batch; nil accepts it.
	before func(ctx context.Context, b event.Batch) error
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}), values: map[string]int{}, byKey: map[string][]string{}}
}

func (r *recorder) Process(ctx context.Context, b event.Batch) error {
	if r.before != nil {
		if err := r.before(ctx, b); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.batches = append(r.batches, b)
	for _, rec := range b.Records {
		r.values[string(rec.Value)]++
		r.byKey[string(rec.Key)] = append(r.byKey[string(rec.Key)], string(rec.Value))
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// wait blocks until ok holds; ok is called with the recorder locked.
func (r *recorder) wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		done, changed := ok(), r.changed
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("waiting for %s: %d values done", what, len(r.values))
		}
	}
}

// waitFor blocks until n different values have been done.
func (r *recorder) waitFor(t testing.TB, n int) {
	t.Helper()
	r.wait(t, fmt.Sprintf("%d values", n), func() bool { return len(r.values) >= n })
}

// inOrder fails unless the first sight of each key's values is 0, 1, 2 …
func (r *recorder) inOrder(t testing.TB) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, values := range r.byKey {
		seen := map[string]bool{}
		for _, v := range values {
			if seen[v] {
				continue
			}
			if want := fmt.Sprintf("%s:%d", key, len(seen)); v != want {
				t.Errorf("key %s: got %s as first sight, want %s", key, v, want)
			}
			seen[v] = true
		}
	}
}

// logbook is a logger whose lines can be searched and waited for.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logbook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// line returns the first line that holds all parts, or "".
func (l *logbook) line(parts ...string) string {
	for line := range strings.Lines(l.String()) {
		has := true
		for _, p := range parts {
			has = has && strings.Contains(line, p)
		}
		if has {
			return line
		}
	}
	return ""
}

func (l *logbook) wait(t testing.TB, parts ...string) string {
	t.Helper()
	eventually(t, fmt.Sprintf("a log line with %q in\n%s", parts, l), func() bool { return l.line(parts...) != "" })
	return l.line(parts...)
}
