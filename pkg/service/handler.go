package service

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// public is the handler of HTTPAddr: the probes, untraced, and the service's routes.
func (r *run) public() http.Handler {
	probes, routes := r.probes(), r.traced(r.Public)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, pattern := probes.Handler(req); pattern != "" {
			probes.ServeHTTP(w, req)
			return
		}
		routes.ServeHTTP(w, req)
	})
}

// admin is the handler of AdminAddr. Browsers are kept from sending requests to it on
// behalf of other sites.
func (r *run) admin() http.Handler {
	return http.NewCrossOriginProtection().Handler(r.traced(r.Admin))
}

// traced puts what every request of a service needs around its routes: the server span
// and metric, traceresponse, an answer after a panic, and the refusal while not ready.
// Nothing here may copy the request: the mux leaves its pattern in it, and the span and the
// metric are named after that.
func (r *run) traced(routes http.Handler) http.Handler {
	if routes == nil {
		routes = http.NewServeMux()
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		span := trace.SpanFromContext(req.Context())
		if sc := span.SpanContext(); sc.IsValid() {
			w.Header().Set("traceresponse", fmt.Sprintf("00-%s-%s-%s", sc.TraceID(), sc.SpanID(), sc.TraceFlags()&trace.FlagsSampled))
		}
		tracked := &trackedWriter{ResponseWriter: w}
		defer r.recovered(tracked, req)
		if reason := r.notReady.Load(); reason != nil {
			w.Header().Set("Retry-After", "1")
			WriteProblem(tracked, req, http.StatusServiceUnavailable, "the service is starting or stopping", "")
			return
		}
		route(tracked, req, routes)
		if i := strings.IndexByte(req.Pattern, '/'); i >= 0 {
			span.SetAttributes(semconv.HTTPRoute(req.Pattern[i:]))
		}
	})
	trust := r.Config.TrustTraceparent
	inner := otelhttp.NewHandler(h, "",
		otelhttp.WithTracerProvider(r.Telemetry.TracerProvider),
		otelhttp.WithMeterProvider(r.Telemetry.MeterProvider),
		otelhttp.WithPropagators(r.Telemetry.Propagator),
		otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return !trust }),
	)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), answerTimeout)
		defer cancel()
		inner.ServeHTTP(w, req.WithContext(ctx))
	})
}

// recovered answers for a handler that panicked, and logs it.
func (r *run) recovered(w *trackedWriter, req *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	r.log.ErrorContext(req.Context(), "request panicked", "panic", v, "stack", string(debug.Stack()))
	if w.wrote {
		panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
	}
	WriteProblem(w, req, http.StatusInternalServerError, "", "")
}

// trackedWriter knows whether an answer has begun.
type trackedWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *trackedWriter) WriteHeader(status int) {
	w.wrote = w.wrote || status >= 200
	w.ResponseWriter.WriteHeader(status)
}

func (w *trackedWriter) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *trackedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// route serves the request; where the routes are a ServeMux that has none for it, the
// answer is a problem instead of the mux's plain text.
func route(w http.ResponseWriter, req *http.Request, routes http.Handler) {
	mux, ok := routes.(*http.ServeMux)
	if !ok {
		routes.ServeHTTP(w, req)
		return
	}
	h, pattern := mux.Handler(req)
	if pattern != "" {
		mux.ServeHTTP(w, req)
		return
	}
	refusal := &refusal{header: http.Header{}}
	h.ServeHTTP(refusal, req)
	if allow := refusal.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
	}
	WriteProblem(w, req, max(refusal.status, http.StatusNotFound), "", "") // not the redirect of an unclean path
}

// refusal keeps the status and header of the mux's own answer.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(p []byte) (int, error) { return len(p), nil }
