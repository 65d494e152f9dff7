package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/kafka"
)

// broker is the Kafka of KAFKA_BROKERS, or an embedded one in a process of its own, so that what
// it allocates is not on the account of the clients.
type broker struct {
	addr   string
	admin  *kadm.Client
	topics int // the number of the last one
	groups int
	cold   bool // a Java process that nobody may have used yet
}

// serveBroker is the other process: it says the address.
func serveBroker(ctx context.Context, _ struct{}, say func(any) error) error {
	k, err := embedded.StartKafka(embedded.KafkaConfig{})
	if err != nil {
		return err
	}
	if err = say(k.Addr()); err == nil {
		<-ctx.Done()
	}
	return errors.Join(err, k.Close())
}

// startBroker finds or starts it at the first call; rig.close ends what it has started.
func (r *rig) startBroker() (*broker, error) {
	if r.broker != nil {
		return r.broker, nil
	}
	addr, _, _ := strings.Cut(os.Getenv("KAFKA_BROKERS"), ",")
	pid := listener(addr)
	if addr == "" {
		c, said, err := spawnServer[string]("broker", nil)
		if err != nil {
			return nil, err
		}
		r.closes = append(r.closes, func() error { return c.explain(c.end()) })
		addr, pid = said, c.pid()
	}
	b := &broker{addr: addr, cold: os.Getenv("KAFKA_BROKERS") != ""}
	client, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.DisableClientMetrics())
	if err != nil {
		return nil, err
	}
	r.closes = append(r.closes, func() error { client.Close(); return nil })
	b.admin, r.broker = kadm.NewClient(client), b
	r.accounts = append(r.accounts, account{"broker", pid})
	return b, nil
}

// warmUp has a broker work for a while before anything is measured: one that has just been started
// compiles itself meanwhile, and takes the processors from whoever comes first.
func (r *rig) warmUp(ctx context.Context) error {
	if r.broker == nil || !r.broker.cold {
		return nil
	}
	r.broker.cold = false
	return r.broker.onTopic(ctx, func(topic string) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(r.broker.addr), kgo.DisableClientMetrics(),
			kgo.ConsumerGroup(r.broker.newGroup(topic)), kgo.ConsumeTopics(topic))
		if err != nil {
			return err
		}
		defer cl.Close()
		group, ctx := errgroup.WithContext(ctx)
		ctx, cancel := context.WithTimeout(ctx, r.plan.heat)
		defer cancel()
		group.Go(func() error { return poll(ctx, cl, func(kgo.FetchTopicPartition) {}) })
		group.Go(func() error {
			for n := 1; ctx.Err() == nil; n = (n + 37) % window { // as few as a shop's, as many as a backlog's
				records := make([]*kgo.Record, n)
				for i := range records {
					records[i] = &kgo.Record{Topic: topic, Key: strconv.AppendInt(nil, int64(i), 10), Value: make([]byte, 200)}
				}
				if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
		return group.Wait()
	})
}

// partitions of a topic of the benchmark, as many as the shop's topics have.
const partitions = 6

// onTopic gives fn a topic that nothing has been written to, and removes it afterwards, with its
// groups.
func (b *broker) onTopic(ctx context.Context, fn func(topic string) error) error {
	topic, err := b.makeTopic(ctx, partitions)
	if err != nil {
		return err
	}
	return errors.Join(fn(topic), b.remove(context.WithoutCancel(ctx), topic, []string{topic}))
}

// newTopic makes one that stays until the rig is closed.
func (r *rig) newTopic(ctx context.Context, partitions int32) (topic string, err error) {
	if topic, err = r.broker.makeTopic(ctx, partitions); err == nil {
		r.closes = append(r.closes, func() error { return r.broker.remove(context.WithoutCancel(ctx), topic, []string{topic}) })
	}
	return topic, err
}

func (b *broker) makeTopic(ctx context.Context, partitions int32) (name string, err error) {
	b.topics++
	name = fmt.Sprintf("bench-%d-%d", os.Getpid(), b.topics)
	return name, kafka.Provision(ctx, kafka.Config{Brokers: []string{b.addr}},
		[]kafka.Topic{{Name: name, Partitions: partitions, Retention: time.Hour}})
}

// newGroup names a consumer group that goes with a topic.
func (b *broker) newGroup(topic string) string {
	b.groups++
	return fmt.Sprintf("%s-%d", topic, b.groups)
}

// remove deletes topics, and all groups with the prefix. What is not there is fine.
func (b *broker) remove(ctx context.Context, prefix string, topics []string) error {
	groups, err := b.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(groups.Groups(), func(name string) bool { return !strings.HasPrefix(name, prefix+"-") })
	var errs []error
	if len(names) > 0 {
		_, err := b.admin.DeleteGroups(ctx, names...)
		errs = append(errs, err)
	}
	_, err = b.admin.DeleteTopics(ctx, topics...)
	return errors.Join(append(errs, err)...)
}

// end returns how many records a topic has.
func (b *broker) end(ctx context.Context, topic string) (n int, err error) {
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
	return n, ends.Error()
}

// write fills topics with n records, before anything is measured.
func (b *broker) write(ctx context.Context, n int, next func(i int) (*kgo.Record, error)) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.DisableClientMetrics())
	if err != nil {
		return err
	}
	defer cl.Close()
	var failed atomic.Pointer[error]
	for i := range n {
		r, err := next(i)
		if err != nil {
			return err
		}
		cl.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// poll hands over what is fetched until ctx ends.
func poll(ctx context.Context, cl *kgo.Client, each func(kgo.FetchTopicPartition)) error {
	for {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		fetches.EachPartition(each)
	}
}
