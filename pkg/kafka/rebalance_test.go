package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// exclusive fails the test when two members work on one partition at the same time.
type exclusive struct {
	t      testing.TB
	mu     sync.Mutex
	active map[string]string
}

func (e *exclusive) around(member string, b event.Batch, work func() error) error {
	where := fmt.Sprintf("%s/%d", b.Topic, b.Partition)
	e.mu.Lock()
	if other, ok := e.active[where]; ok {
		e.t.Errorf("%s: %s begins while %s is at work", where, member, other)
	}
	e.active[where] = member
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.active, where)
	}()
	return work()
}

// member is a processor of one of several members that share a recorder.
type member struct {
	name string
	all  *recorder
	only *exclusive
	work func(ctx context.Context, b event.Batch) error // nil does nothing
}

func (m *member) Process(ctx context.Context, b event.Batch) error {
	return m.only.around(m.name, b, func() error {
		if m.work != nil {
			if err := m.work(ctx, b); err != nil {
				return err
			}
		}
		return m.all.Process(ctx, b)
	})
}

func TestConsumer_Revoke(t *testing.T) {
	t.Parallel()

	t.Run("waits for the batch in hand and commits it: nothing lost, nothing read twice", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 4), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 100, keys(20)...)...)
		rec, only := newRecorder(), &exclusive{t: t, active: map[string]string{}}
		inHand, carryOn := make(chan struct{}, 100), make(chan struct{})
		a := &member{name: "a", all: rec, only: only, work: func(context.Context, event.Batch) error {
			inHand <- struct{}{}
			<-carryOn
			return nil
		}}
		consume(t, kafka.Config{Brokers: addrs, Group: group}, a, nil, topic)
		for range 4 {
			<-inHand
		}
		b := consume(t, kafka.Config{Brokers: addrs, Group: group}, &member{name: "b", all: rec, only: only}, nil, topic)
		eventually(t, "b in the group", b.Joined) // and a is asked to give up two partitions
		close(carryOn)
		rec.waitFor(t, 2000)
		publish(t, addrs, numbered(topic, 100, 20, keys(20)...)...)
		rec.waitFor(t, 2400)
		rec.inOrder(t)
		once(t, rec)
	})

	t.Run("cancels a batch in hand that takes too long, and the next member reads it again", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic, group := newTopic(t, addrs, 2), unique(t, "group")
		publish(t, addrs, numbered(topic, 0, 50, keys(10)...)...)
		rec, only := newRecorder(), &exclusive{t: t, active: map[string]string{}}
		inHand := make(chan struct{}, 100)
		a := &member{name: "a", all: rec, only: only, work: func(ctx context.Context, _ event.Batch) error {
			inHand <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		}}
		first := consume(t, kafka.Config{Brokers: addrs, Group: group}, a,
			func(c *kafka.Consumer) { c.SetHandTimeout(50 * time.Millisecond) }, topic)
		<-inHand
		<-inHand
		consume(t, kafka.Config{Brokers: addrs, Group: group}, &member{name: "b", all: rec, only: only}, nil, topic)
		rec.wait(t, "a partition at b", func() bool { return len(rec.values) > 0 })
		if err := first.stop(t); err != nil {
			t.Errorf("Run: %v", err)
		}
		rec.waitFor(t, 500)
		rec.inOrder(t)
	})

	t.Run("a storm of members joining and leaving loses nothing and keeps the order", func(t *testing.T) {
		t.Parallel()
		storm(t, kafka.Config{Brokers: brokers(t), Group: unique(t, "group")})
	})

	t.Run("likewise where the brokers assign the partitions (KIP-848)", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t, kfake.BrokerConfigs(map[string]string{"group.consumer.min.heartbeat.interval.ms": "1"}))
		cfg := kafka.Config{Brokers: cluster.ListenAddrs(), Group: unique(t, "group"), Opts: []kgo.Opt{kgo.ServerSideBalancer()}}
		cluster.SetGroupConfigs(cfg.Group, map[string]string{"consumer.heartbeat.interval.ms": "50"})
		storm(t, cfg)
	})

	t.Run("likewise where a real broker assigns them", func(t *testing.T) {
		t.Parallel()
		if os.Getenv("KAFKA_BROKERS") == "" {
			t.Skip("needs a real broker: .ci/real go test ./pkg/kafka")
		}
		storm(t, kafka.Config{Brokers: brokers(t), Group: unique(t, "group"), Opts: []kgo.Opt{kgo.ServerSideBalancer()}})
	})
}

