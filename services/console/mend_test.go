package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/keyline/services/console"
)

// become lets a waiting event of a stand be something else once it was redriven; empty: it is
// done.
func (s *stand) become(id, event string) {
	s.on = map[string]func(*stand){"POST /admin/waiting/" + id + "/redrive": func(s *stand) {
		if s.answers["GET /admin/waiting/"+id] = event; event == "" {
			delete(s.answers, "GET /admin/waiting/"+id)
		}
	}}
}

func TestRun_redriveTellsTheOutcome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, then string
		code       int
		words      []string
	}{
		{"done", "", 0, []string{"redriven: 1 of 1", "email/17 is done"}},
		{"failed again", `{"id": 17, "state": "dead", "error": "550 no such user"}`, 1, []string{"email/17 failed again: 550 no such user", "1 of 1 failed again: email/17\n", "next: console waiting show email/17"}},
		{"held with its type", `{"id": 17, "state": "unavailable", "held": "shop.order.OrderPlaced is held: no route"}`, 1,
			[]string{"email/17 still waits: shop.order.OrderPlaced is held: no route", "1 of 1 still waits: email/17\n"}},
		{"tried again by itself", `{"id": 17, "state": "retrying", "attempts": 1, "error": "450 busy"}`, 1, []string{"email/17 still waits: retrying after 1 attempt: 450 busy"}},
		{"not tried yet", `{"id": 17, "state": "retrying", "error": "that of before"}`, 1, []string{"email/17 still waits: retrying\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, map[string]string{"GET /admin/waiting/17": `{"id": 17, "state": "dead"}`, "POST /admin/waiting/17/redrive": `{"id": 17, "new_id": 17}`})
			s.become("17", tt.then)
			run(t, admin(map[string]*stand{"email": s}), "redrive", "email/17", "--yes", "--wait", "150ms").want(t, tt.code, tt.words...)
		})
	}

	t.Run("one that was set aside has another ID then", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{
			"GET /admin/waiting/17": `{"id": 17, "state": "set aside", "reason": "undecodable"}`, "POST /admin/waiting/17/redrive": `{"id": 17, "new_id": 23}`,
			"GET /admin/waiting/23": `{"id": 23, "state": "set aside", "error": "no such bytes"}`,
		})
		run(t, admin(map[string]*stand{"email": s}), "redrive", "email/17", "--yes").want(t, 1,
			"1 event cannot be decoded: another run does not make bytes readable", "email/23 (was email/17) failed again: no such bytes", "1 of 1 failed again: email/23\n", "next: console waiting show email/23\n")
	})

	t.Run("with a key, and as JSON", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{
			"POST /admin/waiting/redrive": `{"matched": 2, "redriven": 1, "refused": ["18: running"], "items": [{"id": 17, "new_id": 17}, {"id": 18}]}`,
		})
		var done struct {
			Matched, Redriven int
			Items             []struct{ ID, Outcome string }
			Errors            []struct{ Text string }
		}
		a := run(t, admin(map[string]*stand{"email": s}), "redrive", "--key", "k", "--yes", "--json")
		if err := json.Unmarshal([]byte(a.out), &done); err != nil || a.code != 1 || len(done.Items) != 1 || done.Items[0].Outcome != "done" || len(done.Errors) != 1 {
			t.Errorf("%v, exit code %d, %+v, want email/17 done and email/18 refused", err, a.code, done)
		}
	})

	t.Run("an ID that is unknown keeps none of the others from it", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{"GET /admin/waiting/17": `{"id": 17, "state": "dead"}`, "POST /admin/waiting/17/redrive": `{"id": 17, "new_id": 17}`})
		s.become("17", "")
		a := run(t, admin(map[string]*stand{"email": s}), "redrive", "email/9999", "email/17", "email/17", "--yes")
		a.want(t, 3, "redriven: 1 of 2", "email/17 is done", "email/9999: it does not wait")
	})
}

