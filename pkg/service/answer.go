package service

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// WriteJSON answers with v as JSON.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // a client that has gone needs no answer
}

// WriteError answers with the [*Problem] that err holds. Any other error is logged and
// answered with 503, since what fails unforeseen is a dependency that is away: its text is
// not the client's business. 409, 429 and 503 carry Retry-After: 1.
func WriteError(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	var p *Problem
	if !errors.As(err, &p) {
		if !errors.Is(r.Context().Err(), context.Canceled) { // else the client has gone
			log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		p = &Problem{Status: http.StatusServiceUnavailable, Detail: "something the service needs did not answer; try again"}
	}
	switch p.Status {
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	}
	WriteProblem(w, r, p.Status, p.Detail, p.Field)
}

// Every calls fn at once and then again and again with a pause, until ctx ends; it returns
// nil then. A failure is logged when its text changes.
func Every(ctx context.Context, pause time.Duration, log *slog.Logger, what string, fn func(context.Context) error) error {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	reported := ""
	for {
		err := fn(ctx)
		switch {
		case err == nil:
			reported = ""
		case ctx.Err() == nil && err.Error() != reported:
			reported = err.Error()
			log.WarnContext(ctx, "periodic work failed", "work", what, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
