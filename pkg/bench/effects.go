package main

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/schemas"
)

// fewer is how many times less a side has to do whose transactions hold one event each.
const fewer = 10

// effecting is a topic that is consumed again and again, each time by a new group and into a new
// database. The effect of an event is that its order's tally is raised.
type effecting struct {
	consuming
	n      int
	counts map[string]int64 // events by key
	chain  bool             // each event causes another one, which goes into the outbox
}

// tally is the table of the effects.
const tally = `create table tally (key text primary key, orders bigint not null, cents bigint not null)`

// seen is the table in which peers remember the events they have had.
const seen = `create table seen (id text primary key)`

// raise is what an event does to the tally, behind the insert of its row.
const raise = `on conflict (key) do update set orders = tally.orders + excluded.orders, cents = tally.cents + excluded.cents`

func effectWorks(ctx context.Context, r *rig) (works []work, err error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	for _, k := range distributions {
		ring, err := r.ring(k)
		if err != nil {
			return nil, err
		}
		for _, what := range []struct {
			name  string
			chain bool
		}{{"effect once", false}, {"effect once and outbox", true}} {
			long, err := newEffecting(ctx, r, ring, r.plan.effects, what.chain)
			if err != nil {
				return nil, err
			}
			short, err := newEffecting(ctx, r, ring, r.plan.effects/fewer, what.chain)
			if err != nil {
				return nil, err
			}
			works = append(works, work{
				name: "B5 " + what.name + ", " + k.name, unit: unitRate, n: long.n, rounds: 3,
				sides: []side{
					{"keyline", ">= 20 k/s; moonshot 60 k/s, >= 80 x tx per message", long.keyline(tallyBatch)},
					{"keyline, a statement per event", "", long.keyline(tallyEach)},
					{"tx per message", "", r.onPostgres(short.side(short.perMessage))},
					{"watermill, tx per message", "", r.onPostgres(short.side(short.router))},
				},
			})
		}
	}
	return works, nil
}

func newEffecting(ctx context.Context, r *rig, ring []message, n int, chain bool) (*effecting, error) {
	topic, err := r.newTopic(ctx, partitions)
	if err != nil {
		return nil, err
	}
	s := newStory(ring, topic)
	e := &effecting{consuming: consuming{rig: r, topic: topic}, n: n, counts: s.versions, chain: chain}
	return e, r.broker.write(ctx, n, func(int) (*kgo.Record, error) { return kafkaRecord(s.next()), nil })
}

// tallying is a service whose events' effects are in the tally.
type tallying struct {
	in       *inbox.Inbox
	out      *outbox.Outbox // nil: an event causes no other
	progress *progress
}

// side gives every run a database with the tally, and looks at the tally afterwards.
func (e *effecting) side(consume func(ctx context.Context, d *db.DB, url string, w *watch) error) runFunc {
	return func(ctx context.Context, _ int, w *watch) error {
		return e.onTables(ctx, func(url string, d *db.DB) error {
			w.did = e.n
			if err := consume(ctx, d, url, w); err != nil {
				return err
			}
			return e.verify(ctx, d)
		}, tally, seen)
	}
}

// keyline consumes with the inbox. The time is from the start, joining the group included, to the
// commit of the last effect.
func (e *effecting) keyline(register func(*tallying)) runFunc {
	return e.side(func(ctx context.Context, d *db.DB, _ string, w *watch) error { return e.wrapped(ctx, d, register, w) })
}

func (e *effecting) wrapped(ctx context.Context, d *db.DB, register func(*tallying), w *watch) error {
	tracer := unsampled()
	out := outbox.New(d, e.codec, outbox.Config{Source: "/bench"})
	group := e.broker.newGroup(e.topic)
	in, err := inbox.New(d, e.codec, out, inbox.Config{Group: group, Tracer: tracer})
	if err != nil {
		return err
	}
	t := &tallying{in: in, progress: newProgress(e.n)}
	if e.chain {
		t.out = out
	}
	register(t)
	cfg := kafka.Config{Brokers: []string{e.broker.addr}, Group: group, Tracer: tracer, BeforeSkip: in.Rewind, Reached: in.Reached}
	consumer, err := kafka.NewConsumer(cfg, []string{e.topic}, renamed{in})
	if err != nil {
		return err
	}
	return runUntil(ctx, w, t.progress.wait, consumer.Run, in.Run)
}

// tallyBatch handles many events with one statement.
func tallyBatch(t *tallying) {
	inbox.HandleBatch(t.in, func(ctx context.Context, tx *db.Tx, events []event.Event[schemas.OrderPlaced]) error {
		keys, ones, cents := make([]string, len(events)), make([]int64, len(events)), make([]int64, len(events))
		for i, e := range events {
			keys[i], ones[i], cents[i] = e.Data.OrderID, 1, total(e.Data)
		}
		err := tx.InsertAll(ctx, "tally", raise,
			db.Column{Name: "key", Values: keys}, db.Column{Name: "orders", Values: ones}, db.Column{Name: "cents", Values: cents})
		if err != nil {
			return err
		}
		return t.after(ctx, tx, events...)
	})
}

// tallyEach handles one event with one statement.
func tallyEach(t *tallying) {
	inbox.Handle(t.in, func(ctx context.Context, tx *db.Tx, e event.Event[schemas.OrderPlaced]) error {
		if _, err := tx.Exec(ctx, raiseOne, e.Data.OrderID, total(e.Data)); err != nil {
			return err
		}
		return t.after(ctx, tx, e)
	})
}

// raiseOne raises the tally of one order.
const raiseOne = `insert into tally (key, orders, cents) values ($1, 1, $2) ` + raise

func (t *tallying) after(ctx context.Context, tx *db.Tx, events ...event.Event[schemas.OrderPlaced]) error {
	if t.out != nil {
		for _, e := range events {
			if err := t.out.Append(ctx, tx, e.Meta.Version, event.By(e.Meta), confirmed(e.Data)); err != nil {
				return err
			}
		}
	}
	tx.AfterCommit(func() { t.progress.add(len(events)) })
	return nil
}

func total(o schemas.OrderPlaced) (cents int64) {
	for _, l := range o.Lines {
		cents += int64(l.Quantity) * l.UnitPriceCents
	}
	return cents
}

func confirmed(o schemas.OrderPlaced) schemas.OrderConfirmed {
	return schemas.OrderConfirmed{OrderID: o.OrderID, TotalCents: total(o), Currency: o.Currency, ConfirmedAt: o.PlacedAt}
}

// verify counts the effects: each event's has happened once.
func (e *effecting) verify(ctx context.Context, d *db.DB) error {
	rows, err := d.Query(ctx, `select key, orders from tally`)
	if err != nil {
		return err
	}
	got := map[string]int64{}
	for rows.Next() {
		var key string
		var orders int64
		if err := rows.Scan(&key, &orders); err != nil {
			return errors.Join(err, rows.Close())
		}
		got[key] = orders
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if !maps.Equal(got, e.counts) {
		return errors.New("the effects of some events did not happen once")
	}
	caused, want := 0, 0
	if e.chain {
		want = e.n
	}
	if err := d.QueryRow(ctx, `select count(*) from outbox`).Scan(&caused); err != nil {
		return err
	}
	if caused != want {
		return fmt.Errorf("%d events in the outbox, not %d", caused, want)
	}
	return nil
}
