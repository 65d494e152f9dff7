package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

// put appends records, in one transaction.
func put(tb testing.TB, d *db.DB, o *outbox.Outbox, records ...event.Record) {
	tb.Helper()
	err := d.InTx(context.Background(), func(ctx context.Context, tx *db.Tx) error {
		for _, r := range records {
			if err := o.AppendRaw(tx, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}

// refuse is a broker that fails the records for which it has a reason, and those of their keys
// behind them.
func refuse(reason func(event.Record) error) func([]event.Record) []error {
	return func(window []event.Record) []error {
		errs, failed := make([]error, len(window)), map[string]error{}
		for i, r := range window {
			key := fmt.Sprint(r.Topic, r.Key == nil, r.Key)
			if errs[i] = failed[key]; errs[i] == nil {
				errs[i] = reason(r)
			}
			if r.Key != nil {
				failed[key] = errs[i]
			}
		}
		return errs
	}
}

// held waits until what is held back is as it should be, and returns it.
func held(tb testing.TB, o *outbox.Outbox, what string, ok func([]outbox.Held) bool) (all []outbox.Held) {
	tb.Helper()
	eventually(tb, what, func() bool {
		var err error
		if all, err = o.Held(context.Background()); err != nil {
			tb.Fatal(err)
		}
		return ok(all)
	})
	return all
}

func none(all []outbox.Held) bool { return len(all) == 0 }

// A topic that is missing is one thing for the operator to mend, however many keys wait for it.
func TestRelay_holds_back_a_missing_topic_as_a_whole(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Window: 10})
	w := &wire{fault: func(window []event.Record) []error {
		errs := make([]error, len(window))
		for i, r := range window {
			if r.Topic == "missing" {
				errs[i] = fmt.Errorf("unknown: %w", event.ErrTopic)
			}
		}
		return errs
	}}
	for i := range 30 {
		put(t, d, o, event.Record{Topic: "missing", Key: []byte{byte(i)}})
	}
	put(t, d, o, event.Record{Topic: "there", Key: []byte("a")})
	start(t, o, w)
	eventually(t, "the other topic flows", func() bool { return len(w.keys()) == 1 })
	held, err := o.Held(t.Context())
	if err != nil || len(held) != 1 || held[0].Topic != "missing" || held[0].Key != nil || !strings.HasPrefix(held[0].Error, "unknown") || time.Since(held[0].Since) > time.Minute {
		t.Errorf("held: %+v, %v", held, err)
	}
	eventually(t, "what flows has gone", func() bool {
		all, flowing, err := o.Stats(t.Context())
		return err == nil && flowing == outbox.Backlog{} && all.Events == 30 && all.Oldest > 0
	})
}

// When the topic is there, its first record has its own reason to fail. It must not stand for
// the topic any longer.
func TestRelay_gives_a_topic_free_although_its_first_record_fails(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	var exists atomic.Bool
	w := &wire{fault: refuse(func(r event.Record) error {
		switch {
		case !exists.Load():
			return fmt.Errorf("unknown: %w", event.ErrTopic)
		case string(r.Key) == "big":
			return errors.New("too large")
		}
		return nil
	})}
	put(t, d, o, event.Record{Topic: "late", Key: []byte("big")}, event.Record{Topic: "late", Key: []byte("a")}, event.Record{Topic: "late", Key: []byte("big")}, event.Record{Topic: "late", Key: []byte("b")})
	start(t, o, w)
	held(t, o, "the topic is held back", func(all []outbox.Held) bool { return len(all) == 1 && all[0].Key == nil })
	exists.Store(true)
	eventually(t, "the good records are published", func() bool { return len(w.keys()) == 2 })
	if diff := cmp.Diff(w.keys(), []string{"a", "b"}); diff != "" {
		t.Error(diff)
	}
	held(t, o, "only the key is held back", func(all []outbox.Held) bool { return len(all) == 1 && string(all[0].Key) == "big" })
	w.set(nil)
	eventually(t, "the big ones follow", func() bool { return len(w.keys()) == 4 })
}

// A record without a key has no order to keep: none behind it has to wait.
func TestRelay_holds_back_a_record_without_a_key_alone(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	w := &wire{fault: refuse(func(r event.Record) error {
		if string(r.Value) == "bad" {
			return errors.New("too large")
		}
		return nil
	})}
	put(t, d, o, event.Record{Topic: "t", Value: []byte("bad")}, event.Record{Topic: "t", Value: []byte("good")}, event.Record{Topic: "t", Key: []byte("a")},
		event.Record{Topic: "t", Key: []byte{}, Value: []byte("bad")}, event.Record{Topic: "t", Key: []byte{}}, event.Record{Topic: "t"})
	start(t, o, w)
	eventually(t, "the others are published", func() bool { return len(w.keys()) == 3 })
	held(t, o, "a record and the empty key are held back", func(all []outbox.Held) bool {
		return len(all) == 2 && (all[0].Row == 0) != (all[1].Row == 0) && (all[0].Key == nil) != (all[1].Key == nil)
	})
	eventually(t, "what flows has gone", func() bool {
		all, flowing, err := o.Stats(t.Context())
		return err == nil && flowing.Events == 0 && all.Events == 3
	})
	w.set(nil)
	eventually(t, "the held ones follow", func() bool { return len(w.keys()) == 6 })
	held(t, o, "nothing is held back", none)
}

// A relay that has lost the lease and gets it back knows what it holds back, and says so.
func TestRelay_says_what_it_holds_back_when_it_takes_the_lease(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: 100 * time.Millisecond})
	w := &wire{fault: refuse(func(r event.Record) error { return fmt.Errorf("unknown: %w", event.ErrTopic) })}
	put(t, d, o, event.Record{Topic: "missing", Key: []byte("a")})
	start(t, o, w)
	one := func(all []outbox.Held) bool { return len(all) == 1 }
	held(t, o, "the topic is held back", one)
	// Another replica was on duty meanwhile, and has stopped.
	if _, err := d.Exec(t.Context(), `update outbox_lease set owner = 'another', until = 0, held = '[]'`); err != nil {
		t.Fatal(err)
	}
	held(t, o, "the topic is named again", one)
}

