package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/kafka"
)

func TestProducer_Publish(t *testing.T) {
	t.Parallel()

	t.Run("writes windows in order per key, with headers, and answers nil", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 6)
		p := newProducer(t, kafka.Config{Brokers: addrs})
		for i := range 5 {
			window := numbered(topic, i*100, 100, keys(20)...)
			window[0].Headers = []event.Header{{Key: "ce_id", Value: []byte("1")}}
			if errs := p.Publish(t.Context(), window); errs != nil {
				t.Fatal(errors.Join(errs...))
			}
		}
		wire := readAll(t, addrs, topic)
		if len(wire) != 10_000 {
			t.Errorf("on the wire: got %d records, want 10000", len(wire))
		}
		firstSightsInOrder(t, wire)
		if errs := p.Publish(t.Context(), nil); errs != nil {
			t.Errorf("empty window: got %v, want nil", errs)
		}
		if err := p.Ping(t.Context()); err != nil {
			t.Errorf("Ping: %v", err)
		}
	})

	t.Run("puts a key where Java's client puts it", func(t *testing.T) {
		t.Parallel()
		// The values of Kafka's own test of Utils.murmur2.
		java := map[string]int32{
			"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536,
			"a-little-bit-longer-string": -1486304829, "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
			"abc": 479470107, "": 275646681,
		}
		addrs := brokers(t)
		for _, n := range []int32{1, 3, 6, 12, 50} {
			topic := newTopic(t, addrs, n)
			var window []event.Record
			for key := range java {
				window = append(window, event.Record{Topic: topic, Key: []byte(key)})
			}
			publish(t, addrs, window...)
			for _, r := range readAll(t, addrs, topic) {
				if want := (java[string(r.Key)] & 0x7fffffff) % n; r.Partition != want {
					t.Errorf("key %q of %d partitions: got %d, want %d", r.Key, n, r.Partition, want)
				}
			}
		}
	})

	t.Run("lost answers cost neither order nor duplicates", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 3)
		lossy := &lossyDialer{every: 2}
		p := newProducer(t, kafka.Config{Brokers: addrs, Opts: []kgo.Opt{kgo.Dialer(lossy.dial), kgo.RetryBackoffFn(func(int) time.Duration { return time.Millisecond })}})
		for i := range 40 {
			if errs := p.Publish(t.Context(), numbered(topic, i*10, 10, keys(10)...)); errs != nil {
				t.Fatal(errors.Join(errs...))
			}
		}
		wire := readAll(t, addrs, topic)
		if len(wire) != 4000 {
			t.Errorf("on the wire: got %d records, want 4000", len(wire))
		}
		firstSightsInOrder(t, wire)
		if lossy.lost.Load() < 5 {
			t.Errorf("lost answers: got %d, want more", lossy.lost.Load())
		}
	})

	t.Run("a timeout of a write that happened costs no duplicate", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic := newTopic(t, addrs, 3)
		p := newProducer(t, kafka.Config{Brokers: addrs})
		for i := range 5 {
			cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: 2})
			if errs := p.Publish(t.Context(), numbered(topic, i*10, 10, keys(10)...)); errs != nil {
				t.Fatal(errors.Join(errs...))
			}
		}
		wire := readAll(t, addrs, topic)
		if len(wire) != 500 {
			t.Errorf("on the wire: got %d records, want 500", len(wire))
		}
		firstSightsInOrder(t, wire)
	})

	t.Run("a record that no batch can hold fails with the later ones of its key, and no other", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		topic := newTopic(t, addrs, 1)
		window := numbered(topic, 0, 10, "a", "b")
		window[8].Value = make([]byte, 2<<20) // a:4
		errs := newProducer(t, kafka.Config{Brokers: addrs}).Publish(t.Context(), window)
		for i, err := range errs {
			if want := i >= 8 && i%2 == 0; (err != nil) != want {
				t.Errorf("record %d: got %v, want an error: %v", i, err, want)
			}
		}
		if !errors.Is(errs[8], kerr.MessageTooLarge) || errors.Is(errs[8], event.ErrTopic) {
			t.Errorf("got %v, want MESSAGE_TOO_LARGE", errs[8])
		}
		if got := len(readAll(t, addrs, topic)); got != 14 {
			t.Errorf("on the wire: got %d, want 14", got)
		}
	})

	t.Run("a topic that is missing fails its records only, and is written when it is there", func(t *testing.T) {
		t.Parallel()
		addrs := brokers(t)
		exists, missing := newTopic(t, addrs, 2), unique(t, "missing")
		p := newProducer(t, kafka.Config{Brokers: addrs})
		window := append(numbered(exists, 0, 5, "a"), numbered(missing, 0, 5, "b")...)
		errs := p.Publish(t.Context(), window)
		for i, err := range errs {
			if errors.Is(err, event.ErrTopic) != (i >= 5) || (err != nil) != (i >= 5) {
				t.Errorf("record %d: got %v", i, err)
			}
		}
		if len(errs) != 10 {
			t.Fatalf("got %d entries, want 10", len(errs))
		}
		if err := kafka.Provision(t.Context(), kafka.Config{Brokers: addrs}, []kafka.Topic{{Name: missing, Partitions: 1}}); err != nil {
			t.Fatal(err)
		}
		if errs := p.Publish(t.Context(), window[5:]); errs != nil {
			t.Error(errors.Join(errs...))
		}
		if a, b := len(readAll(t, addrs, exists)), len(readAll(t, addrs, missing)); a != 5 || b != 5 {
			t.Errorf("on the wire: got %d and %d, want 5 and 5", a, b)
		}
	})

	t.Run("a topic that was deleted and made again is written after one failure", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic := newTopic(t, addrs, 1)
		p := newProducer(t, kafka.Config{Brokers: addrs})
		if errs := p.Publish(t.Context(), numbered(topic, 0, 5, "a")); errs != nil {
			t.Fatal(errors.Join(errs...))
		}
		if err := cluster.DeleteTopic(topic); err != nil {
			t.Fatal(err)
		}
		if err := cluster.CreateTopic(topic, 1, nil); err != nil {
			t.Fatal(err)
		}
		if errs := p.Publish(t.Context(), numbered(topic, 5, 5, "a")); len(errs) != 5 || !errors.Is(errs[0], event.ErrTopic) {
			t.Fatalf("got %v, want ErrTopic", errs)
		}
		if errs := p.Publish(t.Context(), numbered(topic, 5, 5, "a")); errs != nil {
			t.Error(errors.Join(errs...))
		}
	})

	t.Run("when a topic's first record fails, the rest of the topic is not sent", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		a, b := newTopic(t, addrs, 1), newTopic(t, addrs, 1)
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: a, Err: kerr.InvalidRecord})
		errs := newProducer(t, kafka.Config{Brokers: addrs}).Publish(t.Context(), append(numbered(a, 0, 5, "k"), numbered(b, 0, 5, "k")...))
		for i, err := range errs {
			if want := i < 5; errors.Is(err, kerr.InvalidRecord) != want || (err != nil) != want {
				t.Errorf("record %d: got %v", i, err)
			}
		}
		if onA, onB := len(readAll(t, addrs, a)), len(readAll(t, addrs, b)); onA != 0 || onB != 5 {
			t.Errorf("on the wire: got %d and %d, want none and 5", onA, onB)
		}
	})

	t.Run("a topic that may not be written fails its records", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		a, b := newTopic(t, addrs, 1), newTopic(t, addrs, 1)
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: a, Err: kerr.TopicAuthorizationFailed, Count: -1})
		errs := newProducer(t, kafka.Config{Brokers: addrs}).Publish(t.Context(), append(numbered(a, 0, 1, "k"), numbered(b, 0, 1, "k")...))
		if len(errs) != 2 || !errors.Is(errs[0], event.ErrTopic) || errs[1] != nil {
			t.Errorf("got %v, want ErrTopic for the first only", errs)
		}
	})

	t.Run("with the broker away it waits for the end of its context", func(t *testing.T) {
		t.Parallel()
		addr, port := eventtest.FreeAddr(t)
		p := newProducer(t, kafka.Config{Brokers: []string{addr}})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		errs := p.Publish(ctx, numbered("orders", 0, 5, "k"))
		if len(errs) != 5 || !errors.Is(errs[4], context.DeadlineExceeded) || errors.Is(errs[4], event.ErrTopic) {
			t.Errorf("got %v, want five times that the deadline is exceeded", errs)
		}
		fake(t, kfake.Ports(port), kfake.SeedTopics(1, "orders"))
		if errs := p.Publish(t.Context(), numbered("orders", 0, 5, "k")); errs != nil {
			t.Error(errors.Join(errs...))
		}
	})
}