// What a command proposes has all flags that were typed.
func TestRun_proposalsKeepTheFlags(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, line, answer, want string
		code                     int
	}{
		{"redrive that has only shown", "redrive --key 'o 1' --force --rate 5", `{"matched": 1, "items": [{"id": 17}]}`, "run 1 event again:  console redrive --force --key 'o 1' --rate 5 --yes\n", 0},
		{"redrive as fast as nobody is", "redrive --all --rate 1e9", `{"matched": 1, "items": [{"id": 17}]}`, "console redrive --all --rate 1000000000 --yes\n", 0},
		{"redrive of what wants force", "redrive --all", `{"matched": 1, "items": [{"id": 17, "state": "dead", "needs_force": true, "redrives": 11}]}`,
			"if the cause is mended:  console redrive email/17 --force --yes\n", 0},
		{"redrive that was refused", "redrive --all --yes --rate 7", `{"matched": 1, "items": [{"id": 17}], "refused": ["17: redriven 10 times before: only with force"]}`,
			"next: console redrive email/17 --force --yes\n", 1},
		{"pages of a list", "waiting ls --each --limit 1 --state dead --error '5 1'", `{"items": [{"id": 17}], "next": "17"}`,
			"more of email:  console waiting ls --after email/17 --each --error '5 1' --limit 1 --service email --state dead\n", 0},
		{"replay that has only shown", "replay email orders --from 2h --key 'o 1' --type OrderPlaced", `{"matched": {"shop.order.OrderPlaced": 2}, "done": true}`,
			"let email handle 2 events again:  console replay email orders --from 2h --key 'o 1' --type shop.order.OrderPlaced --yes\n", 0},
		{"drop that has only shown", "drop --key 'o 1'", `{"items": [{"id": 17}]}`, "remove 1 event for good:  console drop email/17 --why '...' --yes\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, map[string]string{"POST /admin/waiting/redrive": tt.answer, "GET /admin/waiting": tt.answer, "POST /admin/replay": tt.answer})
			run(t, admin(map[string]*stand{"email": s}), words(tt.line)...).want(t, tt.code, tt.want)
		})
	}
}

// Ctrl-C lets the request in hand be finished, so that its outcome is known, and says how to
// go on.
func TestRun_interrupted(t *testing.T) {
	t.Parallel()
	interrupted := func(t *testing.T, path, answer, line string) typed {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := newStand(t, map[string]string{"POST " + path: answer})
		s.on = map[string]func(*stand){"POST " + path: func(s *stand) {
			if strings.Contains(s.asked[len(s.asked)-1], `"dry_run":false`) {
				cancel()
			}
		}}
		return runWith(ctx, console.Config{Environ: admin(map[string]*stand{"email": s}), Dir: t.TempDir()}, words(line)...)
	}

	t.Run("a redrive", func(t *testing.T) {
		t.Parallel()
		const page = `{"matched": 3, "redriven": 1, "items": [{"id": 17, "new_id": 17}]}`
		interrupted(t, "/admin/waiting/redrive", page, "redrive --all --force --rate 9 --yes").want(t, 1,
			"redriven: 1 of 3", "stopped after 1: interrupted", "next: console redrive --after email/17 --all --force --rate 9 --yes\n")
	})

	t.Run("a replay", func(t *testing.T) {
		t.Parallel()
		const part = `{"scanned": 5, "queued": 1, "matched": {"shop.order.OrderPlaced": 1}, "next": {"0": 7, "1": 9}, "done": false}`
		interrupted(t, "/admin/replay", part, "replay email orders --from 2h --until 2100-01-01 --key 'o 1' --yes").want(t, 1,
			"stopped after 1 event: interrupted", "next: console replay email orders/0@7 orders/1@9 --key 'o 1' --until 2100-01-01T00:00:00Z --yes\n")
	})
}

