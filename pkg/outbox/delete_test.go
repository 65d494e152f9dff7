package outbox_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

// deleting is an outbox of events of a, published one by one, whose database calls before each time
// that published rows are to be deleted.
func deleting(t *testing.T, events int, sweepEvery time.Duration, before func() error) *outbox.Outbox {
	t.Helper()
	d, err := db.Open(db.Config{URL: dbtest.URL(t), Wrap: dbtest.Breaks{
		Statement: func(query string, _ []driver.NamedValue, _ bool) error {
			if strings.HasPrefix(query, "delete from outbox ") {
				return before()
			}
			return nil
		},
	}.Wrap})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := d.Migrate(t.Context(), outbox.Migrations, tables); err != nil {
		t.Fatal(err)
	}
	o := outbox.New(d, newCodec(t, d), outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Window: 1, SweepEvery: sweepEvery, Idle: time.Millisecond})
	if err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		for range events {
			if err := raise(ctx, tx, o, "a"); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return o
}

// first are the first events of a.
func first(n int) (keys []string) {
	for i := range n {
		keys = append(keys, fmt.Sprintf("a%d", i+1))
	}
	return keys
}

func published(t *testing.T, w *wire, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.keys()); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

// What has been published is deleted fifty at a time, or when it is time, or when the relay stops;
// until then it is not published again.
func TestRelay_deletes_together_what_it_has_published(t *testing.T) {
	t.Parallel()
	var deletions atomic.Int64
	o := deleting(t, 150, time.Hour, func() error {
		deletions.Add(1)
		return nil
	})
	var w wire
	stop := start(t, o, &w)
	eventually(t, "all are published", func() bool { return len(w.keys()) >= 150 })
	stop()
	published(t, &w, first(150)...)
	if n := pending(t, o); n != 0 {
		t.Errorf("%d events are left when the relay has stopped", n)
	}
	if n := deletions.Load(); n != 4 { // of the first, which has waited for ever; twice of fifty; of the rest
		t.Errorf("%d deletions, want 4", n)
	}
}

func TestRelay_deletes_the_last_ones_although_nothing_follows(t *testing.T) {
	t.Parallel()
	o := deleting(t, 3, 20*time.Millisecond, func() error { return nil })
	var w wire
	start(t, o, &w)
	eventually(t, "none is left", func() bool { return pending(t, o) == 0 })
	published(t, &w, first(3)...)
}

// The relay publishes nothing more until what it has published can be deleted, and that not again.
func TestRelay_waits_for_what_it_cannot_delete(t *testing.T) {
	t.Parallel()
	var w wire
	var asked atomic.Int64
	o := deleting(t, 3, time.Nanosecond, func() error {
		if n := asked.Add(1); n > 3 {
			return nil
		}
		published(t, &w, first(1)...)
		return errors.New("oops")
	})
	start(t, o, &w)
	eventually(t, "none is left", func() bool { return pending(t, o) == 0 })
	published(t, &w, first(3)...)
}

func TestRelay_publishes_again_what_another_one_could_not_delete(t *testing.T) {
	t.Parallel()
	var mended atomic.Bool
	o := deleting(t, 1, time.Nanosecond, func() error {
		if mended.Load() {
			return nil
		}
		return errors.New("oops")
	})
	var w wire
	stop := start(t, o, &w)
	eventually(t, "it is published", func() bool { return len(w.keys()) > 0 })
	stop()
	mended.Store(true)
	start(t, o, &w)
	eventually(t, "none is left", func() bool { return pending(t, o) == 0 })
	published(t, &w, "a1", "a1")
}

// A database that has fallen back, to a standby without the last rows say, gives their IDs to others,
// which are neither left out nor deleted for them.
func TestRelay_does_not_take_others_for_the_rows_it_has_published(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	here := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Idle: time.Hour, SweepEvery: time.Hour})
	there := outbox.New(d, c, outbox.Config{Source: "/test"}) // wakes nobody here
	var w wire
	put(t, d, here, each(1, "deleted")...)
	stop := start(t, here, &w)
	eventually(t, "the first one is deleted", func() bool { return pending(t, here) == 0 })
	put(t, d, here, each(1, "published")...)
	eventually(t, "the second one is published", func() bool { return len(w.keys()) == 2 })
	for _, name := range []string{"woken", "left"} {
		put(t, d, there, each(1, name)...)
		giveOldID(t, d)
		if name == "woken" {
			here.Wake()
			eventually(t, "the one with the old ID is published", func() bool { return len(w.keys()) == 3 })
		}
	}
	stop()
	published(t, &w, "deleted0", "published0", "woken0")
	if n := pending(t, here); n != 1 {
		t.Errorf("%d events are left, want the one that nobody knows of", n)
	}
}