// storm lets five members come and go beside one that stays. Each is stopped while it has
// work, after it has done some.
func storm(t *testing.T, cfg kafka.Config) {
	t.Helper()
	topic := newTopic(t, cfg.Brokers, 6)
	rec, only := newRecorder(), &exclusive{t: t, active: map[string]string{}}
	join := func(name string, worked func()) *running {
		work := func(context.Context, event.Batch) error { worked(); return nil }
		return consume(t, cfg, &member{name: name, all: rec, only: only, work: work}, nil, topic)
	}
	stay := join("stays", func() {})
	for i := range 5 {
		publish(t, cfg.Brokers, numbered(topic, 2*i*50, 50, keys(30)...)...)
		worked := make(chan struct{}, 1000)
		other := join(fmt.Sprint("guest ", i), func() { worked <- struct{}{} })
		eventually(t, "partitions for the guest", func() bool { return len(other.Queued()) > 0 })
		publish(t, cfg.Brokers, numbered(topic, (2*i+1)*50, 50, keys(30)...)...)
		<-worked
		if err := other.stop(t); err != nil {
			t.Errorf("guest: %v", err)
		}
	}
	rec.waitFor(t, 15_000)
	if err := stay.stop(t); err != nil {
		t.Errorf("stays: %v", err)
	}
	rec.inOrder(t)
	once(t, rec)
	if got := sum(committed(t, cfg.Brokers, cfg.Group, topic)); got != 15_000 {
		t.Errorf("committed: got %d, want 15000", got)
	}
}

// once fails if anything was done twice: no member was killed.
func once(t testing.TB, rec *recorder) {
	t.Helper()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	for v, n := range rec.values {
		if n != 1 {
			t.Fatalf("%s: done %d times, want once", v, n)
		}
	}
}

// stuckPoll holds back one poll after its records have left the client's buffer.
type stuckPoll struct {
	armed, caught atomic.Bool
	release       chan struct{}
}

func (s *stuckPoll) OnFetchRecordUnbuffered(*kgo.Record, bool) {
	if s.armed.Load() && s.caught.CompareAndSwap(false, true) {
		<-s.release
	}
}

// A partition leaves and comes back while a poll holds records of it, and other records lie
// before them unprocessed. If the poll's records reached the partition's next life, it would
// commit past those.
func TestConsumer_PollAndRevokeDoNotOverlap(t *testing.T) {
	t.Parallel()
	addrs := fake(t).ListenAddrs()
	topic, group := newTopic(t, addrs, 2), unique(t, "group")
	publish(t, addrs, numbered(topic, 0, 100, keys(8)...)...)

	rec, poll := newRecorder(), &stuckPoll{release: make(chan struct{})}
	inHand, open := make(chan struct{}, 10000), make(chan struct{})
	rec.before = func(ctx context.Context, _ event.Batch) error {
		inHand <- struct{}{}
		select {
		case <-open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	blocked, letGo := make(chan struct{}), sync.Once{}
	a, b := &logbook{}, &logbook{}
	consume(t, kafka.Config{Brokers: addrs, Group: group, Log: a.logger(), Opts: []kgo.Opt{
		kgo.WithHooks(poll),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { letGo.Do(func() { close(blocked) }) }),
	}}, rec, func(c *kafka.Consumer) { c.SetHandTimeout(time.Millisecond) }, topic)
	<-inHand
	<-inHand
	poll.armed.Store(true)
	publish(t, addrs, numbered(topic, 100, 100, keys(8)...)...)
	eventually(t, "a poll with records", poll.caught.Load)

	other := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: b.logger()},
		&member{all: newRecorder(), only: &exclusive{t: t, active: map[string]string{}}, work: func(context.Context, event.Batch) error {
			return errors.New("does nothing")
		}}, nil, topic)
	select {
	case <-blocked: // as it should be: the revoke waits for the poll
		close(poll.release)
		b.wait(t, "partitions assigned")
		close(open)
		_ = other.stop(t)
	case <-revoked(a):
		_ = other.stop(t)
		close(open)
		eventually(t, "the partition's return", func() bool { return len(linesOf(a, "partitions assigned")) >= 2 })
		close(poll.release)
	}
	rec.waitFor(t, 1600)
	rec.inOrder(t)
}

