package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// plainShop is the shop as it is quickly written with the client alone, and promises nothing: an
// event is produced after the commit that it tells of, without waiting; offsets are committed by
// themselves; a record that comes again has its effect again, and so has a repeated request.
// A goroutine per partition, which is the faster of the two usual ways.
type plainShop struct {
	cfg    shopConfig
	topics peerTopics
	mailer *peerMailer
}

// plainService is one of its three services.
type plainService struct {
	client *kgo.Client
	pool   *pgxpool.Pool
}

func servePlain(ctx context.Context, cfg shopConfig, opened func(shopAddrs)) error {
	p := &plainShop{cfg, topicsOf(cfg), newPeerMailer(cfg.SMTP)}
	orders, err := p.service(ctx, "order", p.topics.inventory)
	if err != nil {
		return err
	}
	defer orders.close()
	inventory, err := p.service(ctx, "inventory", p.topics.orders)
	if err != nil {
		return err
	}
	defer inventory.close()
	mails, err := p.service(ctx, "email", p.topics.orders)
	if err != nil {
		return err
	}
	defer mails.close()
	if _, err := orders.pool.Exec(ctx, peerTables); err != nil {
		return fmt.Errorf("make the tables: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return orders.consume(ctx, p.onInventory) })
	group.Go(func() error { return inventory.consume(ctx, p.onPlaced) })
	group.Go(func() error { return mails.consume(ctx, p.onConfirmed) })
	group.Go(func() error {
		return servePeer(ctx, inventory.pool, opened, func(ctx context.Context, o peerOrder) (string, error) {
			if _, err := insertOrder(ctx, orders.pool, o); err != nil {
				return "", err
			}
			return o.id, orders.produce(ctx, p.topics.orders, o.id, "OrderPlaced", placedEvent{o.id, o.Lines})
		})
	})
	return group.Wait()
}

func (p *plainShop) service(ctx context.Context, name, topic string) (*plainService, error) {
	pool, err := newPool(ctx, p.cfg.Database, poolConns)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(p.cfg.Broker), kgo.ConsumerGroup(p.cfg.Prefix+"-"+name), kgo.ConsumeTopics(topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0), kgo.DisableClientMetrics())
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &plainService{client, pool}, nil
}

func (s *plainService) close() {
	s.client.Close()
	s.pool.Close()
}

// consume is the only member of its group, so that no partition is ever taken away.
func (s *plainService) consume(ctx context.Context, handle func(context.Context, *plainService, *kgo.Record) error) error {
	return eachPartition(ctx, s.client, func(ctx context.Context, r *kgo.Record) error { return handle(ctx, s, r) })
}

// eachPartition hands the records of each partition to a goroutine of its own, in their order,
// until ctx ends; what is in hand then is lost, or comes again.
func eachPartition(ctx context.Context, cl *kgo.Client, take func(context.Context, *kgo.Record) error) error {
	group, working := errgroup.WithContext(ctx)
	queues := map[int32]chan []*kgo.Record{}
	err := poll(working, cl, func(f kgo.FetchTopicPartition) {
		queue := queues[f.Partition]
		if queue == nil {
			queue = make(chan []*kgo.Record, 100)
			queues[f.Partition] = queue
			group.Go(func() error {
				for records := range queue {
					for _, r := range records {
						if err := take(working, r); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
		select {
		case queue <- f.Records:
		case <-working.Done():
		}
	})
	for _, queue := range queues {
		close(queue)
	}
	if err := errors.Join(err, group.Wait()); ctx.Err() == nil {
		return err
	}
	return nil
}

// typeHeader says what a record tells.
const typeHeader = "type"

// produce does not wait: what is lost is lost.
func (s *plainService) produce(ctx context.Context, topic, key, typ string, event any) error {
	value, err := json.Marshal(event)
	if err != nil {
		return err
	}
	r := &kgo.Record{Topic: topic, Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{{Key: typeHeader, Value: []byte(typ)}}}
	s.client.Produce(context.WithoutCancel(ctx), r, func(_ *kgo.Record, err error) {
		if err != nil && !errors.Is(err, kgo.ErrClientClosed) {
			fmt.Fprintln(os.Stderr, "plain franz-go: produce:", err)
		}
	})
	return nil
}

// onPlaced reserves stock.
func (p *plainShop) onPlaced(ctx context.Context, s *plainService, r *kgo.Record) error {
	if header(r, typeHeader) != "OrderPlaced" {
		return nil
	}
	var e placedEvent
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return err
	}
	if err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return reserve(ctx, tx, e) }); err != nil {
		return err
	}
	return s.produce(ctx, p.topics.inventory, e.OrderID, "StockReserved", reservedEvent{e.OrderID})
}

// onInventory confirms the order.
func (p *plainShop) onInventory(ctx context.Context, s *plainService, r *kgo.Record) error {
	var e reservedEvent
	if err := json.Unmarshal(r.Value, &e); err != nil {
		return err
	}
	c, err := confirm(ctx, s.pool, e.OrderID)
	if err != nil {
		return err
	}
	return s.produce(ctx, p.topics.orders, e.OrderID, "OrderConfirmed", c)
}

// onConfirmed tells the customer.
func (p *plainShop) onConfirmed(ctx context.Context, s *plainService, r *kgo.Record) error {
	if header(r, typeHeader) != "OrderConfirmed" {
		return nil
	}
	var c confirmedEvent
	if err := json.Unmarshal(r.Value, &c); err != nil {
		return err
	}
	if err := p.mailer.send(c); err != nil {
		return err
	}
	return noteMail(ctx, s.pool, c)
}
