package kafka_test

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/kafka/kafkatest"
)

// overtaken runs a consumer that has read ten records and then is away, as if stopped, while
// ten more are written, of which five leave the log at once; before it wakes, meanwhile.
func overtaken(t *testing.T, book *logbook, m *metrics, meanwhile func(cluster *kfake.Cluster, group, topic string)) {
	t.Helper()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic, group := newTopic(t, addrs, 1), unique(t, "group")
	rec := newRecorder()
	consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger(), Meter: m.meter}, rec, nil, topic)
	publish(t, addrs, numbered(topic, 0, 10, "k")...)
	rec.waitFor(t, 10)
	wake := kafkatest.HoldFetches(cluster, 1)
	publish(t, addrs, numbered(topic, 10, 10, "k")...)
	if err := cluster.DeleteRecords(topic, 0, 15); err != nil {
		t.Fatal(err)
	}
	meanwhile(cluster, group, topic)
	wake()
}

// committedAnswer says that a group has committed an offset in partition 0 of a topic.
func committedAnswer(req *kmsg.OffsetFetchRequest, group string, topic [16]byte, at int64) *kmsg.OffsetFetchResponse {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	p := kmsg.NewOffsetFetchResponseGroupTopicPartition()
	p.Offset = at
	of := kmsg.NewOffsetFetchResponseGroupTopic()
	of.TopicID, of.Partitions = topic, append(of.Partitions, p)
	g := kmsg.NewOffsetFetchResponseGroup()
	g.Group, g.Topics = group, append(g.Topics, of)
	resp.Groups = append(resp.Groups, g)
	return resp
}

// outsider sets a group's offsets while it is stopped.
type outsider struct {
	*testing.T
	addrs        []string
	topic, group string
}

// newOutsider makes a group and a topic of ten records.
func newOutsider(t *testing.T) outsider {
	t.Helper()
	addrs := brokers(t)
	o := outsider{t, addrs, newTopic(t, addrs, 1), unique(t, "group")}
	publish(t, addrs, numbered(o.topic, 0, 10, "k")...)
	return o
}

func (o outsider) set(at int64, metadata string) {
	o.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: o.topic, At: at, LeaderEpoch: -1, Metadata: metadata})
	if err := admin(o, o.addrs).CommitAllOffsets(o.Context(), o.group, offsets); err != nil {
		o.Fatal(err)
	}
}

// signed reports whether the group's commit is one of ours.
func (o outsider) signed() bool {
	o.Helper()
	offsets, err := admin(o, o.addrs).FetchOffsets(o.Context(), o.group)
	if err != nil {
		o.Fatal(err)
	}
	at, _ := offsets.Lookup(o.topic, 0)
	return at.Metadata == "keyline"
}

// run starts a consumer whose processor has come to an offset, which is asked before anything
// else is taken.
func (o outsider) run(rec *recorder, book *logbook, m *metrics, reached int64) (stop func()) {
	o.Helper()
	cfg := kafka.Config{Brokers: o.addrs, Group: o.group, Log: book.logger(), Meter: m.meter}
	cfg.Reached = func(_ context.Context, topic string, topicID [16]byte, partition int32) (int64, error) {
		if topic != o.topic || topicID == ([16]byte{}) || partition != 0 {
			o.Errorf("asked about %s, %v, %d", topic, topicID, partition)
		}
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if len(rec.batches) > 0 {
			o.Error("asked after records were taken")
		}
		return reached, nil
	}
	c := consume(o, cfg, rec, nil, o.topic)
	return func() { _ = c.stop(o) }
}

