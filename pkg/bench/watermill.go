package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/IBM/sarama"
	"github.com/ThreeDotsLabs/watermill"
	watermillkafka "github.com/ThreeDotsLabs/watermill-kafka/v3/pkg/kafka"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/components/forwarder"
	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// watermill subscribes and acknowledges; what is in a message it is not asked.
func (c *consuming) watermill(ctx context.Context, n int, w *watch) error {
	w.start()
	sub, err := watermillSubscriber(c.broker.addr, c.broker.newGroup(c.topic), watermill.NopLogger{})
	if err != nil {
		return err
	}
	messages, err := sub.Subscribe(ctx, c.topic)
	if err != nil {
		return errors.Join(err, sub.Close())
	}
	for range n {
		select {
		case m := <-messages:
			m.Ack()
		case <-ctx.Done():
			return errors.Join(ctx.Err(), sub.Close())
		}
	}
	w.stop()
	return sub.Close()
}

// watermillSubscriber reads as a member of a group, from the begin.
func watermillSubscriber(broker, group string, log watermill.LoggerAdapter) (*watermillkafka.Subscriber, error) {
	cfg := watermillkafka.DefaultSaramaSubscriberConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	return watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: []string{broker}, Unmarshaler: watermillkafka.DefaultMarshaler{}, OverwriteSaramaConfig: cfg, ConsumerGroup: group,
	}, log)
}

// How Watermill's outbox is set, as by somebody who knows it: by default there is one, and a
// forwarder that has found nothing looks again after a second.
const (
	// watermillShards is how many outboxes a service has, each with a forwarder, which publishes
	// one row after the other. A key's events are all in one.
	watermillShards = 4
	// watermillPoll is how long a forwarder that has found nothing waits.
	watermillPoll = 10 * time.Millisecond
)

// watermillOutbox is a service's: tables of watermill-sql, and forwarders from them to Kafka.
type watermillOutbox struct {
	name    string // begins those of its tables
	broker  string
	key     string // the metadata that a record's partition follows
	pool    *pgxpool.Pool
	schema  watermillsql.SchemaAdapter
	offsets watermillsql.OffsetsAdapter
	log     watermill.LoggerAdapter
	sent    *progress // nil: nobody counts
}

func (o *watermillOutbox) shard(i int) string { return fmt.Sprintf("%s_%d", o.name, i) }

// prepare makes the tables, before anything is written to them.
func (o *watermillOutbox) prepare() error {
	sub, err := o.subscriber()
	if err != nil {
		return err
	}
	for i := range watermillShards {
		if err := sub.SubscribeInitialize(o.shard(i)); err != nil {
			return err
		}
	}
	return sub.Close()
}

func (o *watermillOutbox) subscriber() (*watermillsql.Subscriber, error) {
	return watermillsql.NewSubscriber(watermillsql.BeginnerFromPgx(o.pool), watermillsql.SubscriberConfig{
		PollInterval: watermillPoll, ResendInterval: time.Millisecond, RetryInterval: watermillPoll, SchemaAdapter: o.schema, OffsetsAdapter: o.offsets,
	}, o.log)
}

// append writes events to a topic's outboxes in tx.
func (o *watermillOutbox) append(ctx context.Context, tx pgx.Tx, topic string, messages ...*wm.Message) error {
	var shards [watermillShards][]*wm.Message
	for _, m := range messages {
		m.SetContext(ctx)
		hash := fnv.New32a()
		_, _ = hash.Write([]byte(m.Metadata.Get(o.key))) // it never fails
		i := hash.Sum32() % watermillShards
		shards[i] = append(shards[i], m)
	}
	rows, err := watermillsql.NewPublisher(watermillsql.TxFromPgx(tx), watermillsql.PublisherConfig{SchemaAdapter: o.schema}, o.log)
	if err != nil {
		return err
	}
	for i, some := range shards {
		if len(some) == 0 {
			continue
		}
		if err := forwarder.NewPublisher(rows, forwarder.PublisherConfig{ForwarderTopic: o.shard(i)}).Publish(topic, some...); err != nil {
			return err
		}
	}
	return nil
}

// relay runs a forwarder for each outbox until ctx ends.
func (o *watermillOutbox) relay(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range watermillShards {
		group.Go(func() error { return o.forward(ctx, o.shard(i)) })
	}
	return group.Wait()
}

func (o *watermillOutbox) forward(ctx context.Context, shard string) error {
	sub, err := o.subscriber()
	if err != nil {
		return err
	}
	pub, err := watermillkafka.NewPublisher(watermillkafka.PublisherConfig{
		Brokers: []string{o.broker},
		Marshaler: watermillkafka.NewWithPartitioningMarshaler(func(_ string, m *wm.Message) (string, error) {
			return m.Metadata.Get(o.key), nil
		}),
	}, o.log)
	if err != nil {
		return err
	}
	f, err := forwarder.NewForwarder(sub, counting{pub, o.sent}, o.log, forwarder.Config{ForwarderTopic: shard})
	if err != nil {
		return err
	}
	return f.Run(ctx) // it closes both
}

// counting counts what was published.
type counting struct {
	wm.Publisher
	sent *progress
}

func (c counting) Publish(topic string, messages ...*wm.Message) error {
	err := c.Publisher.Publish(topic, messages...)
	if err == nil && c.sent != nil {
		c.sent.add(len(messages))
	}
	return err
}
