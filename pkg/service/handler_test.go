package service_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"example.com/keyline/pkg/service"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// inBubble runs the service with a mux, and stops it after the test.
func inBubble(t *testing.T, s service.Service, test func(t *testing.T, r *running)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := run(t, s)
		synctest.Wait()
		test(t, r)
		if err := r.halt(); err != nil {
			t.Error(err)
		}
	})
}

func routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/orders", answer("accepted"))
	mux.HandleFunc("GET /v1/orders/{id}", answer("one"))
	mux.HandleFunc("GET /early", func(http.ResponseWriter, *http.Request) { panic("secret detail") })
	mux.HandleFunc("GET /late", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
		panic("too late")
	})
	return mux
}

func attrs(s sdktrace.ReadOnlySpan) map[attribute.Key]string {
	all := map[attribute.Key]string{}
	for _, a := range s.Attributes() {
		all[a.Key] = a.Value.String()
	}
	return all
}

func TestService_traces(t *testing.T) {
	t.Parallel()
	const traceID, spanID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	parent := http.Header{"Traceparent": {"00-" + traceID + "-" + spanID + "-00"}}
	trusting := service.Service{Public: routes(), Config: service.Config{TrustTraceparent: true}}

	t.Run("the span is named after the route and continues the request's trace", func(t *testing.T) {
		t.Parallel()
		inBubble(t, trusting, func(t *testing.T, r *running) {
			res, _ := r.do("GET", "/v1/orders/4711?wait=5s", "", parent)
			span := r.spans.Ended()[0]
			if got := span.Name(); got != "GET /v1/orders/{id}" {
				t.Errorf("name: got %q", got)
			}
			if got := span.SpanKind(); got != trace.SpanKindServer {
				t.Errorf("kind: got %v", got)
			}
			if got := attrs(span)["http.route"]; got != "/v1/orders/{id}" {
				t.Errorf("http.route: got %q", got)
			}
			if got := span.SpanContext().TraceID().String(); got != traceID {
				t.Errorf("trace: got %s, want %s", got, traceID)
			}
			if got := span.Parent().SpanID().String(); got != spanID {
				t.Errorf("parent: got %s, want %s", got, spanID)
			}
			want := "00-" + traceID + "-" + span.SpanContext().SpanID().String() + "-01"
			if got := res.Header.Get("Traceresponse"); got != want {
				t.Errorf("traceresponse: got %q, want %q", got, want)
			}
		})
	})
	t.Run("an untrusted trace becomes a link", func(t *testing.T) {
		t.Parallel()
		inBubble(t, service.Service{Public: routes()}, func(t *testing.T, r *running) {
			r.do("POST", "/v1/orders", "", parent)
			span := r.spans.Ended()[0]
			if span.Parent().IsValid() || span.SpanContext().TraceID().String() == traceID {
				t.Errorf("trace: got %s with parent %v, want a new root", span.SpanContext().TraceID(), span.Parent())
			}
			if links := span.Links(); len(links) != 1 || links[0].SpanContext.TraceID().String() != traceID {
				t.Errorf("links: got %v, want one to %s", links, traceID)
			}
			if got := span.Name(); got != "POST /v1/orders" {
				t.Errorf("name: got %q", got)
			}
		})
	})
	t.Run("probes are not traced, refusals are", func(t *testing.T) {
		t.Parallel()
		inBubble(t, trusting, func(t *testing.T, r *running) {
			for _, path := range []string{"/livez", "/readyz", "/metrics", "/version"} {
				if status, _ := r.get(path); status != 200 {
					t.Errorf("%s: got %d", path, status)
				}
			}
			if got := len(r.spans.Ended()); got != 0 {
				t.Errorf("%d spans for probes", got)
			}
			r.get("/nowhere/4711")
			if got := r.spans.Ended()[0].Name(); got != "GET" {
				t.Errorf("name of a span without a route: got %q, want GET", got)
			}
		})
	})
	t.Run("hostile headers change neither names nor labels", func(t *testing.T) {
		t.Parallel()
		inBubble(t, trusting, func(t *testing.T, r *running) {
			for _, h := range []http.Header{
				{"Traceparent": {strings.Repeat("0", 10_000)}, "Host": {"evil.test:666"}},
				{"Traceparent": {"00-" + traceID + "-" + spanID + "-01", "00-x"}, "Tracestate": {strings.Repeat("a=b,", 2_000)}},
				{"Baggage": {"k=" + strings.Repeat("v", 8_000)}, "User-Agent": {strings.Repeat("u", 8_000)}},
			} {
				if res, _ := r.do("POST", "/v1/orders", "", h); res.StatusCode != 200 || res.Header.Get("Traceresponse") == "" {
					t.Errorf("got %d, traceresponse %q", res.StatusCode, res.Header.Get("Traceresponse"))
				}
			}
			r.do("BREW", "/v1/orders", "", nil)
			_, page := r.get("/metrics")
			want := `http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_code="200",http_route="/v1/orders",url_scheme="http"} 3`
			if !strings.Contains(page, "\n"+want+"\n") {
				t.Errorf("/metrics has no line %s in:\n%s", want, page)
			}
			for _, bad := range []string{"evil", "BREW"} {
				if strings.Contains(page, bad) {
					t.Errorf("/metrics holds %s", bad)
				}
			}
		})
	})
}

