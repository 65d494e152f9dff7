package inbox_test

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/outbox"
)

// snapping is a database whose transaction is lost once snap is set: its statements fail, until the
// next one begins.
func snapping(t *testing.T) (d *db.DB, snap *atomic.Bool) {
	t.Helper()
	snap = &atomic.Bool{}
	return breaking(t, dbtest.Breaks{
		Begin: func() error { snap.Store(false); return nil },
		Statement: func(_ string, _ []driver.NamedValue, inTx bool) error {
			if inTx && snap.Load() {
				return errors.New("the connection broke")
			}
			return nil
		},
	}), snap
}

// breaking is a database with the tables of the tests, which fails as b says.
func breaking(t *testing.T, b dbtest.Breaks) *db.DB {
	t.Helper()
	d, err := db.Open(db.Config{URL: dbtest.URL(t), Wrap: b.Wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.Migrate(t.Context(), outbox.Migrations, inbox.Migrations, tables); err != nil {
		t.Fatal(err)
	}
	return d
}

// Failures of the database between keys that work do not add up, until the worker rests for seconds.
func TestRun_forgets_a_failure_of_the_database_once_it_has_worked(t *testing.T) {
	t.Parallel()
	const keys = 12
	var picks atomic.Int64
	d := breaking(t, dbtest.Breaks{Statement: func(q string, _ []driver.NamedValue, _ bool) error {
		if !strings.Contains(q, "due <= now_micros() order by due limit 1") {
			return nil
		}
		if n := picks.Add(1); n%2 == 0 && n < 2*keys {
			return errors.New("the disk is slow")
		}
		return nil
	}})
	var book bytes.Buffer
	r := newRigOn(t, d, inbox.Config{Workers: 1, Log: slog.New(slog.NewTextHandler(&book, nil))}).handlers()
	for i := range keys {
		agg := fmt.Sprintf("a%d-", i)
		r.setFail(agg+"1", errors.New("not now"))
		r.steps(agg, 1, 1)
	}
	r.poll(0)
	for i := range keys {
		r.setFail(fmt.Sprintf("a%d-1", i), nil)
	}
	if _, err := d.Exec(t.Context(), `update waiting_key set due = 0`); err != nil {
		t.Fatal(err)
	}
	stop := r.run()
	r.until("all are done", func() bool { return r.count(`select count(*) from waiting_event`) == 0 })
	stop()
	if strings.Contains(book.String(), "inbox waits") || picks.Load() < 2*keys-1 {
		t.Errorf("after %d picks, the log has\n%s", picks.Load(), book.String())
	}
}

// A handler that loses its transaction, by taking longer than the database lets it, must not
// hold up its partition, nor be tried before all others for ever.
func TestHandle_that_loses_its_transaction_delays_its_key_only(t *testing.T) {
	t.Parallel()
	d, snap := snapping(t)
	r := newRigOn(t, d, inbox.Config{Attempts: 4, Workers: 1})
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if e.Data.Agg == "bad" {
			snap.Store(true)
		}
		return r.onStep(ctx, tx, e)
	})
	r.steps("good", 1, 3)
	r.steps("bad", 1, 2)
	r.steps("other", 1, 3)
	r.poll(0)
	if n := len(r.done()); n != 6 {
		t.Errorf("%d effects of the others, want 6", n)
	}
	if diff := cmp.Diff(map[string]string{"bad": "retrying"}, r.states()); diff != "" {
		t.Error(diff)
	}
	// The workers' only connection is broken by it in the middle, and no others run meanwhile.
	r.run()
	r.until("it is a dead letter", func() bool { return r.states()["bad"] == "dead" })
	if n := r.count(`select max(attempts) from waiting_event`); n != 4 {
		t.Errorf("%d attempts, want 4", n)
	}
}

