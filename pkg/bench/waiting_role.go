package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// waitingKeys is the role of ours: an inbox whose handler does not reach what it needs.
func waitingKeys(ctx context.Context, told waitingTold, say func(any) error) (err error) {
	c, err := newCodec(ctx, told.Registry)
	if err != nil {
		return err
	}
	d, err := openTables(ctx, told.Database)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	in, err := inbox.New(d, c, outbox.New(d, c, outbox.Config{Source: "/bench"}), inbox.Config{Group: told.Group})
	if err != nil {
		return err
	}
	p := newPace(told.Flow)
	down := errors.New("not reached")
	if !told.Retried {
		down = inbox.Unavailable(down)
	}
	inbox.Handle(in, func(context.Context, *db.Tx, event.Event[schemas.OrderPlaced]) error { return down })
	inbox.Handle(in, func(_ context.Context, tx *db.Tx, _ event.Event[schemas.OrderCancelled]) error {
		p.begin()
		tx.AfterCommit(func() { p.add(1) })
		return nil
	})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	worked := make(chan error, 1)
	go func() { worked <- in.Run(ctx) }()
	said, err := told.run(ctx, d, in, p)
	if err == nil {
		err = say(said)
	}
	cancel()
	return errors.Join(err, <-worked)
}

func (told waitingTold) run(ctx context.Context, d *db.DB, in *inbox.Inbox, p *pace) (said waitingSaid, err error) {
	before, err := waitingSize(ctx, d)
	if err != nil {
		return said, err
	}
	if told.Stuck != "" {
		err = told.consume(ctx, told.Stuck, in, func() error { return untilWaiting(ctx, d, told.Keys) })
		if err != nil {
			return said, err
		}
		after, err := waitingSize(ctx, d)
		if err != nil {
			return said, err
		}
		said.Held = (after - before) / float64(told.Keys)
	}
	err = told.consume(ctx, told.Others, in, func() (err error) {
		said.Rate, err = p.rate(ctx)
		return err
	})
	said.Peak, said.Heap = memory()
	return said, err
}

// consume runs a consumer until something has come about.
func (told waitingTold) consume(ctx context.Context, topic string, in *inbox.Inbox, until func() error) error {
	consumer, err := kafka.NewConsumer(kafka.Config{Brokers: []string{told.Broker}, Group: told.Group + "-" + topic}, []string{topic}, renamed{in})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- consumer.Run(ctx) }()
	err = until()
	cancel()
	return errors.Join(err, <-stopped)
}

// untilWaiting waits for so many keys to wait.
func untilWaiting(ctx context.Context, d *db.DB, keys int) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var n int
		if err := d.QueryRow(ctx, `select count(*) from waiting_key`).Scan(&n); err != nil || n >= keys {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// waitingSize is that of the tables of waiting; on SQLite, which does not say, of all.
func waitingSize(ctx context.Context, d *db.DB) (bytes float64, err error) {
	sizes, err := d.Sizes(ctx)
	for _, s := range sizes {
		if s.Table == "waiting_key" || s.Table == "waiting_event" || s.Table == "" {
			bytes += float64(s.Bytes)
		}
	}
	return bytes, err
}

// waitingInMemory is the role of the peer: each key that waits is a goroutine that has its record.
func waitingInMemory(ctx context.Context, told waitingTold, say func(any) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var said waitingSaid
	if told.Stuck != "" {
		held := make(chan *kgo.Record)
		if err := readSome(ctx, told.Broker, told.Stuck, told.Group+"-stuck", told.Keys, func(r *kgo.Record) error {
			go func() {
				select {
				case held <- r: // nobody takes it: what it needs is down
				case <-ctx.Done():
				}
			}()
			return nil
		}); err != nil {
			return err
		}
	}
	p := newPace(told.Flow)
	err := readSome(ctx, told.Broker, told.Others, told.Group, told.Flow, func(*kgo.Record) error {
		p.begin()
		p.add(1)
		return nil
	})
	if err != nil {
		return err
	}
	if said.Rate, err = p.rate(ctx); err != nil {
		return err
	}
	said.Peak, said.Heap = memory()
	return say(said)
}
