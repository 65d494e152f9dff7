package service

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/keyline/pkg/telemetry"
)

// observed is a handler behind the observer, with what it reports.
type observed struct {
	http.Handler
	tel   *telemetry.Telemetry
	spans *tracetest.SpanRecorder
}

func observe(t *testing.T, routes map[string]http.HandlerFunc, cfg telemetry.Config) observed {
	t.Helper()
	spans, mux := tracetest.NewSpanRecorder(), http.NewServeMux()
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	cfg.LogWriter, cfg.SpanProcessors = io.Discard, []sdktrace.SpanProcessor{spans}
	tel, err := telemetry.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Service: &Service{Telemetry: tel, Config: Config{TrustTraceparent: true}}, log: tel.Log}
	return observed{r.traced(mux), tel, spans}
}

// do serves one request and returns its span.
func (o observed) do(t *testing.T, req *http.Request) (span sdktrace.ReadOnlySpan, attrs map[string]string) {
	t.Helper()
	func() {
		defer func() {
			if v := recover(); v != nil && v != http.ErrAbortHandler { // which is net/http's to recover
				t.Errorf("%s %s panicked: %v", req.Method, req.URL, v)
			}
		}()
		o.ServeHTTP(httptest.NewRecorder(), req)
	}()
	ended := o.spans.Ended()
	span, attrs = ended[len(ended)-1], map[string]string{}
	for _, a := range span.Attributes() {
		attrs[string(a.Key)] = a.Value.String()
	}
	return span, attrs
}

