package service_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/service"
	"github.com/google/go-cmp/cmp"
)

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.lines)
}

// part runs until its context ends, and then for as long as finish says.
func (j *journal) part(name string, finish time.Duration) service.Part {
	return service.Part{Name: name, Run: func(ctx context.Context) error {
		j.add("%s starts", name)
		<-ctx.Done()
		j.add("%s finishes", name)
		<-time.After(finish)
		j.add("%s ends", name)
		return ctx.Err()
	}}
}

func answer(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func TestService_start(t *testing.T) {
	t.Parallel()
	t.Run("it is live but not ready until every step has succeeded", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			var attempts []time.Duration
			var j journal
			r := run(t, service.Service{
				Public: answer("hello"),
				Prepare: []service.Step{
					{Name: "find the broker", Run: func(context.Context) error {
						attempts = append(attempts, time.Since(begin))
						if time.Since(begin) < time.Minute {
							return errors.New("connection refused")
						}
						return nil
					}},
					{Name: "verify", Run: func(context.Context) error { j.add("verified"); return nil }},
				},
				Parts: []service.Part{j.part("consumer", 0)},
			})
			<-time.After(30 * time.Second)
			if status, _ := r.get("/livez"); status != 200 {
				t.Errorf("/livez: got %d, want 200", status)
			}
			if status, body := r.get("/readyz"); status != 503 || body != "not ready\n" {
				t.Errorf("/readyz: got %d %q, want 503 without details", status, body)
			}
			if status, body := r.get("/readyz?verbose"); status != 503 || body != "fail find the broker: connection refused\nnot ready\n" {
				t.Errorf("/readyz?verbose: got %d %q", status, body)
			}
			res, body := r.do("GET", "/v1/orders", "", nil)
			if res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" || !strings.Contains(body, `"status":503`) {
				t.Errorf("a public route: got %d, Retry-After %q, %s", res.StatusCode, res.Header.Get("Retry-After"), body)
			}
			if got := j.all(); len(got) != 0 {
				t.Errorf("before the first step has succeeded: %v", got)
			}
			<-time.After(40 * time.Second)
			if status, body := r.get("/readyz"); status != 200 || body != "ready\n" {
				t.Errorf("/readyz after the steps: got %d %q", status, body)
			}
			if status, body := r.get("/v1/orders"); status != 200 || body != "hello" {
				t.Errorf("a public route after the steps: got %d %q", status, body)
			}
			checkPauses(t, attempts)
			if got := strings.Count(r.logs.String(), "start step failed"); got != len(attempts)-1 {
				t.Errorf("%d warnings for %d failures", got, len(attempts)-1)
			}
			if err := r.halt(); err != nil {
				t.Error(err)
			}
			want := []string{"verified", "consumer starts", "consumer finishes", "consumer ends"}
			if diff := cmp.Diff(want, j.all()); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("a stop ends a step that never succeeds, the parts are not started", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j journal
			r := run(t, service.Service{
				Prepare: []service.Step{{Name: "wait", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}},
				Parts:   []service.Part{j.part("consumer", 0)},
				Close:   []func(context.Context) error{func(context.Context) error { j.add("closed"); return nil }},
			})
			<-time.After(time.Second)
			if err := r.halt(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]string{"closed"}, j.all()); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
		})
	})
	t.Run("an address that is taken is an error that names its variable", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		closed := false
		s := service.Service{
			Name: "demo", Telemetry: quiet(t), Config: service.Config{HTTPAddr: l.Addr().String()},
			Close: []func(context.Context) error{func(context.Context) error { closed = true; return nil }},
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "HTTP_ADDR=") {
			t.Errorf("got %v, want an error with HTTP_ADDR", err)
		}
		if !closed {
			t.Error("what the service used was not closed")
		}
		s.Config.Listener, s.Config.AdminAddr, s.Admin, s.Telemetry = newMemory(), l.Addr().String(), http.NotFoundHandler(), quiet(t)
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "ADMIN_ADDR=") {
			t.Errorf("got %v, want an error with ADMIN_ADDR", err)
		}
	})
}

// checkPauses: from 100 ms, doubling, up to 5 s, each cut by at most a half.
func checkPauses(t *testing.T, attempts []time.Duration) {
	t.Helper()
	want := 100 * time.Millisecond
	for i := 1; i < len(attempts); i++ {
		if got := attempts[i] - attempts[i-1]; got < want/2 || got > want {
			t.Errorf("pause %d: got %v, want %v to %v", i, got, want/2, want)
		}
		want = min(2*want, 5*time.Second)
	}
	if len(attempts) < 17 {
		t.Errorf("%d attempts in a minute", len(attempts))
	}
}

