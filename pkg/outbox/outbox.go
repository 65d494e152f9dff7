package outbox

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

//go:embed migrations/*.sql
var files embed.FS

// Migrations are the tables of an outbox, for [db.DB.Migrate].
var Migrations = db.Migrations{Owner: "outbox", Files: files}

// MaxEvent is the size in bytes that an encoded event with its headers may have. A broker
// refuses records above 1 MB; better the request fails than the relay.
const MaxEvent = 900_000

// headerBytes is what a header takes beside its key and value, at most: many that are small or
// empty make a record large too.
const headerBytes = 10

// ErrTooLarge is wrapped by the error of an event above [MaxEvent].
var ErrTooLarge = errors.New("event too large")

// Config names the publishing service, and where its outbox reports to.
type Config struct {
	// Source is the publishing service, such as "/order": ce_source of its events.
	Source string
	// Meter gets the gauges of what waits and what is held back; none if nil.
	Meter metric.Meter
	// Log gets a line when the relay's state changes; none if nil.
	Log *slog.Logger
}

// Outbox saves events and relays them. It is safe for concurrent use.
type Outbox struct {
	db    *db.DB
	codec *codec.Codec
	cfg   Config
	wake  chan struct{}
	owner string

	window     int           // rows that the relay publishes at a time
	patience   time.Duration // how long it waits for the answer, and all others with a sick partition
	lease      time.Duration // how long another relay waits for one that has vanished
	idle       time.Duration // between looks for rows that nobody woke it for, such as another replica's
	retry      time.Duration // between attempts while the brokers take nothing
	sweepEvery time.Duration // how long, at least, between deletions of few published rows
}

// New makes the outbox of one service. Its tables are made by [Migrations].
func New(d *db.DB, c *codec.Codec, cfg Config) *Outbox {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = noop.Meter{}
	}
	return &Outbox{db: d, codec: c, cfg: cfg, wake: make(chan struct{}, 1), owner: rand.Text(),
		window: 1000, patience: 10 * time.Second, lease: 3 * time.Second, idle: 20 * time.Millisecond, retry: 200 * time.Millisecond,
		sweepEvery: 50 * time.Millisecond}
}

// Append saves an event: it reaches its topic at least once if tx commits, and never if it
// does not. The caller has raised the aggregate's version to the one given, in tx, and so
// holds the lock of its row until the commit; that is what keeps the events of a key in
// order. The event is encoded now, with the cause's trace context beside it (ctx's, if it
// has none), so that an event which cannot be published fails its request.
func (o *Outbox) Append(ctx context.Context, tx *db.Tx, version int64, cause event.Cause, data event.Payload) error {
	value, err := o.codec.Encode(data)
	if err != nil {
		return fmt.Errorf("encode %T: %w", data, err)
	}
	typ := o.codec.Name(data)
	p := o.pending(tx)
	// The first ID of its kind stands for cause and type when the ordinals are counted.
	kind := event.NewID(o.cfg.Source, cause, typ, 0)
	id := kind
	if n := p.counts[kind]; n > 0 {
		id = event.NewID(o.cfg.Source, cause, typ, n)
	}
	meta := event.Meta{
		ID:          id,
		Type:        typ,
		Source:      o.cfg.Source,
		Subject:     data.Key(),
		Time:        time.Now(),
		Version:     version,
		CausationID: cause.EventID(),
		Trace:       cause.Trace(ctx),
	}
	return p.add(row{topic: data.Topic(), key: []byte(meta.Subject), value: value, headers: meta.Headers(), kind: kind})
}

// AppendRaw saves a record whose key, value and headers are published as they are, such as
// a dead letter. Above [MaxEvent] it fails with [ErrTooLarge].
func (o *Outbox) AppendRaw(tx *db.Tx, r event.Record) error {
	return o.pending(tx).add(row{topic: r.Topic, key: r.Key, value: r.Value, headers: r.Headers})
}

// row is an event on its way into the table.
type row struct {
	topic      string
	key, value []byte
	headers    []event.Header
	kind       string // empty for raw records
	room       int    // for its headers, in bytes
}

