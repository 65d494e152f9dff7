package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

// step is the event of the tests.
type step struct {
	Agg  string `avro:"agg"`
	Text string `avro:"text"`
}

func (step) Schema() string {
	return `{"type":"record","name":"test.Step","fields":[{"name":"agg","type":"string"},{"name":"text","type":"string"}]}`
}
func (step) Topic() string { return "steps" }
func (s step) Key() string { return s.Agg }

var tables = db.Migrations{Owner: "test", Files: fstest.MapFS{"migrations/00001_test.sql": {Data: []byte(`
-- +goose Up
create table agg (key text primary key, version bigint not null);
`)}}}

func newCodec(tb testing.TB, d *db.DB) *codec.Codec {
	tb.Helper()
	reg, err := embedded.NewRegistry("")
	if err != nil {
		tb.Fatal(err)
	}
	srv := httptest.NewServer(reg)
	tb.Cleanup(srv.Close)
	cfg := codec.Config{URL: srv.URL, Store: d}
	ctx := context.Background()
	if err := codec.Provision(ctx, cfg, []codec.Subject{{Name: "steps-test.Step", Versions: []string{step{}.Schema()}}}); err != nil {
		tb.Fatal(err)
	}
	c, err := codec.New(cfg, step{})
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.Verify(ctx); err != nil {
		tb.Fatal(err)
	}
	return c
}

func open(tb testing.TB) (*db.DB, *codec.Codec) {
	tb.Helper()
	d := dbtest.Open(tb, outbox.Migrations, tables)
	return d, newCodec(tb, d)
}

// raise is what every writer does: raise the aggregate's version, then append.
func raise(ctx context.Context, tx *db.Tx, o *outbox.Outbox, key string) error {
	var version int64
	err := tx.QueryRow(ctx, `insert into agg (key, version) values ($1, 1) on conflict (key) do update set version = agg.version + 1 returning version`, key).Scan(&version)
	if err != nil {
		return err
	}
	return o.Append(ctx, tx, version, event.Because(key, strconv.FormatInt(version, 10)), step{Agg: key})
}

// wire is a broker that remembers, with the faults of one.
type wire struct {
	mu      sync.Mutex
	records []event.Record
	fault   func(window []event.Record) []error // called before anything is written
}

func (w *wire) Publish(_ context.Context, window []event.Record) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fault != nil {
		if errs := w.fault(window); errs != nil {
			for i, err := range errs {
				if err == nil {
					w.records = append(w.records, window[i])
				}
			}
			return errs
		}
	}
	w.records = append(w.records, window...)
	return nil
}

func (w *wire) keys() (keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		keys = append(keys, string(r.Key)+string(r.Header(event.HeaderAggregateVersion)))
	}
	return keys
}

func (w *wire) set(fault func([]event.Record) []error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

func start(tb testing.TB, o *outbox.Outbox, pub outbox.Publisher) (stop func()) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- o.Relay(ctx, pub) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("Relay = %v", err)
		}
	})
	tb.Cleanup(stop)
	return stop
}

func eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	deadline := time.After(2 * time.Minute) // on a busy machine thousands of attempts take long
	for !cond() {
		select {
		case <-deadline:
			tb.Fatalf("waited in vain until %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func pending(tb testing.TB, o *outbox.Outbox) int64 {
	tb.Helper()
	all, _, err := o.Stats(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	return all.Events
}

func TestAppend(t *testing.T) {
	t.Parallel()
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled}))

	t.Run("no event without its change: nothing of a rolled-back transaction is published", func(t *testing.T) {
		t.Parallel()
		d, c := open(t)
		o := outbox.New(d, c, outbox.Config{Source: "/test"})
		oops := errors.New("oops")
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error { return errors.Join(raise(ctx, tx, o, "a"), oops) })
		if !errors.Is(err, oops) {
			t.Fatal(err)
		}
		err = d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			_ = tx.Savepoint(ctx, func() error { return errors.Join(raise(ctx, tx, o, "b"), oops) })
			return raise(ctx, tx, o, "c")
		})
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{}
		start(t, o, w)
		eventually(t, "the outbox is empty", func() bool { return pending(t, o) == 0 })
		if diff := cmp.Diff(w.keys(), []string{"c1"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the record says what the contract says", func(t *testing.T) {
		t.Parallel()
		d, c := open(t)
		o := outbox.New(d, c, outbox.Config{Source: "/test"})
		cause := event.By(event.Meta{ID: "cause-1", Source: "/there"})
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			return errors.Join(o.Append(ctx, tx, 7, cause, step{Agg: "a"}), o.Append(ctx, tx, 8, cause, step{Agg: "a"}))
		})
		if err != nil {
			t.Fatal(err)
		}
		w := &wire{}
		start(t, o, w)
		eventually(t, "both are published", func() bool { return len(w.keys()) == 2 })
		first, second := w.records[0], w.records[1]
		got := map[string]string{}
		for _, h := range first.Headers {
			got[h.Key] = string(h.Value)
		}
		at, err := time.Parse(time.RFC3339Nano, got["ce_time"])
		if err != nil || time.Since(at) > time.Minute {
			t.Errorf("ce_time %q", got["ce_time"])
		}
		delete(got, "ce_time")
		want := map[string]string{
			"ce_specversion": "1.0", "ce_id": event.NewID("/test", cause, "test.Step", 0), "ce_type": "test.Step", "ce_source": "/test", "ce_subject": "a",
			"ce_aggregateversion": "7", "ce_causationid": "cause-1", "content-type": "application/avro",
			"traceparent": "00-01000000000000000000000000000000-0200000000000000-01",
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
		if id := string(second.Header("ce_id")); id != event.NewID("/test", cause, "test.Step", 1) {
			t.Errorf("the second event of a cause has ID %s, want that of ordinal 1", id)
		}
		decoded, err := codec.Decode[step](ctx, c, first.Value)
		if err != nil || decoded.Agg != "a" || first.Topic != "steps" || string(first.Key) != "a" {
			t.Errorf("%+v, %v in %s under %s", decoded, err, first.Topic, first.Key)
		}
	})
	t.Run("an event that no broker would take fails its request", func(t *testing.T) {
		t.Parallel()
		d, c := open(t)
		o := outbox.New(d, c, outbox.Config{Source: "/test"})
		err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
			return o.Append(ctx, tx, 1, event.Cause{}, step{Agg: "a", Text: strings.Repeat("x", outbox.MaxEvent)})
		})
		if !errors.Is(err, outbox.ErrTooLarge) {
			t.Errorf("Append = %v, want ErrTooLarge", err)
		}
	})
}

func TestRelay_holds_back_what_cannot_be_published_and_nothing_else(t *testing.T) {
	t.Parallel()
	place := func(t *testing.T, d *db.DB, o *outbox.Outbox, keys ...string) {
		t.Helper()
		for _, key := range keys {
			if err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, o, key) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("one bad record in a window", func(t *testing.T) {
		t.Parallel()
		d, c := open(t)
		o := outbox.New(d, c, outbox.Config{Source: "/test"})
		var want []string
		for n := 1; n <= 20; n++ {
			place(t, d, o, "a", "bad", "b")
			want = append(want, fmt.Sprint("a", n), fmt.Sprint("b", n))
		}
		// As a client does: one bad record fails its window from there on.
		refuse := func(window []event.Record) []error {
			for i, r := range window {
				if string(r.Key) == "bad" {
					errs := make([]error, len(window))
					for j := i; j < len(window); j++ {
						errs[j] = errors.New("record too large")
					}
					return errs
				}
			}
			return nil
		}
		w := &wire{fault: refuse}
		start(t, o, w)
		eventually(t, "the others are published", func() bool { return len(w.keys()) == 40 })
		if diff := cmp.Diff(w.keys(), want); diff != "" {
			t.Error(diff)
		}
		eventually(t, "what is held back does not count as flowing", func() bool {
			_, flowing, err := o.Stats(t.Context())
			return err == nil && flowing.Events == 0
		})
		w.set(nil)
		eventually(t, "the held ones follow in order", func() bool { return len(w.keys()) == 60 })
		for n, key := range w.keys()[40:] {
			if key != fmt.Sprint("bad", n+1) {
				t.Fatalf("record %d behind the others is %s", n, key)
			}
		}
	})
	t.Run("a topic that is missing", func(t *testing.T) {
		t.Parallel()
		d, c := open(t)
		o := outbox.New(d, c, outbox.Config{Source: "/test"})
		w := &wire{fault: func(window []event.Record) []error {
			errs := make([]error, len(window))
			for i, r := range window {
				if r.Topic == "missing" {
					errs[i] = fmt.Errorf("unknown: %w", event.ErrTopic)
				}
			}
			return errs
		}}
		err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error {
			for i := range 30 {
				if err := o.AppendRaw(tx, event.Record{Topic: "missing", Key: []byte{byte(i)}}); err != nil {
					return err
				}
			}
			err := o.AppendRaw(tx, event.Record{Topic: "there", Key: nil, Value: nil})
			return errors.Join(err, o.AppendRaw(tx, event.Record{Topic: "there", Key: []byte{}, Value: []byte{}}))
		})
		if err != nil {
			t.Fatal(err)
		}
		start(t, o, w)
		eventually(t, "the other topic flows", func() bool { return len(w.keys()) == 2 })
		if r := w.records[0]; r.Topic != "there" || r.Key != nil || r.Value != nil {
			t.Errorf("%+v, want a record without key and value", r)
		}
		if r := w.records[1]; r.Key == nil || r.Value == nil {
			t.Errorf("%+v, want empty key and value, not none", r)
		}
		w.set(nil)
		eventually(t, "the topic has been created", func() bool { return len(w.keys()) == 32 })
	})
}

