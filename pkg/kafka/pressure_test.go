package kafka_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

func TestConsumer_BackPressure(t *testing.T) {
	t.Parallel()

	t.Run("a blocked partition holds a bounded number of records while the others flow", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 2)
		for i := range 20 {
			publish(t, addrs, numbered(topic, i*250, 250, keys(10)...)...)
		}
		end := ends(t, addrs, topic)
		rec, carryOn := newRecorder(), make(chan struct{})
		rec.before = func(_ context.Context, b event.Batch) error {
			if b.Partition == 0 {
				<-carryOn
			}
			return nil
		}
		c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
		rec.waitFor(t, int(end[1]))
		eventually(t, "a pause", func() bool { return len(c.Paused(topic)) == 1 })
		if got, limit := c.Queued()[0], kafka.QueueRecords+kafka.PollRecords; got > limit || got < kafka.QueueRecords {
			t.Errorf("queued: got %d of %d, want between the bound %d and a poll more", got, end[0], kafka.QueueRecords)
		}
		close(carryOn)
		rec.waitFor(t, 50_000)
		rec.inOrder(t)
		once(t, rec)
		if got := c.Paused(topic); len(got) != 0 {
			t.Errorf("paused after the queue has drained: got %v, want none", got)
		}
	})

	t.Run("large records are bounded by their bytes", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		const n, each = 40, 500_000
		value := make([]byte, each) // of bytes that do not compress
		noise := rand.NewChaCha8([32]byte{})
		var window []event.Record
		for range n {
			_, _ = noise.Read(value)
			window = append(window, event.Record{Topic: topic, Key: []byte("k"), Value: bytes.Clone(value)})
		}
		publish(t, addrs, window...)
		rec, carryOn := newRecorder(), make(chan struct{})
		rec.before = func(context.Context, event.Batch) error { <-carryOn; return nil }
		c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
		eventually(t, "a pause", func() bool { return len(c.Paused(topic)) == 1 })
		if got, limit := c.QueuedBytes(), 8<<20+2<<20; got > limit {
			t.Errorf("queued: got %d bytes of %d, want at most %d", got, n*each, limit)
		}
		close(carryOn)
		rec.waitFor(t, n)
	})

	t.Run("a partition that was paused before its revoke is not paused when it returns", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 2), unique(t, "group")
		for i := range 10 {
			publish(t, addrs, numbered(topic, i*250, 250, keys(10)...)...)
		}
		rec, inHand, carryOn := newRecorder(), make(chan struct{}, 1000), make(chan struct{})
		rec.before = func(ctx context.Context, _ event.Batch) error {
			inHand <- struct{}{}
			select {
			case <-carryOn:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		book := &logbook{}
		a := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, func(c *kafka.Consumer) { c.SetHandTimeout(1) }, topic)
		eventually(t, "two paused partitions", func() bool { return len(a.Paused(topic)) == 2 })
		b := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
		book.wait(t, "partitions revoked")
		eventually(t, "one paused partition", func() bool { return len(a.Paused(topic)) == 1 })
		b.cancel()
		close(carryOn)
		if err := b.stop(t); err != nil {
			t.Errorf("b: %v", err)
		}
		rec.waitFor(t, 25_000)
		rec.inOrder(t)
	})
}
