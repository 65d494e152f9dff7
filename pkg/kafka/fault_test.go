package kafka_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/kafka"
)

func TestConsumer_LeaderAndCoordinatorMoves(t *testing.T) {
	t.Parallel()
	cluster := fake(t, kfake.NumBrokers(3))
	addrs := cluster.ListenAddrs()
	topic, group := newTopic(t, addrs, 6), unique(t, "group")
	rec := newRecorder()
	c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
	p := newProducer(t, kafka.Config{Brokers: addrs})
	for i := range 30 {
		if errs := p.Publish(t.Context(), numbered(topic, i*10, 10, keys(20)...)); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
		switch i % 3 {
		case 0:
			cluster.ShufflePartitionLeaders()
		case 1:
			cluster.RehashCoordinators()
		}
	}
	rec.waitFor(t, 6000)
	if err := c.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	rec.inOrder(t)
	if got := sum(committed(t, addrs, group, topic)); got != 6000 {
		t.Errorf("committed: got %d, want 6000", got)
	}
	if got := sum(ends(t, addrs, topic)); got != 6000 {
		t.Errorf("on the wire: got %d records, want 6000 without a duplicate", got)
	}
}

func TestConsumer_UnknownTopic(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	exists, missing, group := newTopic(t, addrs, 1), unique(t, "late"), unique(t, "group")
	book, rec := &logbook{}, newRecorder()
	consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger()}, rec,
		func(c *kafka.Consumer) { c.SetWatchEvery(50 * time.Millisecond) }, exists, missing)
	book.wait(t, "level=WARN", "topic does not exist", missing)
	publish(t, addrs, numbered(exists, 0, 10, "k")...)
	rec.waitFor(t, 10)
	if err := kafka.Provision(t.Context(), kafka.Config{Brokers: addrs}, []kafka.Topic{{Name: missing, Partitions: 2}}); err != nil {
		t.Fatal(err)
	}
	publish(t, addrs, numbered(missing, 0, 10, "l")...)
	rec.waitFor(t, 20)
	book.wait(t, "topic exists now", missing)
}

func TestConsumer_WrongBroker(t *testing.T) {
	t.Parallel()
	addr, port := eventtest.FreeAddr(t)
	book, rec := &logbook{}, newRecorder()
	c := consume(t, kafka.Config{Brokers: []string{addr}, Group: "group", Log: book.logger()}, rec,
		func(c *kafka.Consumer) { c.SetWatchEvery(100 * time.Millisecond) }, "late")
	book.wait(t, "level=WARN", "brokers do not answer", addr)
	book.wait(t, "kafka client warning", "unable to open connection", addr)
	if c.Joined() {
		t.Error("Joined() = true without a broker")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Ping(ctx); err == nil {
		t.Error("Ping: got nil without a broker")
	}
	if got := len(linesOf(book, "unable to open connection")); got > 2 {
		t.Errorf("lines about the connection: got %d, want them limited", got)
	}
	fake(t, kfake.Ports(port), kfake.SeedTopics(1, "late"))
	publish(t, []string{addr}, numbered("late", 0, 10, "k")...)
	rec.waitFor(t, 10)
	if !c.Joined() {
		t.Error("Joined() = false, want true")
	}
}

func TestConsumer_AlternatingErrorsAreLoggedOnceEach(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 1)
	var joins atomic.Int32
	cluster.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := r.ResponseKind().(*kmsg.JoinGroupResponse)
		resp.ErrorCode = []int16{kerr.GroupAuthorizationFailed.Code, kerr.InvalidGroupID.Code}[joins.Add(1)%2]
		return resp, nil, true
	})
	book := &logbook{}
	consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group"), Log: book.logger()}, newRecorder(),
		func(c *kafka.Consumer) { c.SetWatchEvery(time.Hour) }, topic)
	eventually(t, "five attempts", func() bool { return joins.Load() >= 5 })
	if got := linesOf(book, "consuming failed"); len(got) != 2 {
		t.Errorf("got %d lines, want one for each error: %q", len(got), got)
	}
}

func TestConsumer_StopsWithoutABroker(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 1)
	publish(t, addrs, numbered(topic, 0, 10, "k")...)
	rec := newRecorder()
	c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group")}, rec,
		func(c *kafka.Consumer) { c.SetCommitTimeout(100 * time.Millisecond) }, topic)
	rec.waitFor(t, 10)
	eventually(t, "the commit and its answer", func() bool { return sum(committed(t, addrs, c.Group(), topic)) == 10 && !c.Uncommitted() })
	cluster.Close()
	if err := c.stop(t); err != nil {
		t.Errorf("Run: got %v, want nil: nothing was uncommitted", err)
	}
}

func TestConsumer_SlowProcessKeepsItsMembership(t *testing.T) {
	t.Parallel()
	cluster := fake(t, kfake.GroupMinSessionTimeout(time.Millisecond))
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 1)
	publish(t, addrs, numbered(topic, 0, 10, "k")...)
	beats := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Observe: true, Count: -1})
	rec, cancelled := newRecorder(), atomic.Bool{}
	rec.before = func(ctx context.Context, _ event.Batch) error {
		// Twice the session's length, as counted by heartbeats of 100 ms each.
		wait, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := beats.Wait(wait, beats.Hits()+10)
		cancelled.Store(ctx.Err() != nil)
		return err
	}
	c := consume(t, kafka.Config{Brokers: addrs, Group: unique(t, "group"), Opts: []kgo.Opt{kgo.SessionTimeout(500 * time.Millisecond)}}, rec, nil, topic)
	rec.waitFor(t, 10)
	if err := c.stop(t); err != nil || cancelled.Load() {
		t.Errorf("got error %v, cancelled %v, want neither", err, cancelled.Load())
	}
	once(t, rec)
}
