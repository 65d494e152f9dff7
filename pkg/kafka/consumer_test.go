package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

func TestConsumer_Run(t *testing.T) {
	t.Parallel()

	t.Run("processes every record once, in order per key, and commits all of it", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 4), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 300, keys(10)...)...)
		rec := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
		rec.waitFor(t, 3000)
		rec.inOrder(t)
		if !c.Joined() {
			t.Error("Joined() = false, want true")
		}
		if err := c.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
		eventually(t, "the offsets of 3000 records", func() bool { return sum(committed(t, addrs, group, topic)) == 3000 })
		if err := c.stop(t); err != nil {
			t.Errorf("Run: got %v, want nil", err)
		}
		again := newRecorder()
		c2 := consume(t, kafka.Config{Brokers: addrs, Group: group}, again, nil, topic)
		publish(t, addrs, numbered(topic, 300, 1, keys(10)...)...)
		again.waitFor(t, 10)
		if err := c2.stop(t); err != nil {
			t.Errorf("second Run: got %v, want nil", err)
		}
		if got := len(again.values); got != 10 {
			t.Errorf("after a clean stop: got %d values, want the 10 new ones", got)
		}
	})

	t.Run("fills in the batch: topic ID, partition, log start, headers, at most 500 records", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		records := numbered(topic, 0, 1200, "k")
		records[0].Headers = []event.Header{{Key: "a", Value: []byte("1")}, {Key: "b", Value: nil}}
		publish(t, addrs, records...)
		rec := newRecorder()
		consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
		rec.waitFor(t, 1200)
		rec.mu.Lock()
		defer rec.mu.Unlock()
		var next int64
		for _, b := range rec.batches {
			if b.Topic != topic || b.TopicID == [16]byte{} || b.LogStart != 0 || len(b.Records) > kafka.BatchRecords {
				t.Errorf("batch: got %s %x log start %d with %d records", b.Topic, b.TopicID, b.LogStart, len(b.Records))
			}
			for _, r := range b.Records {
				if r.Offset != next || r.TopicID != b.TopicID || r.Topic != topic || r.Timestamp.IsZero() {
					t.Fatalf("record: got %+v, want offset %d", r, next)
				}
				next++
			}
		}
		if h := rec.batches[0].Records[0].Headers; len(h) != 2 || h[0].Key != "a" || string(h[0].Value) != "1" || h[1].Key != "b" {
			t.Errorf("headers: got %v", h)
		}
	})

	t.Run("hands the same batch over again after an error or a panic, and commits nothing before", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 20, "k")...)
		rec, tries := newRecorder(), atomic.Int32{}
		var first, offsets []int64
		rec.before = func(_ context.Context, b event.Batch) error {
			var got []int64
			for _, r := range b.Records {
				got = append(got, r.Offset)
			}
			switch tries.Add(1) {
			case 1:
				first = got
				return errors.New("no")
			case 2:
				panic("handler")
			case 3:
				offsets = got
				if at := committed(t, addrs, group, topic); len(at) != 0 {
					return fmt.Errorf("committed before done: %v", at)
				}
			}
			return nil
		}
		book := &logbook{}
		consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic)
		rec.waitFor(t, 20)
		if fmt.Sprint(first) != fmt.Sprint(offsets) {
			t.Errorf("redelivery: got %v, want %v", offsets, first)
		}
		if got := book.line("committed before done"); got != "" {
			t.Error(got)
		}
		book.wait(t, "batch failed", "attempt=2", "panic: handler")
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 20 })
	})

	t.Run("a failing partition does not hold up the others", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 3)
		publish(t, addrs, numbered(topic, 0, 50, keys(30)...)...)
		rec := newRecorder()
		rec.before = func(_ context.Context, b event.Batch) error {
			if b.Partition == 0 {
				return errors.New("no")
			}
			return nil
		}
		consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
		total := 1500 - ends(t, addrs, topic)[0]
		rec.waitFor(t, int(total))
		rec.inOrder(t)
	})

	t.Run("can be started and stopped in the middle of a backlog without a gap", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 2), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 2000, keys(5)...)...)
		rec := newRecorder()
		for range 4 {
			before := len(rec.values)
			c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
			rec.waitFor(t, min(before+1000, 10000))
			if err := c.stop(t); err != nil {
				t.Errorf("Run: %v", err)
			}
		}
		consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
		rec.waitFor(t, 10000)
		rec.inOrder(t)
		rec.mu.Lock()
		defer rec.mu.Unlock()
		for v, n := range rec.values {
			if n != 1 {
				t.Fatalf("%s: done %d times, want once: every stop was clean", v, n)
			}
		}
	})
}

// ends are the log's ends.
func ends(t testing.TB, addrs []string, topic string) map[int32]int64 {
	t.Helper()
	l, err := admin(t, addrs).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	out := map[int32]int64{}
	for id, o := range l[topic] {
		out[id] = o.Offset
	}
	return out
}