// revoked is closed when the member has revoked a partition.
func revoked(book *logbook) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(patience); time.Now().Before(end) && book.line("partitions revoked") == ""; {
			<-tick.C
		}
	}()
	return c
}

func TestConsumer_Lost(t *testing.T) {
	t.Parallel()
	cluster := fake(t, kfake.GroupMinSessionTimeout(time.Millisecond))
	addrs := cluster.ListenAddrs()
	topic, group := newTopic(t, addrs, 2), unique(t, "group")
	publish(t, addrs, numbered(topic, 0, 100, keys(8)...)...)
	rec, book := newRecorder(), &logbook{}
	inHand, cancelled, open := make(chan struct{}, 2), make(chan struct{}, 2), make(chan struct{})
	var begun atomic.Int32
	rec.before = func(ctx context.Context, _ event.Batch) error {
		if begun.Add(1) > 2 { // when the partitions are back
			select {
			case <-open:
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		inHand <- struct{}{}
		<-ctx.Done()
		cancelled <- struct{}{}
		return nil // the worst there is: it says done, after the partition is gone
	}
	commits := watchCommits(cluster)
	c := consume(t, kafka.Config{Brokers: addrs, Group: group, Log: book.logger(),
		Opts: []kgo.Opt{kgo.SessionTimeout(time.Second)}}, rec, nil, topic)
	<-inHand
	<-inHand
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: group, TopLevel: true, Err: kerr.UnknownMemberID})
	<-cancelled // the handler is told to stop at once
	<-cancelled
	book.wait(t, "partitions lost")
	if commits.further(0) { // a broker that has forgotten the whole group would take it
		t.Error("what was done of a lost partition was committed")
	}
	close(open)
	rec.wait(t, "all of it again", func() bool {
		twice := 0
		for _, n := range rec.values {
			twice += n
		}
		return twice == 1600 // nothing of the lost partitions was committed
	})
	if fault.Hits() == 0 {
		t.Error("the member was never thrown out")
	}
	if err := c.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	if got := sum(committed(t, addrs, group, topic)); got != 800 {
		t.Errorf("committed: got %d, want 800", got)
	}
	if back := commits.back(); back != "" {
		t.Error(back)
	}
}

func TestConsumer_StaticMember(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic, group := newTopic(t, addrs, 2), unique(t, "group")
	left := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.LeaveGroup}, Observe: true, Count: -1})
	rec := newRecorder()
	for i := range 3 {
		c := consume(t, kafka.Config{Brokers: addrs, Group: group, InstanceID: "inventory-0"}, rec, nil, topic)
		publish(t, addrs, numbered(topic, i*10, 10, keys(4)...)...)
		rec.waitFor(t, (i+1)*40)
		if err := c.stop(t); err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	once(t, rec)
	if got := left.Hits(); got != 0 {
		t.Errorf("leave requests: got %d, want none from a static member", got)
	}
}

func linesOf(book *logbook, part string) (lines []string) {
	for line := range strings.Lines(book.String()) {
		if strings.Contains(line, part) {
			lines = append(lines, line)
		}
	}
	return lines
}