func TestHeld_error_is_short(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	w := &wire{fault: refuse(func(r event.Record) error { return errors.New(strings.Repeat("x\xff\x00é", 1000)) })}
	put(t, d, o, event.Record{Topic: "t", Key: []byte("a")})
	start(t, o, w)
	all := held(t, o, "the key is held back", func(all []outbox.Held) bool { return len(all) == 1 })
	if got := all[0].Error; len(got) > 300 || len(got) < 290 || !utf8.ValidString(got) || !strings.HasPrefix(got, "x\uFFFD\x00é") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

// refused is what the log says of each hold.
const refused = "event cannot be published"

func each(n int, names ...string) (records []event.Record) {
	for i := range n {
		for _, name := range names {
			records = append(records, event.Record{Topic: "t", Key: fmt.Append(nil, name, i)})
		}
	}
	return records
}

func bad(r event.Record) error {
	if strings.HasPrefix(string(r.Key), "bad") {
		return errors.New("too large")
	}
	return nil
}

// What the brokers refuse to everybody is no event's fault: the intake must see that all wait.
func TestRelay_waits_while_the_brokers_take_nothing(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	log := &lines{}
	o := outbox.New(d, c, outbox.Config{Source: "/test", Log: log.logger()}).Tune(outbox.Tuning{Retry: time.Millisecond})
	var attempts atomic.Int64
	w := &wire{fault: refuse(func(event.Record) error { attempts.Add(1); return errors.New("not authorized") })}
	put(t, d, o, each(400, "k")...)
	start(t, o, w)
	eventually(t, "it has tried many of them again and again", func() bool { return attempts.Load() > 2000 })
	held(t, o, "nothing is held back", none)
	if all, flowing, err := o.Stats(t.Context()); err != nil || all.Events != 400 || flowing.Events != 400 {
		t.Errorf("%+v, of that flow %+v, %v; want 400 that do", all, flowing, err)
	}
	w.set(nil)
	eventually(t, "all are published", func() bool { return pending(t, o) == 0 })
	held(t, o, "nothing is held back", none)
	for what, most := range map[string]int{refused: 4, "brokers take no events": 1, "brokers take events again": 1} {
		if got := log.count(what); got > most {
			t.Errorf("the log says %d times that %s, want at most %d", got, what, most)
		}
	}
}

func TestRelay_finds_the_good_events_behind_many_bad_ones(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	log := &lines{}
	o := outbox.New(d, c, outbox.Config{Source: "/test", Log: log.logger()}).Tune(outbox.Tuning{Retry: time.Millisecond})
	w := &wire{fault: refuse(bad)}
	put(t, d, o, each(20, "bad", "bad")...)
	start(t, o, w)
	eventually(t, "the brokers are suspected", func() bool { return log.count("brokers take no events") == 1 })
	put(t, d, o, each(5, "good")...)
	eventually(t, "the good ones are published", func() bool { return len(w.keys()) == 5 })
	held(t, o, "the bad ones are held back", func(all []outbox.Held) bool { return len(all) == 20 })
	w.set(nil)
	eventually(t, "the bad ones follow", func() bool { return len(w.keys()) == 45 })
	held(t, o, "nothing is held back", none)
}

func TestRelay_holds_back_a_hundred_at_most(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Retry: time.Millisecond})
	w := &wire{fault: func(window []event.Record) []error { // as a client does
		errs := make([]error, len(window))
		for i, r := range window {
			if errs[i] = bad(r); i > 0 && errs[i-1] != nil {
				errs[i] = errors.New("behind it")
			}
		}
		return errs
	}}
	put(t, d, o, each(110, "bad", "good")...)
	start(t, o, w)
	held(t, o, "a hundred are held back", func(all []outbox.Held) bool { return len(all) >= 100 })
	eventually(t, "the relay waits", func() bool { return len(w.keys()) >= 100 })
	put(t, d, o, each(1, "last")...)
	if all := held(t, o, "they are held back", func([]outbox.Held) bool { return true }); len(all) != 100 {
		t.Errorf("%d are held back", len(all))
	}
	eventually(t, "the rest, and nothing else, counts as waiting", func() bool {
		_, flowing, err := o.Stats(t.Context())
		return err == nil && flowing.Events == 21
	})
	w.set(nil)
	eventually(t, "all are published", func() bool { return len(w.keys()) == 221 })
	held(t, o, "nothing is held back", none)
}