func TestRelay_one_is_on_duty_and_another_takes_over(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	first := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: time.Minute})
	second := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: time.Minute})
	w1, w2 := &wire{}, &wire{}
	ctx := context.Background()
	stop := start(t, first, w1)
	place := func(key string) {
		if err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, first, key) }); err != nil {
			t.Fatal(err)
		}
	}
	place("a")
	eventually(t, "the first publishes", func() bool { return len(w1.keys()) == 1 })
	start(t, second, w2)
	place("b")
	eventually(t, "the first goes on", func() bool { return len(w1.keys()) == 2 })
	stop()
	place("c")
	eventually(t, "the second takes over after a clean stop", func() bool { return len(w2.keys()) == 1 })
}

// lines is a log that can be counted.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestRelay_tells_each_outage_once(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	log, w := &lines{}, &wire{}
	o := outbox.New(d, c, outbox.Config{Source: "/test", Log: log.logger()}).Tune(outbox.Tuning{Idle: time.Millisecond})
	start(t, o, w)
	for n := 1; n <= 2; n++ {
		put(t, d, o, event.Record{Topic: "t", Key: []byte("a")})
		eventually(t, "the relay publishes", func() bool { return len(w.keys()) == n && pending(t, o) == 0 })
		for _, rename := range []string{`alter table outbox rename to away`, `alter table away rename to outbox`} {
			if _, err := d.Exec(t.Context(), rename); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the outage is told", func() bool { return log.count("relay waits for the database") >= n })
		}
	}
	put(t, d, o, event.Record{Topic: "t", Key: []byte("a")})
	eventually(t, "the relay publishes", func() bool { return len(w.keys()) == 3 })
	if got := log.count("relay waits for the database"); got != 2 {
		t.Errorf("2 outages are told %d times", got)
	}
}

// TestOrderPerKey_under_everything is the model of the protocol run against the real thing:
// writers that stay open long or roll back, two relays that both believe they are on duty,
// windows cut short, answers lost. Per key, the wire must show first sights without a gap.
func TestOrderPerKey_under_everything(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d, c := open(t)
	const keys, writers, each = 20, 8, 120
	pause := func(r *rand.Rand, n int) {
		if r.IntN(n) == 0 {
			<-time.After(time.Duration(r.IntN(20)) * time.Millisecond)
		}
	}
	w := &wire{}
	var mu sync.Mutex
	faults := rand.New(rand.NewPCG(seed, 0))
	w.fault = func(window []event.Record) []error {
		mu.Lock()
		defer mu.Unlock()
		pause(faults, 10)
		errs := make([]error, len(window))
		switch faults.IntN(8) {
		case 0: // cut short
			for i := faults.IntN(len(window) + 1); i < len(window); i++ {
				errs[i] = errors.New("cut")
			}
			return errs
		case 1: // written, but the answer is lost
			w.records = append(w.records, window...)
			for i := range errs {
				errs[i] = errors.New("no answer")
			}
			// What is not acknowledged must not be taken for unwritten by the fault itself.
			return errs
		}
		return nil
	}
	for range 2 { // the leases are so short that both believe they have one
		start(t, outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: time.Microsecond, Window: 50, Idle: time.Millisecond}), w)
	}
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(i+1)))
			for range each {
				_ = d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error {
					if err := raise(ctx, tx, o, fmt.Sprint("k", r.IntN(keys), "-")); err != nil {
						t.Error(err)
						return err
					}
					pause(r, 40)
					if r.IntN(20) == 0 {
						return errors.New("rolled back")
					}
					return nil
				})
			}
		})
	}
	wg.Wait()
	w.set(nil)
	eventually(t, "the outbox is empty", func() bool { return pending(t, o) == 0 })
	check(t, d, w.keys())
}

