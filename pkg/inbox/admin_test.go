package inbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// desk is an operator at the routes of an inbox.
type desk struct {
	*rig
	handler http.Handler
}

func (d desk) call(method, path, body string) (int, map[string]any) {
	d.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	rec := httptest.NewRecorder()
	d.handler.ServeHTTP(rec, req)
	var answer map[string]any
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		d.Fatalf("%s %s: %v in %q", method, path, err, rec.Body)
	}
	return rec.Code, answer
}

func (d desk) list(query string) (items []map[string]any) {
	d.Helper()
	status, page := d.call("GET", "/admin/waiting"+query, "")
	if status != http.StatusOK {
		d.Fatalf("list: %d %v", status, page)
	}
	for _, i := range page["items"].([]any) {
		items = append(items, i.(map[string]any))
	}
	return items
}

// deadKey is a rig whose key a is dead with two events behind the head, while b is done.
func deadKey(t *testing.T) desk {
	r := newRig(t, inbox.Config{}).handlers()
	r.setFail("a1", inbox.Permanent(errOops))
	r.steps("a", 1, 3)
	r.steps("b", 1, 1)
	r.poll(0)
	return desk{r, r.Routes()}
}

func id(item map[string]any) string { return fmt.Sprintf("%.0f", item["id"]) }

func TestRoutes_list_and_show(t *testing.T) {
	t.Parallel()
	d := deadKey(t)
	var states []string
	for _, i := range d.list("") {
		states = append(states, fmt.Sprint(i["state"], " ", i["event_id"]))
	}
	if diff := cmp.Diff(states, []string{"dead a-1", "behind a-2", "behind a-3"}); diff != "" {
		t.Error(diff)
	}
	for query, want := range map[string]int{
		"?state=dead": 1, "?state=behind": 2, "?key=a": 3, "?key=b": 0, "?topic=steps": 3, "?topic=x": 0, "?reason=permanent": 1, "?type=test.Step": 3, "?limit=2": 2,
		"?error=OOP": 1, "?error=o%25s": 0, "?error=_ops": 0,
	} {
		if got := len(d.list(query)); got != want {
			t.Errorf("%s lists %d, want %d", query, got, want)
		}
	}
	head := d.list("?state=dead")[0]
	status, shown := d.call("GET", "/admin/waiting/"+id(head), "")
	if status != http.StatusOK || shown["error"] != "oops" || shown["reason"] != "permanent" || shown["trace_id"] != "01000000000000000000000000000000" {
		t.Errorf("show: %d %v", status, shown)
	}
	payload := fmt.Sprint(shown["event"])
	if !strings.Contains(payload, "n:1") || strings.Contains(payload, "agg:a") {
		t.Errorf("event %s, want n as it is and agg, which is personal, masked", payload)
	}
	if _, shown := d.call("GET", "/admin/waiting/"+id(head)+"?unmask=true", ""); !strings.Contains(fmt.Sprint(shown["event"]), "agg:a") {
		t.Errorf("event %v, want agg as it is when asked for", shown["event"])
	}
	for path, want := range map[string]int{"/admin/waiting/999999": 404, "/admin/waiting/x": 400, "/admin/waiting?limit=0": 400, "/admin/waiting?after=x": 400} {
		if status, answer := d.call("GET", path, ""); status != want || answer["detail"] == "" {
			t.Errorf("GET %s = %d %v, want %d", path, status, answer, want)
		}
	}
}

func TestRedrive_reaches_this_group_in_order_with_the_original_ID(t *testing.T) {
	t.Parallel()
	d := deadKey(t)
	all := d.list("")
	if status, answer := d.call("POST", "/admin/waiting/"+id(all[1])+"/redrive", ""); status != http.StatusConflict {
		t.Errorf("redrive behind the head: %d %v, want 409", status, answer)
	}
	d.steps("a", 4, 4) // arrives meanwhile
	d.poll(4)
	d.setFail("a1", nil)
	status, dry := d.call("POST", "/admin/waiting/redrive", `{"filter": {"reason": "permanent"}}`)
	if status != http.StatusOK || dry["dry_run"] != true || dry["matched"] != 1.0 || dry["redriven"] != 0.0 {
		t.Errorf("dry run: %d %v", status, dry)
	}
	status, done := d.call("POST", "/admin/waiting/redrive", `{"filter": {"reason": "permanent"}, "dry_run": false}`)
	if status != http.StatusOK || done["redriven"] != 1.0 {
		t.Errorf("redrive: %d %v", status, done)
	}
	d.run()
	d.until("the key has gone on", func() bool { return len(d.done()) == 5 })
	if diff := cmp.Diff(of(d.done(), "a"), []string{"a1", "a2", "a3", "a4"}); diff != "" {
		t.Error(diff)
	}
	if _, again := d.call("POST", "/admin/waiting/redrive", `{"dry_run": false}`); again["matched"] != 0.0 {
		t.Errorf("a second time: %v, want nothing left", again)
	}
}

