package kafka_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// buffered is what a client holds of its fetches, decompressed.
type buffered struct{ now, most atomic.Int64 }

func (b *buffered) OnFetchRecordBuffered(r *kgo.Record) {
	if n := b.now.Add(int64(len(r.Value))); n > b.most.Load() {
		b.most.Store(n)
	}
}

func (b *buffered) OnFetchRecordUnbuffered(r *kgo.Record, _ bool) { b.now.Add(-int64(len(r.Value))) }

// counter is a processor that only counts, in order.
type counter struct {
	t    *testing.T
	next atomic.Int64
}

func (c *counter) Process(_ context.Context, b event.Batch) error {
	for _, r := range b.Records {
		if !c.next.CompareAndSwap(r.Offset, r.Offset+1) {
			c.t.Errorf("got offset %d, want %d", r.Offset, c.next.Load())
		}
	}
	return nil
}

// squeeze writes batches of n records that compress well.
func squeeze(t *testing.T, addrs []string, topic string, batches, n int, value []byte, headers ...kgo.RecordHeader) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ProducerBatchMaxBytes(32<<20), kgo.MaxBufferedRecords(n+1),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ManualFlushing(), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for range batches {
		for range n {
			cl.Produce(t.Context(), &kgo.Record{Key: []byte("k"), Value: value, Headers: headers}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConsumer_Inflation(t *testing.T) {
	t.Parallel()

	t.Run("batches of a few bytes that decompress to far more are taken a few at a time", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		const n = 5
		squeeze(t, addrs, topic, n, 1, make([]byte, 12<<20)) // 60 MiB, all of it in one fetch
		held, done := &buffered{}, &counter{t: t}
		consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group"), Opts: []kgo.Opt{kgo.WithHooks(held)}}, done, nil, topic)
		eventually(t, "all of it", func() bool { return done.next.Load() == n })
		if most := held.most.Load(); most > 32<<20 {
			t.Errorf("in memory: got up to %d MiB of one fetch, want at most 32", most>>20)
		}
	})

	t.Run("so does a reader take them", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 2)
		const n = 5
		squeeze(t, addrs, topic, n, 1, make([]byte, 12<<20))
		held := &buffered{}
		r := must(kafka.NewReader(t.Context(), kafka.Config{Brokers: addrs, Opts: []kgo.Opt{kgo.WithHooks(held)}}))(t)
		defer r.Close()
		got := 0
		for _, err := range r.Records(t.Context(), must(r.Starts(t.Context(), topic))(t), must(r.Ends(t.Context(), topic))(t)) {
			if err != nil {
				t.Fatal(err)
			}
			got++
		}
		if most := held.most.Load(); got != n || most > 32<<20 {
			t.Errorf("got %d records, up to %d MiB at a time; want %d and at most 32", got, most>>20, n)
		}
	})

	for name, of := range map[string]struct {
		records int
		headers []kgo.RecordHeader
	}{
		"a batch of very many small records stops its partition": {200_000, nil},
		"a batch of very many small headers stops its partition": {1, make([]kgo.RecordHeader, 1_000_000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addrs := brokers(t)
			topic := newTopic(t, addrs, 1)
			squeeze(t, addrs, topic, 1, of.records, nil, of.headers...)
			squeeze(t, addrs, topic, 1, 1000, make([]byte, 100))
			rec := newRecorder()
			c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
			p := stopped(t, c, topic, "batch_too_large")
			if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo); err != nil {
				t.Fatal(err)
			}
			rec.wait(t, "what is behind", func() bool { return len(rec.byKey["k"]) == 1000 })
		})
	}
}
