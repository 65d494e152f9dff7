package main

import (
	"context"

	"github.com/ThreeDotsLabs/watermill"
	watermillsql "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	wm "github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"example.com/keyline/pkg/event"
)

// watermillRows is how many rows a forwarder reads at a time.
const watermillRows = 1000

// forwarders are Watermill's relay: rows of watermill-sql's queue, which deletes them, to Kafka.
type forwarders struct {
	watermillOutbox
	ring  []message
	topic string
}

func (b *relaying) newForwarders(ctx context.Context, f *filled) (*forwarders, error) {
	pool, err := newPool(ctx, f.url, poolConns)
	if err != nil {
		return nil, err
	}
	m := &forwarders{watermillOutbox{
		name: "outbox", broker: b.broker.addr, key: event.HeaderSubject, pool: pool, log: watermill.NopLogger{},
		schema:  watermillsql.PostgreSQLQueueSchema{SubscribeBatchSize: watermillRows},
		offsets: watermillsql.PostgreSQLQueueOffsetsAdapter{DeleteOnAck: true},
	}, b.ring, f.story.topic}
	if err := m.prepare(); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *forwarders) close() { m.pool.Close() }

func watermillMessage(r event.Record) *wm.Message {
	m := wm.NewMessage(string(r.Header(event.HeaderID)), r.Value)
	for _, h := range r.Headers {
		m.Metadata.Set(h.Key, string(h.Value))
	}
	return m
}

// forwarded is a side that lets Watermill's relay empty its outboxes. The time is to the last
// acknowledgement; the rows of the last batches are deleted later.
func (b *relaying) forwarded(ctx context.Context, n int, w *watch) error {
	w.did = n / fewer
	return b.newFilled(ctx, func(f *filled) error {
		m, err := b.newForwarders(ctx, f)
		if err != nil {
			return err
		}
		defer m.close()
		m.sent = newProgress(w.did)
		for from := 0; from < w.did; from += window {
			messages := make([]*wm.Message, min(window, w.did-from))
			for i := range messages {
				messages[i] = watermillMessage(f.story.next())
			}
			err := pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error { return m.append(ctx, tx, m.topic, messages...) })
			if err != nil {
				return err
			}
		}
		if err := runUntil(ctx, w, m.sent.wait, m.relay); err != nil {
			return err
		}
		return b.broker.whole(ctx, f.story.topic, w.did)
	})
}

// save is part of [duty].
func (m *forwarders) save(ctx context.Context, i int) error {
	msg := &m.ring[i%ringSize]
	return pgx.BeginFunc(ctx, m.pool, func(tx pgx.Tx) error {
		var version int64
		if err := tx.QueryRow(ctx, raiseVersion, string(msg.key)).Scan(&version); err != nil {
			return err
		}
		return m.append(ctx, tx, m.topic, watermillMessage(msg.record(m.topic, i, version)))
	})
}
