package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	// watermillPartitions is more than ours, for a subscriber works on one record per partition.
	watermillPartitions = 12
	// watermillBatch is how many rows a forwarder reads at a time: the default.
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
}

// watermillService is one of its three services. Its outbox is the default adapter, which is as fast
// here as the queue, and does not delete what was not published yet when it is stopped.
type watermillService struct {
	*watermillShop
	name string
	watermillOutbox
}

func serveWatermill(ctx context.Context, cfg shopConfig, opened func(shopAddrs)) error {
	w := &watermillShop{cfg, topicsOf(cfg), newPeerMailer(cfg.SMTP), watermill.NewStdLogger(false, false)}
	var services []*watermillService
	for _, name := range []string{"order", "inventory", "email"} {
		pool, err := newPool(ctx, cfg.Database, poolConns)
		if err != nil {
			return err
		}
		defer pool.Close()
		services = append(services, &watermillService{w, name, watermillOutbox{
			name: name + "_outbox", broker: cfg.Broker, key: keyMetadata, pool: pool, log: w.log,
			schema:  watermillsql.DefaultPostgreSQLSchema{SubscribeBatchSize: watermillBatch},
			offsets: watermillsql.DefaultPostgreSQLOffsetsAdapter{},
		}})
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
		if err := s.prepare(); err != nil {
			return err
		}
		group.Go(func() error { return s.relay(ctx) })
	}
	group.Go(func() error { return router.Run(ctx) })
	group.Go(func() error { return servePeer(ctx, inventory.pool, opened, orders.place) })
	return group.Wait()
}

// handle lets the router hand a topic's messages to a handler: of each partition one at a time.
func (s *watermillService) handle(router *wm.Router, topic string, do wm.NoPublishHandlerFunc) error {
	sub, err := watermillSubscriber(s.cfg.Broker, s.cfg.Prefix+"-"+s.name, s.watermillShop.log)
	if err != nil {
		return err
	}
	router.AddConsumerHandler(s.name, topic, sub, do)
	return nil
}

// keyMetadata is a message's key.
const keyMetadata = "key"

// publish writes an event to the outbox in tx. All events of an order go through one shard, in
// order.
func (s *watermillService) publish(ctx context.Context, tx pgx.Tx, topic, key, typ string, event any) error {
	value, err := json.Marshal(event)
	if err != nil {
		return err
	}
	m := wm.NewMessage(watermill.NewUUID(), value)
	m.Metadata = wm.Metadata{keyMetadata: key, typeHeader: typ}
	return s.append(ctx, tx, topic, m)
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
		return s.publish(ctx, tx, s.topics.orders, o.id, "OrderPlaced", placedEvent{o.id, o.Lines})
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
		return s.publish(ctx, tx, s.topics.inventory, e.OrderID, "StockReserved", reservedEvent{e.OrderID})
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
		return s.publish(ctx, tx, s.topics.orders, e.OrderID, "OrderConfirmed", c)
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
