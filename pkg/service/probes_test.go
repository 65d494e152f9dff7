package service_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/service"
)

func TestService_readiness(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		failing := map[string]error{}
		set := func(name string, err error) {
			mu.Lock()
			defer mu.Unlock()
			failing[name] = err
		}
		check := func(name string) func(context.Context) error {
			return func(context.Context) error {
				mu.Lock()
				defer mu.Unlock()
				return failing[name]
			}
		}
		set("broker", errors.New("no route\nto host"))
		r := run(t, service.Service{Checks: []service.Check{
			{Name: "database", Run: check("database")},
			{Name: "broker", Run: check("broker"), Once: true},
			{Name: "hung", Run: func(ctx context.Context) error {
				if check("hung")(ctx) != nil {
					<-ctx.Done()
				}
				return ctx.Err()
			}},
		}})
		want := func(status int, report string) {
			t.Helper()
			if got, body := r.get("/readyz?verbose"); got != status || body != report {
				t.Errorf("/readyz?verbose: got %d %q, want %d %q", got, body, status, report)
			}
			if got, _ := r.get("/readyz"); got != status {
				t.Errorf("/readyz: got %d, want %d", got, status)
			}
		}
		synctest.Wait()
		want(503, "ok   database\nfail broker: no route; to host\nok   hung\nnot ready\n")
		set("broker", nil)
		want(200, "ok   database\nok   broker\nok   hung\nready\n")
		set("broker", errors.New("gone"))
		want(200, "ok   database\nwarn broker: gone\nok   hung\nready\n")
		set("database", errors.New("down"))
		want(503, "fail database: down\nwarn broker: gone\nok   hung\nnot ready\n")
		set("database", nil)
		set("hung", errors.New("yes"))
		begin := time.Now()
		want(503, "ok   database\nwarn broker: gone\nfail hung: context deadline exceeded\nnot ready\n")
		if got := time.Since(begin); got != 4*time.Second {
			t.Errorf("two probes of a hanging check took %v, want 2s each", got)
		}
		if status, _ := r.get("/livez"); status != 200 {
			t.Errorf("/livez: got %d, want 200 whatever the dependencies do", status)
		}
		if err := r.halt(); err != nil {
			t.Error(err)
		}
	})
}

func TestService_slowClients(t *testing.T) {
	t.Parallel()
	t.Run("a long poll of 30 seconds is answered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := run(t, service.Service{Public: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				select {
				case <-time.After(30 * time.Second):
				case <-req.Context().Done():
					t.Errorf("the request's context ended: %v", context.Cause(req.Context()))
				}
				_, _ = io.WriteString(w, "settled")
			})})
			if status, body := r.get("/v1/orders/1?wait=30s"); status != 200 || body != "settled" {
				t.Errorf("got %d %q", status, body)
			}
			if res, body := r.do("POST", "/v1/orders", `{"a":1}`, nil); res.StatusCode != 200 || body != "settled" {
				t.Errorf("with a body: got %d %q", res.StatusCode, body)
			}
			if err := r.halt(); err != nil {
				t.Error(err)
			}
		})
	})
	for _, tt := range []struct {
		name, sent string
		want       string // how the answer begins
		within     time.Duration
	}{
		{"a header that never ends is cut off", "POST / HTTP/1.1\r\nHost: x\r\n", "", 5 * time.Second},
		{"nothing at all is cut off", "", "", 5 * time.Second},
		{"a body that never ends is answered with 408", "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{", "HTTP/1.1 408 ", 10 * time.Second},
		{"a large header is answered with 431", "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("x", 40<<10), "HTTP/1.1 431 ", 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := run(t, service.Service{Public: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					var v struct{}
					var p *service.Problem
					if err := service.DecodeJSON(w, req, 100, &v); errors.As(err, &p) {
						service.WriteProblem(w, req, p.Status, p.Detail, p.Field)
					}
				})})
				conn, err := r.listen.dial()
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				go func() { _, _ = io.WriteString(conn, tt.sent) }() // a pipe: it blocks when cut off
				text, _ := io.ReadAll(conn)                          // ends when the server closes
				if got := time.Since(begin); got > tt.within+time.Second {
					t.Errorf("the server took %v, want at most %v", got, tt.within)
				}
				if !strings.HasPrefix(string(text), tt.want) || tt.want == "" && len(text) > 0 {
					t.Errorf("answer: got %q, want %q", text, tt.want)
				}
				_ = conn.Close()
				if err := r.halt(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