// check finds gaps, inversions and losses among the first sights of each key.
func check(t *testing.T, d *db.DB, wire []string) {
	t.Helper()
	seen := map[string]int{}
	duplicates := 0
	for _, name := range wire {
		i := strings.IndexByte(name, '-') + 1
		key := name[:i]
		n, _ := strconv.Atoi(name[i:])
		switch {
		case n <= seen[key]:
			duplicates++
		case n == seen[key]+1:
			seen[key] = n
		default:
			t.Errorf("%s%d came after %s%d", key, n, key, seen[key])
			seen[key] = n
		}
	}
	total := 0
	for key, n := range seen {
		var version int
		if err := d.QueryRow(context.Background(), `select version from agg where key = $1`, key).Scan(&version); err != nil {
			t.Fatal(err)
		}
		if n != version {
			t.Errorf("%s: %d events committed, %d on the wire", key, version, n)
		}
		total += n
	}
	t.Logf("%d events, %d duplicates on the wire", total, duplicates)
}

// TestOrderPerKey_interleaved is the case that breaks filters on transaction IDs: B begins,
// C begins later and stays open, A appends to the key and commits, then B appends to it.
func TestOrderPerKey_interleaved(t *testing.T) {
	t.Parallel()
	if !dbtest.Postgres() {
		t.Log("SQLite runs one transaction after the other")
		return
	}
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	w := &wire{}
	start(t, o, w)
	ctx := context.Background()
	bBegun, aDone, cBegun, cMayEnd := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	run := func(fn func(ctx context.Context, tx *db.Tx) error) {
		wg.Go(func() {
			if err := d.InTx(ctx, fn); err != nil {
				t.Error(err)
			}
		})
	}
	draw := func(ctx context.Context, tx *db.Tx) {
		var id int64
		if err := tx.QueryRow(ctx, `select pg_current_xact_id()::text::bigint`).Scan(&id); err != nil {
			t.Error(err)
		}
	}
	run(func(ctx context.Context, tx *db.Tx) error {
		draw(ctx, tx)
		close(bBegun)
		<-aDone
		return raise(ctx, tx, o, "k")
	})
	<-bBegun
	run(func(ctx context.Context, tx *db.Tx) error {
		draw(ctx, tx)
		close(cBegun)
		<-cMayEnd
		return raise(ctx, tx, o, "other")
	})
	<-cBegun
	if err := d.InTx(ctx, func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, o, "k") }); err != nil {
		t.Fatal(err)
	}
	close(aDone)
	eventually(t, "the key's events are published while C is still open", func() bool { return len(w.keys()) == 2 })
	close(cMayEnd)
	wg.Wait()
	eventually(t, "C's event is published", func() bool { return len(w.keys()) == 3 })
	if diff := cmp.Diff(w.keys(), []string{"k1", "k2", "other1"}); diff != "" {
		t.Error(diff)
	}
}

func TestAppendRaw_counts_what_headers_take(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	r := event.Record{Topic: "steps", Key: []byte("a"), Headers: make([]event.Header, 96_000)}
	for i := range r.Headers {
		r.Headers[i].Key = "h"
	}
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error { return o.AppendRaw(tx, r) })
	if !errors.Is(err, outbox.ErrTooLarge) {
		t.Errorf("AppendRaw = %v, want ErrTooLarge: no batch would hold it", err)
	}
}