func TestService_refusals(t *testing.T) {
	t.Parallel()
	inBubble(t, service.Service{Public: routes()}, func(t *testing.T, r *running) {
		for _, tt := range []struct {
			method, path string
			status       int
			allow        string
		}{
			{"GET", "/nowhere", 404, ""},
			{"GET", "/v1//nowhere", 404, ""},
			{"POST", "/v1//orders", 404, ""},
			{"DELETE", "/v1/orders", 405, "POST"},
			{"POST", "/livez", 404, ""},
			{"GET", "/openapi.yaml", 404, ""},
		} {
			res, body := r.do(tt.method, tt.path, "", nil)
			var p struct {
				Status  int
				Title   string
				TraceID string `json:"trace_id"`
			}
			if err := json.Unmarshal([]byte(body), &p); err != nil {
				t.Errorf("%s %s: %q is no problem: %v", tt.method, tt.path, body, err)
			}
			if res.StatusCode != tt.status || p.Status != tt.status || p.Title == "" || len(p.TraceID) != 32 {
				t.Errorf("%s %s: got %d %+v, want %d", tt.method, tt.path, res.StatusCode, p, tt.status)
			}
			if got := res.Header.Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("%s %s: content type %q", tt.method, tt.path, got)
			}
			if got := res.Header.Get("Allow"); got != tt.allow {
				t.Errorf("%s %s: Allow %q, want %q", tt.method, tt.path, got, tt.allow)
			}
		}
	})
}

func TestService_panics(t *testing.T) {
	t.Parallel()
	inBubble(t, service.Service{Public: routes()}, func(t *testing.T, r *running) {
		res, body := r.do("GET", "/early", "", nil)
		if res.StatusCode != 500 || strings.Contains(body, "secret") || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("a panic: got %d %s, want a problem without details", res.StatusCode, body)
		}
		if got := r.spans.Ended()[0].Status().Code; got != codes.Error {
			t.Errorf("span: got %v, want an error", got)
		}
		if got := r.logs.String(); !strings.Contains(got, "request panicked") || !strings.Contains(got, "secret detail") || !strings.Contains(got, "trace_id=") {
			t.Errorf("log: got %q, want the panic with its trace", got)
		}
		late, err := r.client.Get("http://demo.test/late")
		if err == nil {
			_, err = io.ReadAll(late.Body)
			_ = late.Body.Close()
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			t.Errorf("a panic in the middle of an answer: got %v, want a cut connection", err)
		}
		if res, _ := r.do("POST", "/v1/orders", "", nil); res.StatusCode != 200 {
			t.Errorf("the next request: got %d", res.StatusCode)
		}
	})
}

func TestService_information(t *testing.T) {
	t.Parallel()
	inBubble(t, service.Service{Version: "v1.2.3", OpenAPI: []byte("openapi: 3.1.0\n")}, func(t *testing.T, r *running) {
		res, body := r.do("GET", "/openapi.yaml", "", nil)
		if body != "openapi: 3.1.0\n" || res.Header.Get("Content-Type") != "application/yaml" {
			t.Errorf("/openapi.yaml: got %q as %q", body, res.Header.Get("Content-Type"))
		}
		_, body = r.get("/version")
		var v map[string]string
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatal(err)
		}
		delete(v, "go")
		delete(v, "revision")
		if diff := cmp.Diff(map[string]string{"service": "demo", "version": "v1.2.3"}, v); diff != "" {
			t.Errorf("/version (-want +got):\n%s", diff)
		}
		if res, body := r.do("GET", "/", "", nil); res.StatusCode != 404 {
			t.Errorf("/ without public routes: got %d %s", res.StatusCode, body)
		}
	})
}

func TestService_admin(t *testing.T) {
	t.Parallel()
	admin := http.NewServeMux()
	admin.HandleFunc("POST /admin/waiting/{id}/drop", answer("dropped"))
	inBubble(t, service.Service{Public: routes(), Admin: admin}, func(t *testing.T, r *running) {
		if res, _ := r.do("POST", "/admin/waiting/1/drop", "", nil); res.StatusCode != 404 {
			t.Errorf("an operator's route on the public address: got %d, want 404", res.StatusCode)
		}
		r.client = r.admin.client()
		if res, body := r.do("POST", "/admin/waiting/1/drop", "", nil); res.StatusCode != 200 || body != "dropped" {
			t.Errorf("on the admin address: got %d %q", res.StatusCode, body)
		}
		header := http.Header{"Origin": {"https://evil.test"}, "Sec-Fetch-Site": {"cross-site"}}
		if res, _ := r.do("POST", "/admin/waiting/1/drop", "", header); res.StatusCode != 403 {
			t.Errorf("from another site's page: got %d, want 403", res.StatusCode)
		}
	})
}
