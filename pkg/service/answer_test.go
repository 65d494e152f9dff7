package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/service"
	"github.com/google/go-cmp/cmp"
)

func TestWriteError(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		err        error
		status     int
		retryAfter string
		body       string // a part of it
		logged     bool
	}{
		{"a problem is told as it stands", fmt.Errorf("place: %w", &service.Problem{Status: 422, Field: "currency", Detail: "must be EUR"}), 422, "", `"field":"currency"`, false},
		{"a conflict may be tried again", &service.Problem{Status: 409, Detail: "in flight"}, 409, "1", `in flight`, false},
		{"anything else is logged and not told", errors.New("dial tcp db:5432: secret"), 503, "1", `"status":503`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			logs := new(logBuffer)
			w := httptest.NewRecorder()
			service.WriteError(w, httptest.NewRequest("POST", "/v1/orders", nil), slog.New(slog.NewTextHandler(logs, nil)), tt.err)
			if w.Code != tt.status || w.Header().Get("Retry-After") != tt.retryAfter || !strings.Contains(w.Body.String(), tt.body) {
				t.Errorf("got %d, Retry-After %q, %s", w.Code, w.Header().Get("Retry-After"), w.Body)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("the client was told %s", w.Body)
			}
			if got := strings.Contains(logs.String(), "secret"); got != tt.logged {
				t.Errorf("logged %v (%q), want %v", got, logs, tt.logged)
			}
		})
	}
	t.Run("the error of a client that has gone is not logged", func(t *testing.T) {
		t.Parallel()
		logs := new(logBuffer)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		r := httptest.NewRequestWithContext(ctx, "GET", "/", nil)
		service.WriteError(httptest.NewRecorder(), r, slog.New(slog.NewTextHandler(logs, nil)), context.Canceled)
		if got := logs.String(); got != "" {
			t.Errorf("log: got %q, want nothing", got)
		}
	})
}

func TestWriteJSON(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	service.WriteJSON(w, http.StatusCreated, map[string]int{"n": 1})
	if w.Code != 201 || w.Body.String() != "{\"n\":1}\n" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %d %q as %q", w.Code, w.Body, w.Header().Get("Content-Type"))
	}
}

func TestEvery(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		logs := new(logBuffer)
		begin := time.Now()
		var calls []time.Duration
		ctx, cancel := context.WithTimeout(t.Context(), 4500*time.Millisecond)
		defer cancel()
		err := service.Every(ctx, time.Second, slog.New(slog.NewTextHandler(logs, nil)), "count", func(context.Context) error {
			calls = append(calls, time.Since(begin))
			if len(calls) == 4 {
				return nil
			}
			return errors.New("down")
		})
		if err != nil {
			t.Error(err)
		}
		want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second}
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
		if got := strings.Count(logs.String(), "down"); got != 2 {
			t.Errorf("%d log lines, want one per outage", got)
		}
	})
}