// The exit code of a replay that queues nothing is the same with and without --yes.
func TestRun_replayOfNothing(t *testing.T) {
	t.Parallel()
	const refused = `{"scanned": 2, "matched": {"X": 2}, "refused": {"X": "not declared Repeatable"}, "done": true}`
	s := newStand(t, map[string]string{"POST /admin/replay": refused})
	environ := admin(map[string]*stand{"email": s})
	for _, with := range []string{"", " --yes", " --json", " --yes --json"} {
		a := run(t, environ, words("replay email orders --from 1h"+with)...)
		a.want(t, 1, "nothing of this can be replayed", "not declared Repeatable")
		if strings.Contains(a.out, "queued: 0") {
			t.Errorf("replay%s proposes more:\n%s", with, a.out)
		}
	}
	s.answers["POST /admin/replay"] = `{"scanned": 2, "matched": {"X": 2}, "queued": 0, "done": true}`
	run(t, environ, words("replay email orders --from 1h --yes")...).want(t, 1, "email has not had these yet", "next: console lag email")
}

// Records that cannot be read are left out of a replay, which says so.
func TestRun_replayLeavesOut(t *testing.T) {
	t.Parallel()
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{
		"POST /admin/replay": `{"scanned": 2, "matched": {"X": 2}, "queued": 2, "done": true, "next": {"3": 9}, "unreadable": [{"partition": 3, "from": 5, "to": 7, "error": "too large"}]}`,
	})})
	const told = "orders/3 cannot be read from 5 to 6, and is read on from orders/3@7: too large"
	run(t, environ, words("replay email orders --from 1h")...).want(t, 1, told, "next: console lag --behind", "let email handle 2 events again:  console replay email orders --from 1h --yes")
	run(t, environ, words("replay email orders --from 1h --yes")...).want(t, 1, told, "queued: 2")
	var done struct {
		Queued     int
		Unreadable []struct{ To int }
	}
	if a := run(t, environ, words("replay email orders --from 1h --yes --json")...); json.Unmarshal([]byte(a.out), &done) != nil || done.Queued != 2 || len(done.Unreadable) != 1 || done.Unreadable[0].To != 7 {
		t.Errorf("got %s, want what is left out", a.out)
	}
}

