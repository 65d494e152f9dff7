package inbox_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

func of(effects []string, agg string) (own []string) {
	for _, e := range effects {
		if strings.HasPrefix(e, agg) {
			own = append(own, e)
		}
	}
	return own
}

func TestProcess_effect_once_in_order(t *testing.T) {
	t.Parallel()
	t.Run("a batch that is handed over again changes nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.steps("a", 1, 3)
		r.steps("b", 1, 2)
		for range 3 {
			r.poll(0)
		}
		if diff := cmp.Diff(r.done(), []string{"a1", "b1", "a2", "b2", "a3"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a republished twin is skipped, in the same batch and later", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.steps("a", 1, 2)
		r.steps("a", 1, 3)
		r.poll(0)
		r.steps("a", 2, 4)
		r.poll(5)
		if diff := cmp.Diff(r.done(), []string{"a1", "a2", "a3", "a4"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("the row of a twin remembers its highest position", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.steps("a", 1, 1)
		r.steps("a", 1, 1)
		r.poll(0)
		if got := r.count(`select max(position) from inbox`); got != 1 {
			t.Errorf("position %d, want 1", got)
		}
	})
	t.Run("records without headers are told apart by their place", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		for n := int64(1); n <= 3; n++ {
			value, err := r.codec.Encode(step{"a", n})
			if err != nil {
				t.Fatal(err)
			}
			r.raw(event.Record{Key: []byte("a"), Value: value})
		}
		r.poll(0)
		r.poll(0)
		if diff := cmp.Diff(r.done(), []string{"a1", "a2", "a3"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a type without a handler is acknowledged and leaves nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		inbox.Handle(r.Inbox, r.onStep)
		r.write(jump{"a", 9}, 9)
		r.steps("a", 1, 1)
		r.poll(0)
		if got := r.count(`select count(*) from inbox`); got != 1 || len(r.states()) > 0 {
			t.Errorf("%d inbox rows, keys %v; want 1 and none", got, r.states())
		}
	})
	t.Run("an error of the database hands the batch over again", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.steps("a", 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Process(ctx, r.batch(0, 0)); err == nil {
			t.Error("Process with a context that has ended = nil")
		}
		r.poll(0)
		if diff := cmp.Diff(r.done(), []string{"a1"}); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFailure_delays_one_key(t *testing.T) {
	t.Parallel()
	t.Run("later events wait in order while other keys flow, until it recovers", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Attempts: 1000}).handlers()
		r.setFail("a2", errOops)
		for n := int64(1); n <= 5; n++ {
			r.steps("a", n, n)
			r.steps("b", n, n)
		}
		r.poll(0)
		if diff := cmp.Diff(of(r.done(), "b"), []string{"b1", "b2", "b3", "b4", "b5"}); diff != "" {
			t.Error(diff)
		}
		r.run()
		r.until("it has been tried again", func() bool { return r.count(`select max(attempts) from waiting_event`) > 3 })
		r.steps("a", 6, 6)
		r.poll(10)
		if diff := cmp.Diff(of(r.done(), "a"), []string{"a1"}); diff != "" {
			t.Error("nothing may overtake:", diff)
		}
		r.setFail("a2", nil)
		r.until("the key has recovered", func() bool { return len(of(r.done(), "a")) == 6 })
		r.until("nothing waits", func() bool {
			return r.count(`select count(*) from waiting_event`)+r.count(`select count(*) from waiting_key`) == 0
		})
	})
	t.Run("a panic is a failure like any other", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Attempts: 2})
		inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
			if e.Data.Agg == "a" {
				panic("boom")
			}
			return r.onStep(ctx, tx, e)
		})
		r.steps("a", 1, 1)
		r.steps("b", 1, 1)
		r.run()
		r.poll(0)
		r.until("it is dead", func() bool { return r.states()["a"] == "dead" })
		if diff := cmp.Diff(r.done(), []string{"b1"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a failed statement in one handler does not undo the others", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
			if e.Data.Agg == "a" {
				_, err := tx.Exec(ctx, `insert into no_such_table values (1)`)
				return err
			}
			return r.onStep(ctx, tx, e)
		})
		r.steps("b", 1, 1)
		r.steps("a", 1, 1)
		r.steps("c", 1, 1)
		r.poll(0)
		if diff := cmp.Diff(r.done(), []string{"b1", "c1"}); diff != "" || r.states()["a"] != "retrying" {
			t.Error(diff, r.states())
		}
	})
	t.Run("what everything fails on takes one pass", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		calls := 0
		inbox.Handle(r.Inbox, func(context.Context, *db.Tx, event.Event[step]) error { calls++; return errOops })
		for i := range 100 {
			r.steps(fmt.Sprint("k", i, "-"), 1, 1)
		}
		r.poll(0)
		if calls != 101 || len(r.states()) != 100 {
			t.Errorf("%d calls, %d keys wait; want 101 and 100", calls, len(r.states()))
		}
	})
}

