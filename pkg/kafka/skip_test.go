package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/kafka"
)

// stopped waits until the member's only partition of topic has stopped, and returns it.
func stopped(t *testing.T, c *running, topic, reason string) (p kafka.Partition) {
	t.Helper()
	eventually(t, "partition stopped: "+reason, func() bool {
		for _, one := range c.Partitions(t.Context()) {
			if p = one; p.Topic == topic && p.Stopped == reason && p.SkipTo != nil {
				return true
			}
		}
		return false
	})
	return p
}

func TestConsumer_Skip(t *testing.T) {
	t.Parallel()

	t.Run("goes on behind a batch that decompresses too far", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, other, group := newTopic(t, addrs, 1), newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 3, "before")...)
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 0, 10, "behind")...)
		rec, book := newRecorder(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic, other)
		rec.waitFor(t, 3)
		p := stopped(t, c, topic, "batch_too_large")
		if p.Position != 3 || *p.SkipTo != 4 {
			t.Fatalf("stopped at %d, to go on at %d; want 3 and 4", p.Position, *p.SkipTo)
		}
		for name, err := range map[string]error{
			"from elsewhere":                  c.Skip(t.Context(), topic, 0, 2, 4),
			"a partition that is well":        c.Skip(t.Context(), other, 0, 0, 1),
			"a partition that is not its own": c.Skip(t.Context(), topic, 7, 3, 4),
			"more than there is":              c.Skip(t.Context(), topic, 0, 3, 15),
		} {
			if !errors.Is(err, kafka.ErrNotSkipped) {
				t.Errorf("Skip of %s = %v, want ErrNotSkipped", name, err)
			}
		}
		if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 13)
		book.wait(t, "level=WARN", "records skipped by an operator", topic, "position=3 go_on_at=4 skipped_from=3 skipped_to=3")
		publish(t, addrs, numbered(other, 0, 5, "k")...)
		rec.waitFor(t, 18)
		rec.inOrder(t)
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 14 })
	})

	t.Run("goes on in a group that has never committed", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 0, 2, "behind")...)
		rec := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
		p := stopped(t, c, topic, "batch_too_large")
		if err := c.Skip(t.Context(), topic, 0, 0, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 2)
	})

	t.Run("leaves out the batch that is too large, though a transaction's marker lies before it", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		other := must(kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID(topic), kgo.DefaultProduceTopic(topic)))(t)
		defer other.Close()
		if err := other.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := other.ProduceSync(t.Context(), kgo.KeySliceRecord([]byte("k"), []byte("0"))).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := other.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 0, 2, "behind")...)
		rec := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec, nil, topic)
		rec.waitFor(t, 1)
		p := stopped(t, c, topic, "batch_too_large")
		if p.SkipTo == nil || *p.SkipTo != 3 {
			t.Fatalf("%+v: want that it may go on at 3: the record, the marker and the batch lie before", p)
		}
		eventually(t, "the record is done", func() bool { return c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo) == nil })
		rec.waitFor(t, 3)
	})

	t.Run("does not wait longer than for a commit until others have forgotten", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		bomb(t, addrs, topic)
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, BeforeSkip: func(ctx context.Context, _ string, _ [16]byte, _ int32, _ int64) error {
			<-ctx.Done()
			return ctx.Err()
		}}, newRecorder(), func(c *kafka.Consumer) { c.SetCommitTimeout(300 * time.Millisecond) }, topic)
		p := stopped(t, c, topic, "batch_too_large")
		if err := c.Skip(context.WithoutCancel(t.Context()), topic, 0, p.Position, *p.SkipTo); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Skip = %v, want %v", err, context.DeadlineExceeded)
		}
	})

	t.Run("reads the whole log where the position lies behind its end", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		if err := cluster.DeleteRecords(topic, 0, 2); err != nil {
			t.Fatal(err)
		}
		at := kadm.Offsets{}
		at.AddOffset(topic, 0, 50, -1)
		if err := admin(t, addrs).CommitAllOffsets(t.Context(), group, at); err != nil {
			t.Fatal(err)
		}
		rec, book := newRecorder(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic)
		p := stopped(t, c, topic, "offset_out_of_range")
		if p.Position != 50 || *p.SkipTo != 2 {
			t.Fatalf("stopped at %d, to go on at %d; want 50 and 2", p.Position, *p.SkipTo)
		}
		for _, to := range []int64{1, 11} {
			err := c.Skip(t.Context(), topic, 0, 50, to)
			if !errors.Is(err, kafka.ErrNotSkipped) || !strings.Contains(err.Error(), fmt.Sprintf("from 2 to 10, which %d is not", to)) {
				t.Errorf("Skip to %d: got %v, want ErrNotSkipped and where the log reaches to", to, err)
			}
		}
		if err := c.Skip(t.Context(), topic, 0, 50, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 8)
		if line := book.wait(t, "records skipped by an operator", "position=50 go_on_at=2"); strings.Contains(line, "skipped_from") {
			t.Errorf("names a range though nothing was left out: %s", line)
		}
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 10 })
	})

	t.Run("names what an operator leaves out beyond what is lost, and shows a commit when it is answered", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec, book := newRecorder(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic)
		stopped(t, c, topic, "batch_too_large")
		refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownServerError, Count: -1})
		if err := c.Skip(t.Context(), topic, 0, 0, 6); err == nil || errors.Is(err, kafka.ErrNotSkipped) {
			t.Errorf("Skip: got %v, want the broker's error", err)
		}
		if p := stopped(t, c, topic, "batch_too_large"); p.Committed != -1 {
			t.Errorf("committed: got %d, want -1: the broker has refused it", p.Committed)
		}
		book.wait(t, "level=WARN", "skipping by an operator failed", "go_on_at=6 skipped_from=0 skipped_to=5", "UNKNOWN_SERVER_ERROR")
		refused.Remove()
		if err := c.Skip(t.Context(), topic, 0, 0, 6); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 5)
		book.wait(t, "records skipped by an operator", "position=0 go_on_at=6 skipped_from=0 skipped_to=5")
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 11 })
	})

	t.Run("does not end the consumer if commits are refused meanwhile", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, other, group := newTopic(t, addrs, 1), newTopic(t, addrs, 1), unique(t, "group")
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 0, 1, "behind")...)
		rec, book := newRecorder(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic, other)
		p := stopped(t, c, topic, "batch_too_large")
		refused := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Topic: other, Err: kerr.UnknownServerError, Count: -1})
		publish(t, addrs, numbered(other, 0, 10, "k")...)
		rec.waitFor(t, 10)
		if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		book.wait(t, "level=ERROR", "commit before a rejoin failed", "UNKNOWN_SERVER_ERROR")
		refused.Remove()
		rec.waitFor(t, 11)
		eventually(t, "the commits", func() bool {
			return committed(t, addrs, group, topic)[0] == 2 && committed(t, addrs, group, other)[0] == 10
		})
	})

	t.Run("goes on where retention has left the log", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		first := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, first, nil, topic)
		first.waitFor(t, 10)
		_ = c.stop(t)
		publish(t, addrs, numbered(topic, 10, 10, "k")...)
		if err := cluster.DeleteRecords(topic, 0, 17); err != nil {
			t.Fatal(err)
		}
		second := newRecorder()
		var told []any
		var refuse error
		c = consume(t, kafka.Config{Brokers: addrs, Group: group, BeforeSkip: func(_ context.Context, topic string, topicID [16]byte, partition int32, to int64) error {
			told = []any{topic, topicID, partition, to, committed(t, addrs, group, topic)[0]}
			return refuse
		}}, second, nil, topic)
		got := stopped(t, c, topic, "offset_out_of_range")
		to := int64(17)
		want := kafka.Partition{Topic: topic, Position: 10, Committed: 10, LogStart: 17, LogEnd: 20, Stopped: "offset_out_of_range", Error: got.Error, SkipTo: &to}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
		refuse = errors.New("not now")
		if err := c.Skip(t.Context(), topic, 0, 10, to); !errors.Is(err, refuse) || committed(t, addrs, group, topic)[0] != 10 {
			t.Errorf("Skip = %v and %d is committed, want %v and 10", err, committed(t, addrs, group, topic)[0], refuse)
		}
		refuse = nil
		if err := c.Skip(t.Context(), topic, 0, 10, to); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{topic, cluster.TopicInfo(topic).TopicID, int32(0), to, int64(10)}, told); diff != "" {
			t.Errorf("told before the commit: %s", diff)
		}
		second.waitFor(t, 3)
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 20 })
	})

	t.Run("reads a recreated topic from its beginning", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		rec := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec.waitFor(t, 10)
		eventually(t, "the commit", func() bool { return sum(committed(t, addrs, group, topic)) == 10 })
		if _, err := admin(t, addrs).DeleteTopics(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the topic is there again", func() bool {
			_, err := admin(t, addrs).CreateTopic(t.Context(), 1, 1, nil, topic)
			return err == nil
		})
		publish(t, addrs, numbered(topic, 0, 20, "new")...)
		p := stopped(t, c, topic, "topic_recreated")
		if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo+1); !errors.Is(err, kafka.ErrNotSkipped) {
			t.Errorf("Skip behind the start = %v, want ErrNotSkipped", err)
		}
		if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 30)
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 20 })
	})
}
