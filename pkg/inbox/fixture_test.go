package inbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
)

// step is the event of the tests: the n-th of its aggregate.
type step struct {
	Agg string `avro:"agg"`
	N   int64  `avro:"n"`
}

func (step) Schema() string {
	return `{"type":"record","name":"test.Step","fields":[{"name":"agg","type":"string","pii":true},{"name":"n","type":"long"}]}`
}
func (step) Topic() string { return "steps" }
func (s step) Key() string { return s.Agg }

// otherSchema is of events that nobody handles and the codec has not seen.
const otherSchema = `{"type":"record","name":"test.Other","fields":[{"name":"n","type":"long"}]}`

// jump is another type on the same topic and keys.
type jump struct {
	Agg string `avro:"agg"`
	N   int64  `avro:"n"`
}

func (jump) Schema() string {
	return `{"type":"record","name":"test.Jump","fields":[{"name":"agg","type":"string"},{"name":"n","type":"long"}]}`
}
func (jump) Topic() string { return "steps" }
func (s jump) Key() string { return s.Agg }

var tables = db.Migrations{Owner: "test", Files: fstest.MapFS{"migrations/00001_test.sql": {Data: []byte(`
-- +goose Up
create table agg (key text primary key, last bigint not null);
`)}}}

// rig is an inbox with a log of one partition in memory.
type rig struct {
	testing.TB
	*inbox.Inbox
	db     *db.DB
	codec  *codec.Codec
	outbox *outbox.Outbox

	registryDown atomic.Bool
	registryLie  atomic.Pointer[string] // the schema that any ID stands for

	mu      sync.Mutex
	effects []effect
	drawn   int
	fail    map[string]error
	log     []event.Record
}

func (r *rig) registry() string {
	tb := r.TB
	tb.Helper()
	reg, err := embedded.NewRegistry("")
	if err != nil {
		tb.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		lie := r.registryLie.Load()
		switch {
		case r.registryDown.Load():
			http.Error(w, "down", http.StatusServiceUnavailable)
		case lie != nil && strings.HasPrefix(req.URL.Path, "/schemas/ids/"):
			w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
			_ = json.NewEncoder(w).Encode(map[string]string{"schema": *lie})
		default:
			reg.ServeHTTP(w, req)
		}
	}))
	tb.Cleanup(srv.Close)
	err = codec.Provision(context.Background(), codec.Config{URL: srv.URL}, []codec.Subject{
		{Name: "steps-test.Step", Versions: []string{step{}.Schema()}}, {Name: "steps-test.Jump", Versions: []string{jump{}.Schema()}},
		{Name: "steps-test.Other", Versions: []string{otherSchema}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return srv.URL
}

func newRig(tb testing.TB, cfg inbox.Config) *rig {
	tb.Helper()
	return newRigOn(tb, dbtest.Open(tb, outbox.Migrations, inbox.Migrations, tables), cfg)
}

// newRigOn is newRig on a database that has the tables.
func newRigOn(tb testing.TB, d *db.DB, cfg inbox.Config) *rig {
	tb.Helper()
	r := &rig{TB: tb, db: d, fail: map[string]error{}}
	var err error
	r.codec, err = codec.New(codec.Config{URL: r.registry(), Store: r.db}, step{}, jump{})
	if err != nil {
		tb.Fatal(err)
	}
	if err := r.codec.Verify(context.Background()); err != nil {
		tb.Fatal(err)
	}
	cfg.Group = "test"
	if cfg.MaxBackoff == 0 {
		cfg.MaxBackoff = 2 * time.Millisecond
	}
	r.outbox = outbox.New(r.db, r.codec, outbox.Config{Source: "/test"})
	r.Inbox, err = inbox.New(r.db, r.codec, r.outbox, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// apply is the effect of the tests: it fails unless the event is the next of its aggregate.
func (r *rig) apply(ctx context.Context, tx *db.Tx, agg string, n int64) error {
	r.mu.Lock()
	err := r.fail[fmt.Sprintf("%s%d", agg, n)]
	r.mu.Unlock()
	if err != nil {
		return err
	}
	var last int64
	err = tx.QueryRow(ctx, `insert into agg (key, last) values ($1, 1) on conflict (key) do update set last = agg.last + 1 returning last`, agg).Scan(&last)
	if err != nil {
		return err
	}
	if last != n {
		r.Errorf("order or once broken: event %d of %s came as number %d", n, agg, last)
	}
	r.committed(tx, fmt.Sprintf("%s%d", agg, n))
	return nil
}

// effect is one that was committed. Its number was drawn in its transaction, under the lock of
// its key: what follows a commit may be noted later than what follows the next.
type effect struct {
	n    int
	name string
}

func (r *rig) draw() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drawn++
	return r.drawn
}

// committed notes an effect once tx is committed.
func (r *rig) committed(tx *db.Tx, name string) {
	n := r.draw()
	tx.AfterCommit(func() { r.note(n, name) })
}

// effect notes one that no transaction stands for.
func (r *rig) effect(name string) { r.note(r.draw(), name) }

func (r *rig) note(n int, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.effects = append(r.effects, effect{n, name})
}

// done are the effects, in the order of each key.
func (r *rig) done() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.effects, func(a, b effect) int { return a.n - b.n })
	for _, e := range r.effects {
		names = append(names, e.name)
	}
	return names
}

func (r *rig) setFail(name string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fail[name] = err
}

func (r *rig) onStep(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
	return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
}

func (r *rig) onJump(ctx context.Context, tx *db.Tx, e event.Event[jump]) error {
	return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
}

// handlers registers the plain handlers of both types.
func (r *rig) handlers() *rig {
	inbox.Handle(r.Inbox, r.onStep)
	inbox.Handle(r.Inbox, r.onJump)
	return r
}

var sampled = trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true})