// Nor must one that loses it before its effect.
func TestHandleEffect_whose_begin_loses_its_transaction_is_a_failed_attempt(t *testing.T) {
	t.Parallel()
	d, snap := snapping(t)
	r := newRigOn(t, d, inbox.Config{Attempts: 4, Workers: 1})
	inbox.HandleEffect(r.Inbox, inbox.Effect[step, int]{
		Begin: func(_ context.Context, _ *db.Tx, all []event.Event[step]) ([]int, error) {
			if all[0].Data.Agg == "bad" {
				snap.Store(true)
			}
			return make([]int, len(all)), nil
		},
		Do:  func(_ context.Context, e event.Event[step], _ int) error { r.effect(e.Data.Agg); return nil },
		End: func(context.Context, *db.Tx, []event.Event[step], []int) error { return nil },
	})
	r.steps("bad", 1, 1)
	r.poll(0) // before Run has begun, what is slow waits for a worker
	r.run()
	r.until("it is a dead letter", func() bool { return r.states()["bad"] == "dead" })
	if n := r.count(`select max(attempts) from waiting_event`); n != 4 || len(r.done()) > 0 {
		t.Errorf("%d attempts, effects %v; want 4, and none", n, r.done())
	}
}

func TestHandle_that_ignores_an_error_of_SQL_is_a_failure_of_its_event(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if e.Data.Agg == "bad" {
			_, _ = tx.Exec(ctx, `insert into nowhere (key) values ('x')`)
			return nil
		}
		return r.onStep(ctx, tx, e)
	})
	r.steps("good", 1, 3)
	r.steps("bad", 1, 1)
	r.steps("other", 1, 3)
	r.poll(0)
	if n := len(r.done()); n != 6 {
		t.Errorf("%d effects of the others, want 6", n)
	}
	if _, waits := r.states()["bad"]; waits != dbtest.Postgres() {
		t.Errorf("it waits: %v, want that only on PostgreSQL, which refuses what follows", waits)
	}
}

// In a rolling upgrade the newer version may let an event wait that the older one knows nothing
// of; the older one's workers must leave it alone.
func TestRun_leaves_alone_what_only_a_newer_version_handles(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, outbox.Migrations, inbox.Migrations, tables)
	newer := newRigOn(t, d, inbox.Config{MaxBackoff: time.Millisecond}).handlers()
	newer.setFail("a1", errOops)
	newer.write(jump{"a", 1}, 1)
	newer.poll(0)
	older := newRigOn(t, d, inbox.Config{})
	inbox.Handle(older.Inbox, older.onStep)
	stop := older.run()
	older.until("the older version has looked at it", func() bool {
		return older.count(`select count(*) from waiting_event where error like '%no handler%'`) == 1
	})
	stop()
	newer.setFail("a1", nil)
	newer.run()
	newer.until("the newer version has done it", func() bool { return len(newer.done()) == 1 })
}

func TestRedrive_of_a_letter_that_was_set_aside_happens_once(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	var mended atomic.Bool
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if !mended.Load() {
			return inbox.Permanent(errOops)
		}
		return r.onStep(ctx, tx, e)
	}, inbox.SkipDead)
	const keys = 15
	for i := range keys {
		r.steps(fmt.Sprint("k", i, "-"), 1, 1)
	}
	r.poll(0)
	mended.Store(true)
	d := desk{r, r.Routes()}
	for _, letter := range d.list("?state=set%20aside") {
		var all sync.WaitGroup
		var done atomic.Int64
		for range 4 {
			all.Go(func() {
				switch status, answer := d.call("POST", "/admin/waiting/"+id(letter)+"/redrive", ""); status {
				case http.StatusOK:
					done.Add(1)
				case http.StatusNotFound:
				default:
					t.Errorf("redrive: %d %v", status, answer)
				}
			})
		}
		all.Wait()
		if done.Load() != 1 {
			t.Errorf("%d of 4 redrives of one letter were done, want one", done.Load())
		}
	}
	r.run()
	r.until("all are done", func() bool { return len(r.done()) >= keys && r.count(`select count(*) from waiting_event`) == 0 })
	if n := len(r.done()); n != keys {
		t.Errorf("%d effects, want %d", n, keys)
	}
}

func TestRedrive_of_a_record_with_a_key_too_long_is_refused(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	d := desk{r, r.Routes()}
	r.raw(event.Record{Key: []byte(strings.Repeat("k", 5000)), Value: []byte("x")})
	r.poll(0)
	if status, answer := d.call("POST", "/admin/waiting/"+id(d.list("")[0])+"/redrive", ""); status != http.StatusConflict {
		t.Errorf("redrive: %d %v, want 409", status, answer)
	}
}

