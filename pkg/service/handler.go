package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"runtime/debug"
	"sync/atomic"
	"time"

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
// and metrics, and an end in time.
func (r *run) traced(routes http.Handler) http.Handler {
	if routes == nil {
		routes = http.NewServeMux()
	}
	o, err := newObserver(r.Telemetry, r.Config.TrustTraceparent)
	if err != nil {
		r.log.Warn("metrics of requests incomplete", "error", err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(req.Context(), answerTimeout)
		defer cancel()
		ctx, span := o.start(ctx, req)
		defer span.End()
		// The last copy of the request: the mux leaves its pattern in it.
		req = req.WithContext(ctx)
		body := &countedBody{ReadCloser: req.Body}
		if req.Body != http.NoBody {
			req.Body = body
		}
		tracked := &trackedWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() { o.finish(req, span, tracked, body.read.Load(), time.Since(begun)) }() // answer panics where it is cut
		r.answer(tracked, req, routes)
	})
}

// answer lets the routes answer, and does so in their place after a panic and while not
// ready.
func (r *run) answer(w *trackedWriter, req *http.Request, routes http.Handler) {
	if sc := trace.SpanContextFromContext(req.Context()); sc.IsValid() {
		w.Header().Set("traceresponse", "00-"+sc.TraceID().String()+"-"+sc.SpanID().String()+"-"+(sc.TraceFlags()&trace.FlagsSampled).String())
	}
	defer r.recovered(w, req)
	if reason := r.notReady.Load(); reason != nil {
		w.Header().Set("Retry-After", "1")
		WriteProblem(w, req, http.StatusServiceUnavailable, "the service is starting or stopping", "")
		return
	}
	serveRoute(w, req, routes)
}

// recovered answers for a handler that panicked, and logs it. If the answer has begun, or the
// handler wants it so, it is cut.
func (r *run) recovered(w *trackedWriter, req *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		r.log.ErrorContext(req.Context(), "request panicked", "panic", v, "stack", string(debug.Stack()))
		if !w.wrote {
			WriteProblem(w, req, http.StatusInternalServerError, "", "")
			return
		}
	}
	w.cut = true
	panic(http.ErrAbortHandler) // the client must not take half an answer for a whole one
}

// trackedWriter knows whether an answer has begun, and what was sent.
type trackedWriter struct {
	http.ResponseWriter
	wrote  bool
	cut    bool // the client notices that something is missing
	status int  // 200 until it begins with another
	sent   int64
}

func (w *trackedWriter) WriteHeader(status int) {
	if !w.wrote && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.wrote, w.status = true, status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *trackedWriter) Write(p []byte) (int, error) {
	w.wrote = true
	n, err := w.ResponseWriter.Write(p)
	w.sent += int64(n)
	return n, err
}

// Flush is for what looks for an http.Flusher; http.ResponseController takes FlushError.
func (w *trackedWriter) Flush() { _ = w.FlushError() }

func (w *trackedWriter) FlushError() error {
	err := http.NewResponseController(w.ResponseWriter).Flush()
	w.wrote = w.wrote || !errors.Is(err, http.ErrNotSupported)
	return err
}

// Unwrap is for the rest of http.ResponseController.
func (w *trackedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// countedBody counts what is read; a handler may leave its reading to others.
type countedBody struct {
	io.ReadCloser
	read atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read.Add(int64(n))
	return n, err
}

// serveRoute serves the request; where the routes are a ServeMux that has none for it, the
// answer is a problem instead of the mux's plain text.
func serveRoute(w http.ResponseWriter, req *http.Request, routes http.Handler) {
	mux, ok := routes.(*http.ServeMux)
	if !ok {
		routes.ServeHTTP(w, req)
		return
	}
	h, pattern := mux.Handler(req)
	asked := req.URL.EscapedPath()
	if clean := path.Clean(asked); pattern != "" && (clean == asked || clean+"/" == asked) {
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
