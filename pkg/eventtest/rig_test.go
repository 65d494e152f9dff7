package eventtest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"example.com/keyline/pkg/eventtest"
)

func newRig(t *testing.T) *eventtest.Rig {
	t.Helper()
	return eventtest.New(t, contract, eventtest.NewService("shelf", Run))
}

func count(r *eventtest.Rig, query string) (n int) {
	r.Helper()
	if err := r.DB.QueryRow(r.Context(), query).Scan(&n); err != nil {
		r.Fatal(err)
	}
	return n
}

func TestRig(t *testing.T) {
	t.Parallel()
	t.Run("events of ours and of others are taken, and what follows is read by key", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.Start()
		mine := r.Event("/door", Moved{"tea", 5})
		r.Publish(mine, r.Foreign(Moved{"tea", 2}), r.Event("/door", Moved{"cup", 1}))
		told := eventtest.Await[Counted](r, "tea", 2)
		if len(told) != 2 || told[0].Data.Pieces != 5 || told[1].Data.Pieces != 7 || told[1].Meta.Version != 2 || told[1].Meta.Source != "/shelf" {
			t.Errorf("got %+v, want 5 and then 7 pieces of tea", told)
		}
		if id := string(mine.Header("ce_id")); told[0].Meta.CausationID != id {
			t.Errorf("the first was caused by %q, want %q", told[0].Meta.CausationID, id)
		}
		r.Settle()
		if all := eventtest.Await[Counted](r, "", 3); len(all) != 3 {
			t.Errorf("%d events of all keys, want 3", len(all))
		}
	})
	t.Run("what the rig makes has the same IDs in every rig, and versions by key", func(t *testing.T) {
		t.Parallel()
		a, b := newRig(t), newRig(t)
		for i, want := range []string{"1", "1", "2"} {
			m := Moved{[]string{"tea", "cup", "tea"}[i], 1}
			one, other := a.Event("/door", m), b.Event("/door", m)
			if id := string(one.Header("ce_id")); id == "" || id != string(other.Header("ce_id")) {
				t.Errorf("event %d has ID %q in one rig and %q in the other", i, id, other.Header("ce_id"))
			}
			if got := string(one.Header("ce_aggregateversion")); got != want {
				t.Errorf("event %d has version %s, want %s", i, got, want)
			}
		}
	})
	t.Run("the operator's routes answer", func(t *testing.T) {
		t.Parallel()
		res, err := http.Get(newRig(t).Start().AdminURL + "/admin/waiting")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), `"items"`) {
			t.Errorf("GET /admin/waiting = %s %s, %v", res.Status, body, err)
		}
	})
	t.Run("a stop is clean, and another replica goes on", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		first := r.Start()
		r.Publish(r.Event("/door", Moved{"tea", 5}))
		r.Settle()
		first.Stop()
		r.Start()
		r.Publish(r.Event("/door", Moved{"tea", 5}))
		if told := eventtest.Await[Counted](r, "tea", 2); told[1].Data.Pieces != 10 {
			t.Errorf("got %+v, want 10 pieces at last", told)
		}
	})
}

// A kill at each point leaves undone what it should, and no more.
func TestReplica_kill(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		point   string
		effects int
		offset  bool // may be committed
		want    func(*eventtest.Rig) bool
		so      string
	}{
		{eventtest.BeforeCommit, 0, false, func(r *eventtest.Rig) bool { return len(eventtest.Await[Counted](r, "", 0)) == 0 }, "nothing is published"},
		{eventtest.BeforeOffset, 1, false, func(*eventtest.Rig) bool { return true }, ""}, // the relay may be faster, or not
		{eventtest.AfterPublish, 1, true, func(r *eventtest.Rig) bool {
			return len(eventtest.Await[Counted](r, "", 1)) == 1 && count(r, `select count(*) from outbox`) == 1
		}, "the event is published and still in the outbox"},
	} {
		t.Run(tt.point, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			p := r.Start()
			p.KillAt(tt.point)
			r.Publish(r.Event("/door", Moved{"tea", 5}))
			eventtest.Until(r, "it is killed", p.Killed)
			p.Stop() // returns when the last of its goroutines has
			if got := count(r, `select count(*) from shelf`); got != tt.effects {
				t.Errorf("%d effects, want %d", got, tt.effects)
			}
			if got := count(r, `select count(*) from inbox`); got != tt.effects {
				t.Errorf("%d events are taken, want %d", got, tt.effects)
			}
			if committed := r.Kafka.Cluster().GroupInfo("shelf").Commits["moves"]; len(committed) > 0 && !tt.offset {
				t.Errorf("offsets %v are committed, want none", committed)
			}
			if !tt.want(r) {
				t.Errorf("want that %s", tt.so)
			}
		})
	}
}
