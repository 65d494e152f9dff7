package outbox_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/outbox"
)

// deleting is an outbox of two events, published one by one, whose database calls before each time
// that published rows are to be deleted.
func deleting(t *testing.T, before func() error) *outbox.Outbox {
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
	o := outbox.New(d, newCodec(t, d), outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Window: 1})
	for range 2 { // SQLite takes nothing while a delete is held up
		if err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, o, "a") }); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// heldUp has the deletion of the first event held up until the second is published, and then end
// with an error, which may be nil.
func heldUp(t *testing.T, end error) (o *outbox.Outbox, w *wire, stop func()) {
	t.Helper()
	var asked atomic.Int64
	hold := make(chan struct{})
	o = deleting(t, func() error {
		if asked.Add(1) == 1 {
			<-hold
			return end
		}
		return nil
	})
	w = &wire{}
	stop = start(t, o, w)
	eventually(t, "the second one is published", func() bool { return len(w.keys()) > 1 })
	close(hold)
	return o, w, stop
}

func published(t *testing.T, w *wire, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, w.keys()); diff != "" {
		t.Errorf("published (-want +got):\n%s", diff)
	}
}

// What has been published is deleted while the next events are on their way, which do not wait for
// it; and it is not published again, nor left behind when the relay stops.
func TestRelay_goes_on_while_what_it_has_published_is_deleted(t *testing.T) {
	t.Parallel()
	o, w, stop := heldUp(t, nil)
	stop()
	published(t, w, "a1", "a2")
	if n := pending(t, o); n != 0 {
		t.Errorf("%d events are left when the relay has stopped", n)
	}
}

// What cannot be deleted is published again, and what came behind it is deleted all the same.
func TestRelay_publishes_again_what_it_could_not_delete(t *testing.T) {
	t.Parallel()
	o, w, _ := heldUp(t, errors.New("oops"))
	eventually(t, "none is left", func() bool { return pending(t, o) == 0 })
	published(t, w, "a1", "a2", "a1")
}

// So it is if nothing comes behind it.
func TestRelay_publishes_again_what_it_could_not_delete_at_the_end(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	o := deleting(t, func() error {
		if asked.Add(1) == 2 {
			return errors.New("oops")
		}
		return nil
	})
	var w wire
	start(t, o, &w)
	eventually(t, "none is left", func() bool { return pending(t, o) == 0 })
	published(t, &w, "a1", "a2", "a2")
}
