package console

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
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