// A dead letter that no broker takes has the key of an order, whose own events go on.
func TestRelay_holds_back_a_key_in_its_topic_only(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"})
	w := &wire{fault: func(window []event.Record) []error {
		errs := make([]error, len(window))
		for i, r := range window {
			if r.Topic == "letters" {
				errs[i] = errors.New("record too large")
			}
		}
		return errs
	}}
	err := d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return o.AppendRaw(tx, event.Record{Topic: "letters", Key: []byte("a")})
	})
	if err != nil {
		t.Fatal(err)
	}
	start(t, o, w)
	eventually(t, "the letter is held back", func() bool {
		held, err := o.Held(t.Context())
		return err == nil && len(held) == 1 && string(held[0].Key) == "a"
	})
	err = d.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
		return o.AppendRaw(tx, event.Record{Topic: "orders", Key: []byte("a")})
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the order's event is published", func() bool { return len(w.keys()) == 1 })
}

// A probe may take so long that another relay is on duty when it is over.
func TestRelay_publishes_nothing_behind_a_probe_that_has_outlasted_its_lease(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Lease: 200 * time.Millisecond, Idle: time.Millisecond})
	missing := refuse(func(r event.Record) error {
		if r.Topic == "missing" {
			return fmt.Errorf("unknown: %w", event.ErrTopic)
		}
		return nil
	})
	w := &wire{fault: missing}
	put(t, d, o, event.Record{Topic: "missing", Key: []byte("a")})
	start(t, o, w)
	held(t, o, "the topic is held back", func(all []outbox.Held) bool { return len(all) == 1 })
	begun, goOn, onDuty := make(chan struct{}), make(chan struct{}), make(chan string, 1)
	var probes atomic.Int64
	w.set(func(window []event.Record) []error {
		switch {
		case window[0].Topic != "missing":
			var owner string
			if err := d.QueryRow(t.Context(), `select owner from outbox_lease`).Scan(&owner); err != nil {
				owner = err.Error()
			}
			onDuty <- owner
		case probes.Add(1) == 1:
			close(begun)
			<-goOn
		}
		return missing(window)
	})
	<-begun
	if _, err := d.Exec(t.Context(), `update outbox_lease set owner = 'another', until = now_micros() + 100000`); err != nil {
		t.Fatal(err)
	}
	put(t, d, o, each(1, "third")...)
	eventually(t, "the lease has run out", func() (over bool) {
		return d.QueryRow(t.Context(), `select until < now_micros() from outbox_lease`).Scan(&over) == nil && over
	})
	close(goOn)
	if owner := <-onDuty; owner == "another" {
		t.Error("it has published while another one was on duty")
	}
}
