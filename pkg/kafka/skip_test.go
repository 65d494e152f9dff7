package kafka_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
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
		} {
			if !errors.Is(err, kafka.ErrNotSkipped) {
				t.Errorf("Skip of %s = %v, want ErrNotSkipped", name, err)
			}
		}
		if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 13)
		book.wait(t, "level=WARN", "records skipped by an operator", topic, "skipped_from=3 go_on_at=4")
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
		eventually(t, "the commits", func() bool { return committed(t, addrs, group, topic)[0] == 2 && committed(t, addrs, group, other)[0] == 10 })
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
		c = consume(t, kafka.Config{Brokers: addrs, Group: group}, second, nil, topic)
		got := stopped(t, c, topic, "offset_out_of_range")
		to := int64(17)
		want := kafka.Partition{Topic: topic, Position: 10, Committed: 10, LogStart: 17, LogEnd: 20, Stopped: "offset_out_of_range", Error: got.Error, SkipTo: &to}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
		if err := c.Skip(t.Context(), topic, 0, 10, to); err != nil {
			t.Fatal(err)
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
		if err := c.Skip(t.Context(), topic, 0, p.Position, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		rec.waitFor(t, 30)
		eventually(t, "the commit", func() bool { return committed(t, addrs, group, topic)[0] == 20 })
	})
}