func TestRun_drop(t *testing.T) {
	t.Parallel()
	post := func(s *stand) (all []string) {
		for _, asked := range s.requests() {
			if strings.HasPrefix(asked, "POST") {
				all = append(all, asked)
			}
		}
		return all
	}
	one := func(t *testing.T, state string) (*stand, map[string]string) {
		s := newStand(t, map[string]string{"GET /admin/waiting/17": `{"id": 17, "state": "` + state + `", "topic": "orders"}`, "POST /admin/waiting/17/drop": `{}`})
		return s, admin(map[string]*stand{"email": s})
	}

	t.Run("of one event shows it first; --reason and --why are the same for one", func(t *testing.T) {
		t.Parallel()
		for _, flag := range []string{"--reason", "--why"} {
			s, environ := one(t, "dead")
			run(t, environ, "drop", "email/17", flag, "customer was called").want(t, 0, "remove 1 event for good:  console drop email/17 --why 'customer was called' --yes\n")
			if n := len(post(s)); n != 0 {
				t.Errorf("%d requests that change something", n)
			}
			run(t, environ, "drop", "email/17", flag, "customer was called", "--yes").want(t, 0, "dropped email/17: (unreadable) at orders/0@0")
			if want := []string{`POST /admin/waiting/17/drop {"reason":"customer was called"}`}; !slices.Equal(post(s), want) {
				t.Errorf("asked %q, want %q", post(s), want)
			}
		}
	})

	t.Run("as it is proposed, with no reason in its place, is refused", func(t *testing.T) {
		t.Parallel()
		s, environ := one(t, "dead")
		a := run(t, environ, "waiting", "show", "email/17")
		a.want(t, 0, "console drop email/17 --why '...' --yes\n")
		run(t, environ, "drop", "email/17").want(t, 0, "console drop email/17 --why '...' --yes\n")
		run(t, environ, "drop", "email/17", "--why", "...", "--yes").want(t, 2, "say in its place why", "next: console drop email/17 --why '...' --yes\n")
		if n := len(post(s)); n != 0 {
			t.Errorf("%d requests that change something", n)
		}
	})

	t.Run("of an event that may recover says so", func(t *testing.T) {
		t.Parallel()
		_, environ := one(t, "unavailable")
		run(t, environ, "drop", "email/17", "--why", "x").want(t, 0, "email/17 is unavailable, and may be done yet", "console drop email/17 --why x --yes")
		run(t, environ, "drop", "email/17", "--why", "x", "--yes").want(t, 0, "dropped email/17")
	})

	t.Run("of a key proposes IDs, so that a second time does not mean the key's next event", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{
			"GET /admin/waiting": `{"items": [{"id": 17, "state": "dead", "event_id": "order-1"}, {"id": 18, "state": "dead", "event_id": "order-2"}]}`, "POST /admin/waiting/17/drop": `{}`, "POST /admin/waiting/18/drop": `{}`,
		})
		environ := admin(map[string]*stand{"email": s})
		run(t, environ, "drop", "--key", "k").want(t, 0, "console drop email/17 email/18 --why '...' --yes\n")
		run(t, environ, "drop", "--key", "k", "--why", "x", "--yes").want(t, 0, "dropped email/17: ", "event order-1\n", "event order-2\n", "dropped: 2 of 2")
		run(t, environ, "drop", "email/17", "email/18", "--why", "x", "--yes").want(t, 3, "email/17: it does not wait")
		run(t, nil, "drop", "--help").want(t, 0, "may die as well, and then matches the same")
	})

	t.Run("of an event behind another is not done, though the other goes", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{
			"GET /admin/waiting":    `{"items": [{"id": 17, "state": "dead", "key": "k"}, {"id": 18, "state": "behind", "key": "k"}]}`,
			"GET /admin/waiting/17": `{"id": 17, "state": "dead", "key": "k"}`, "GET /admin/waiting/18": `{"id": 18, "state": "behind", "key": "k"}`,
			"POST /admin/waiting/17/drop": `{}`, "POST /admin/waiting/18/drop": `{}`,
		})
		environ := admin(map[string]*stand{"email": s})
		run(t, environ, "drop", "email/17", "email/18").want(t, 0, "email/17 of its key comes first", "remove 1 event for good:  console drop email/17 --why '...' --yes\n")
		run(t, environ, "drop", "email/17", "email/18", "--why", "x", "--yes").want(t, 1, "dropped email/17: ", "email/18 is not dropped: email/17 of its key comes first")
		if want := []string{`POST /admin/waiting/17/drop {"reason":"x"}`}; !slices.Equal(post(s), want) {
			t.Errorf("asked %q, want %q", post(s), want)
		}
	})

	t.Run("of a filter shows first, takes dead letters, and goes on behind one that is refused", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{
			"GET /admin/waiting": `{"items": [{"id": 17, "state": "dead"}, {"id": 18, "state": "dead"}]}`, "POST /admin/waiting/18/drop": `{}`,
		})
		environ := admin(map[string]*stand{"email": s})
		run(t, environ, "drop", "--reason", "permanent").want(t, 0, "email/17", "email/18", "nothing is done yet")
		a := run(t, environ, "drop", "--reason", "permanent", "--why", "x", "--yes")
		a.want(t, 3, "dropped email/18: ", "dropped: 1 of 2", "email/17: it does not wait")
		if strings.Contains(a.out, "dropped email/17") {
			t.Errorf("email/17 is told as dropped:\n%s", a.out)
		}
		if asked := s.requests()[0]; asked != "GET /admin/waiting?after=0&limit=1000&reason=permanent&state=dead" {
			t.Errorf("asked %s", asked)
		}
		if want := []string{`POST /admin/waiting/17/drop {"reason":"x"}`, `POST /admin/waiting/18/drop {"reason":"x"}`}; !slices.Equal(post(s), want) {
			t.Errorf("asked %q, want %q", post(s), want)
		}
	})
}

// What another producer's transaction holds up is told, and nothing is skipped.
func TestRun_skipOfAnOpenTransaction(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"GET /admin/partitions": `{"group": "email", "items": [
		{"topic": "orders", "partition": 3, "position": 5, "log_end": 9, "stopped": "open_transaction", "error": "open since noon; end it: abort --start-offset 5"}]}`})
	environ := admin(map[string]*stand{"email": s})
	run(t, environ, "skip").want(t, 0, "open_transaction", "email/orders/3: nothing is to be skipped", "abort --start-offset 5")
	run(t, environ, "skip", "email/orders/3", "--yes").want(t, 1, "nothing is to be skipped", "abort --start-offset 5")
}

