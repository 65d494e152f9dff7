//go:build synctests

package sim_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

const brokers = "127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094"

// cluster is the Kafka of the run, each broker on a host of its own.
type cluster struct {
	*kfake.Cluster
	w     *world
	hosts []*host
}

func (w *world) startKafka() *cluster {
	c := &cluster{w: w}
	cl, err := kfake.NewCluster(
		kfake.NumBrokers(3), kfake.Ports(9092, 9093, 9094),
		kfake.ListenFn(func(_, addr string) (net.Listener, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			h := &host{name: "kafka-" + port}
			c.hosts = append(c.hosts, h)
			return w.net.listen(h, "127.0.0.1:"+port)
		}),
	)
	if err != nil {
		w.t.Fatal(err)
	}
	c.Cluster = cl
	return c
}

// config is how a host reaches the cluster.
func (c *cluster) config(from *host) kafka.Config {
	return kafka.Config{Brokers: strings.Split(brokers, ","), Opts: []kgo.Opt{kgo.Dialer(func(ctx context.Context, _, addr string) (net.Conn, error) {
		return c.w.net.dial(ctx, from, addr)
	})}}
}

func (c *cluster) client(from *host, opts ...kgo.Opt) *kgo.Client {
	opts = append(opts, kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.DisableClientMetrics(), kgo.MetadataMinAge(100*time.Millisecond))
	cl, err := kgo.NewClient(append(opts, c.config(from).Opts...)...)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return cl
}

// start is where a partition's log begins.
func (c *cluster) start(topic string, partition int32) int64 {
	if p := c.PartitionInfo(topic, partition); p != nil {
		return p.LogStartOffset
	}
	return 0
}

// topics are those of the shop's events.
var topics = []string{schemas.TopicOrders, schemas.TopicInventory, schemas.TopicEmails}

// watch reads all events as a bystander, from the first to the last.
type watch struct {
	w      *world
	cl     *kgo.Client
	cancel context.CancelFunc

	mu      sync.Mutex
	records []*kgo.Record
	next    map[string]map[int32]int64 // by topic and partition, what it has not seen yet
	commits map[string]map[int32]int64 // by group, the highest offset seen
}

func (w *world) startWatch() *watch {
	from := map[string]map[int32]kgo.Offset{}
	b := &watch{w: w, next: map[string]map[int32]int64{}, commits: map[string]map[int32]int64{}}
	for _, t := range schemas.Topics() {
		if !strings.HasSuffix(t.Name, ".dlt") {
			from[t.Name], b.next[t.Name] = map[int32]kgo.Offset{}, map[int32]int64{}
			for p := range t.Partitions {
				from[t.Name][p] = kgo.NewOffset().At(0)
			}
		}
	}
	b.cl = w.kafka.client(&host{name: "bystander"}, kgo.ConsumePartitions(from), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(500*time.Millisecond))
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	w.parts.Go(func() {
		for ctx.Err() == nil {
			fetches := b.cl.PollFetches(ctx)
			b.mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) {
				b.records = append(b.records, r)
				b.next[r.Topic][r.Partition] = r.Offset + 1
			})
			b.mu.Unlock()
		}
	})
	return b
}

func (b *watch) close() {
	b.cancel()
	b.cl.Close()
}

// seen are the records so far, in the order of each partition.
func (b *watch) seen() []*kgo.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*kgo.Record{}, b.records...)
}

func (b *watch) position(topic string, partition int32) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.next[topic][partition]
}

// lag is how many records each group has not committed; it complains of an offset that has
// gone backwards.
func (b *watch) lag() map[string]int64 {
	lag := map[string]int64{}
	for _, group := range services {
		lag[group] = 0
		info := b.w.kafka.GroupInfo(group)
		for _, p := range b.w.kafka.PartitionInfos(consumed[group]) {
			committed := int64(0)
			if info != nil {
				if c, ok := info.Commits[consumed[group]][p.Partition]; ok {
					committed = c.Offset
				}
			}
			b.monotonous(group, p.Partition, committed)
			if p.HighWatermark > committed {
				lag[group] += p.HighWatermark - committed
			}
		}
	}
	return lag
}

func (b *watch) monotonous(group string, partition int32, committed int64) {
	b.mu.Lock()
	before := b.commits[group][partition]
	if b.commits[group] == nil {
		b.commits[group] = map[int32]int64{}
	}
	b.commits[group][partition] = max(before, committed)
	b.mu.Unlock()
	if committed < before {
		b.w.complain("OFFSET: group %s has gone back from %d to %d in partition %d", group, before, committed, partition)
	}
}

// behind is whether the bystander has still to read something.
func (b *watch) behind() bool {
	for _, topic := range topics {
		for _, p := range b.w.kafka.PartitionInfos(topic) {
			if p.HighWatermark > b.position(topic, p.Partition) {
				return true
			}
		}
	}
	return false
}
