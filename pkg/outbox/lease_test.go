package outbox_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/outbox"
)

// A third replica places the events, so that nobody is woken: each relay finds them by looking,
// as soon as the other one.
func TestRelay_beside_one_on_duty_publishes_nothing(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	replica := func() *outbox.Outbox {
		return outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: time.Minute, Idle: time.Millisecond})
	}
	onDuty, beside := &wire{}, &wire{}
	start(t, replica(), onDuty)
	writer := replica()
	place := func(n int) {
		key := fmt.Sprint("k", n, "-")
		if err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, writer, key) }); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is published", func() bool { return len(onDuty.keys())+len(beside.keys()) > n })
	}
	place(0)
	start(t, replica(), beside)
	for n := 1; n <= 100; n++ {
		place(n)
	}
	if got := beside.keys(); len(got) > 0 {
		t.Errorf("the one beside has published %d of 100 events", len(got))
	}
}

// A clock that was an hour ahead has written the lease of a relay that is gone.
func TestRelay_takes_over_a_lease_of_a_clock_that_has_jumped(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	if _, err := d.Exec(t.Context(), `update outbox_lease set owner = 'gone', until = now_micros() + 3600000000 where id = 1`); err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	start(t, o, w)
	if err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error { return raise(ctx, tx, o, "a") }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is published", func() bool { return len(w.keys()) == 1 })
}