func TestDeadLetter(t *testing.T) {
	t.Parallel()
	t.Run("after the last attempt the key waits behind it, and a copy is published", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Attempts: 3}).handlers()
		r.setFail("a1", errOops)
		r.steps("a", 1, 3)
		r.run()
		r.poll(0)
		r.until("it is dead", func() bool { return r.states()["a"] == "dead" })
		copies := r.count(`select count(*) from outbox where topic = 'steps.test.dlt' and key = $1`, []byte("a"))
		if copies != 1 || len(r.done()) > 0 {
			t.Errorf("%d copies, effects %v; want 1 and none", copies, r.done())
		}
		var headers, value []byte
		if err := r.db.QueryRow(t.Context(), `select headers, value from outbox`).Scan(&headers, &value); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(value, r.log[0].Value) {
			t.Error("the copy's bytes are not the record's")
		}
		parsed, err := event.ParseHeaders(headers)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, h := range parsed {
			got[h.Key] = string(h.Value)
		}
		for name, want := range map[string]string{"ce_id": "a-1", "dlt-topic": "steps", "dlt-partition": "0", "dlt-offset": "0", "dlt-group": "test",
			"dlt-reason": "exhausted", "dlt-error": "oops", "dlt-attempts": "3", "dlt-redrives": "0"} {
			if got[name] != want {
				t.Errorf("header %s = %q, want %q", name, got[name], want)
			}
		}
	})
	t.Run("a permanent error is not tried again", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.setFail("a1", inbox.Permanent(errOops))
		r.steps("a", 1, 1)
		r.poll(0)
		if r.states()["a"] != "dead" || r.count(`select attempts from waiting_event`) != 1 {
			t.Errorf("keys %v, want a dead after one attempt", r.states())
		}
	})
	t.Run("a handler may skip what is dead, and the key goes on", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Attempts: 2})
		ran := make(chan int64, 10)
		inbox.Handle(r.Inbox, func(_ context.Context, tx *db.Tx, e event.Event[step]) error {
			if e.Data.N == 1 {
				return errOops
			}
			tx.AfterCommit(func() { ran <- e.Data.N })
			return nil
		}, inbox.SkipDead)
		r.steps("a", 1, 2)
		r.run()
		r.poll(0)
		if got := <-ran; got != 2 {
			t.Errorf("event %d ran, want 2", got)
		}
		r.until("only the letter is left", func() bool {
			return len(r.states()) == 0 && r.count(`select count(*) from waiting_event where set_aside`) == 1
		})
	})
	t.Run("bytes that are no event hold nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.steps("a", 1, 1)
		good := r.log[0]
		for _, bad := range []event.Record{
			{Key: []byte("a"), Value: []byte("not avro"), Headers: good.Headers},
			{Key: []byte("a"), Value: good.Value[:len(good.Value)-1]},
			{Key: []byte("a"), Value: append(slices.Clone(good.Value), 0)},
			{Key: nil, Value: good.Value},
			{Key: []byte("a"), Value: nil},
			{Key: []byte{0xff, 0}, Value: []byte{0}},
		} {
			r.raw(bad)
		}
		r.steps("a", 2, 2)
		r.poll(0)
		r.poll(0)
		if diff := cmp.Diff(r.done(), []string{"a1", "a2"}); diff != "" {
			t.Error(diff)
		}
		letters := r.count(`select count(*) from waiting_event where set_aside and reason = 'undecodable'`)
		copies := r.count(`select count(*) from outbox`)
		if letters != 6 || copies != 6 || len(r.states()) > 0 {
			t.Errorf("%d letters, %d copies, keys %v; want 6, 6 and none", letters, copies, r.states())
		}
	})
	t.Run("an unknown schema is dead and holds its key", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		r.raw(event.Record{Key: []byte("a"), Value: []byte{0, 0, 0, 0, 77, 2, 'a', 2}})
		r.steps("a", 1, 1)
		r.poll(0)
		if r.states()["a"] != "dead" || r.count(`select count(*) from waiting_event where reason = 'unknown-schema'`) != 1 || len(r.done()) > 0 {
			t.Error(r.states(), r.done())
		}
	})
}

