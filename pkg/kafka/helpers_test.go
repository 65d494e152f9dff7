package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// patience bounds every wait of these tests; none takes nearly that long.
const patience = 20 * time.Second

// fake starts a broker in this process, on loopback.
func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// brokers returns the real broker's addresses if there is one, else a fake one's.
func brokers(t testing.TB) []string {
	t.Helper()
	if real := os.Getenv("KAFKA_BROKERS"); real != "" {
		return strings.Split(real, ",")
	}
	return fake(t).ListenAddrs()
}

// names are unique, so that tests can share a broker.
var nameCount atomic.Int64

func unique(t testing.TB, what string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	return fmt.Sprintf("%s-%s-%d-%d", what, clean[:min(len(clean), 60)], os.Getpid()+int(time.Now().UnixNano()%1e6), nameCount.Add(1))
}

func newTopic(t testing.TB, addrs []string, partitions int32) string {
	t.Helper()
	topic := unique(t, "topic")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := kafka.Provision(ctx, kafka.Config{Brokers: addrs}, []kafka.Topic{{Name: topic, Partitions: partitions}}); err != nil {
		t.Fatal(err)
	}
	return topic
}

func newProducer(t testing.TB, cfg kafka.Config) *kafka.Producer {
	t.Helper()
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// publish writes records and wants all of them acknowledged.
func publish(t testing.TB, addrs []string, records ...event.Record) {
	t.Helper()
	p, err := kafka.NewProducer(kafka.Config{Brokers: addrs})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if errs := p.Publish(ctx, records); errs != nil {
		t.Fatal(errors.Join(errs...))
	}
}

// numbered are n records of topic, over the given keys in turn; their values are "<key>:<i>"
// with i rising per key.
func numbered(topic string, from, n int, keys ...string) []event.Record {
	var out []event.Record
	for i := from; i < from+n; i++ {
		for _, k := range keys {
			out = append(out, event.Record{Topic: topic, Key: []byte(k), Value: fmt.Appendf(nil, "%s:%d", k, i)})
		}
	}
	return out
}

func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("key-%d", i)
	}
	return out
}

// running is a consumer that runs.
type running struct {
	*kafka.Consumer
	cancel context.CancelFunc
	done   chan error
}

// stop ends Run and returns its error.
func (r *running) stop(t testing.TB) error {
	t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(patience):
		t.Fatal("Run does not return")
		return nil
	}
}

// consume runs a consumer until the test ends. Rebalances are noticed fast.
func consume(t testing.TB, cfg kafka.Config, p kafka.Processor, tune func(*kafka.Consumer), topics ...string) *running {
	t.Helper()
	cfg.Opts = append([]kgo.Opt{kgo.HeartbeatInterval(100 * time.Millisecond)}, cfg.Opts...)
	c, err := kafka.NewConsumer(cfg, topics, p)
	if err != nil {
		t.Fatal(err)
	}
	c.SetBackoff(time.Millisecond, 20*time.Millisecond)
	if tune != nil {
		tune(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Consumer: c, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- c.Run(ctx) }()
	t.Cleanup(func() {
		if err := r.stop(t); err != nil {
			t.Logf("Run: %v", err)
		}
	})
	return r
}

// committed is the group's offset of each partition of topic; absent ones are not committed.
func committed(t testing.TB, addrs []string, group, topic string) map[int32]int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out := map[int32]int64{}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	offsets, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	if err != nil { // a real broker may still be looking for the group's coordinator
		t.Logf("offsets of %s: %v", group, err)
		return out
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == topic && o.At >= 0 {
			out[o.Partition] = o.At
		}
	})
	return out
}

func sum(offsets map[int32]int64) (n int64) {
	for _, o := range offsets {
		n += o
	}
	return n
}

func admin(t testing.TB, addrs []string) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

// eventually asks again and again, without a fixed pause, until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s", what)
		}
		<-tick.C
	}
}

// metrics reads instruments back.
type metrics struct {
	meter  metric.Meter
	reader *sdkmetric.ManualReader
}

func newMetrics() *metrics {
	reader := sdkmetric.NewManualReader()
	return &metrics{sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test"), reader}
}

// value is the one data point of an instrument that has the given labels, -1 if there is none.
func (m *metrics) value(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := m.reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, i := range scope.Metrics {
			if i.Name != name {
				continue
			}
			switch data := i.Data.(type) {
			case metricdata.Gauge[int64]:
				return point(data.DataPoints, labels)
			case metricdata.Gauge[float64]:
				return point(data.DataPoints, labels)
			case metricdata.Sum[int64]:
				return point(data.DataPoints, labels)
			}
		}
	}
	return -1
}

func point[N int64 | float64](points []metricdata.DataPoint[N], labels []string) float64 {
	for _, p := range points {
		has := true
		for i := 0; i < len(labels); i += 2 {
			v, ok := p.Attributes.Value(attribute.Key(labels[i]))
			has = has && ok && v.String() == labels[i+1]
		}
		if has {
			return float64(p.Value)
		}
	}
	return -1
}

// set changes settings of a topic.
func set(t *testing.T, addrs []string, topic string, values map[string]string) {
	t.Helper()
	var all []kadm.AlterConfig
	for key, value := range values {
		all = append(all, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	answers, err := admin(t, addrs).AlterTopicConfigs(t.Context(), all, topic)
	if err == nil {
		_, err = answers.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	}
	if err != nil {
		t.Fatal(err)
	}
}