// write appends an event to the log. Events with one name are twins.
func (r *rig) write(p event.Payload, n int64) {
	r.Helper()
	value, err := r.codec.Encode(p)
	if err != nil {
		r.Fatal(err)
	}
	typ := codec.FullName(p.Schema())
	meta := event.Meta{ID: fmt.Sprintf("%s-%d", p.Key(), n), Type: typ, Source: "/there", Subject: p.Key(), Time: time.Now(), Version: n}
	r.raw(event.Record{Key: []byte(p.Key()), Value: value, Headers: event.WithSpanContext(meta.Headers(), sampled)})
}

func (r *rig) steps(agg string, from, to int64) {
	r.Helper()
	for n := from; n <= to; n++ {
		r.write(step{agg, n}, n)
	}
}

func (r *rig) raw(rec event.Record) {
	rec.Topic, rec.TopicID, rec.Offset, rec.Timestamp = "steps", [16]byte{9}, int64(len(r.log)), time.Now()
	r.log = append(r.log, rec)
}

// poll hands over the log from an offset on, as one batch.
func (r *rig) poll(from int64) {
	r.Helper()
	if err := r.Process(r.Context(), r.batch(from, 0)); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) batch(from, logStart int64) event.Batch {
	return event.Batch{Topic: "steps", TopicID: [16]byte{9}, LogStart: logStart, Records: r.log[from:]}
}

// run starts the workers until the end of the test, or until stop is called.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				r.Errorf("Run = %v", err)
			}
		})
	}
	r.Cleanup(stop)
	return stop
}

// until waits for a condition.
func (r *rig) until(what string, cond func() bool) {
	r.Helper()
	eventually(r, what, cond)
}

func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.After(2 * time.Minute) // on a busy machine the stress test takes long
	for !cond() {
		select {
		case <-deadline:
			tb.Fatalf("waited in vain until %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (r *rig) count(query string, args ...any) (n int) {
	r.Helper()
	if err := r.db.QueryRow(context.Background(), query, args...).Scan(&n); err != nil {
		r.Fatal(err)
	}
	return n
}

// states returns the state of every waiting key.
func (r *rig) states() map[string]string {
	r.Helper()
	rows, err := r.db.Query(context.Background(), `select key, state from waiting_key`)
	type row struct {
		key   []byte
		state string
	}
	all, err := db.Collect(rows, err, func(s *sql.Rows, one *row) error { return s.Scan(&one.key, &one.state) })
	if err != nil {
		r.Fatal(err)
	}
	states := map[string]string{}
	for _, one := range all {
		states[string(one.key)] = one.state
	}
	return states
}

var errOops = errors.New("oops")
