package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// memberTold is what a member of a group needs to know.
type memberTold struct {
	Broker, Group, Topic string
	Registry, Database   string        // of one with an inbox
	Heartbeat            time.Duration // 0 is the default
}

// sightings writes what was handled to the parent, in one go for a batch: what a member that is
// killed has handled, it has told.
type sightings struct {
	mu  sync.Mutex
	buf []byte
}

// sightingSize is that of a sighting on the pipe.
const sightingSize = 16

func (s *sightings) tell(numbers ...int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = s.buf[:0]
	now := time.Now().UnixNano()
	for _, n := range numbers {
		s.buf = binary.BigEndian.AppendUint64(s.buf, uint64(n))
		s.buf = binary.BigEndian.AppendUint64(s.buf, uint64(now))
	}
	_, err := os.Stdout.Write(s.buf)
	return err
}

// member is the role of ours, without a database.
func member(ctx context.Context, told memberTold, _ func(any) error) error {
	return told.consume(ctx, &telling{})
}

func (told memberTold) consume(ctx context.Context, p kafka.Processor) error {
	cfg := kafka.Config{Brokers: []string{told.Broker}, Group: told.Group}
	if told.Heartbeat > 0 {
		cfg.Opts = append(cfg.Opts, kgo.HeartbeatInterval(told.Heartbeat))
	}
	c, err := kafka.NewConsumer(cfg, []string{told.Topic}, p)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// telling is a processor that does nothing but to tell.
type telling struct{ sightings }

// Process implements kafka.Processor.
func (t *telling) Process(_ context.Context, b event.Batch) error {
	numbers := make([]int, len(b.Records))
	for i := range b.Records {
		n, err := strconv.Atoi(string(b.Records[i].Header(event.HeaderID)))
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	return t.tell(numbers...)
}

// memberKgo is the role of the peer: a member with the client's defaults, which commit on their own.
func memberKgo(ctx context.Context, told memberTold, _ func(any) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(told.Broker), kgo.DisableClientMetrics(), kgo.ConsumerGroup(told.Group), kgo.ConsumeTopics(told.Topic),
		kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	var s sightings
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		var numbers []int
		for _, r := range fetches.Records() {
			n, err := strconv.Atoi(header(r, event.HeaderID))
			if err != nil {
				return err
			}
			numbers = append(numbers, n)
		}
		if err := s.tell(numbers...); err != nil {
			return err
		}
	}
	return nil
}

// memberInbox is the role of ours with an inbox; each event's effect is a row.
func memberInbox(ctx context.Context, told memberTold, _ func(any) error) (err error) {
	c, err := newCodec(ctx, told.Registry)
	if err != nil {
		return err
	}
	d, err := db.Open(db.Config{URL: told.Database})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	in, err := inbox.New(d, c, outbox.New(d, c, outbox.Config{Source: "/bench"}), inbox.Config{Group: told.Group})
	if err != nil {
		return err
	}
	var s sightings
	inbox.HandleBatch(in, func(ctx context.Context, tx *db.Tx, events []event.Event[schemas.OrderCancelled]) error {
		ids, numbers := make([]int64, len(events)), make([]int, len(events))
		for i, e := range events {
			var err error
			if ids[i], err = strconv.ParseInt(e.Meta.ID, 10, 64); err != nil {
				return inbox.Permanent(err)
			}
			numbers[i] = int(ids[i])
		}
		tx.AfterCommit(func() { _ = s.tell(numbers...) }) // the parent misses what is not told
		return tx.InsertAll(ctx, "effect", "", db.Column{Name: "number", Values: ids})
	})
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	worked := make(chan error, 1)
	go func() { worked <- in.Run(run) }()
	err = told.consume(ctx, renamed{in})
	cancel()
	return errors.Join(err, <-worked)
}
