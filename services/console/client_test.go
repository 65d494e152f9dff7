package console

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Who is waited for is said, and in the end it is given up.
func TestRun_ofAServiceThatHangs(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-let }))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(let) })
	cfg := Config{Environ: map[string]string{"ADMIN_URLS": "email=" + s.URL}, Dir: t.TempDir(),
		timing: timing{slow: 20 * time.Millisecond, look: 200 * time.Millisecond, work: 200 * time.Millisecond, finish: time.Second}}
	for line, want := range map[string]string{
		"outbox":                              "email does not answer at " + s.URL + " (from the variable ADMIN_URLS): no answer in time",
		"replay email orders --from 1h --yes": "it may have been done",
	} {
		var out, errs bytes.Buffer
		code := Run(t.Context(), cfg, strings.Fields(line), &out, &errs)
		if text := errs.String(); code != 1 || !strings.Contains(text, "waiting for email") || !strings.Contains(text, want) {
			t.Errorf("%s: exit code %d, %s, want 1, whom it waits for, and %q", line, code, text, want)
		}
	}
}

// A replica that hangs is asked once: what changes something goes to the one that answered.
func TestRun_goes_on_with_the_replica_that_answered(t *testing.T) {
	t.Parallel()
	let := make(chan struct{})
	var asked atomic.Int32
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1); <-let }))
	t.Cleanup(hangs.Close)
	t.Cleanup(func() { close(let) })
	answers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		_, _ = w.Write([]byte(`{"id": 17, "state": "dead", "topic": "orders", "key": "k"}`))
	}))
	t.Cleanup(answers.Close)
	cfg := Config{Environ: map[string]string{"ADMIN_URLS": "email=" + hangs.URL + ",email=" + answers.URL}, Dir: t.TempDir(),
		timing: timing{slow: time.Second, look: 200 * time.Millisecond, work: 10 * time.Second, finish: time.Second}}
	var out, errs bytes.Buffer
	code := Run(t.Context(), cfg, []string{"drop", "email/17", "--why", "tried", "--yes"}, &out, &errs)
	if code != 0 || asked.Load() != 1 {
		t.Errorf("exit code %d, %d requests to the one that hangs, want 0 and 1\n%s%s", code, asked.Load(), out.String(), errs.String())
	}
}
