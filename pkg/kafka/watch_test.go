package kafka_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/kafka"
)

// Another program's transaction that never ends keeps what is written behind it from all
// readers, at no lag that the last stable offset would show.
func TestConsumer_tells_of_an_open_transaction_that_holds_a_partition_up(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	topic, group := newTopic(t, addrs, 1), unique(t, "group")
	rec, book, m := newRecorder(), &logbook{}, newMetrics()
	publish(t, addrs, numbered(topic, 0, 3, "k")...)
	c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger(), Meter: m.meter}, rec, func(c *kafka.Consumer) {
		c.SetWatchEvery(50 * time.Millisecond)
		c.SetOpenFor(200 * time.Millisecond)
	}, topic)
	rec.waitFor(t, 3)
	other := must(kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic)))(t)
	defer other.Close()
	if err := other.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := other.ProduceSync(t.Context(), kgo.KeySliceRecord([]byte("k"), []byte("never"))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	publish(t, addrs, numbered(topic, 3, 2, "k")...)
	book.wait(t, "level=ERROR", "an open transaction holds the partition up", "partition=0", "position=3", "abort --topic "+topic+" --partition 0 --start-offset 3")
	eventually(t, "the lag", func() bool { return m.value(t, "consumer_lag_records", "topic", topic) == 3 })
	if got := m.value(t, "consumer_partition_stopped", "topic", topic, "reason", "open_transaction"); got != 1 {
		t.Errorf("consumer_partition_stopped: got %v, want 1", got)
	}
	if p := c.Partitions(t.Context())[0]; p.Stopped != "open_transaction" || p.LogEnd != 6 || p.SkipTo != nil || p.Error == "" {
		t.Errorf("got %+v", p)
	}

	if err := other.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	rec.waitFor(t, 5)
	eventually(t, "that it goes on", func() bool { return c.Partitions(t.Context())[0].Stopped == "" })
	if lines := linesOf(book, "open transaction"); len(lines) != 1 {
		t.Errorf("told %d times: %v", len(lines), fmt.Sprint(lines))
	}
}
