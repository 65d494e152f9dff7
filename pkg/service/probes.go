package service

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"
)

// probes are the routes that every service has. They are not traced.
func (r *run) probes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "ok\n")
	})
	mux.HandleFunc("GET /readyz", r.readyz)
	mux.Handle("GET /metrics", r.Telemetry.Metrics())
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(r.version()) // a client that has gone needs no answer
	})
	if len(r.OpenAPI) > 0 {
		mux.HandleFunc("GET /openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/yaml")
			_, _ = w.Write(r.OpenAPI) // as above
		})
	}
	return mux
}

// readyz answers 200 or 503; with ?verbose it lists the checks, those too that have passed
// once and fail now.
func (r *run) readyz(w http.ResponseWriter, req *http.Request) {
	verbose := req.URL.Query().Has("verbose")
	state := r.readiness(verbose)
	text, status := "ready\n", http.StatusOK
	if !state.ready {
		text, status = "not ready\n", http.StatusServiceUnavailable
	}
	if verbose {
		text = state.report + text
	}
	plain(w, status, text)
}

func (r *run) readiness(all bool) readiness {
	if reason := r.notReady.Load(); reason != nil {
		return readiness{report: "fail " + oneLine(*reason) + "\n"}
	}
	// Probes that come at the same time share one look at the dependencies.
	state, _, _ := r.checking.Do(strconv.FormatBool(all), func() (any, error) { return r.check(all), nil })
	return state.(readiness)
}

const checkTime = 2 * time.Second

type readiness struct {
	ready  bool
	report string
}

// check runs all checks at once; those that have passed for good only if all is set.
func (r *run) check(all bool) readiness {
	ctx, cancel := context.WithTimeout(r.requests, checkTime)
	defer cancel()
	errs := make([]error, len(r.Checks))
	var group sync.WaitGroup
	for i, c := range r.Checks {
		if all || !c.Once || !r.latched[i].Load() {
			group.Go(func() { errs[i] = c.Run(ctx) })
		}
	}
	group.Wait()
	result := readiness{ready: true}
	var report strings.Builder
	for i, c := range r.Checks {
		switch {
		case errs[i] == nil:
			r.latched[i].Store(true)
			fmt.Fprintf(&report, "ok   %s\n", c.Name)
		case c.Once && r.latched[i].Load():
			fmt.Fprintf(&report, "warn %s: %s\n", c.Name, oneLine(errs[i].Error()))
		default:
			result.ready = false
			fmt.Fprintf(&report, "fail %s: %s\n", c.Name, oneLine(errs[i].Error()))
		}
	}
	result.report = report.String()
	return result
}

type version struct {
	Service  string `json:"service"`
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

func (r *run) version() version {
	v := version{Service: r.Name, Version: r.Version, Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // a client that has gone needs no answer
}

// oneLine keeps joined errors on one line.
func oneLine(s string) string { return strings.ReplaceAll(s, "\n", "; ") }