func TestRedrive_in_pages_ends_though_all_die_again(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	d := desk{r, r.Routes()}
	for n := range 5 {
		key := fmt.Sprintf("k%d", n)
		r.setFail(key+"1", inbox.Permanent(errOops))
		r.steps(key, 1, 1)
	}
	r.poll(0)
	all := d.list("?state=dead")
	r.run()
	after, redriven := 0.0, 0.0
	for pages := 1; ; pages++ {
		body := fmt.Sprintf(`{"dry_run": false, "limit": 2, "after": %.0f, "until": %s}`, after, id(all[3]))
		status, page := d.call("POST", "/admin/waiting/redrive", body)
		if status != http.StatusOK || pages > 3 {
			t.Fatalf("page %d: %d %v", pages, status, page)
		}
		redriven += page["redriven"].(float64)
		if after = page["next"].(float64); after == 0 {
			break
		}
		r.until("they are dead again", func() bool { return len(d.list("?state=dead")) == 5 })
	}
	if redriven != 4 {
		t.Errorf("%v redriven, want 4: those up to the one named", redriven)
	}
}

func TestSummary_merges_what_has_one_cause(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	for n := range 6 {
		key := fmt.Sprintf("k%d", n)
		r.setFail(key+"1", inbox.Permanent(fmt.Errorf("answered 550 in row %d of 4bf92f3577b34da6, for 01a20b59-bec0-759e-974f-f2b16b81d2a%d\n\tas of defaced", 10_000+n, n)))
		r.steps(key, 1, 2)
	}
	r.setFail("x1", inbox.Permanent(errOops))
	r.steps("x", 1, 1)
	r.poll(0)
	d := desk{r, r.Routes()}
	status, answer := d.call("GET", "/admin/waiting/summary", "")
	if status != http.StatusOK {
		t.Fatalf("summary: %d %v", status, answer)
	}
	var got []string
	for _, g := range answer["items"].([]any) {
		g := g.(map[string]any)
		got = append(got, fmt.Sprint(g["count"], " ", g["group"], " ", g["topic"], " ", g["state"], " ", g["type"], " ", g["reason"], " ", g["error"]))
	}
	want := []string{
		"6 test steps dead test.Step permanent answered 550 in row … of …, for …\n\tas of defaced",
		"6 test steps behind test.Step <nil> <nil>",
		"1 test steps dead test.Step permanent oops",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
	for pasted, want := range map[string]int{"oops": 1, "550 in row … of …, for …  as of def": 1, "550 in row … of …, against": 0, "551": 0} {
		if _, answer := d.call("GET", "/admin/waiting/summary?error="+url.QueryEscape(pasted), ""); len(answer["items"].([]any)) != want {
			t.Errorf("filtered by %q: %v, want %d", pasted, answer["items"], want)
		}
	}
}

func TestRoutes_tell_why_a_type_is_held(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	r.setFail("a1", inbox.Unavailable(errors.New("no route")))
	r.steps("a", 1, 2)
	r.poll(0)
	r.steps("b", 1, 1) // is not even tried
	r.poll(2)
	d := desk{r, r.Routes()}
	const held = "test.Step is held: no route"
	var got []string
	for _, i := range d.list("") {
		got = append(got, fmt.Sprint(i["event_id"], " ", i["state"], " ", i["error"], " ", i["held"]))
	}
	if diff := cmp.Diff(got, []string{"a-1 unavailable no route " + held, "a-2 behind <nil> " + held, "b-1 unavailable <nil> " + held}); diff != "" {
		t.Error(diff)
	}
	_, answer := d.call("GET", "/admin/waiting/summary", "")
	for _, g := range answer["items"].([]any) {
		if g.(map[string]any)["held"] != held {
			t.Errorf("group %v, want why it is held", g)
		}
	}
}

// What cannot be decoded can be looked at, if personal data are asked for; a key that is no
// UTF-8 can be typed.
func TestRoutes_show_bytes_that_are_no_event(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	r.raw(event.Record{Key: []byte("a\xff"), Value: []byte("junk")})
	r.raw(event.Record{Key: []byte("b"), Value: []byte("junk")})
	r.poll(0)
	d := desk{r, r.Routes()}
	const key = `"a\xff"`
	list := d.list("?key=" + url.QueryEscape(key))
	if len(list) != 1 || list[0]["key"] != key {
		t.Fatalf("got %v, want the one with the key %s", list, key)
	}
	for query, want := range map[string]any{"": nil, "?unmask=true": "anVuaw=="} {
		if _, shown := d.call("GET", "/admin/waiting/"+id(list[0])+query, ""); shown["value"] != want || shown["value_bytes"] != 4.0 || shown["undecoded"] == nil {
			t.Errorf("%q shows %v, want 4 bytes, and of them %v", query, shown, want)
		}
	}
}

func TestRedrive_counts_so_that_loops_end(t *testing.T) {
	t.Parallel()
	d := deadKey(t)
	d.run()
	for n := 1; n <= 10; n++ {
		head := d.list("?state=dead")[0]
		if status, answer := d.call("POST", "/admin/waiting/"+id(head)+"/redrive", ""); status != http.StatusOK {
			t.Fatalf("redrive %d: %d %v", n, status, answer)
		}
		d.until("it has failed again", func() bool {
			dead := d.list("?state=dead")
			return len(dead) == 1 && dead[0]["redrives"] == float64(n)
		})
	}
	head := d.list("?state=dead")[0]
	if head["needs_force"] != true {
		t.Errorf("%v does not say that it needs force", head)
	}
	if status, answer := d.call("POST", "/admin/waiting/"+id(head)+"/redrive", ""); status != http.StatusConflict {
		t.Errorf("redrive 11: %d %v, want 409", status, answer)
	}
	if status, answer := d.call("POST", "/admin/waiting/"+id(head)+"/redrive", `{"force": true}`); status != http.StatusOK {
		t.Errorf("forced: %d %v, want 200", status, answer)
	}
}

func TestDrop(t *testing.T) {
	t.Parallel()
	t.Run("takes the head away, and the key goes on", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{})
		inbox.HandleSlow(r.Inbox, func(_ context.Context, e event.Event[step]) (inbox.Done, error) {
			if e.Data.N == 1 {
				return nil, inbox.Permanent(errOops)
			}
			r.effect(fmt.Sprint(e.Data.Agg, e.Data.N))
			return nil, nil
		})
		d := desk{r, r.Routes()}
		r.steps("a", 1, 2)
		r.run()
		r.poll(0)
		r.until("it is dead", func() bool { return r.states()["a"] == "dead" })
		all := d.list("")
		if status, answer := d.call("POST", "/admin/waiting/"+id(all[1])+"/drop", `{"reason": "x"}`); status != http.StatusConflict {
			t.Errorf("drop behind the head: %d %v, want 409", status, answer)
		}
		if status, answer := d.call("POST", "/admin/waiting/"+id(all[0])+"/drop", ""); status != http.StatusBadRequest {
			t.Errorf("drop without a reason: %d %v, want 400", status, answer)
		}
		if status, answer := d.call("POST", "/admin/waiting/"+id(all[0])+"/drop", `{"reason": "mended by hand"}`); status != http.StatusOK {
			t.Errorf("drop: %d %v", status, answer)
		}
		r.until("the key has gone on", func() bool { return len(r.done()) == 1 })
		if diff := cmp.Diff(r.done(), []string{"a2"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a letter that was set aside can be dropped or put back at any time", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, inbox.Config{}).handlers()
		d := desk{r, r.Routes()}
		for range 2 {
			r.raw(event.Record{Key: []byte("a"), Value: []byte("junk")})
		}
		r.poll(0)
		letters := d.list("?state=set%20aside")
		if status, answer := d.call("POST", "/admin/waiting/"+id(letters[0])+"/drop", `{"reason": "junk"}`); status != http.StatusOK {
			t.Errorf("drop: %d %v", status, answer)
		}
		status, answer := d.call("POST", "/admin/waiting/"+id(letters[1])+"/redrive", "")
		if status != http.StatusOK || answer["new_id"] != d.list("")[0]["id"] {
			t.Errorf("redrive: %d %v, want the ID that it has now", status, answer)
		}
		r.run()
		r.until("it has been found undecodable again", func() bool {
			again := d.list("?state=set%20aside")
			return len(again) == 1 && again[0]["redrives"] == 1.0 && again[0]["id"] == answer["new_id"]
		})
	})
}

func TestRedrive_of_a_record_without_a_key_holds_nothing_up(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{}).handlers()
	d := desk{r, r.Routes()}
	r.raw(event.Record{Value: []byte("junk")})
	r.poll(0)
	if status, answer := d.call("POST", "/admin/waiting/"+id(d.list("")[0])+"/redrive", ""); status != http.StatusOK {
		t.Fatalf("redrive: %d %v", status, answer)
	}
	r.setFail("b1", errOops) // it needs a worker
	r.steps("b", 1, 1)
	r.poll(1)
	r.setFail("b1", nil)
	r.run()
	r.until("the other key is done", func() bool { return len(r.done()) == 1 })
	r.until("it is set aside again", func() bool {
		all := d.list("?state=set%20aside")
		return len(all) == 1 && all[0]["redrives"] == 1.0 && len(r.states()) == 0
	})
}