func TestProducer_CloseWaits(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	topic := newTopic(t, addrs, 1)
	p, err := kafka.NewProducer(kafka.Config{Brokers: addrs})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []error)
	go func() { done <- p.Publish(context.Background(), numbered(topic, 0, 100, "k")) }()
	if errs := <-done; errs != nil {
		t.Error(errors.Join(errs...))
	}
	p.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if errs := p.Publish(ctx, numbered(topic, 0, 2, "k")); len(errs) != 2 || !errors.Is(errs[1], context.Canceled) {
		t.Errorf("after Close: got %v, want that the context was cancelled", errs)
	}
}

func TestProducer_CloseEndsAPublishThatIsStuck(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic := newTopic(t, addrs, 1)
	p, err := kafka.NewProducer(kafka.Config{Brokers: addrs})
	if err != nil {
		t.Fatal(err)
	}
	p.SetCloseTimeout(50 * time.Millisecond)
	asked, open := make(chan struct{}), make(chan struct{})
	defer close(open)
	ask := sync.OnceFunc(func() { close(asked) }) // the other Publish may have its turn, too, before it sees its end
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		ask()
		cluster.SleepControl(func() { <-open })
		return nil, nil, false
	})
	done, closed := make(chan []error, 2), make(chan struct{})
	for range 2 { // one is under way, the other waits for its turn
		go func() { done <- p.Publish(context.Background(), numbered(topic, 0, 2, "k")) }()
	}
	<-asked
	go func() { defer close(closed); p.Close() }()
	for _, what := range []string{"one Publish", "the other"} {
		select {
		case errs := <-done:
			if len(errs) != 2 || !errors.Is(errs[0], context.Canceled) {
				t.Errorf("%s: got %v, want that it was cancelled", what, errs)
			}
		case <-time.After(patience):
			t.Fatalf("%s does not return", what)
		}
	}
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
	if errs := p.Publish(t.Context(), numbered(topic, 0, 1, "k")); len(errs) != 1 {
		t.Errorf("after Close: got %v, want an error", errs)
	}
}

