package main

import (
	"context"
	"encoding/json"
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

// How Watermill is set, as by somebody who knows it; by default a forwarder that has found nothing
// looks again after a second. The outbox is the default adapter, which is as fast here as the queue
// adapter, and does not delete what was not published yet when it is stopped.
const (
	// watermillPartitions is more than ours, for a subscriber works on one record per partition.
	watermillPartitions = 12
	// watermillShards is how many outboxes a service has, each with a forwarder, which publishes
	// one row after the other.
	watermillShards = 4
	// watermillPoll is how long a forwarder that has found nothing waits.
	watermillPoll = 10 * time.Millisecond
	// watermillBatch is how many rows it reads at a time: the default.
	watermillBatch = 100
)

// watermillTables are what makes an effect happen once: the events that a service has handled,
// and one order per request.
const watermillTables = `;
create table inbox (service text not null, event_id text not null, primary key (service, event_id));
create unique index on orders (idempotency_key)`

// watermillShop keeps the promises of ours that Watermill has parts for: events are written with
// what they tell of, by the SQL publisher, and forwarded to Kafka; a handler's effect, its inbox
// row and its events are one transaction; offsets follow acknowledgements.
type watermillShop struct {
	cfg    shopConfig
	topics peerTopics
	mailer *peerMailer
	log    watermill.LoggerAdapter
	schema watermillsql.DefaultPostgreSQLSchema // of the outboxes
}

// watermillService is one of its three services.
type watermillService struct {
	*watermillShop
	name string
	pool *pgxpool.Pool
}

func serveWatermill(ctx context.Context, cfg shopConfig, opened func(shopAddrs)) error {
	w := &watermillShop{
		cfg, topicsOf(cfg), newPeerMailer(cfg.SMTP), watermill.NewStdLogger(false, false),
		watermillsql.DefaultPostgreSQLSchema{SubscribeBatchSize: watermillBatch},
	}
	var services []*watermillService
	for _, name := range []string{"order", "inventory", "email"} {
		pool, err := openPool(ctx, cfg.Database)
		if err != nil {
			return err
		}
		defer pool.Close()
		services = append(services, &watermillService{w, name, pool})
	}
	orders, inventory, mails := services[0], services[1], services[2]
	if _, err := orders.pool.Exec(ctx, peerTables+watermillTables); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	router, err := wm.NewRouter(wm.RouterConfig{}, w.log)
	if err != nil {
		return err
	}
	err = errors.Join(orders.handle(router, w.topics.inventory, orders.onInventory), inventory.handle(router, w.topics.orders, inventory.onPlaced),
		mails.handle(router, w.topics.orders, mails.onConfirmed))
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range []*watermillService{orders, inventory} {
		if err := s.forward(ctx, group); err != nil {
			return err
		}
	}
	group.Go(func() error { return router.Run(ctx) })
	group.Go(func() error { return servePeer(ctx, inventory.pool, opened, orders.place) })
	return group.Wait()
}

// handle lets the router hand a topic's messages to a handler: of each partition one at a time.
func (s *watermillService) handle(router *wm.Router, topic string, do wm.NoPublishHandlerFunc) error {
	cfg := watermillkafka.DefaultSaramaSubscriberConfig()
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	sub, err := watermillkafka.NewSubscriber(watermillkafka.SubscriberConfig{
		Brokers: []string{s.cfg.Broker}, Unmarshaler: watermillkafka.DefaultMarshaler{}, OverwriteSaramaConfig: cfg, ConsumerGroup: s.cfg.Prefix + "-" + s.name,
	}, s.log)
	if err != nil {
		return err
	}
	router.AddConsumerHandler(s.name, topic, sub, do)
	return nil
}

// forward runs the service's forwarders.
func (s *watermillService) forward(ctx context.Context, group *errgroup.Group) error {
	pub, err := watermillkafka.NewPublisher(watermillkafka.PublisherConfig{
		Brokers: []string{s.cfg.Broker},
		Marshaler: watermillkafka.NewWithPartitioningMarshaler(func(_ string, m *wm.Message) (string, error) {
			return m.Metadata.Get("key"), nil
		}),
	}, s.log)
	if err != nil {
		return err
	}
	for shard := range watermillShards {
		sub, err := watermillsql.NewSubscriber(watermillsql.BeginnerFromPgx(s.pool), watermillsql.SubscriberConfig{
			PollInterval: watermillPoll, InitializeSchema: true, SchemaAdapter: s.schema, OffsetsAdapter: watermillsql.DefaultPostgreSQLOffsetsAdapter{},
		}, s.log)
		if err != nil {
			return err
		}
		if err := sub.SubscribeInitialize(s.outbox(shard)); err != nil { // before anything is written to it
			return err
		}
		f, err := forwarder.NewForwarder(sub, pub, s.log, forwarder.Config{ForwarderTopic: s.outbox(shard)})
		if err != nil {
			return err
		}
		group.Go(func() error { return f.Run(ctx) })
	}
	return nil
}

func (s *watermillService) outbox(shard int) string {
	return fmt.Sprintf("%s_outbox_%d", s.name, shard)
}

// publish writes an event to the outbox in tx. All events of an order go through one shard, in
// order.
func (s *watermillService) publish(tx pgx.Tx, topic, key, typ string, event any) error {
	value, err := json.Marshal(event)
	if err != nil {
		return err
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(key)) // it never fails
	pub, err := watermillsql.NewPublisher(watermillsql.TxFromPgx(tx), watermillsql.PublisherConfig{SchemaAdapter: s.schema}, s.log)
	if err != nil {
		return err
	}
	m := wm.NewMessage(watermill.NewUUID(), value)
	m.Metadata = wm.Metadata{"key": key, typeHeader: typ}
	return forwarder.NewPublisher(pub, forwarder.PublisherConfig{ForwarderTopic: s.outbox(int(hash.Sum32() % watermillShards))}).Publish(topic, m)
}

// place takes an order once per key.
func (s *watermillService) place(ctx context.Context, o peerOrder) (id string, err error) {
	id = o.id
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		placed, err := insertOrder(ctx, tx, o)
		switch {
		case err != nil:
			return err
		case !placed:
			return tx.QueryRow(ctx, `select order_id from orders where idempotency_key = $1`, o.key).Scan(&id)
		}
		return s.publish(tx, s.topics.orders, o.id, "OrderPlaced", placedEvent{o.id, o.Lines})
	})
	return id, err
}