// A refusal names the event that is in the way, and force is proposed for those only that
// were refused for want of it.
func TestRun_refused(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{
		"POST /admin/waiting/redrive": `{"matched": 9, "redriven": 7, "items": [{"id": 17}], "refused": ["17: redriven 10 times before: only with force", "18: event 6 of the key comes first: only the head"]}`,
		"GET /admin/waiting/18":       `{"id": 18, "state": "behind"}`, "POST /admin/waiting/18/redrive": `{"status": 409, "detail": "event 6 of the key comes first: only the head"}`,
	})
	s.status["POST /admin/waiting/18/redrive"] = http.StatusConflict
	environ := admin(map[string]*stand{"email": s})
	run(t, environ, "redrive", "--all", "--yes").want(t, 1, "email/6 of its key comes first", "2 of 9 events were refused: email/17, email/18", "next: console redrive email/17 --force --yes\n")
	run(t, environ, "redrive", "email/18", "--yes").want(t, 1, "email/18 was refused: email/6 of its key comes first\n", "next: console waiting show email/6\n")
	var done struct{ Refused []struct{ ID, Behind string } }
	if a := run(t, environ, "redrive", "--all", "--yes", "--json"); json.Unmarshal([]byte(a.out), &done) != nil || len(done.Refused) != 2 || done.Refused[1].Behind != "email/6" {
		t.Errorf("got %s, want what email/18 is behind", a.out)
	}
	run(t, admin(map[string]*stand{"email": newStand(t, map[string]string{"POST /admin/waiting/redrive": `{}`})}), "redrive", "--key", "o 1").want(t, 3,
		"no dead event waits that matches; --state takes others", "next: console waiting ls --each --key 'o 1'\n")
}

// A topic that was made anew is read again as a whole once one of its partitions is told to.
func TestRun_skipOfATopicThatWasMadeAnew(t *testing.T) {
	t.Parallel()
	const stopped = `{"group": "g", "items": [
		{"topic": "orders", "partition": 0, "position": 5, "stopped": "topic_recreated", "skip_to": 0}, {"topic": "orders", "partition": 1, "position": 7, "stopped": "topic_recreated", "skip_to": 0}]}`
	s := newStand(t, map[string]string{"GET /admin/partitions": stopped, "POST /admin/partitions/skip": `{}`})
	environ := admin(map[string]*stand{"email": s})
	run(t, environ, "skip", "--yes").want(t, 0, "email/orders/0 goes on at 0", "email/orders/1 goes on at 0")
	run(t, environ, "skip", "email/orders/1", "--yes").want(t, 0, "email/orders/1 goes on at 0", "orders was made anew: with one partition of it all go on")
	if n := len(s.requests()); n != 4 {
		t.Errorf("%d requests, want to look and to skip, twice: %q", n, s.requests())
	}

	// It has gone on between the look and the request.
	s.status["POST /admin/partitions/skip"] = http.StatusConflict
	s.on = map[string]func(*stand){"POST /admin/partitions/skip": func(s *stand) { s.answers["GET /admin/partitions"] = `{}` }}
	run(t, environ, "skip", "--yes").want(t, 0, "email/orders/0 goes on at 0")

	s.answers["GET /admin/partitions"] = `{"items": [{"topic": "orders", "position": 5, "log_start": -1, "log_end": -1, "stopped": "topic_recreated"}]}`
	a := run(t, environ, "skip")
	a.want(t, 0, "topic orders does not exist; make it:  console provision", "missing")
	if strings.Contains(a.out, "-1") || strings.Contains(a.out, "?") {
		t.Errorf("what is not known is shown as a number:\n%s", a.out)
	}
	run(t, environ, "skip", "--yes").want(t, 1, "next: console provision")
	var list struct{ DryRun bool }
	if a := run(t, environ, "skip", "--json"); json.Unmarshal([]byte(a.out), &list) != nil || !strings.Contains(a.out, `"dry_run": true`) {
		t.Errorf("got %s, want a dry run", a.out)
	}
	if a := run(t, environ, "skip", "--yes", "--json"); !strings.Contains(a.out, `"dry_run": false`) {
		t.Errorf("got %s, want no dry run", a.out)
	}
}