// An owner whose claim was taken over comes back when the event is a letter set aside by now, and
// its key runs anew under a claim of the same number.
func TestHandleSlow_end_of_a_lost_claim_leaves_a_letter_alone(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{"if it has worked": nil, "if it has failed": errOops} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lostClaimEnds(t, failure)
		})
	}
}

func lostClaimEnds(t *testing.T, failure error) {
	t.Helper()
	lost := lostClaim("a-1")
	r := newRig(t, inbox.Config{Workers: 4, Claim: 600 * time.Millisecond, Attempts: 1, Log: slog.New(lost)})
	var first, second, ended atomic.Int64
	hold, hold2 := make(chan struct{}), make(chan struct{})
	letFirst, letSecond := sync.OnceFunc(func() { close(hold) }), sync.OnceFunc(func() { close(hold2) })
	inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
		switch {
		case e.Data.N == 1 && first.Add(1) == 1:
			<-hold // longer than its claim
			return nil, failure
		case e.Data.N == 1:
			return nil, errOops
		}
		if second.Add(1) == 1 {
			<-hold2
		}
		return func(context.Context, *db.Tx) error { ended.Add(1); return nil }, nil
	}, inbox.SkipDead)
	r.steps("a", 1, 1)
	r.run()
	t.Cleanup(letFirst) // Run waits for them, whatever has failed
	t.Cleanup(letSecond)
	r.until("Run has begun", r.Runs)
	r.poll(0)
	r.until("it is set aside", func() bool {
		return r.count(`select count(*) from waiting_event where set_aside`) == 1 && len(r.states()) == 0
	})
	r.steps("a", 2, 2)
	r.poll(1)
	r.until("the second event runs", func() bool { return second.Load() == 1 })
	letFirst()
	r.until("the first owner has ended", func() bool {
		select {
		case <-lost.seen:
			return true
		default:
			return r.count(`select count(*) from waiting_event where set_aside`) != 1
		}
	})
	letSecond()
	r.until("the second event is done", func() bool { return len(r.states()) == 0 })
	if n := r.count(`select count(*) from waiting_event where set_aside`); n != 1 || ended.Load() == 0 {
		t.Errorf("%d letters are set aside, the second event's end was written %d times; want one still, and once", n, ended.Load())
	}
}

func TestFlood_is_not_made_of_unknown_schemas(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	const unknown = 30
	for i := range unknown {
		value := binary.BigEndian.AppendUint32([]byte{0}, uint32(1000+i))
		r.raw(event.Record{Key: []byte(fmt.Sprint("u", i)), Value: append(value, 2)})
	}
	r.poll(0)
	if dead := r.waiting("dead"); dead != unknown {
		t.Errorf("%d are dead and %d unavailable, want all %d dead: no service can mend them", dead, r.waiting("unavailable"), unknown)
	}
}

func TestFlood_counts_what_was_committed(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	for i := range 15 {
		key := fmt.Sprint("bad", i, "-")
		r.setFail(key+"1", inbox.Permanent(errOops))
		r.steps(key, 1, 1)
	}
	r.steps("good", 1, 1) // the batch has run up to here when it fails, and is run again
	r.setFail("last1", errOops)
	r.steps("last", 1, 1)
	r.poll(0)
	if dead := r.waiting("dead"); dead != 15 {
		t.Errorf("%d are dead, want 15", dead)
	}
}

func TestFlood_goes_on_over_restarts(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, outbox.Migrations, inbox.Migrations, tables)
	dead := 0
	for start := range 3 {
		r := newRigOn(t, d, inbox.Config{})
		var tried atomic.Int64
		inbox.Handle(r.Inbox, func(context.Context, *db.Tx, event.Event[step]) error { tried.Add(1); return inbox.Permanent(errOops) })
		if start == 0 {
			for n := range 100 {
				r.steps(fmt.Sprintf("k%d", n), 1, 1)
			}
			r.poll(0)
			dead = r.waiting("dead")
		}
		tried.Store(0)
		stop := r.run()
		r.until("it has probed", func() bool { return tried.Load() >= 3 })
		stop()
	}
	r := newRigOn(t, d, inbox.Config{})
	if now := r.waiting("dead"); dead == 0 || now != dead {
		t.Errorf("%d dead letters after the first flood, %d after two restarts", dead, now)
	}
}

