package main

import (
	"context"
	"errors"

	"github.com/ThreeDotsLabs/watermill"
	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// router is Watermill's, with a handler that has a transaction for each message. It works on one
// message per partition at a time; more at a time would lose the order.
func (e *effecting) router(ctx context.Context, _ *db.DB, url string, w *watch) error {
	pool, err := newPool(ctx, url, partitions)
	if err != nil {
		return err
	}
	defer pool.Close()
	sub, err := watermillSubscriber(e.broker.addr, e.broker.newGroup(e.topic), watermill.NopLogger{})
	if err != nil {
		return err
	}
	router, err := wm.NewRouter(wm.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return errors.Join(err, sub.Close())
	}
	p := newProgress(e.n)
	router.AddConsumerHandler("tally", e.topic, sub, func(m *wm.Message) error {
		r := event.Record{Value: []byte(m.Payload)}
		for name, value := range m.Metadata {
			r.Headers = append(r.Headers, event.Header{Key: name, Value: []byte(value)})
		}
		err := pgx.BeginFunc(m.Context(), pool, func(tx pgx.Tx) error { return e.one(m.Context(), tx, r) })
		if err == nil {
			p.add(1)
		}
		return err
	})
	return runUntil(ctx, w, p.wait, func(ctx context.Context) error {
		return errors.Join(router.Run(ctx), sub.Close())
	})
}