// pending gathers the rows of one transaction, so that they are one insert right before
// the commit: the outbox comes last in every transaction's order of locks.
type pending struct {
	outbox *Outbox
	rows   []row
	counts map[string]int // by kind
}

func (o *Outbox) pending(tx *db.Tx) *pending {
	return db.Defer(tx, func(p *pending) bool { return p.outbox == o }, func() *pending {
		tx.AfterCommit(o.Wake)
		return &pending{outbox: o, counts: map[string]int{}}
	})
}

func (p *pending) add(r row) error {
	for _, h := range r.headers {
		r.room += len(h.Key) + len(h.Value) + headerBytes
	}
	size := len(r.key) + len(r.value) + r.room
	if size > MaxEvent {
		return fmt.Errorf("%w: a record for %s has %d bytes, at most %d can be published", ErrTooLarge, r.topic, size, MaxEvent)
	}
	p.counts[r.kind]++
	p.rows = append(p.rows, r)
	return nil
}

// Len is part of [db.Deferred].
func (p *pending) Len() int { return len(p.rows) }

// Truncate is part of [db.Deferred].
func (p *pending) Truncate(n int) {
	for _, r := range p.rows[n:] {
		p.counts[r.kind]--
	}
	p.rows = p.rows[:n]
}

// Flush is part of [db.Deferred].
func (p *pending) Flush(ctx context.Context, tx *db.Tx) error {
	if len(p.rows) == 0 {
		return nil
	}
	topics := make([]string, len(p.rows))
	keys, values, headers := make([][]byte, len(p.rows)), make([][]byte, len(p.rows)), make([][]byte, len(p.rows))
	room := 0
	for _, r := range p.rows {
		room += r.room
	}
	all := make([]byte, 0, room) // for the headers of all
	for i, r := range p.rows {
		topics[i], keys[i], values[i] = r.topic, r.key, r.value
		from := len(all)
		all = event.AppendHeaders(all, r.headers)
		headers[i] = all[from:len(all):len(all)]
	}
	err := tx.InsertAll(ctx, "outbox", "",
		db.Column{Name: "topic", Values: topics}, db.Column{Name: "key", Values: keys}, db.Column{Name: "value", Values: values},
		db.Column{Name: "headers", Values: headers})
	if err != nil {
		return fmt.Errorf("save events: %w", err)
	}
	return nil
}

// Backlog is how many events wait to be published, and how long the oldest of them has.
type Backlog struct {
	Events int64
	Oldest time.Duration
}

// Stats says what waits to be published: all of it, and what of it flows, which leaves out what
// the relay holds back because the brokers refuse it. The latter is no sign of too much load. What has
// been published counts for another 50 ms, or as long as a window waits for the brokers.
func (o *Outbox) Stats(ctx context.Context) (all, flowing Backlog, err error) {
	held, err := o.Held(ctx)
	if err != nil {
		return all, flowing, err
	}
	if all, err = o.backlog(ctx, "", nil); err != nil || len(held) == 0 {
		return all, all, err
	}
	where, args := without(o.db, held)
	flowing, err = o.backlog(ctx, where, args)
	return all, flowing, err
}

func (o *Outbox) backlog(ctx context.Context, where string, args []any) (Backlog, error) {
	var b Backlog
	var age int64
	err := o.db.QueryRow(ctx, `select count(*), coalesce(now_micros() - min(created_at), 0) from outbox `+where, args...).Scan(&b.Events, &age)
	if err != nil {
		return b, fmt.Errorf("count the outbox: %w", err)
	}
	b.Oldest = max(0, time.Duration(age)*time.Microsecond)
	return b, nil
}

// Held lists what the relay on duty holds back.
func (o *Outbox) Held(ctx context.Context) (held []Held, err error) {
	var text string
	err = o.db.QueryRow(ctx, `select held from outbox_lease where id = 1`).Scan(&text)
	if err == nil {
		err = json.Unmarshal([]byte(text), &held)
	}
	if err != nil {
		return nil, fmt.Errorf("read what is held back: %w", err)
	}
	return held, nil
}
