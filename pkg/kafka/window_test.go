package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// A partition fails in the middle of a window: what was written of it is a prefix. The client
// is cold at first, so that the topic is looked up while the window is handed to it.
func TestProducer_NothingIsWrittenBehindAFailure(t *testing.T) {
	t.Parallel()
	for _, fault := range []*kerr.Error{kerr.MessageTooLarge, kerr.InvalidRecord, kerr.UnknownServerError} {
		t.Run(fault.Message, func(t *testing.T) {
			t.Parallel()
			cluster := fake(t)
			addrs := cluster.ListenAddrs()
			for round := range 8 {
				topic := newTopic(t, addrs, 2)
				p := newProducer(t, kafka.Config{Brokers: addrs, Opts: []kgo.Opt{kgo.ProducerBatchMaxBytes(2000)}})
				if round%2 == 1 { // warm
					if errs := p.Publish(t.Context(), numbered(topic, 0, 1, keys(40)[10:]...)); errs != nil {
						t.Fatal(errors.Join(errs...))
					}
				}
				var requests atomic.Int64
				cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{0}, Err: fault,
					When: func(kmsg.Request) bool { return requests.Add(1) == int64(1+round/2) }})
				window := numbered(topic, 0, 200, keys(10)...)
				errs := p.Publish(t.Context(), window)
				if errs == nil {
					t.Fatal("the fault did not strike")
				}
				wire := map[string]bool{}
				for _, r := range readAll(t, addrs, topic) {
					wire[string(r.Value)] = true
				}
				failed := map[string]bool{}
				for i, r := range window {
					key, value := string(r.Key), string(r.Value)
					if errs[i] == nil != wire[value] {
						t.Fatalf("round %d, %s: answer %v, on the wire %v", round, value, errs[i], wire[value])
					}
					if failed[key] && wire[value] {
						t.Fatalf("round %d: %s was written behind a failure of its key", round, value)
					}
					failed[key] = failed[key] || errs[i] != nil
				}
				if errs := p.Publish(t.Context(), window); errs != nil {
					t.Fatal(errors.Join(errs...))
				}
			}
		})
	}
}

// The context ends while a window is on its way and the broker is silent. The next window
// holds what was not acknowledged and more; whatever the broker makes of the first one by
// then, each key's first sights are in order.
func TestProducer_ContextEndsMidFlush(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 2)
	p := newProducer(t, kafka.Config{Brokers: addrs, Opts: []kgo.Opt{kgo.ProducerBatchMaxBytes(1000)}})
	published := 0
	for round := range 10 {
		window := numbered(topic, published, 60, keys(5)...)
		stalled, answer := make(chan struct{}, 1000), make(chan struct{})
		var requests atomic.Int64
		cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			if requests.Add(1) == int64(1+round%4) {
				stalled <- struct{}{}
				cluster.DropControl()
				cluster.SleepControl(func() { <-answer })
			}
			return nil, nil, false
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-stalled; cancel() }()
		errs := p.Publish(ctx, window)
		failed := 0
		for _, err := range errs {
			if err != nil {
				failed++
				if !errors.Is(err, context.Canceled) {
					t.Errorf("round %d: got %v, want that the context was cancelled", round, err)
				}
			}
		}
		if failed == 0 {
			t.Fatalf("round %d: everything was acknowledged", round)
		}
		if round%2 == 0 {
			close(answer) // the old request is carried out before the new window
		}
		again := window[:0:0]
		for i, err := range errs {
			if err != nil {
				again = append(again, window[i])
			}
		}
		done := make(chan []error, 1)
		go func() {
			done <- p.Publish(t.Context(), append(again, numbered(topic, published+60, 10, keys(5)...)...))
		}()
		if round%2 == 1 {
			close(answer) // or beside it
		}
		if errs := <-done; errs != nil {
			t.Fatal(errors.Join(errs...))
		}
		published += 70
	}
	firstSightsInOrder(t, readAll(t, addrs, topic))
}

// batched is how many records a request brings.
func batched(t *testing.T, req kmsg.Request) (n int) {
	for _, topic := range req.(*kmsg.ProduceRequest).Topics {
		for _, p := range topic.Partitions {
			var batch kmsg.RecordBatch
			if err := batch.ReadFrom(p.Records); err != nil {
				t.Error(err)
			}
			n += int(batch.NumRecords)
		}
	}
	return n
}

// The places of a topic's records are given in the background while the client looks the topic
// up, where the gate does not reach; so one record looks it up for all.
func TestProducer_FirstRecordOfAnUnknownTopicGoesAlone(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	topic := newTopic(t, cluster.ListenAddrs(), 1)
	requests := make(chan int, 100)
	cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		requests <- batched(t, req)
		return nil, nil, false
	})
	if errs := newProducer(t, kafka.Config{Brokers: cluster.ListenAddrs()}).Publish(t.Context(), numbered(topic, 0, 50, "k")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	var got []int
	for len(requests) > 0 {
		got = append(got, <-requests)
	}
	if !slices.Equal(got, []int{1, 49}) {
		t.Errorf("the requests had %d records, want 1 and 49", got)
	}
}

// When Publish has returned because its context ended, nothing of its window is written any
// more but what a broker had received by then.
func TestProducer_NothingIsWrittenAfterTheReturn(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 1)
	p := newProducer(t, kafka.Config{Brokers: addrs, Opts: []kgo.Opt{kgo.ProducerBatchMaxBytes(1000)}})
	if errs := p.Publish(t.Context(), numbered(topic, 0, 1, "k")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	stalled, answer := make(chan struct{}, 1000), make(chan struct{})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		stalled <- struct{}{}
		cluster.SleepControl(func() { <-answer })
		return nil, nil, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-stalled; cancel() }()
	const all = 5000 // far more than the few requests that may be under way
	if errs := p.Publish(ctx, numbered(topic, 1, all, "k")); errs == nil {
		t.Fatal("everything was acknowledged")
	}
	close(answer)
	if errs := p.Publish(t.Context(), numbered(topic, all+1, 1, "k")); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
	if wire := len(readAll(t, addrs, topic)); wire > all/2 {
		t.Errorf("%d records on the wire of a window of %d whose first request was not answered before the return", wire, all)
	}
}