// metrics returns the lines of the metrics page that are about requests.
func (o observed) metrics(t *testing.T) (lines []string) {
	t.Helper()
	w := httptest.NewRecorder()
	o.tel.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "http_server_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func say(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// All that a span tells, by the names of the conventions.
func TestObserver_span(t *testing.T) {
	t.Parallel()
	base := map[string]string{
		"http.request.method": "POST", "http.route": "/v1/orders/{id}", "http.response.status_code": "202",
		"http.request.body.size": "5", "http.response.body.size": "8",
		"url.scheme": "http", "url.path": "/v1/orders/1", "server.address": "shop.test",
		"network.peer.address": "192.0.2.1", "network.peer.port": "1234", "network.protocol.version": "1.1", "client.address": "192.0.2.1",
	}
	for _, tt := range []struct {
		name   string
		change func(*http.Request)
		want   map[string]string // beside or in place of base; empty: not there
		span   string
	}{
		{"a request", func(*http.Request) {}, nil, "POST /v1/orders/{id}"},
		{"a query is not told", func(r *http.Request) { r.URL.RawQuery = "token=secret" }, nil, "POST /v1/orders/{id}"},
		{"a client behind proxies", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "10.0.0.1, 10.0.0.2") },
			map[string]string{"client.address": "10.0.0.1"}, "POST /v1/orders/{id}"},
		{"a program", func(r *http.Request) { r.Header.Set("User-Agent", "curl/9") }, map[string]string{"user_agent.original": "curl/9"}, "POST /v1/orders/{id}"},
		{"a port", func(r *http.Request) { r.Host = "shop.test:8080" }, map[string]string{"server.port": "8080"}, "POST /v1/orders/{id}"},
		{"the usual port", func(r *http.Request) { r.Host = "shop.test:80" }, nil, "POST /v1/orders/{id}"},
		{"a port that is none", func(r *http.Request) { r.Host = "shop.test:99999" }, nil, "POST /v1/orders/{id}"},
		{"an address of IPv6", func(r *http.Request) { r.Host = "[::1]:8080" }, map[string]string{"server.address": "::1", "server.port": "8080"}, "POST /v1/orders/{id}"},
		{"one without a port", func(r *http.Request) { r.Host = "[::1]" }, map[string]string{"server.address": "::1"}, "POST /v1/orders/{id}"},
		{"no host", func(r *http.Request) { r.Host, r.Proto = "", "HTTP/1.0" },
			map[string]string{"server.address": "", "network.protocol.version": "1.0"}, "POST /v1/orders/{id}"},
		{"no body", func(r *http.Request) { r.Body = http.NoBody }, map[string]string{"http.request.body.size": ""}, "POST /v1/orders/{id}"},
		{"a method in small letters", func(r *http.Request) { r.Method, r.URL.Path = "post", "/any" },
			map[string]string{"http.request.method_original": "post", "http.route": "/any", "url.path": "/any", "http.response.status_code": "200", "http.response.body.size": ""}, "POST /any"},
		{"a method of late", func(r *http.Request) { r.Method, r.URL.Path = "QUERY", "/any" },
			map[string]string{"http.request.method": "QUERY", "http.route": "/any", "url.path": "/any", "http.response.status_code": "200", "http.response.body.size": ""}, "QUERY /any"},
		{"a method that nobody knows", func(r *http.Request) { r.Method, r.URL.Path = "BREW", "/any" },
			map[string]string{"http.request.method": "_OTHER", "http.request.method_original": "BREW", "http.route": "/any", "url.path": "/any", "http.response.status_code": "200", "http.response.body.size": ""}, "HTTP /any"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := observe(t, map[string]http.HandlerFunc{"POST /v1/orders/{id}": say(202, "accepted"), "/any": say(200, "")}, telemetry.Config{})
			req := httptest.NewRequest("POST", "http://shop.test/v1/orders/1", strings.NewReader("12345"))
			tt.change(req)
			span, got := o.do(t, req)
			want := map[string]string{}
			for _, from := range []map[string]string{base, tt.want} {
				for k, v := range from {
					if want[k] = v; v == "" {
						delete(want, k)
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || span.Name() != tt.span {
				t.Errorf("span %q, want %q; attributes (-want +got):\n%s", span.Name(), tt.span, diff)
			}
		})
	}
}

func TestObserver_outcome(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                    string
		handler                 http.HandlerFunc
		status, err, route, out string
		code                    codes.Code
	}{
		{"an answer without a word", func(http.ResponseWriter, *http.Request) {}, "200", "", "/it", "", codes.Unset},
		{"a refusal is no error", say(410, "gone"), "410", "", "/it", "4", codes.Unset},
		{"a failure is", say(502, "bad"), "502", "502", "/it", "3", codes.Error},
		{"so is a panic", func(http.ResponseWriter, *http.Request) { panic("secret") }, "500", "500", "/it", "93", codes.Error},
		{"so is an answer that a panic cuts", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hal")
			panic("secret")
		}, "200", "panic", "/it", "3", codes.Error},
		{"one that its handler gives up", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			panic(http.ErrAbortHandler)
		}, "502", "panic", "/it", "", codes.Error},
		{"one that was given up before it began, and has no status", func(http.ResponseWriter, *http.Request) {
			panic(http.ErrAbortHandler)
		}, "", "panic", "/it", "", codes.Error},
		{"hints come before the status, and no status comes twice", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusEarlyHints)
			w.WriteHeader(http.StatusCreated)
			w.WriteHeader(http.StatusBadGateway)
		}, "201", "", "/it", "", codes.Unset},
		{"what is flushed has begun with 200", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			w.WriteHeader(http.StatusBadGateway)
		}, "200", "", "/it", "", codes.Unset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := observe(t, map[string]http.HandlerFunc{"GET /it": tt.handler}, telemetry.Config{})
			span, attrs := o.do(t, httptest.NewRequest("GET", "/it", nil))
			got := []string{attrs["http.response.status_code"], attrs["error.type"], attrs["http.route"], attrs["http.response.body.size"]}
			if want := []string{tt.status, tt.err, tt.route, tt.out}; !slices.Equal(got, want) || span.Status().Code != tt.code {
				t.Errorf("status, error, route and size are %q, want %q; the span's status %v, want %v", got, want, span.Status().Code, tt.code)
			}
			if span.Name() != "GET /it" {
				t.Errorf("the span is named %q", span.Name())
			}
			label := func(name, value string) string { return map[bool]string{true: name + `="` + value + `",`}[value != ""] }
			sample := "http_server_request_duration_seconds_count{" + label("error_type", tt.err) + label("http_request_method", "GET") +
				label("http_response_status_code", tt.status) + label("http_route", "/it") + `url_scheme="http"} 1`
			if lines := o.metrics(t); !slices.Contains(lines, sample) {
				t.Errorf("/metrics has no line %s in:\n%s", sample, strings.Join(lines, "\n"))
			}
		})
	}
}

