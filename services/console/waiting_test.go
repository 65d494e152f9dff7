package console_test

import (
	"encoding/json"
	"strings"
	"testing"
)

// hostile is text as anybody may put it into a key, a header or an error: it would clear a
// terminal, set its title, turn the direction of what follows.
const hostile = "\x1b[2J\x1b]0;owned\x07\u009b31m\u202egnol\x7f\u2028"

func jsonText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// harmless wants no character in an answer that a terminal might obey.
func harmless(t *testing.T, a typed) {
	t.Helper()
	for _, text := range []string{a.out, a.errs} {
		if i := strings.IndexFunc(text, func(r rune) bool {
			return r != '\n' && r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u2028' || r == '\ufffd'
		}); i >= 0 {
			t.Errorf("unsafe at %d: %q", i, text)
		}
	}
}

func TestRun_hostileText(t *testing.T) {
	t.Parallel()
	event := map[string]any{
		"id": 17, "topic": "orders", "partition": 3, "offset": 9, "key": hostile, "type": hostile, "event_id": hostile, "state": "dead", "reason": hostile,
		"error": hostile, "headers": map[string]string{hostile: hostile}, "event": map[string]string{"note": hostile, "emoji": "\U000e0041"}, "taken_at": "2026-01-02T03:04:05Z",
	}
	list := jsonText(t, map[string]any{"items": []any{event}})
	environ := admin(map[string]*stand{"email": newStand(t, map[string]string{
		"GET /admin/waiting/17":       jsonText(t, event),
		"GET /admin/waiting":          list,
		"GET /admin/waiting/summary":  jsonText(t, map[string]any{"items": []any{map[string]any{"error": hostile, "type": hostile, "example": 17, "count": 1}}}),
		"POST /admin/waiting/redrive": jsonText(t, map[string]any{"matched": 1, "items": []any{event}, "refused": []string{"17: " + hostile}}),
		"POST /admin/waiting/17/drop": `{}`,
		"GET /admin/outbox":           jsonText(t, map[string]any{"pending": 1, "held": []any{map[string]string{"topic": hostile, "key": hostile}}}),
		"GET /admin/partitions": jsonText(t, map[string]any{"group": hostile, "items": []any{
			map[string]any{"topic": "orders", "stopped": hostile, "error": hostile, "skip_to": 3}}}),
		"POST /admin/replay": jsonText(t, map[string]any{"matched": map[string]int{hostile: 1}, "refused": map[string]string{hostile: hostile}, "done": true}),
	})})
	for _, line := range []string{
		"waiting ls", "waiting ls --each", "waiting show email/17", "redrive --all", "redrive email/17", "drop email/17 --why x", "drop --all", "outbox", "skip", "replay email orders --from 1h",
		hostile, "waiting ls --" + hostile, "tail --from " + hostile, "waiting show " + hostile,
	} {
		for _, with := range []string{"", " --json"} {
			a := run(t, environ, words(line+with)...)
			harmless(t, a)
			if with != "" && !json.Valid([]byte(a.out)) {
				t.Errorf("%s: no JSON: %s", line, a.out)
			}
		}
	}
	var shown struct{ Key string }
	if err := json.Unmarshal([]byte(run(t, environ, "waiting", "show", "email/17", "--json").out), &shown); err != nil || shown.Key != hostile {
		t.Errorf("JSON does not give back the key: %q, %v", shown.Key, err)
	}
}