func TestUnavailable_waits_without_counting_and_resumes_together(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Attempts: 2})
	down := true
	calls := 0
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		r.mu.Lock()
		is := down
		calls++
		r.mu.Unlock()
		if is {
			return inbox.Unavailable(errOops)
		}
		return r.onStep(ctx, tx, e)
	})
	for i := range 50 {
		r.steps(fmt.Sprint("k", i, "-"), 1, 2)
	}
	r.run()
	r.poll(0)
	r.until("all keys wait", func() bool { return len(r.states()) == 50 })
	r.until("it has been probed", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return calls > 3 })
	if n := r.count(`select max(attempts) from waiting_event`); n != 0 {
		t.Errorf("%d attempts were counted while it was down, want none", n)
	}
	r.mu.Lock()
	if calls > 20 {
		t.Errorf("%d calls while it was down, want a few probes", calls)
	}
	down = false
	r.mu.Unlock()
	r.until("all have resumed", func() bool { return len(r.done()) == 100 })
	if got := r.count(`select count(*) from outbox`); got != 0 {
		t.Errorf("%d dead letters, want none", got)
	}
}

func TestRegistryDown_delays_only_what_was_never_seen(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	id, err := embedded.SchemaID(otherSchema)
	if err != nil {
		t.Fatal(err)
	}
	value := binary.BigEndian.AppendUint32([]byte{0}, uint32(id))
	value = append(value, 2)
	for i := range 20 {
		key := fmt.Sprint("k", i, "-")
		r.raw(event.Record{Key: []byte(key), Value: value})
		r.steps(key, 1, 1)
	}
	r.steps("a", 1, 1)
	r.registryDown.Store(true)
	r.run()
	r.poll(0)
	if diff := cmp.Diff(r.done(), []string{"a1"}); diff != "" || len(r.states()) != 20 {
		t.Error(diff, r.states())
	}
	r.registryDown.Store(false)
	r.until("all have resumed", func() bool { return len(r.done()) == 21 && len(r.states()) == 0 })
}

func TestHandleBatch(t *testing.T) {
	t.Parallel()
	t.Run("works in waves of different keys, in the order of each", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		var sizes []int
		inbox.HandleBatch(r.Inbox, func(ctx context.Context, tx *db.Tx, es []event.Event[step]) error {
			sizes = append(sizes, len(es))
			for _, e := range es {
				if err := r.apply(ctx, tx, e.Data.Agg, e.Data.N); err != nil {
					return err
				}
			}
			return nil
		})
		r.steps("a", 1, 3)
		r.steps("b", 1, 2)
		r.steps("c", 1, 1)
		r.poll(0)
		if diff := cmp.Diff(sizes, []int{3, 2, 1}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("one that fails leaves the others done", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Attempts: 100})
		inbox.HandleBatch(r.Inbox, func(ctx context.Context, tx *db.Tx, es []event.Event[step]) error {
			var errs []error
			for _, e := range es {
				errs = append(errs, r.apply(ctx, tx, e.Data.Agg, e.Data.N))
			}
			return errors.Join(errs...)
		})
		r.setFail("b1", errOops)
		r.steps("a", 1, 2)
		r.steps("b", 1, 2)
		r.run()
		r.poll(0)
		r.until("a is done", func() bool { return len(of(r.done(), "a")) == 2 })
		r.setFail("b1", nil)
		r.until("b is done", func() bool { return len(of(r.done(), "b")) == 2 })
	})
}

func TestHandleSlow(t *testing.T) {
	t.Parallel()
	t.Run("runs outside a transaction, in the order of the key, many keys at a time", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Workers: 4})
		meet := make(chan struct{})
		inbox.HandleSlow(r.Inbox, func(ctx context.Context, e event.Event[step]) (inbox.Done, error) {
			if e.Data.N == 1 { // both keys' first events run at the same time
				select {
				case meet <- struct{}{}:
				case <-meet:
				case <-time.After(10 * time.Second):
					t.Error("keys do not run beside each other")
				}
			}
			return func(ctx context.Context, tx *db.Tx) error { return r.apply(ctx, tx, e.Data.Agg, e.Data.N) }, nil
		})
		r.steps("a", 1, 3)
		r.steps("b", 1, 3)
		r.run()
		r.poll(0)
		r.until("all are done", func() bool { return len(r.done()) == 6 })
	})
	t.Run("a claim that was taken over writes nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Workers: 2, Claim: 300 * time.Millisecond})
		first := make(chan struct{})
		attempts := make(chan int, 10)
		n := 0
		inbox.HandleSlow(r.Inbox, func(ctx context.Context, e event.Event[step]) (inbox.Done, error) {
			r.mu.Lock()
			n++
			mine := n
			r.mu.Unlock()
			if mine == 1 {
				<-first // longer than the claim, whatever its context says
			}
			return func(ctx context.Context, tx *db.Tx) error {
				tx.AfterCommit(func() { attempts <- mine })
				return r.apply(ctx, tx, e.Data.Agg, e.Data.N)
			}, nil
		})
		r.steps("a", 1, 1)
		stop := r.run()
		r.poll(0)
		select {
		case got := <-attempts:
			if got != 2 {
				t.Errorf("attempt %d wrote, want the second", got)
			}
		case <-time.After(30 * time.Second):
			t.Error("nobody has taken the claim over")
		}
		close(first)
		stop()
		if diff := cmp.Diff(r.done(), []string{"a1"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what is in hand at the stop is finished", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		begun, go_on := make(chan struct{}), make(chan struct{})
		inbox.HandleSlow(r.Inbox, func(ctx context.Context, e event.Event[step]) (inbox.Done, error) {
			close(begun)
			<-go_on
			return func(ctx context.Context, tx *db.Tx) error { return r.apply(ctx, tx, e.Data.Agg, e.Data.N) }, ctx.Err()
		})
		r.steps("a", 1, 1)
		stop := r.run()
		r.poll(0)
		<-begun
		stopped := make(chan struct{})
		go func() { stop(); close(stopped) }()
		close(go_on)
		<-stopped
		if diff := cmp.Diff(r.done(), []string{"a1"}); diff != "" || len(r.states()) > 0 {
			t.Error(diff, r.states())
		}
	})
	t.Run("failures are retried and counted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{Attempts: 3})
		inbox.HandleSlow(r.Inbox, func(ctx context.Context, e event.Event[step]) (inbox.Done, error) { return nil, errOops })
		r.steps("a", 1, 1)
		r.run()
		r.poll(0)
		r.until("it is dead", func() bool { return r.states()["a"] == "dead" })
		if got := r.count(`select attempts from waiting_event`); got != 3 {
			t.Errorf("%d attempts, want 3", got)
		}
	})
}

