package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/event"
)

// Producer writes windows of records, each to the end before the next. Its methods may be
// called concurrently.
type Producer struct {
	opts   []kgo.Opt
	tracer trace.Tracer
	log    *slog.Logger
	sent   metric.Int64Counter
	client atomic.Pointer[kgo.Client]
	closed sync.Once
	ending context.Context // ends the Publish under way, if it holds up Close for too long
	end    context.CancelFunc
	grace  time.Duration

	turn  chan struct{} // held by the Publish under way, and with it what follows
	gate  gate
	known map[string]bool // topics that the client has looked up
}

// NewProducer returns a producer that connects with its first record. An error names the
// variable at fault. It must be closed.
func NewProducer(cfg Config) (*Producer, error) {
	cfg = cfg.withDefaults()
	p := &Producer{tracer: cfg.Tracer, log: cfg.Log, grace: closeTimeout, turn: make(chan struct{}, 1)}
	p.ending, p.end = context.WithCancel(context.Background())
	var err error
	p.opts, err = cfg.clientOpts(
		kgo.RequiredAcks(kgo.AllISRAcks()),
		// Java's default: murmur2 of the key; without a key, a partition per batch.
		kgo.RecordPartitioner(kgo.UniformBytesPartitioner(64<<10, true, true, nil)),
		// Snappy costs the least of those that every client reads, and the headers, which
		// are most of a small event, shrink well with any.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(batchMaxBytes),
		kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(math.MaxInt32), // the caller's window is the bound
		kgo.UnknownTopicRetries(2),
		kgo.WithHooks(&p.gate),
	)
	if err != nil {
		return nil, err
	}
	if p.sent, err = cfg.Meter.Int64Counter("messaging.client.sent.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Records that were sent, or failed to be.")); err != nil {
		return nil, err
	}
	return p, p.connect()
}

func (p *Producer) connect() error {
	cl, err := kgo.NewClient(p.opts...)
	if err != nil {
		return fmt.Errorf("kafka producer: %w", err)
	}
	p.client.Store(cl)
	p.known = map[string]bool{}
	return nil
}

// Publish writes a window of records and blocks until each of them is acknowledged by all
// in-sync replicas or has failed, or ctx ends. nil says that all are acknowledged; otherwise
// there is one entry per record, nil for those that are. A record that failed may have been
// written all the same; to publish it again is safe for consumers that drop known IDs.
//
// Records that share a topic and a key are written in the order of the window, and none of
// them after one that failed. When Publish returns, nothing of the window is left to be sent.
// With the brokers away, or too few in-sync replicas, it blocks until ctx ends. Another
// Publish waits for its turn. The partition follows from the key; the timestamp is that of
// publishing. An error wraps event.ErrTopic if its whole topic is missing or forbidden.
func (p *Producer) Publish(ctx context.Context, records []event.Record) []error {
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ending, cancel)()
	w := newWindow(records)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
		cl := p.client.Load()
		w.publish(ctx, p, cl)
		if w.spoiled {
			p.replace(cl)
		}
	case <-ctx.Done():
		w.fail(ctx.Err(), func(*slot) bool { return true })
	}
	p.count(w)
	return w.result()
}

// replace gives up a client that has failed a record. It would never take up a topic that was
// recreated, and may have requests under way whose records it has failed already. A new one
// knows nothing of the window.
func (p *Producer) replace(cl *kgo.Client) {
	cl.Close()
	if err := p.connect(); err != nil { // the options were valid before
		p.log.Error("replacing the producer's client failed", "error", err)
	}
}

func (p *Producer) count(w *window) {
	sent := map[string]int64{}
	for i := range w.slots {
		if s := &w.slots[i]; s.err == nil {
			sent[s.rec.Topic]++
		} else {
			p.add(1, s.rec.Topic, errorType(s.err))
		}
	}
	for topic, n := range sent {
		p.add(n, topic)
	}
}

func (p *Producer) add(n int64, topic string, more ...attribute.KeyValue) {
	p.sent.Add(context.Background(), n, metric.WithAttributes(append(more,
		semconv.MessagingSystemKafka, semconv.MessagingOperationName("send"), semconv.MessagingDestinationName(topic))...))
}

// Ping asks any broker for an answer; an error says that none gave one before ctx ended.
func (p *Producer) Ping(ctx context.Context) error { return p.client.Load().Ping(ctx) }

// closeTimeout is what a Publish under way has to come to its end.
const closeTimeout = 5 * time.Second

// Close waits for the Publish under way, ends it as if its ctx had ended if that takes 5 s, and
// closes the connections. A Publish fails afterwards.
func (p *Producer) Close() {
	p.closed.Do(func() {
		late := time.AfterFunc(p.grace, p.end)
		p.turn <- struct{}{}
		late.Stop()
		p.end()
		p.client.Load().Close()
	})
}
