package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
)

// poller is the relay that most services write: lock some rows, publish them, delete them.
func (b *relaying) poller(ctx context.Context, f *filled, w *watch) error {
	p, err := newPoller(ctx, f.url, b.broker.addr)
	if err != nil {
		return err
	}
	defer p.close(ctx)
	w.start()
	for left := f.story.told; left > 0; {
		n, err := p.once(ctx)
		if err != nil {
			return err
		}
		left -= n
	}
	w.stop()
	return nil
}

type poller struct {
	db    *pgx.Conn
	kafka *kgo.Client
}

// newPoller connects.
func newPoller(ctx context.Context, database, broker string) (*poller, error) {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	p := &poller{db: conn}
	p.kafka, err = kgo.NewClient(kgo.SeedBrokers(broker), kgo.DisableClientMetrics(), kgo.MetadataMinAge(time.Second))
	if err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	if err := p.kafka.Ping(ctx); err != nil {
		p.close(ctx)
		return nil, err
	}
	return p, nil
}

func (p *poller) close(ctx context.Context) {
	p.kafka.Close()
	_ = p.db.Close(context.WithoutCancel(ctx)) // nothing is under way
}

// once publishes a window in one transaction and returns how many rows it had.
func (p *poller) once(ctx context.Context) (n int, err error) {
	err = pgx.BeginFunc(ctx, p.db, func(tx pgx.Tx) error {
		ids, records, err := lockWindow(ctx, tx)
		if n = len(ids); err != nil || n == 0 {
			return err
		}
		if err := p.kafka.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `delete from outbox where id = any($1)`, ids)
		return err
	})
	return n, err
}

func lockWindow(ctx context.Context, tx pgx.Tx) (ids []int64, records []*kgo.Record, err error) {
	rows, err := tx.Query(ctx, `select id, topic, key, value, headers from outbox order by id limit $1 for update skip locked`, window)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var r event.Record
		var headers []byte
		if err := rows.Scan(&id, &r.Topic, &r.Key, &r.Value, &headers); err != nil {
			return nil, nil, err
		}
		if r.Headers, err = event.ParseHeaders(headers); err != nil {
			return nil, nil, err
		}
		ids, records = append(ids, id), append(records, kafkaRecord(r))
	}
	return ids, records, rows.Err()
}

// pollPause is how long a poller rests when it has found nothing.
const pollPause = 10 * time.Millisecond

// run polls until ctx ends.
func (p *poller) run(ctx context.Context) error {
	pause := time.NewTicker(pollPause)
	defer pause.Stop()
	for {
		n, err := p.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case n > 0:
			continue
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
	}
}
