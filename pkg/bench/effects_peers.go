package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// perMessage is what most services do: a goroutine per partition, a transaction per record. Its
// outbox is ours, whose rows are what anybody's are.
func (e *effecting) perMessage(ctx context.Context, _ *db.DB, url string, w *watch) error {
	pool, err := newPool(ctx, url, partitions)
	if err != nil {
		return err
	}
	defer pool.Close()
	p := newProgress(e.n)
	take := func(ctx context.Context, r *kgo.Record) error {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return e.one(ctx, tx, ownRecord(r)) })
		if err == nil {
			p.add(1)
		}
		return err
	}
	return runUntil(ctx, w, p.wait, func(ctx context.Context) error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(e.broker.addr), kgo.DisableClientMetrics(), kgo.AutoCommitMarks(),
			kgo.ConsumerGroup(e.broker.newGroup(e.topic)), kgo.ConsumeTopics(e.topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			return err
		}
		defer cl.Close()
		return eachPartition(ctx, cl, func(ctx context.Context, r *kgo.Record) error {
			err := take(ctx, r)
			if err == nil {
				cl.MarkCommitRecords(r)
			}
			return err
		})
	})
}

// one takes one record in a transaction.
func (e *effecting) one(ctx context.Context, tx pgx.Tx, r event.Record) error {
	meta := event.ReadMeta(&r, orderPlaced)
	fresh, err := tx.Exec(ctx, `insert into seen (id) values ($1) on conflict do nothing`, meta.ID)
	if err != nil || fresh.RowsAffected() == 0 {
		return err
	}
	o, err := codec.Decode[schemas.OrderPlaced](ctx, e.codec, r.Value)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, raiseOne, o.OrderID, total(o)); err != nil || !e.chain {
		return err
	}
	caused, err := e.caused(meta, o)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, insertOutbox, caused.Topic, caused.Key, caused.Value, event.AppendHeaders(nil, caused.Headers))
	return err
}

const insertOutbox = `insert into outbox (topic, key, value, headers) values ($1, $2, $3, $4)`

// caused is the event that another one causes.
func (e *effecting) caused(by event.Meta, o schemas.OrderPlaced) (event.Record, error) {
	data := confirmed(o)
	value, err := e.codec.Encode(data)
	meta := event.Meta{
		ID: event.NewID("/bench", event.By(by), orderConfirmed, 0), Type: orderConfirmed, Source: "/bench", Subject: o.OrderID,
		Time: time.Now(), Version: by.Version, CausationID: by.ID,
	}
	return event.Record{Topic: data.Topic(), Key: []byte(data.Key()), Value: value, Headers: meta.Headers()}, err
}

const orderConfirmed = "shop.order.OrderConfirmed"