// The registry may take long, and on SQLite a schema cannot be kept inside a transaction.
func TestRun_asks_the_registry_outside_of_transactions(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	schemaID, err := embedded.SchemaID(otherSchema)
	if err != nil {
		t.Fatal(err)
	}
	r.raw(event.Record{Key: []byte("k"), Value: append(binary.BigEndian.AppendUint32([]byte{0}, uint32(schemaID)), 2)})
	r.registryDown.Store(true)
	r.poll(0)
	r.registryDown.Store(false)
	r.run()
	r.until("it is done", func() bool { return len(r.states()) == 0 })
	if n := r.count(`select count(*) from kept_schema where id = $1`, schemaID); n != 1 {
		t.Errorf("%d schemas are kept, want the one", n)
	}
}

// The partition count was raised, or somebody else's producer puts keys elsewhere: the row stands
// for the last sight.
func TestProcess_row_of_an_event_moves_with_its_twin_in_another_partition(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	r.steps("filler", 1, 3)
	r.steps("a", 1, 1)
	r.poll(0)
	twin := r.log[3]
	twin.Partition, twin.Offset = 1, 0
	if err := r.Process(t.Context(), event.Batch{Topic: "steps", TopicID: [16]byte{9}, Partition: 1, Records: []event.Record{twin}}); err != nil {
		t.Fatal(err)
	}
	if n := r.count(`select count(*) from inbox where part = 1 and position = 0`); n != 1 || len(r.done()) != 4 {
		t.Errorf("%d rows in the other partition, %d effects; want 1 and 4", n, len(r.done()))
	}
}

// The one that has lost a partition and its new owner may share a transaction, in any order: a row must
// remember the highest position, or it is gone while a twin can still be read.
func TestProcess_row_of_a_twin_when_two_owners_share_a_transaction(t *testing.T) {
	t.Parallel()
	for name, newerFirst := range map[string]bool{"the older batch first": false, "the newer batch first": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, inbox.Config{}).handlers()
			r.steps("a", 1, 1)
			r.steps("b", 1, 3)
			r.poll(0)
			r.steps("a", 1, 1)
			older, newer := r.batch(0, 0), r.batch(4, 0)
			older.Records = older.Records[:2]
			batches := []event.Batch{older, newer}
			if newerFirst {
				slices.Reverse(batches)
			}
			if err := r.TakeTogether(t.Context(), batches...); err != nil {
				t.Fatal(err)
			}
			if n := r.count(`select max(position) from inbox`); n != 4 || len(r.done()) != 4 {
				t.Errorf("the twin's row stands at %d, %d effects; want 4 and 4", n, len(r.done()))
			}
		})
	}
}

func TestProcess_an_event_under_another_aggregates_key_is_a_dead_letter(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	r.steps("a", 1, 1)
	r.log[0].Key = []byte("b")
	r.poll(0)
	if diff := cmp.Diff(map[string]string{"b": "dead"}, r.states()); diff != "" || len(r.done()) != 0 {
		t.Errorf("%d effects; %s", len(r.done()), diff)
	}
}

// An operator who cancels statements, or a server out of memory, says nothing about the event.
func TestHandle_whose_statement_the_server_cancels_is_not_at_fault(t *testing.T) {
	t.Parallel()
	if !dbtest.Postgres() {
		t.Skip("SQLite cancels nothing: make test-real runs it")
	}
	r := newRig(t, inbox.Config{Attempts: 1})
	var trouble atomic.Bool
	trouble.Store(true)
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if trouble.Load() {
			if _, err := tx.Exec(ctx, `set local statement_timeout = 1`); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `select pg_sleep(1)`)
			return err
		}
		return r.onStep(ctx, tx, e)
	})
	r.steps("a", 1, 1)
	r.poll(0)
	if diff := cmp.Diff(map[string]string{"a": "unavailable"}, r.states()); diff != "" {
		t.Error(diff)
	}
	trouble.Store(false)
	r.run()
	r.until("it is done", func() bool { return len(r.done()) == 1 })
}