// A span that nobody records is only there for its IDs; the metrics are the same.
func TestObserver_metrics(t *testing.T) {
	t.Parallel()
	for _, sampler := range []string{"always_on", "always_off"} {
		t.Run(sampler, func(t *testing.T) {
			t.Parallel()
			o := observe(t, map[string]http.HandlerFunc{"POST /v1/orders/{id}": say(202, "accepted")}, telemetry.Config{Sampler: sampler})
			for _, body := range []string{"12345", "123"} {
				w := httptest.NewRecorder()
				o.ServeHTTP(w, httptest.NewRequest("POST", "http://shop.test:8080/v1/orders/4711", strings.NewReader(body)))
				if w.Header().Get("traceresponse") == "" {
					t.Error("no traceresponse")
				}
			}
			o.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("BREW", "/nowhere/4711", nil))
			const labels = `{http_request_method="POST",http_response_status_code="202",http_route="/v1/orders/{id}",url_scheme="http"`
			lines := o.metrics(t)
			for _, want := range []string{
				"http_server_request_duration_seconds_count" + labels + "} 2",
				"http_server_request_duration_seconds_bucket" + labels + `,le="10"} 2`,
				"http_server_request_body_size_bytes_sum" + labels + "} 8",
				"http_server_response_body_size_bytes_sum" + labels + "} 16",
				`http_server_request_duration_seconds_count{http_request_method="_OTHER",http_response_status_code="404",url_scheme="http"} 1`,
			} {
				if !slices.Contains(lines, want) {
					t.Errorf("/metrics has no line %s", want)
				}
			}
			buckets, page := 0, strings.Join(lines, "\n")
			for _, line := range lines {
				if strings.HasPrefix(line, "http_server_request_duration_seconds_bucket"+labels) {
					buckets++
				}
			}
			if buckets != 15 || strings.Contains(page, "4711") || strings.Contains(page, "shop.test") || strings.Contains(page, "BREW") {
				t.Errorf("%d buckets, want 15, and nothing of what a client chooses:\n%s", buckets, page)
			}
			if got := len(o.spans.Ended()); got != map[string]int{"always_on": 3, "always_off": 0}[sampler] {
				t.Errorf("%d spans are recorded", got)
			}
		})
	}
}

// plainWriter can do nothing but what a ResponseWriter must.
type plainWriter struct{ http.ResponseWriter }

func TestTrackedWriter(t *testing.T) {
	t.Parallel()
	t.Run("an answer that was flushed before a panic is cut", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(observe(t, map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, _ *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Errorf("flush: %v", err)
			}
			panic("too late")
		}}, telemetry.Config{}))
		defer server.Close()
		res, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if text, err := io.ReadAll(res.Body); err == nil || res.StatusCode != 200 {
			t.Errorf("got %d and %q, want an answer that is cut", res.StatusCode, text)
		}
	})
	t.Run("one that cannot be flushed has not begun", func(t *testing.T) {
		t.Parallel()
		w := &trackedWriter{ResponseWriter: plainWriter{httptest.NewRecorder()}}
		if err := http.NewResponseController(w).Flush(); !errors.Is(err, http.ErrNotSupported) || w.wrote {
			t.Errorf("flush: %v, begun: %v", err, w.wrote)
		}
	})
	t.Run("the connection can be taken over", func(t *testing.T) {
		t.Parallel()
		server := httptest.NewServer(observe(t, map[string]http.HandlerFunc{"/": func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("hijack: %v", err)
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 299 Taken\r\nConnection: close\r\n\r\n")
			_ = conn.Close()
		}}, telemetry.Config{}))
		defer server.Close()
		res, err := http.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 299 {
			t.Errorf("got %d, want 299", res.StatusCode)
		}
	})
}