func TestClean_keeps_old_batches_out(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Clean: 5 * time.Millisecond}).handlers()
	r.steps("a", 1, 10)
	r.steps("a", 1, 1) // a twin at position 10 keeps its row
	zombie := r.batch(0, 0)
	r.run()
	if err := r.Process(t.Context(), r.batch(0, 8)); err != nil {
		t.Fatal(err)
	}
	r.until("rows below the log start are gone", func() bool { return r.count(`select count(*) from inbox`) == 3 })
	if got := r.count(`select position from inbox_mark`); got != 8 {
		t.Errorf("mark %d, want 8", got)
	}
	if err := r.Process(t.Context(), zombie); err != nil {
		t.Fatal(err)
	}
	if got := len(r.done()); got != 10 {
		t.Errorf("%d effects, want 10", got)
	}
}

// What nobody handles leaves no row, and is remembered all the same, at the latest at the end.
func TestReached(t *testing.T) {
	t.Parallel()
	schemaID, err := embedded.SchemaID(otherSchema)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, inbox.Config{}).handlers()
	reached := func(want int64) {
		t.Helper()
		got, err := r.Reached(t.Context(), "steps", [16]byte{9}, 0)
		if err != nil || got != want {
			t.Errorf("reached %d, %v; want %d", got, err, want)
		}
	}
	reached(0)
	r.steps("a", 1, 10)
	r.poll(0)
	reached(10)
	r.raw(event.Record{Key: []byte("k"), Value: append(binary.BigEndian.AppendUint32([]byte{0}, uint32(schemaID)), 2)})
	r.poll(10)
	stop := r.run()
	stop()
	reached(11)
	if err := r.Rewind(t.Context(), "steps", [16]byte{9}, 0, 4); err != nil {
		t.Fatal(err)
	}
	if got := r.count(`select taken from inbox_mark`); got != 4 {
		t.Errorf("taken is %d after a rewind to 4", got)
	}
}

// A log that was cut below the mark, by a disk that was lost or an unclean election, gives
// offsets out again: those records are no old ones.
func TestRewind_lets_new_records_at_old_offsets_in(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Clean: 5 * time.Millisecond}).handlers()
	r.steps("a", 1, 10)
	r.run()
	whole := r.batch(0, 8)
	if err := r.Process(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	r.until("the mark is raised", func() bool { return r.count(`select coalesce(max(position), 0) from inbox_mark`) == 8 })
	r.steps("b", 1, 3)
	anew := r.batch(10, 0)
	for i := range anew.Records {
		anew.Records[i].Offset = int64(5 + i)
	}
	if err := r.Rewind(t.Context(), anew.Topic, anew.TopicID, anew.Partition, 5); err != nil {
		t.Fatal(err)
	}
	if err := r.Process(t.Context(), anew); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b1", "b2", "b3"}, of(r.done(), "b")); diff != "" {
		t.Error(diff)
	}
	if err := r.Rewind(t.Context(), anew.Topic, anew.TopicID, anew.Partition, 7); err != nil {
		t.Fatal(err)
	}
	if got := r.count(`select position from inbox_mark`); got != 5 {
		t.Errorf("the mark went up to %d again", got)
	}
}

func TestRegister_twice_panics(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	defer func() {
		if recover() == nil {
			t.Error("the second handler of a type was taken")
		}
	}()
	inbox.Handle(r.Inbox, r.onStep)
}