// A clock that was an hour ahead has written when a key is due.
func TestRun_a_clock_that_has_jumped_back_holds_nothing_up(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	r.setFail("a1", errOops)
	r.steps("a", 1, 1)
	r.poll(0)
	r.setFail("a1", nil)
	if _, err := r.db.Exec(t.Context(), `update waiting_key set due = now_micros() + 3600000000`); err != nil {
		t.Fatal(err)
	}
	r.run()
	r.until("it is done", func() bool { return len(r.done()) == 1 })
}

// A registry that was wrong for a while, or was set up anew, has an ID stand for another schema:
// an event of another type must neither run nor be acknowledged as one that nobody handles.
func TestProcess_goes_by_no_schema_that_the_record_contradicts(t *testing.T) {
	t.Parallel()
	schemaID, err := embedded.SchemaID(otherSchema)
	if err != nil {
		t.Fatal(err)
	}
	other := func(key, says string) event.Record {
		value := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(schemaID)), 2)
		return event.Record{Key: []byte(key), Value: value, Headers: []event.Header{{Key: event.HeaderType, Value: []byte(says)}}}
	}
	kept := func(r *rig) (text string) {
		if err := r.db.QueryRow(r.Context(), `select schema from kept_schema where id = $1`, schemaID).Scan(&text); err != nil {
			r.Fatal(err)
		}
		return text
	}
	lying := func(t *testing.T) desk {
		r := newRig(t, inbox.Config{}).handlers()
		lie := step{}.Schema()
		r.registryLie.Store(&lie)
		r.raw(other("k", "test.Other"))
		r.poll(0)
		if kept(r) != lie {
			t.Fatalf("kept: %s, want the lie", kept(r))
		}
		return desk{r, r.Routes()}
	}
	t.Run("it is a dead letter, which a redrive mends", func(t *testing.T) {
		t.Parallel()
		d := lying(t)
		list := d.list("")
		if len(list) != 1 || list[0]["state"] != "dead" || list[0]["reason"] != "permanent" {
			t.Fatalf("got %v", list)
		}
		d.registryLie.Store(nil)
		d.run()
		d.until("it is done, as an event that nobody handles", func() bool {
			for _, dead := range d.list("?state=dead") { // the registry is asked once a second
				d.call("POST", "/admin/waiting/"+id(dead)+"/redrive", `{"force": true}`)
			}
			return len(d.list("")) == 0 && len(d.done()) == 0
		})
		d.until("the schema is kept", func() bool { return kept(d.rig) == otherSchema }) // another worker may still be at that
	})
	t.Run("the next one is asked for again", func(t *testing.T) {
		t.Parallel()
		d := lying(t)
		d.registryLie.Store(nil)
		for n := 1; kept(d.rig) != otherSchema; n++ {
			d.raw(other(fmt.Sprint("l", n), "test.Other"))
			d.poll(int64(n))
		}
		before := len(d.list("?limit=1000"))
		from := len(d.log)
		d.raw(other("m", "test.Other"))
		d.steps("a", 1, 1)
		d.poll(int64(from))
		if len(d.list("?limit=1000")) != before || len(d.done()) != 1 {
			t.Errorf("waiting %v, done %v", d.states(), d.done())
		}
	})
	t.Run("while the registry is away, who is right is not decided", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		value, err := r.codec.Encode(jump{"k", 1})
		if err != nil {
			t.Fatal(err)
		}
		r.raw(event.Record{Key: []byte("k"), Value: value, Headers: []event.Header{{Key: event.HeaderType, Value: []byte("test.Step")}}})
		r.registryDown.Store(true)
		r.poll(0)
		if diff := cmp.Diff(map[string]string{"k": "unavailable"}, r.states()); diff != "" {
			t.Error(diff)
		}
		r.registryDown.Store(false)
		r.run()
		r.until("it is a dead letter", func() bool { return r.states()["k"] == "dead" })
	})
	t.Run("a record that lies of itself is a dead letter", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		d := desk{r, r.Routes()}
		d.raw(other("k", "test.Step"))
		d.raw(other("l", "test.Else")) // handled by nobody, whatever it is
		d.poll(0)
		if list := d.list(""); len(list) != 1 || list[0]["key"] != "k" || list[0]["reason"] != "permanent" {
			t.Errorf("got %v", list)
		}
	})
}
