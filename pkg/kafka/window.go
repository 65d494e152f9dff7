package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
)

// batchMaxBytes bounds a record batch; it is the brokers' default for max.message.bytes.
const batchMaxBytes = 1_000_012

// errBehind is a record that was not sent because one of its key before it failed.
var errBehind = errors.New("an earlier record of the same key failed")

// window is the records of one Publish on their way.
//
// The order of a key rests on this: no record is sent before every record of the window has
// its place in a partition's queue. When a partition then fails, the client fails all that
// the partition still holds, and that is the rest of the window. A record that took its place
// later, say because its topic had to be looked up first, would be sent behind the failure.
type window struct {
	records []event.Record
	slots   []slot

	mu       sync.Mutex
	waiting  int            // records that neither have a place nor have failed
	placed   chan struct{}  // closed when none is waiting
	finished sync.WaitGroup // records that have neither been acknowledged nor failed
	closed   bool           // the client was closed before all had
}

// slot is one record's part. It is also the record's context, by which the client's callbacks
// find it again; as a context it never ends, because a record that was sent cannot be taken
// back.
type slot struct {
	context.Context
	w       *window
	rec     kgo.Record
	span    trace.Span // nil if not sampled
	sent    bool
	settled bool
	err     error
}

func newWindow(records []event.Record) *window {
	w := &window{records: records, slots: make([]slot, len(records)), placed: make(chan struct{})}
	for i := range w.slots {
		w.slots[i].Context, w.slots[i].w = context.Background(), w
	}
	return w
}

// trace fills in the records, with the headers that their spans ask for.
func (w *window) trace(tracer trace.Tracer) {
	n := 2 * len(w.records) // a span adds at most two headers
	for i := range w.records {
		n += len(w.records[i].Headers)
	}
	all := make([]kgo.RecordHeader, 0, n)
	for i := range w.slots {
		s, r := &w.slots[i], &w.records[i]
		span, headers := startSend(tracer, r)
		from := len(all)
		for _, h := range headers {
			all = append(all, kgo.RecordHeader(h))
		}
		s.span = span
		s.rec = kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: all[from:len(all):len(all)], Context: s}
	}
}

// publish returns when every record is acknowledged or has failed for good.
func (w *window) publish(ctx context.Context, cl *kgo.Client) {
	w.refuse()
	for i := range w.slots {
		if s := &w.slots[i]; s.sent {
			cl.Produce(s, &s.rec, acknowledged)
		}
	}
	select {
	case <-w.placed:
	case <-ctx.Done():
	}
	if ctx.Err() != nil || w.torn() || cl.Flush(ctx) != nil {
		// Only closing the client makes it let go of records: those that were not sent
		// fail, and those that were fail with their connection.
		w.closed = true
		cl.Close()
	}
	w.finished.Wait()
	for i := range w.slots {
		if s := &w.slots[i]; errors.Is(s.err, kgo.ErrClientClosed) && ctx.Err() != nil {
			s.err = ctx.Err()
		}
	}
}

// refuse decides which records are sent. One that no batch can hold is not, because the
// client would fail it alone and write those of its key that follow; they fail with it.
func (w *window) refuse() {
	type key struct{ topic, key string }
	var failed map[key]bool
	for i := range w.slots {
		s, r := &w.slots[i], &w.records[i]
		k := key{r.Topic, string(r.Key)}
		switch {
		case failed[k]:
			s.err = errBehind
		case encodedSize(&s.rec) > batchMaxBytes:
			s.err = fmt.Errorf("%d bytes: %w", encodedSize(&s.rec), kerr.MessageTooLarge)
			if failed == nil {
				failed = map[key]bool{}
			}
			failed[k] = true
		default:
			s.sent = true
			w.waiting++
			w.finished.Add(1)
		}
	}
	if w.waiting == 0 {
		close(w.placed)
	}
}

// encodedSize is at least what a batch of that one record takes, uncompressed.
func encodedSize(r *kgo.Record) int { return 100 + 10*len(r.Headers) + size(r) }

// placedHook hears from the client that a record has its place in a partition's queue.
type placedHook struct{}

// OnProduceRecordPartitioned implements kgo.HookProduceRecordPartitioned.
func (placedHook) OnProduceRecordPartitioned(r *kgo.Record, _ int32) {
	r.Context.(*slot).settle(nil)
}

// acknowledged is called for every record exactly once.
func acknowledged(r *kgo.Record, err error) {
	s := r.Context.(*slot)
	s.settle(err)
	if s.span != nil {
		endSend(s.span, r, err)
	}
	s.w.finished.Done()
}

// settle notes that the record has its place, or has failed.
func (s *slot) settle(err error) {
	w := s.w
	w.mu.Lock()
	defer w.mu.Unlock()
	s.err = err
	if s.settled {
		return
	}
	s.settled = true
	if w.waiting--; w.waiting == 0 {
		close(w.placed)
	}
}

// torn reports whether, before anything was sent, some records of a topic have failed and
// others have not. A topic fails as a whole, unless it appears or a right to it is granted
// while the window is being placed; what is left could then be behind what failed.
func (w *window) torn() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := map[string]bool{}
	for i := range w.slots {
		if s := &w.slots[i]; s.sent && s.err != nil {
			failed[s.rec.Topic] = true
		}
	}
	if len(failed) == 0 {
		return false
	}
	for i := range w.slots {
		if s := &w.slots[i]; s.sent && s.err == nil && failed[s.rec.Topic] {
			return true
		}
	}
	return false
}

// spoiled reports whether the client has failed a record.
func (w *window) spoiled() bool {
	if w.closed {
		return true
	}
	for i := range w.slots {
		if w.slots[i].sent && w.slots[i].err != nil {
			return true
		}
	}
	return false
}

// result is what Publish returns.
func (w *window) result() []error {
	var errs []error
	for i := range w.slots {
		if err := w.slots[i].err; err != nil {
			if errs == nil {
				errs = make([]error, len(w.slots))
			}
			errs[i] = publishError(w.records[i].Topic, err)
		}
	}
	return errs
}

// all fails every record.
func (w *window) all(err error) []error {
	for i := range w.slots {
		w.slots[i].err = err
	}
	return w.result()
}

func publishError(topic string, err error) error {
	for _, of := range []error{kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.TopicAuthorizationFailed, kerr.InvalidTopicException} {
		if errors.Is(err, of) {
			return fmt.Errorf("publish to %s: %w: %w", topic, event.ErrTopic, err)
		}
	}
	return fmt.Errorf("publish to %s: %w", topic, err)
}
