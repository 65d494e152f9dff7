package service

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/telemetry"
)

// What a handler waits for may never answer. The client hears of that, before the server would
// close its connection without a word.
func TestTraced_handler_that_would_wait_for_ever_is_ended_in_time_to_answer(t *testing.T) {
	t.Parallel()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "demo", LogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	var book bytes.Buffer
	log := slog.New(slog.NewTextHandler(&book, nil))
	r := &run{Service: &Service{Telemetry: tel}, log: log}
	handler := r.traced(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		<-req.Context().Done()
		WriteError(w, req, log, req.Context().Err())
	}))
	synctest.Test(t, func(t *testing.T) {
		w, begun := httptest.NewRecorder(), time.Now()
		handler.ServeHTTP(w, httptest.NewRequest("POST", "/v1/orders", nil))
		took := time.Since(begun)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || took < 30*time.Second || took >= writeTimeout {
			t.Errorf("%d, Retry-After %q, after %v; want 503 behind a long poll of 30 s and before %v", w.Code, w.Header().Get("Retry-After"), took, writeTimeout)
		}
	})
	if !strings.Contains(book.String(), "request failed") {
		t.Errorf("the log has %q", &book)
	}
}
