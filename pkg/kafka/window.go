package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
)

// batchMaxBytes bounds a record batch; it is the brokers' default for max.message.bytes.
const batchMaxBytes = 1_000_012

// errBehind is a record that was not sent because one before it failed.
var errBehind = errors.New("not sent behind a failure")

// gate is closed while records are handed to the client.
//
// Order per key rests on it. When a partition fails, the client fails all that the partition
// holds at that moment, and then writes what comes later. So no failure may be noticed before
// all records of a window have their place. Manual flushing alone does not ensure that: the
// loop that sent the last window may still be at its end, and take along what it finds. But
// the client reads the answer to a request only after this hook has heard of the request, and
// until the gate opens, it has not.
type gate struct{ sync.Mutex }

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (g *gate) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if kmsg.Key(key) == kmsg.Produce {
		g.Lock()
		defer g.Unlock()
	}
}

// window is the records of one Publish on their way.
type window struct {
	slots    []slot
	finished sync.WaitGroup // records that were sent, but neither acknowledged nor failed
	spoiled  bool           // the client has failed a record, or is closed
}

// slot is one record's part. It is also the record's context, by which the client's callback
// finds it again; as a context it never ends, because a record that was sent cannot be taken
// back.
type slot struct {
	context.Context
	w    *window
	of   *event.Record
	rec  kgo.Record
	span trace.Span // nil if not sampled
	sent bool
	err  error
}

func newWindow(records []event.Record) *window {
	w := &window{slots: make([]slot, len(records))}
	for i := range w.slots {
		s, r := &w.slots[i], &records[i]
		s.Context, s.w, s.of = context.Background(), w, r
		s.rec = kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: toClient(r.Headers), Context: s}
	}
	return w
}

// publish returns when every record is acknowledged or has failed for good.
//
// A topic that the client does not know is looked up in the background, and its records get
// their places there, out of the gate's reach. So its first record goes alone; when it is
// acknowledged, the topic is known. When it fails, the rest of the topic is not sent.
func (w *window) publish(ctx context.Context, p *Producer, cl *kgo.Client) {
	w.refuse()
	scouts := w.scouts(p.known)
	interrupted := w.send(ctx, p, cl, scouts)
	for _, scout := range scouts {
		topic := scout.rec.Topic
		if p.known[topic] = scout.err == nil; !p.known[topic] {
			w.fail(fmt.Errorf("%w: %w", errBehind, scout.err), func(s *slot) bool { return s.rec.Topic == topic })
		}
	}
	if interrupted == nil {
		interrupted = w.send(ctx, p, cl, w.unsent())
	}
	if interrupted != nil {
		w.fail(interrupted, func(*slot) bool { return true })
	}
}

// send sends records and waits for all their answers. If ctx ends before, it closes the
// client, because only then the client lets go of records: those that were not written fail,
// and those that were fail with their connection. What a broker has received by then it may
// still write, beside the next window; but both hold, per key, what was not acknowledged from
// its first record on, so that however they mix, each record is first seen in its turn.
func (w *window) send(ctx context.Context, p *Producer, cl *kgo.Client, slots []*slot) (interrupted error) {
	if len(slots) == 0 {
		return nil
	}
	now := time.Now()
	for _, s := range slots {
		s.sent, s.rec.Timestamp = true, now
		s.trace(p.tracer)
	}
	w.finished.Add(len(slots))
	p.gate.Lock()
	for _, s := range slots {
		cl.Produce(s, &s.rec, acknowledged)
	}
	p.gate.Unlock()
	if interrupted = cl.Flush(ctx); interrupted != nil {
		cl.Close()
		w.spoiled = true
	}
	w.finished.Wait()
	for _, s := range slots {
		if errors.Is(s.err, kgo.ErrClientClosed) && interrupted != nil {
			s.err = interrupted
		}
		w.spoiled = w.spoiled || s.err != nil
	}
	return interrupted
}

// trace starts the record's span, if it is to have one.
func (s *slot) trace(tracer trace.Tracer) {
	span, headers := startSend(tracer, s.of)
	if span == nil {
		return
	}
	s.span, s.rec.Headers = span, toClient(headers)
}

// acknowledged is called once for every record that was sent.
func acknowledged(r *kgo.Record, err error) {
	s := r.Context.(*slot)
	s.err = err
	if s.span != nil {
		endSend(s.span, r, err)
	}
	s.w.finished.Done()
}

// refuse fails the records that no batch can hold, and those of the same key behind them: the
// client would fail the one, and write the others.
func (w *window) refuse() {
	type key struct{ topic, key string }
	var failed map[key]bool
	for i := range w.slots {
		s := &w.slots[i]
		switch n := encodedSize(&s.rec); {
		case n > batchMaxBytes:
			s.err = fmt.Errorf("%d bytes: %w", n, kerr.MessageTooLarge)
			if failed == nil {
				failed = map[key]bool{}
			}
			failed[key{s.rec.Topic, string(s.rec.Key)}] = true
		case failed != nil && failed[key{s.rec.Topic, string(s.rec.Key)}]:
			s.err = errBehind
		}
	}
}

// encodedSize is at least what a batch of that one record takes, uncompressed.
func encodedSize(r *kgo.Record) int { return 100 + 10*len(r.Headers) + size(r) }

// scouts are the first records of the topics that are not known.
func (w *window) scouts(known map[string]bool) (scouts []*slot) {
	var seen map[string]bool
	for _, s := range w.unsent() {
		if t := s.rec.Topic; !known[t] && !seen[t] {
			if seen == nil {
				seen = map[string]bool{}
			}
			seen[t] = true
			scouts = append(scouts, s)
		}
	}
	return scouts
}

func (w *window) unsent() []*slot {
	slots := make([]*slot, 0, len(w.slots))
	for i := range w.slots {
		if s := &w.slots[i]; !s.sent && s.err == nil {
			slots = append(slots, s)
		}
	}
	return slots
}

// fail fails those of the unsent records that which holds for.
func (w *window) fail(err error, which func(*slot) bool) {
	for _, s := range w.unsent() {
		if which(s) {
			s.err = err
		}
	}
}

// result is what Publish returns.
func (w *window) result() []error {
	var errs []error
	for i := range w.slots {
		if s := &w.slots[i]; s.err != nil {
			if errs == nil {
				errs = make([]error, len(w.slots))
			}
			errs[i] = publishError(s.rec.Topic, s.err)
		}
	}
	return errs
}

func publishError(topic string, err error) error {
	for _, of := range []error{kerr.UnknownTopicOrPartition, kerr.UnknownTopicID, kerr.TopicAuthorizationFailed, kerr.InvalidTopicException} {
		if errors.Is(err, of) {
			return fmt.Errorf("publish to %s: %w: %w", topic, event.ErrTopic, err)
		}
	}
	return fmt.Errorf("publish to %s: %w", topic, err)
}
