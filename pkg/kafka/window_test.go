package kafka_test

import (
	"errors"
	"fmt"
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

// slowPlacing stops between two records of a window, and notices when one fails.
type slowPlacing struct {
	at      atomic.Int64 // the record to stop before; 0 for none
	reached func()
	failed  chan struct{}
	once    sync.Once
}

func (s *slowPlacing) OnProduceRecordBuffered(*kgo.Record) {
	if s.at.Load() > 0 && s.at.Add(-1) == 0 {
		s.reached()
	}
}

func (s *slowPlacing) OnProduceRecordUnbuffered(_ *kgo.Record, err error) {
	if err != nil {
		s.once.Do(func() { close(s.failed) })
	}
}

// The client's loop that sent the last window is kept alive by a backoff, and takes along the
// first half of the next window while the second is still on its way into the client. The
// half fails. Were that noticed at once, the client would write the other half behind it.
func TestProducer_AFailureIsNotNoticedBeforeAllIsPlaced(t *testing.T) {
	t.Parallel()
	cluster := fake(t, kfake.NumBrokers(2))
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 2)
	for id := range int32(2) {
		if err := cluster.MoveTopicPartition(topic, id, 0); err != nil {
			t.Fatal(err)
		}
	}
	var armed atomic.Bool
	asleep, wake := make(chan struct{}), make(chan struct{})
	hook := &slowPlacing{failed: make(chan struct{})}
	p := newProducer(t, kafka.Config{Brokers: addrs, Opts: []kgo.Opt{
		kgo.WithHooks(hook), kgo.MetadataMinAge(10 * time.Millisecond), kgo.MetadataMaxAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration {
			if armed.CompareAndSwap(true, false) {
				close(asleep)
				<-wake
			}
			return time.Millisecond
		}),
	}})
	// "abc" goes to partition 1, "foobar" to 0, by Java's table.
	if errs := p.Publish(t.Context(), numbered(topic, 0, 1, "foobar", "abc")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}

	// The first broker's loop goes to sleep over partition 0, which then moves away and is
	// written by the other broker's.
	armed.Store(true)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{0}, Err: kerr.RequestTimedOut})
	done := make(chan []error, 1)
	go func() { done <- p.Publish(t.Context(), numbered(topic, 1, 1, "foobar")) }()
	<-asleep
	if err := cluster.MoveTopicPartition(topic, 0, 1); err != nil {
		t.Fatal(err)
	}
	if errs := <-done; errs != nil {
		t.Fatal(errors.Join(errs...))
	}

	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{1}, Err: kerr.UnknownServerError})
	hook.reached = func() {
		close(wake)
		eventually(t, "the failure", func() bool { return fault.Hits() > 0 })
		select {
		case <-hook.failed:
			t.Error("the failure was noticed before all records had their place")
		case <-time.After(200 * time.Millisecond):
		}
	}
	hook.at.Store(50)
	window := numbered(topic, 1, 100, "abc")
	errs := p.Publish(t.Context(), window)
	wire := map[string]bool{}
	for _, r := range readAll(t, addrs, topic) {
		wire[string(r.Value)] = true
	}
	if len(errs) != 100 || errs[0] == nil {
		t.Fatalf("got %d errors, want all of 100 to fail", len(errs))
	}
	for i, r := range window {
		if errs[i] == nil || wire[string(r.Value)] {
			t.Fatalf("%s: answer %v, on the wire %v, want it failed and not written", r.Value, errs[i], wire[string(r.Value)])
		}
	}
	if errs := p.Publish(t.Context(), window); errs != nil {
		t.Error(errors.Join(errs...))
	}
}

func TestProducer_WindowsTakeTurns(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	topic := newTopic(t, addrs, 1)
	p := newProducer(t, kafka.Config{Brokers: addrs})
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			var window []event.Record
			for j := range 50 {
				window = append(window, event.Record{Topic: topic, Key: []byte("k"), Value: fmt.Appendf(nil, "%d:%d", i, j)})
			}
			if errs := p.Publish(t.Context(), window); errs != nil {
				t.Error(errors.Join(errs...))
			}
		})
	}
	all.Wait()
	wire := readAll(t, addrs, topic)
	for i := 0; i < len(wire); i++ {
		var window, at int
		if _, err := fmt.Sscanf(string(wire[i].Value), "%d:%d", &window, &at); err != nil || at != i%50 {
			t.Fatalf("record %d is %s: windows overlap", i, wire[i].Value)
		}
	}
}