func TestRun_show(t *testing.T) {
	t.Parallel()
	event := map[string]any{
		"id": 17, "state": "dead", "topic": "orders", "key": `"\xff"`, "redrives": 1, "needs_force": true, "error": "oops",
		"value_bytes": 300, "undecoded": "no magic byte", "value": bytes.Repeat([]byte("shop"), 75),
	}
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{"GET /admin/waiting/17": jsonText(t, event), "GET /admin/waiting": `{"items": []}`})})
	run(t, environ, "waiting", "show", "email/17").want(t, 0, "the value, 300 bytes, cannot be decoded: no magic byte", "console waiting show email/17 --unmask",
		`"\xff"`, "redriven 1 time\n", "console redrive email/17 --force --yes")
	a := run(t, environ, "waiting", "show", "email/17", "--unmask")
	a.want(t, 0, "00000000  73 68 6f 70", "|shopshopshopshop|", "000000f0", "…and 44 bytes more")
	if strings.Contains(a.out, "00000100") {
		t.Errorf("more than 256 bytes are shown:\n%s", a.out)
	}
	var shown struct{ Value []byte }
	if a := run(t, environ, "waiting", "show", "email/17", "--unmask", "--json"); json.Unmarshal([]byte(a.out), &shown) != nil || len(shown.Value) != 300 {
		t.Errorf("the value has %d bytes in JSON, want 300", len(shown.Value))
	}
}

// What is held with its type has the type's error where it has none of its own.
func TestRun_held(t *testing.T) {
	t.Parallel()
	const held = `"type": "shop.order.OrderPlaced", "held": "shop.order.OrderPlaced is held: no route"`
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{
		"GET /admin/waiting/summary":  `{"items": [{"state": "unavailable", "count": 3, "example": 17, ` + held + `}]}`,
		"GET /admin/waiting":          `{"items": [{"id": 17, "state": "behind", ` + held + `}]}`,
		"POST /admin/waiting/redrive": `{"matched": 1, "items": [{"id": 17, "state": "dead", "error": "550", ` + held + `}]}`,
	})})
	run(t, environ, "waiting", "ls").want(t, 0, "shop.order.OrderPlaced is held: no route")
	run(t, environ, "waiting", "ls", "--each").want(t, 0, "shop.order.OrderPlaced is held: no route")
	run(t, environ, "redrive", "--all").want(t, 0, "console: shop.order.OrderPlaced is held: no route; what is redriven is tried next, and the others go on once it works")
}

// A dry run says what would be refused.
func TestRun_wouldBeRefused(t *testing.T) {
	t.Parallel()
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{
		"GET /admin/waiting/17": `{"id": 17, "state": "dead", "redrives": 10, "needs_force": true}`, "GET /admin/waiting/18": `{"id": 18, "state": "behind", "key": "k"}`,
		"GET /admin/waiting/19": `{"id": 19, "state": "dead"}`, "GET /admin/waiting": `{"items": [{"id": 2, "state": "set aside"}, {"id": 3, "state": "dead"}, {"id": 18, "state": "behind"}]}`,
	})})
	run(t, environ, "redrive", "email/17").want(t, 0, "redriven 10 times before: only with --force", "console redrive email/17 --force --yes")
	run(t, environ, "redrive", "email/17", "--force").want(t, 0, "run 1 event again:  console redrive email/17 --force --yes")
	run(t, environ, "redrive", "email/18").want(t, 1, "nothing of this can be redriven now: email/18: email/3 of its key comes first", "next: console waiting show email/3\n")
	run(t, environ, "drop", "email/18").want(t, 1, "nothing of this can be dropped now: email/18: email/3 of its key comes first", "next: console waiting show email/3\n")
	run(t, environ, "redrive", "email/18", "email/19").want(t, 0, "run 1 event again:  console redrive email/18 email/19 --yes")
}