func TestConsumer_Losses(t *testing.T) {
	t.Parallel()

	t.Run("retention that has passed the committed offset stops the partition and names the range", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 2), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 10, keys(10)...)...)
		first := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, first, nil, topic)
		first.waitFor(t, 100)
		_ = c.stop(t)
		before := committed(t, addrs, group, topic)
		publish(t, addrs, numbered(topic, 10, 10, keys(10)...)...)
		if err := cluster.DeleteRecords(topic, 0, before[0]+7); err != nil {
			t.Fatal(err)
		}
		second, book, m := newRecorder(), &logbook{}, newMetrics()
		c = consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger(), Meter: m.meter}, second, nil, topic)
		book.wait(t, "level=ERROR", "partition stopped", "partition=0", "reason=offset_out_of_range", "OFFSET_OUT_OF_RANGE",
			fmt.Sprintf("lost_from=%d lost_to=%d", before[0], before[0]+6), "next_step=")
		second.waitFor(t, int(ends(t, addrs, topic)[1]-before[1]))
		if got := m.value(t, "consumer_partition_stopped", "partition", "0", "reason", "offset_out_of_range"); got != 1 {
			t.Errorf("consumer_partition_stopped: got %v, want 1", got)
		}
		if got := m.value(t, "consumer_records_lost", "partition", "0"); got != 7 {
			t.Errorf("consumer_records_lost: got %v, want 7", got)
		}
		_ = c.stop(t)
		if got := committed(t, addrs, group, topic)[0]; got != before[0] {
			t.Errorf("committed offset of the stopped partition: got %d, want it as it was, %d", got, before[0])
		}
		second.mu.Lock()
		defer second.mu.Unlock()
		for _, b := range second.batches {
			if b.Partition == 0 {
				t.Errorf("processed behind the loss: offset %d", b.Records[0].Offset)
			}
		}
	})

	t.Run("what is lost is counted once, however often the partition is assigned", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, other, group := newTopic(t, addrs, 1), newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		bomb(t, addrs, other)
		at := kadm.Offsets{}
		at.AddOffset(topic, 0, 1, -1)
		if err := admin(t, addrs).CommitAllOffsets(t.Context(), group, at); err != nil {
			t.Fatal(err)
		}
		if err := cluster.DeleteRecords(topic, 0, 8); err != nil {
			t.Fatal(err)
		}
		m, book := newMetrics(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Meter: m.meter, Log: book.logger()}, newRecorder(), nil, topic, other)
		lost := func(times int, total float64) {
			t.Helper()
			eventually(t, "the report of the loss", func() bool { return len(linesOf(book, "lost_from=1 ")) == times })
			if got := m.value(t, "consumer_records_lost", "topic", topic); got != total {
				t.Errorf("consumer_records_lost: got %v, want %v", got, total)
			}
		}
		lost(1, 7)
		if err := cluster.DeleteRecords(topic, 0, 9); err != nil { // one more is lost meanwhile
			t.Fatal(err)
		}
		p := stopped(t, c, other, "batch_too_large")
		if err := c.Skip(t.Context(), other, 0, p.Position, *p.SkipTo); err != nil {
			t.Fatal(err)
		}
		lost(2, 8)
	})

	t.Run("an offset that another program has set is told, with what it leaves out", func(t *testing.T) {
		t.Parallel()
		o := newOutsider(t)
		o.set(7, "")
		rec, book, m := newRecorder(), &logbook{}, newMetrics()
		stop := o.run(rec, book, m, 3)
		book.wait(t, "level=ERROR", "records are left out", "partition=0", "position=7", "lost_from=3 lost_to=6", "--reset-offsets --to-offset 3")
		if got := m.value(t, "consumer_records_lost", "partition", "0"); got != 4 {
			t.Errorf("consumer_records_lost: got %v, want 4", got)
		}
		rec.waitFor(t, 3)
		eventually(t, "the commit", func() bool { return committed(t, o.addrs, o.group, o.topic)[0] == 10 })
		stop()

		for what, is := range map[string]struct {
			at       int64
			metadata string
			reached  int64
			want     string
		}{
			"backwards":                          {7, "", 10, "level=WARN"},
			"where it was":                       {10, "", 10, "level=WARN"},
			"by a member, before they signed it": {7, "group-5f0e", 3, ""},
		} {
			o.set(is.at, is.metadata)
			for n := range 2 { // what was told once is trusted
				book, m = &logbook{}, newMetrics()
				stop = o.run(newRecorder(), book, m, is.reached)
				if is.want != "" && n == 0 {
					book.wait(t, is.want, "set from outside", fmt.Sprint("position=", is.at))
				}
				book.wait(t, "partitions assigned")
				eventually(t, "a signed commit", func() bool { return is.want == "" || o.signed() })
				stop()
				if got := m.value(t, "consumer_records_lost"); got > 0 {
					t.Errorf("%s: consumer_records_lost: got %v, want none", what, got)
				}
				if line := book.line("set from outside"); line != "" && (is.want == "" || n == 1) {
					t.Errorf("%s, start %d: %s", what, n, line)
				}
			}
		}
	})

	t.Run("an offset from outside that lies beyond the log is told again, as long as records are written before it", func(t *testing.T) {
		t.Parallel()
		o := newOutsider(t)
		o.set(15, "")
		book := &logbook{}
		stop := o.run(newRecorder(), book, newMetrics(), 3)
		book.wait(t, "level=ERROR", "records are left out", "position=15", "lost_from=3 lost_to=9")
		book.wait(t, "level=ERROR", "partition stopped")
		stop()
		publish(t, o.addrs, numbered(o.topic, 10, 10, "k")...)
		book = &logbook{}
		stop = o.run(newRecorder(), book, newMetrics(), 3)
		book.wait(t, "level=ERROR", "records are left out", "position=15", "lost_from=3 lost_to=14")
		stop()
	})

	t.Run("a log that was cut below the committed offset stops the partition", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 100, "k")...)
		first := newRecorder()
		c := consume(t, kafka.Config{Brokers: addrs, Group: group}, first, nil, topic)
		first.waitFor(t, 100)
		_ = c.stop(t)
		// The leader answers that the epoch of the commit ended at 60: an unclean election.
		cluster.ControlKey(int16(kmsg.OffsetForLeaderEpoch), func(r kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			resp := r.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
			for _, t := range r.(*kmsg.OffsetForLeaderEpochRequest).Topics {
				rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
				rt.Topic = t.Topic
				for _, p := range t.Partitions {
					rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
					rp.Partition, rp.EndOffset, rp.LeaderEpoch = p.Partition, 60, p.LeaderEpoch
					rt.Partitions = append(rt.Partitions, rp)
				}
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil, true
		})
		second, book := newRecorder(), &logbook{}
		c = consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, second, nil, topic)
		book.wait(t, "level=ERROR", "partition stopped", "reason=data_loss", "position=100")
		_ = c.stop(t)
		if got := committed(t, addrs, group, topic)[0]; got != 100 || len(second.values) != 0 {
			t.Errorf("got offset %d and %d records done, want 100 and none", got, len(second.values))
		}
	})

	t.Run("retention that overtakes a running consumer stops the partition", func(t *testing.T) {
		t.Parallel()
		book, m := &logbook{}, newMetrics()
		overtaken(t, book, m, func(*kfake.Cluster, string, string) {})
		book.wait(t, "level=ERROR", "partition stopped", "reason=offset_out_of_range", "lost_from=10 lost_to=14")
		if got := m.value(t, "consumer_records_lost"); got != 5 {
			t.Errorf("consumer_records_lost: got %v, want 5", got)
		}
	})

	t.Run("a member that wakes behind its group counts only what nobody has read", func(t *testing.T) {
		t.Parallel()
		for done, lost := range map[int64]string{15: "", 17: "", 12: " lost_from=12 lost_to=14"} {
			book, m := &logbook{}, newMetrics()
			overtaken(t, book, m, func(cluster *kfake.Cluster, group, topic string) { // others have committed
				topicID := cluster.TopicInfo(topic).TopicID
				cluster.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
					cluster.KeepControl()
					return committedAnswer(req.(*kmsg.OffsetFetchRequest), group, topicID, done), nil, true
				})
			})
			line := book.wait(t, "level=ERROR", "partition stopped", fmt.Sprint("committed=", done))
			if !strings.Contains(line, lost) || lost == "" && strings.Contains(line, "lost_from") {
				t.Errorf("committed %d: got %s, want%s", done, line, cmp.Or(lost, " nothing lost"))
			}
			if got, want := max(0, m.value(t, "consumer_records_lost")), float64(max(0, 15-done)); got != want {
				t.Errorf("consumer_records_lost: got %v, want %v", got, want)
			}
		}
	})

	t.Run("offsets that begin again below those that were read stop the partition", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		rec, book := newRecorder(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec.waitFor(t, 10)
		// As if a log that was cut had been written anew, and the client had gone along.
		c.Client().SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {0: {Epoch: -1, Offset: 3}}})
		publish(t, addrs, numbered(topic, 10, 10, "k")...)
		book.wait(t, "level=ERROR", "partition stopped", "reason=offset_backwards", "position=10")
		if err := c.stop(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		once(t, rec)
		if got := committed(t, addrs, group, topic)[0]; got != 10 || len(rec.values) != 10 {
			t.Errorf("got offset %d and %d records done, want 10 of each", got, len(rec.values))
		}
	})

	t.Run("a topic that was deleted and made again is reported and not read", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, other, group := newTopic(t, addrs, 1), newTopic(t, addrs, 1), unique(t, "group")
		rec, book := newRecorder(), &logbook{}
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec, nil, topic, other)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec.waitFor(t, 10)
		eventually(t, "the commit", func() bool { return sum(committed(t, addrs, group, topic)) == 10 })
		if err := cluster.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		if err := cluster.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		publish(t, addrs, numbered(topic, 0, 20, "new")...)
		publish(t, addrs, numbered(other, 0, 10, "o")...)
		rec.waitFor(t, 20) // the other topic goes on
		book.wait(t, "level=ERROR", "partition cannot be read", topic, "reason=topic_recreated")
		if err := c.stop(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		if got := committed(t, addrs, group, topic); len(got) != 0 {
			t.Errorf("offsets of the old topic on the new one: %v", got)
		}
		again := newRecorder()
		consume(t, kafka.Config{Brokers: addrs, Group: group}, again, nil, topic, other)
		again.waitFor(t, 20) // after a restart, the new topic from its beginning
		again.inOrder(t)
	})

	t.Run("a batch that decompresses too far stops its partition only", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, other := newTopic(t, addrs, 1), newTopic(t, addrs, 1)
		bomb(t, addrs, topic)
		publish(t, addrs, numbered(topic, 0, 10, "behind")...)
		rec, book := newRecorder(), &logbook{}
		consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group"), Log: book.logger()}, rec, nil, topic, other)
		book.wait(t, "level=ERROR", "partition stopped", topic, "reason=batch_too_large")
		publish(t, addrs, numbered(other, 0, 10, "k")...)
		rec.waitFor(t, 10)
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if got := rec.byKey["behind"]; len(got) != 0 {
			t.Errorf("read behind the batch: %v", got)
		}
	})

	t.Run("a topic that may not be read is reported and read when it may", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic := newTopic(t, addrs, 1)
		rec, book := newRecorder(), &logbook{}
		denied := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
		consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group"), Log: book.logger()}, rec,
			func(c *kafka.Consumer) { c.SetWatchEvery(50 * time.Millisecond) }, topic)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		book.wait(t, "level=ERROR", "partition cannot be read", "reason=forbidden")
		denied.Remove()
		rec.waitFor(t, 10)
	})
}

// bomb writes one batch of 20 MiB that takes a few hundred bytes on the wire.
func bomb(t testing.TB, addrs []string, topic string) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ProducerBatchMaxBytes(32<<20),
		kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	r := &kgo.Record{Topic: topic, Key: []byte("k"), Value: make([]byte, 20<<20)}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}