func TestRun_flags(t *testing.T) {
	t.Parallel()
	answers := map[string]string{
		"GET /admin/waiting/17":          `{"id": 17, "state": "dead", "key": "k"}`,
		"GET /admin/waiting":             `{"items": []}`,
		"GET /admin/waiting/summary":     `{"items": []}`,
		"POST /admin/waiting/17/redrive": `{}`,
		"POST /admin/waiting/redrive":    `{"matched": 1, "redriven": 1, "items": [{"id": 17}]}`,
		"POST /admin/replay":             `{"done": true}`,
	}
	for _, tt := range []struct {
		name, line string
		code       int
		want       []string // requests
	}{
		{"behind the words", "redrive email/17 --wait 0 --yes", 0, []string{"GET /admin/waiting/17", `POST /admin/waiting/17/redrive {"force":false}`}},
		{"before them", "redrive --yes --wait 0s --force email/17", 0, []string{"GET /admin/waiting/17", `POST /admin/waiting/17/redrive {"force":true}`}},
		{"without yes nothing is done", "redrive email/17 --force", 0, []string{"GET /admin/waiting/17"}},
		{"a filter goes to the service", "waiting ls --state dead --key 'o 1' --error a&b", 3, []string{"GET /admin/waiting/summary?error=a%26b&key=o+1&state=dead"}},
		{"a type's last part stands for it", "waiting ls --type OrderConfirmed", 3, []string{"GET /admin/waiting/summary?type=shop.order.OrderConfirmed"}},
		{"a type that is not known is asked for as it is", "waiting ls --type Confirmed", 3, []string{"GET /admin/waiting/summary?type=Confirmed"}},
		{"single events in pages", "waiting ls --each --limit 5 --after email/9", 3, []string{"GET /admin/waiting?after=9&limit=5"}},
		{"unmasking is asked for", "waiting show email/17 --unmask", 0, []string{"GET /admin/waiting/17?unmask=true", "GET /admin/waiting?after=0&key=k&limit=20"}},
		{"a dry run of a filter", "redrive --key k", 0, []string{
			`POST /admin/waiting/redrive {"after":0,"dry_run":true,"filter":{"key":"k"},"force":false,"limit":1000,"until":0}`}},
		{"a pass goes up to what waits when it begins", "redrive --all --yes --rate 20 --after email/3", 0, []string{
			`POST /admin/waiting/redrive {"after":3,"dry_run":true,"filter":{},"force":false,"limit":1000,"until":0}`,
			`POST /admin/waiting/redrive {"after":3,"dry_run":false,"filter":{},"force":false,"limit":20,"until":17}`}},
		{"a place to replay from", "replay email orders/3@7 --key k", 3, []string{
			`POST /admin/replay {"dry_run":true,"from":{"3":7},"key":"k","limit":2000,"topic":"orders","type":""}`}},
		{"a time to replay from", "replay --from beginning email orders --until 2026-03-01T08:00:00Z", 3, []string{
			`POST /admin/replay {"dry_run":true,"from_time":"1970-01-01T00:00:00Z","key":"","limit":2000,"topic":"orders","type":"","until_time":"2026-03-01T08:00:00Z"}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStand(t, answers)
			run(t, admin(map[string]*stand{"email": s}), words(tt.line)...).want(t, tt.code)
			if got, want := strings.Join(s.requests(), "\n"), strings.Join(tt.want, "\n"); got != want {
				t.Errorf("%s asked\n%s\nwant\n%s", tt.line, got, want)
			}
		})
	}
}

// Of several replicas only the one that has the stopped partition is told to go on, and what
// was shown is what is skipped.
func TestRun_skipAsksTheOwner(t *testing.T) {
	t.Parallel()
	stopped := newStand(t, map[string]string{
		"GET /admin/partitions":       `{"group": "g", "items": [{"topic": "orders", "partition": 3, "position": 5, "stopped": "batch_too_large", "skip_to": 8}, {"topic": "orders", "partition": 4}]}`,
		"POST /admin/partitions/skip": `{}`,
	})
	other := newStand(t, map[string]string{"GET /admin/partitions": `{"group": "g", "items": [{"topic": "orders", "partition": 1, "position": 2, "stopped": "forbidden"}]}`})
	environ := map[string]string{"ADMIN_URLS": "email=" + other.URL + ",email=" + stopped.URL}
	run(t, environ, "skip").want(t, 0, "email/orders/3", "5 to 7 (3)", "email/orders/1", "cannot be told")
	run(t, environ, "skip", "email/orders/4").want(t, 3, "next: console skip")
	run(t, environ, "skip", "email/orders/1", "--yes").want(t, 1, "cannot be told")
	if n := len(stopped.requests()) + len(other.requests()); n != 6 {
		t.Errorf("%d requests, want no more than to look", n)
	}
	run(t, environ, "skip", "email/orders/3", "--yes").want(t, 0, "email/orders/3 goes on at 8")
	asked := stopped.requests()
	if got, want := asked[len(asked)-1], `POST /admin/partitions/skip {"dry_run":false,"from":5,"partition":3,"to":8,"topic":"orders"}`; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	stopped.status["POST /admin/partitions/skip"] = 409
	run(t, environ, "skip", "email/orders/3", "--yes").want(t, 1, "next: console skip")
}

// A partition may be named as the console and as the services' logs name it.
func TestRun_skipTakesTheNamesOfTheLogs(t *testing.T) {
	t.Parallel()
	at := func(group, more string) *stand {
		return newStand(t, map[string]string{
			"GET /admin/partitions":       `{"group": "` + group + `", "items": [{"topic": "orders", "partition": 3, "position": 5, "stopped": "batch_too_large", "skip_to": 8}` + more + `]}`,
			"POST /admin/partitions/skip": `{}`,
		})
	}
	email, inventory := at("g.email", `, {"topic": "orders", "partition": 1, "position": 2, "stopped": "batch_too_large", "skip_to": 4}`), at("g.inventory", "")
	environ := admin(map[string]*stand{"email": email, "inventory": inventory})
	for line, want := range map[string]string{
		"skip g.email/orders/3 --yes": "email/orders/3 goes on at 8", "skip email/orders/3 --yes": "email/orders/3 goes on at 8", "skip orders/1 --yes": "email/orders/1 goes on at 4",
	} {
		if a := run(t, environ, words(line)...); a.code != 0 || !strings.HasPrefix(a.out, want+";") || strings.Count(a.out, "goes on at") != 1 {
			t.Errorf("%s: exit code %d, %s%s, want only %q", line, a.code, a.out, a.errs, want)
		}
	}
	run(t, environ, "skip", "orders/3", "--yes").want(t, 2, "say which of email/orders/3, inventory/orders/3", "next: console skip email/orders/3")
	run(t, environ, "skip", "orders/9", "email/orders/1").want(t, 3, "email/orders/1  g.email", "not stopped: orders/9; stopped are email/orders/1, email/orders/3, inventory/orders/3")
	for _, word := range []string{"orders", "orders/x", "email/orders/-1", "/orders/1", "/1", "email/orders@3"} {
		run(t, environ, "skip", word, "--yes").want(t, 2, "is not a partition, such as email/orders/3", "next: console skip")
	}
	run(t, admin(map[string]*stand{"email": newStand(t, map[string]string{"GET /admin/partitions": `{}`})}), "skip", "orders/1").want(t, 3, "not stopped: orders/1; no partition is")
	inventory.Close()
	run(t, environ, "skip", "orders/1", "--yes").want(t, 2, "inventory does not answer", "cannot be told", "next: console skip email/orders/1")
}