// once runs do in a transaction, unless the service has handled the message before.
func (s *watermillService) once(m *wm.Message, do func(ctx context.Context, tx pgx.Tx) error) error {
	ctx := m.Context()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `insert into inbox (service, event_id) values ($1, $2) on conflict do nothing`, s.name, m.UUID)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return do(ctx, tx)
	})
}

// onPlaced reserves stock.
func (s *watermillService) onPlaced(m *wm.Message) error {
	if m.Metadata.Get(typeHeader) != "OrderPlaced" {
		return nil
	}
	var e placedEvent
	if err := json.Unmarshal(m.Payload, &e); err != nil {
		return err
	}
	return s.once(m, func(ctx context.Context, tx pgx.Tx) error {
		if err := reserve(ctx, tx, e); err != nil {
			return err
		}
		return s.publish(tx, s.topics.inventory, e.OrderID, "StockReserved", reservedEvent{e.OrderID})
	})
}

// onInventory confirms the order.
func (s *watermillService) onInventory(m *wm.Message) error {
	var e reservedEvent
	if err := json.Unmarshal(m.Payload, &e); err != nil {
		return err
	}
	return s.once(m, func(ctx context.Context, tx pgx.Tx) error {
		c, err := confirm(ctx, tx, e.OrderID)
		if err != nil {
			return err
		}
		return s.publish(tx, s.topics.orders, e.OrderID, "OrderConfirmed", c)
	})
}

// onConfirmed tells the customer, at least once: a mail cannot be part of a transaction.
func (s *watermillService) onConfirmed(m *wm.Message) error {
	if m.Metadata.Get(typeHeader) != "OrderConfirmed" {
		return nil
	}
	var c confirmedEvent
	if err := json.Unmarshal(m.Payload, &c); err != nil {
		return err
	}
	var sent bool
	err := s.pool.QueryRow(m.Context(), `select exists (select from inbox where service = $1 and event_id = $2)`, s.name, m.UUID).Scan(&sent)
	if err != nil || sent {
		return err
	}
	if err := s.mailer.send(c); err != nil {
		return err
	}
	return s.once(m, func(ctx context.Context, tx pgx.Tx) error { return noteMail(ctx, tx, c) })
}