func TestService_stop(t *testing.T) {
	t.Parallel()
	t.Run("HTTP, then the parts in their order, then what they used", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j journal
			r := run(t, service.Service{
				Public: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					<-time.After(time.Second)
					j.add("request ends")
					_, _ = io.WriteString(w, "done")
				}),
				Parts: []service.Part{j.part("consumer", 2*time.Second), j.part("relay", 3*time.Second)},
				Close: []func(context.Context) error{
					func(context.Context) error { j.add("producer closed"); return errors.New("producer sulks") },
					func(context.Context) error { j.add("database closed"); return nil },
				},
			})
			var request sync.WaitGroup
			request.Go(func() {
				if status, body := r.get("/v1/slow"); status != 200 || body != "done" {
					t.Errorf("request under way: got %d %q, want its answer", status, body)
				}
			})
			<-time.After(100 * time.Millisecond)
			begin := time.Now()
			err := r.halt()
			request.Wait()
			if err == nil || err.Error() != "producer sulks" {
				t.Errorf("got %v, want the error of Close", err)
			}
			if got := time.Since(begin); got < 5900*time.Millisecond || got > 7*time.Second {
				t.Errorf("the stop took %v, want about 6s", got)
			}
			want := []string{
				"consumer starts", "relay starts", "request ends",
				"consumer finishes", "consumer ends", "relay finishes", "relay ends",
				"producer closed", "database closed",
			}
			if diff := cmp.Diff(want, sortedStart(j.all())); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			if _, err := r.listen.dial(); err == nil {
				t.Error("the listener is still open")
			}
		})
	})
	t.Run("a part that does not stop is left behind when the time is over", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j journal
			r := run(t, service.Service{
				Parts: []service.Part{j.part("stuck", time.Hour), j.part("relay", 0)},
				Close: []func(context.Context) error{func(context.Context) error { j.add("closed"); return nil }},
			})
			synctest.Wait()
			begin := time.Now()
			err := r.halt()
			if err == nil || !strings.Contains(err.Error(), "stuck: not finished") {
				t.Errorf("got %v, want an error that names the part", err)
			}
			if got := time.Since(begin); got != 25*time.Second {
				t.Errorf("the stop took %v, want 25s", got)
			}
			<-time.After(2 * time.Hour) // the stuck part's goroutine must end with the bubble
			for _, want := range []string{"relay ends", "closed"} {
				if !slices.Contains(j.all(), want) {
					t.Errorf("%q did not happen: %v", want, j.all())
				}
			}
		})
	})
	t.Run("a part that fails stops the service", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			var j journal
			r := run(t, service.Service{Parts: []service.Part{
				j.part("relay", 0),
				{Name: "consumer", Run: func(context.Context) error { <-time.After(time.Minute); return errors.New("topic gone") }},
			}})
			<-r.done
			if r.err == nil || r.err.Error() != "consumer: topic gone" {
				t.Errorf("got %v, want consumer: topic gone", r.err)
			}
			if got := j.all(); !slices.Contains(got, "relay ends") {
				t.Errorf("the other part did not end: %v", got)
			}
		})
	})
	t.Run("a part that ends by itself without an error stops nothing", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := run(t, service.Service{Parts: []service.Part{{Name: "once", Run: func(context.Context) error { return nil }}}})
			<-time.After(time.Minute)
			if status, _ := r.get("/readyz"); status != 200 {
				t.Errorf("/readyz: got %d, want 200", status)
			}
			if err := r.halt(); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("a connection that never sent anything holds nothing up, one with a request does", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			r := run(t, service.Service{Public: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				<-time.After(time.Second)
				_, _ = io.WriteString(w, "done")
			})})
			synctest.Wait()
			var idle []net.Conn
			for _, listener := range []*memory{r.listen, r.listen} {
				conn, err := listener.dial()
				if err != nil {
					t.Fatal(err)
				}
				idle = append(idle, conn)
			}
			var request sync.WaitGroup
			request.Go(func() {
				if _, body := r.get("/slow"); body != "done" {
					t.Errorf("the request under way: got %q", body)
				}
			})
			synctest.Wait()
			begin := time.Now()
			if err := r.halt(); err != nil {
				t.Error(err)
			}
			request.Wait()
			if got := time.Since(begin); got > 1500*time.Millisecond { // net/http looks for the end of requests now and then
				t.Errorf("the stop took %v, want the second of the request", got)
			}
			for _, conn := range idle {
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("the idle connection is open")
				}
			}
		})
	})
	t.Run("a long poll is told after 2 seconds, a deaf one is cut after 3", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("/polite", func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				_, _ = io.WriteString(w, "try again")
			})
			mux.HandleFunc("/deaf", func(http.ResponseWriter, *http.Request) { <-time.After(10 * time.Second) })
			r := run(t, service.Service{Public: mux})
			var requests sync.WaitGroup
			requests.Go(func() {
				if _, body := r.get("/polite"); body != "try again" {
					t.Errorf("long poll: got %q", body)
				}
			})
			requests.Go(func() {
				if _, err := r.client.Get("http://demo.test/deaf"); err == nil {
					t.Error("a deaf request was answered")
				}
			})
			<-time.After(time.Second)
			begin := time.Now()
			if err := r.halt(); err != nil {
				t.Error(err)
			}
			if got := time.Since(begin); got != 3*time.Second {
				t.Errorf("the stop took %v, want 3s", got)
			}
			requests.Wait()
			<-time.After(time.Minute)
		})
	})
}

// sortedStart puts the parts' beginnings, which are concurrent, into one order.
func sortedStart(lines []string) []string {
	if len(lines) > 1 && lines[0] > lines[1] {
		lines[0], lines[1] = lines[1], lines[0]
	}
	return lines
}