func TestRun_callsTheProgramAsItWasCalled(t *testing.T) {
	t.Parallel()
	for arg0, want := range map[string]string{
		"bin/console": "bin/console", "console": "console", "/my shop/console": "'/my shop/console'",
		"/tmp/go-build123/b001/exe/console": "go run ./services/console/cmd/console",
	} {
		if got := console.CalledAs(arg0); got != want {
			t.Errorf("CalledAs(%q): got %s, want %s", arg0, got, want)
		}
	}
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{
		"GET /admin/waiting/17": `{"id": 17, "state": "dead", "error": "console redrive"}`, "POST /admin/waiting/redrive": `{"matched": 1, "items": [{"id": 17}]}`})})
	for line, want := range map[string]string{
		"--help": "\n  bin/console redrive email/17 --yes", "redrive --help": "usage: bin/console redrive [ID...] [flags]", "tail --help": "\n  bin/console tail --follow\n",
		"redrvie": "next: bin/console redrive --help", "waiting show email/17": "it again:  bin/console redrive email/17 --yes",
		"redrive --error 'the console lag'": "again:  bin/console redrive --error 'the console lag' --yes\n",
	} {
		a := runWith(t.Context(), console.Config{Environ: environ, Dir: t.TempDir(), Name: "bin/console"}, words(line)...)
		if all := a.out + a.errs; !strings.Contains(all, want) {
			t.Errorf("%s: %q is missing in\n%s", line, want, all)
		}
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestRun_whatCannotBeToldIsAnError(t *testing.T) {
	t.Parallel()
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{"GET /admin/outbox": `{"pending": 1}`})})
	var errs bytes.Buffer
	code := console.Run(t.Context(), console.Config{Environ: environ, Dir: t.TempDir()}, []string{"outbox"}, fullDisk{}, &errs)
	if code != 1 || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("exit code %d, %q, want 1 and why", code, errs.String())
	}
}

// With --json there is always JSON, in one shape where there is no other answer.
func TestRun_errorsAsJSON(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	environ := admin(map[string]*stand{"email": s})
	for line, code := range map[string]int{
		"waiting show email/17": 3, "drop email/17 --why x --yes": 3, "redrive email/17": 3, "tail": 1, "skip email": 2, "waiting ls --jsn": 2, "xylophone": 2,
	} {
		var only struct {
			Error, Next string
			Errors      []struct{ Text string }
		}
		a := run(t, environ, words(line+" --json")...)
		if err := json.Unmarshal([]byte(a.out), &only); err != nil || a.code != code || (only.Error == "") == (len(only.Errors) == 0) {
			t.Errorf("%s: %v, exit code %d, %s, want %d and an error", line, err, a.code, a.out, code)
		}
	}
}

// In a pipe nothing of an error is cut.
func TestRun_longErrors(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("0123456789", 60)
	s := newStand(t, map[string]string{
		"GET /admin/waiting/summary": `{"items": [{"error": "` + long + `", "example": 17, "count": 1}]}`, "GET /admin/waiting": `{"items": [{"id": 17, "error": "` + long + `"}]}`,
	})
	for _, line := range []string{"waiting ls", "waiting ls --each"} {
		run(t, admin(map[string]*stand{"email": s}), words(line)...).want(t, 0, long)
	}
}

// A topic that the brokers do not have is to be made.
func TestRun_outboxOfATopicThatIsMissing(t *testing.T) {
	t.Parallel()
	s := newStand(t, map[string]string{"GET /admin/outbox": `{"pending": 3, "held": [{"topic": "orders", "error": "UNKNOWN_TOPIC_OR_PARTITION: no such topic"}]}`})
	run(t, admin(map[string]*stand{"order": s}), "outbox").want(t, 1, "all of orders", "nothing is published to orders", "next: console provision\n")
}

func TestRun_helpOfJSON(t *testing.T) {
	t.Parallel()
	a := run(t, nil, "help", "json")
	a.want(t, 0, `{"items": [EVENT]`, `"errors"`)
	for _, c := range commands {
		if !strings.Contains(a.out, "\n  "+c+" ") {
			t.Errorf("%s is not told of", c)
		}
	}
}