func TestRedrive_of_an_event_that_still_retries_gives_its_attempts_back(t *testing.T) {
	t.Parallel()
	var book bytes.Buffer // written before the answer
	r := newRig(t, inbox.Config{Attempts: 3, Log: slog.New(slog.NewTextHandler(&book, nil))}).handlers()
	d := desk{r, r.Routes()}
	r.setFail("a1", errOops)
	r.steps("a", 1, 1)
	r.poll(0) // the first attempt
	head := d.list("")[0]
	if status, answer := d.call("POST", "/admin/waiting/"+id(head)+"/redrive", ""); status != http.StatusOK {
		t.Fatalf("redrive: %d %v", status, answer)
	}
	if now := d.list("")[0]; head["attempts"] != 1.0 || now["attempts"] != 0.0 || now["redrives"] != 0.0 {
		t.Errorf("%v attempts before, then %v and %v redrives; want 1, 0 and 0", head["attempts"], now["attempts"], now["redrives"])
	}
	if line := book.String(); !strings.Contains(line, "waiting event redriven") || !strings.Contains(line, "key=a ") || !strings.Contains(line, "attempts=1") {
		t.Errorf("the log has %q", line)
	}
}

// What waits for a dependency is tried at once when an operator says so, and if it is there
// again, all go on with it.
func TestRedrive_of_an_unavailable_event_is_the_next_probe(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{})
	var back atomic.Bool
	var probes []string // the workers' attempts while the dependency is away
	inbox.Handle(r.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[step]) error {
		if back.Load() {
			return r.onStep(ctx, tx, e)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if probes = append(probes, e.Data.Agg); e.Data.Agg == "k4" {
			back.Store(true)
		}
		return inbox.Unavailable(errOops)
	})
	d := desk{r, r.Routes()}
	for n := range 5 {
		r.steps(fmt.Sprintf("k%d", n), 1, 1)
	}
	r.poll(0)
	if status, answer := d.call("POST", "/admin/waiting/"+id(d.list("?key=k4")[0])+"/redrive", ""); status != http.StatusOK {
		t.Fatalf("redrive: %d %v", status, answer)
	}
	r.mu.Lock()
	probes = nil // that of the poll
	back.Store(false)
	r.mu.Unlock()
	r.run()
	r.until("all are done", func() bool { return len(r.done()) == 5 })
	if diff := cmp.Diff([]string{"k4"}, probes); diff != "" {
		t.Errorf("probed before the dependency was back: %s", diff)
	}
}