// readAll reads a topic to its end with a client of its own.
func readAll(t testing.TB, addrs []string, topic string) []*kgo.Record {
	t.Helper()
	n := sum(ends(t, addrs, topic))
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topic), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []*kgo.Record
	for int64(len(all)) < n {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		all = append(all, fetches.Records()...)
	}
	return all
}

// firstSightsInOrder is recorder.inOrder for the wire.
func firstSightsInOrder(t testing.TB, wire []*kgo.Record) {
	t.Helper()
	rec := newRecorder()
	for _, r := range wire {
		rec.byKey[string(r.Key)] = append(rec.byKey[string(r.Key)], string(r.Value))
	}
	rec.inOrder(t)
}

// lossyDialer makes connections that break with every so-manieth answer, after the broker has
// sent it.
type lossyDialer struct {
	every       int64
	reads, lost atomic.Int64
}

func (d *lossyDialer) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, host)
	return &lossyConn{Conn: c, d: d}, err
}

type lossyConn struct {
	net.Conn
	d     *lossyDialer
	reads int
}

func (c *lossyConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.reads++
	if err == nil && c.reads > 4 && c.d.reads.Add(1)%c.d.every == 0 {
		c.d.lost.Add(1)
		_ = c.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

func TestPublish_ErrorsAreShort(t *testing.T) {
	t.Parallel()
	addrs := brokers(t)
	missing := unique(t, "missing")
	errs := newProducer(t, kafka.Config{Brokers: addrs}).Publish(t.Context(), numbered(missing, 0, 1, "k"))
	if got := fmt.Sprint(errs[0]); !strings.HasPrefix(got, "publish to "+missing+": "+event.ErrTopic.Error()) || len(got) > 300 {
		t.Errorf("got %q", got)
	}
}
