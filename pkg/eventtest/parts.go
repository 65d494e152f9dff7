package eventtest

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
)

// Parts are what a service's handlers stand on, without a broker: a test hands records to the
// inbox, and finds in the outbox what would be published. Methods fail the test instead of
// returning errors.
type Parts struct {
	testing.TB
	DB        *db.DB
	Codec     *codec.Codec
	Outbox    *outbox.Outbox
	Inbox     *inbox.Inbox // register handlers first
	Telemetry *telemetry.Telemetry
	Logs      *Log
	Trace     trace.SpanContext // of the records that are made; none if it is not valid

	name     string
	payloads []event.Payload
	offset   atomic.Int64
}

// PartsConfig says what a service needs.
type PartsConfig struct {
	Service    string
	Payloads   []event.Payload // that it writes or reads
	Migrations []db.Migrations // of its own tables
	// Telemetry and Inbox are completed: logs are kept, and retries come at once.
	Telemetry telemetry.Config
	Inbox     inbox.Config
}

// NewParts makes parts that end with the test, with a database as that of [New].
func NewParts(tb testing.TB, c *Contract, cfg PartsConfig) *Parts {
	tb.Helper()
	p := &Parts{TB: tb, Logs: &Log{}, Codec: c.NewCodec(tb, cfg.Payloads...), name: cfg.Service, payloads: cfg.Payloads}
	cfg.Telemetry.Service, cfg.Telemetry.LogLevel, cfg.Telemetry.LogWriter = cfg.Service, slog.LevelDebug, p.Logs
	var err error
	if p.Telemetry, err = telemetry.New(tb.Context(), cfg.Telemetry); err != nil {
		tb.Fatal(err)
	}
	p.DB = dbtest.Open(tb, append([]db.Migrations{outbox.Migrations, inbox.Migrations}, cfg.Migrations...)...)
	p.Outbox = outbox.New(p.DB, p.Codec, outbox.Config{Source: "/" + cfg.Service, Log: p.Telemetry.Log})
	cfg.Inbox.Group, cfg.Inbox.MaxBackoff, cfg.Inbox.Tracer, cfg.Inbox.Log = cfg.Service, time.Millisecond, p.Telemetry.Tracer, p.Telemetry.Log
	if p.Inbox, err = inbox.New(p.DB, p.Codec, p.Outbox, cfg.Inbox); err != nil {
		tb.Fatal(err)
	}
	return p
}

// ID is the ID of the n-th record that [Parts.Event] makes, from 1.
func ID(n int64) string { return fmt.Sprintf("00000000-0000-5000-8000-%012d", n) }

// Event is a new record of an event as another service of ours publishes it, such as "/order".
func (p *Parts) Event(source string, e event.Payload) event.Record {
	p.Helper()
	return p.Record(e, event.Meta{ID: ID(p.offset.Load() + 1), Source: source})
}

// Record is a new record of an event with headers as meta says, and without an ID if that is
// empty. meta's subject, if there is one, is the record's key.
func (p *Parts) Record(e event.Payload, meta event.Meta) event.Record {
	p.Helper()
	if p.Trace.IsValid() {
		meta.Trace = p.Trace
	}
	rec := Record(p, p.Codec, e, meta)
	rec.TopicID, rec.Offset = topicID, p.offset.Add(1)
	return rec
}

var topicID = [16]byte{7}

// Batch is a batch of records of one topic, as the consumer hands it over.
func (p *Parts) Batch(records ...event.Record) event.Batch {
	return event.Batch{Topic: records[0].Topic, TopicID: topicID, Records: records}
}

// Take hands the inbox a batch, and returns when it has taken it.
func (p *Parts) Take(records ...event.Record) {
	p.Helper()
	if err := p.Inbox.Process(p.Context(), p.Batch(records...)); err != nil {
		p.Fatal(err)
	}
}

// Work runs the inbox's workers until the end of the test: slow effects and retries are theirs.
func (p *Parts) Work() {
	p.Helper()
	p.run(p.Inbox.Run)
}

func (p *Parts) run(fn func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(p.Context()))
	ended := make(chan error, 1)
	go func() { ended <- fn(ctx) }()
	p.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			p.Errorf("Run = %v", err)
		}
	})
}

// Published is an event in the outbox.
type Published struct {
	event.Record
	Meta event.Meta
}

// Published are the events on a topic with a key, or on all and of all if these are empty, in
// the order in which the relay would publish them.
func (p *Parts) Published(topic, key string) (all []Published) {
	p.Helper()
	rows, err := p.DB.Query(p.Context(), `select topic, key, value, headers from outbox order by id`)
	records, err := db.Collect(rows, err, func(s *sql.Rows, rec *event.Record) error {
		var headers []byte
		if err := s.Scan(&rec.Topic, &rec.Key, &rec.Value, &headers); err != nil {
			return err
		}
		rec.Headers, err = event.ParseHeaders(headers)
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	for _, rec := range records {
		if topic != "" && rec.Topic != topic || key != "" && string(rec.Key) != key {
			continue
		}
		typ, err := p.Codec.Type(p.Context(), rec.Value)
		if err != nil {
			p.Fatal(err)
		}
		one := Published{rec, event.ReadMeta(&rec, typ)}
		one.Meta.Trace = event.SpanContext(rec.Headers)
		all = append(all, one)
	}
	return all
}

// Count is the number that a query returns.
func (p *Parts) Count(query string, args ...any) (n int) {
	p.Helper()
	if err := p.DB.QueryRow(p.Context(), query, args...).Scan(&n); err != nil {
		p.Fatal(err)
	}
	return n
}

// WantTopics wants the service's handlers to consume these topics, and its other payloads to be
// published to those: what it may do at the brokers is made of what is declared, not of what
// it does.
func (p *Parts) WantTopics(publishes, consumes []string) {
	p.Helper()
	handled := p.Inbox.Topics()
	var written []string
	for _, e := range p.payloads {
		if topic := e.Topic(); !slices.Contains(handled, topic) && !slices.Contains(written, topic) {
			written = append(written, topic)
		}
	}
	for what, topics := range map[string][2][]string{"consumes": {handled, consumes}, "publishes to": {written, publishes}} {
		if got, want := slices.Sorted(slices.Values(topics[0])), slices.Sorted(slices.Values(topics[1])); !slices.Equal(got, want) {
			p.Errorf("%s %s %v, declared is %v", p.name, what, got, want)
		}
	}
}

// Serve serves routes as a process would, until the end of the test, and returns their URL
// when they are ready.
func (p *Parts) Serve(routes http.Handler, openAPI []byte) (url string) {
	p.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.Fatal(err)
	}
	url = "http://" + l.Addr().String()
	s := service.Service{
		Name: p.name, Telemetry: p.Telemetry, Public: routes, OpenAPI: openAPI,
		Config: service.Config{Listener: l, TrustTraceparent: true},
	}
	p.run(s.Run)
	Until(p, "the service is ready", func() bool { return ready(url) })
	return url
}