// giveOldID puts the last row into the place of the first.
func giveOldID(t *testing.T, d *db.DB) {
	t.Helper()
	overriding := ""
	if os.Getenv("DATABASE_URL") != "" {
		overriding = "overriding system value"
	}
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		var first, last int64
		if err := tx.QueryRow(ctx, `select min(id), max(id) from outbox`).Scan(&first, &last); err != nil {
			return err
		}
		for _, query := range []string{
			`delete from outbox where id = $1 and id < $2`,
			`insert into outbox (id, topic, key, value, headers) ` + overriding + ` select cast($1 as bigint), topic, key, value, headers from outbox where id = $2`,
			`delete from outbox where id > $1 and id = $2`,
		} {
			if _, err := tx.Exec(ctx, query, first, last); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A relay that is not on duty any more does not leave to the one on duty what it has published.
func TestRelay_deletes_what_it_has_published_when_it_loses_the_lease(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: 30 * time.Millisecond, Idle: time.Millisecond, SweepEvery: time.Hour})
	var w wire
	put(t, d, o, each(1, "first")...)
	start(t, o, &w)
	eventually(t, "the first one is deleted", func() bool { return pending(t, o) == 0 })
	put(t, d, o, each(20, "more")...)
	eventually(t, "all are published", func() bool { return len(w.keys()) == 21 })
	if _, err := d.Exec(t.Context(), `update outbox_lease set owner = 'another', until = now_micros() + 200000`); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are deleted", func() bool { return pending(t, o) == 0 })
	if n := len(w.keys()); n != 21 {
		t.Errorf("%d were published", n)
	}
}

// What wakes the relay is often more than a window, and not all of it may be taken at once.
func TestRelay_looks_again_at_once(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		window int
		fails  bool
	}{
		"behind a full window":            {window: 2},
		"behind a window that has failed": {fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, codec := open(t)
			o := outbox.New(d, codec, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Window: c.window, Idle: time.Hour})
			var w wire
			start(t, o, &w)
			put(t, d, o, each(1, "first")...)
			eventually(t, "it is published", func() bool { return len(w.keys()) == 1 })
			fails := c.fails
			w.set(func(window []event.Record) (errs []error) {
				if fails {
					fails = false
					for range window {
						errs = append(errs, errors.New("oops"))
					}
				}
				return errs
			})
			put(t, d, o, each(5, "more")...)
			eventually(t, "all are published", func() bool { return len(w.keys()) == 6 })
		})
	}
}

// Where another replica writes, which wakes nobody here, the relay looks again as soon as it has
// published something.
func TestRelay_looks_again_behind_what_nobody_woke_it_for(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	here := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Idle: time.Hour})
	there := outbox.New(d, c, outbox.Config{Source: "/test"})
	write := func() {
		if err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, there, "a") }); err != nil {
			t.Error(err)
		}
	}
	var w wire
	left := 2
	w.fault = func([]event.Record) []error {
		if left--; left >= 0 {
			write()
		}
		return nil
	}
	write()
	start(t, here, &w)
	eventually(t, "all are published", func() bool { return len(w.keys()) >= 3 })
	published(t, &w, first(3)...)
}

// A deletion may take so long that another relay is on duty when it is over.
func TestRelay_publishes_nothing_behind_a_deletion_that_has_outlasted_its_lease(t *testing.T) {
	t.Parallel()
	var slow atomic.Bool
	var looked atomic.Int64 // for the lease
	begun, goOn := make(chan struct{}), make(chan struct{})
	url := dbtest.URL(t)
	open := func(wrap func(driver.Connector) driver.Connector) *db.DB {
		d, err := db.Open(db.Config{URL: url, Wrap: wrap})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	here, there := open(dbtest.Breaks{Statement: func(q string, _ []driver.NamedValue, _ bool) error {
		switch {
		case strings.HasPrefix(q, "delete from outbox ") && slow.CompareAndSwap(true, false):
			close(begun)
			<-goOn
		case strings.HasPrefix(q, "update outbox_lease set owner"):
			looked.Add(1)
		}
		return nil
	}}.Wrap), open(nil)
	if err := here.Migrate(t.Context(), outbox.Migrations, tables); err != nil {
		t.Fatal(err)
	}
	c := newCodec(t, here)
	short := outbox.Tuning{Lease: 300 * time.Millisecond, Idle: time.Millisecond, SweepEvery: time.Millisecond}
	long := short
	long.Lease = 9 * short.Lease // while it is held up it renews none; ten times as long would be a clock that has jumped
	one, other := outbox.New(here, c, outbox.Config{Source: "/test"}).Tune(short), outbox.New(there, c, outbox.Config{Source: "/test"}).Tune(long)
	var w, onDuty wire
	start(t, one, &w)
	put(t, there, other, each(1, "first")...)
	eventually(t, "the first one is deleted", func() bool { return pending(t, other) == 0 })
	slow.Store(true)
	put(t, there, other, each(1, "second")...)
	<-begun
	published, publish := make(chan struct{}, 10), make(chan struct{})
	onDuty.set(func([]event.Record) []error {
		published <- struct{}{}
		<-publish
		return nil
	})
	put(t, there, other, each(1, "third")...)
	start(t, other, &onDuty)
	<-published // it is on duty, and has not deleted anything
	before := looked.Load()
	close(goOn)
	eventually(t, "the first one has looked for the lease", func() bool { return looked.Load() > before })
	close(publish)
	eventually(t, "none is left", func() bool { return pending(t, other) == 0 })
	if got := w.keys(); len(got) != 2 {
		t.Errorf("the one that is not on duty has published %v, want the first and the second", got)
	}
}
