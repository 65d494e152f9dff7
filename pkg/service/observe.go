package service

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/httpconv"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/telemetry"
)

// observer makes the server span of each request and measures it, after OpenTelemetry's
// stable conventions for HTTP servers. An error.type is the status from 500 up, or "panic" where
// the answer was cut. It is safe for concurrent use.
type observer struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	trust      bool // requests' traces are continued

	duration     httpconv.ServerRequestDuration
	requestSize  httpconv.ServerRequestBodySize
	responseSize httpconv.ServerResponseBodySize
}

// newObserver returns one that works even with an error, without the metrics that it names.
func newObserver(t *telemetry.Telemetry, trust bool) (*observer, error) {
	o := &observer{tracer: t.Tracer, propagator: t.Propagator, trust: trust}
	var errs [3]error
	o.duration, errs[0] = httpconv.NewServerRequestDuration(t.Meter)
	o.requestSize, errs[1] = httpconv.NewServerRequestBodySize(t.Meter)
	o.responseSize, errs[2] = httpconv.NewServerResponseBodySize(t.Meter)
	return o, errors.Join(errs[:]...)
}

var serverKind = []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer)}

// start begins the span of a request that has no route yet, in a context below ctx.
func (o *observer) start(ctx context.Context, req *http.Request) (context.Context, trace.Span) {
	ctx = o.propagator.Extract(ctx, propagation.HeaderCarrier(req.Header))
	opts := serverKind
	if !o.trust {
		opts = append(slices.Clip(opts), trace.WithNewRoot())
		if client := trace.SpanContextFromContext(ctx); client.IsValid() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: client}))
		}
	}
	return o.tracer.Start(ctx, spanName(req), opts...) // our sampler asks for no attributes
}

// finish tells the span and the metrics what became of a request: its route, by the pattern
// that the mux has left in it, and its answer.
func (o *observer) finish(req *http.Request, span trace.Span, w *trackedWriter, read int64, took time.Duration) {
	status, failure := outcome(w)
	if span.IsRecording() {
		a := requestAttrs(req)
		a.text(semconv.HTTPRouteKey, route(req))
		a.number(semconv.HTTPResponseStatusCodeKey, status)
		a.number(semconv.HTTPRequestBodySizeKey, int(read))
		a.number(semconv.HTTPResponseBodySizeKey, int(w.sent))
		a.text(semconv.ErrorTypeKey, failure)
		if failure != "" {
			span.SetStatus(codes.Error, "")
		}
		span.SetName(spanName(req))
		span.SetAttributes(a...)
	}
	labels := make(attrs, 0, 5) // nothing that a client may choose freely
	labels.text(semconv.HTTPRequestMethodKey, method(req))
	labels.text(semconv.URLSchemeKey, scheme)
	labels.text(semconv.HTTPRouteKey, route(req))
	labels.number(semconv.HTTPResponseStatusCodeKey, status)
	labels.text(semconv.ErrorTypeKey, failure)
	ctx, with := req.Context(), metric.WithAttributeSet(attribute.NewSet(labels...))
	o.duration.Inst().Record(ctx, took.Seconds(), with)
	o.requestSize.Inst().Record(ctx, read, with)
	o.responseSize.Inst().Record(ctx, w.sent, with)
}

// outcome is the status that an answer has begun with, 0 if it was cut before, and its
// error.type, empty if it is none.
func outcome(w *trackedWriter) (status int, failure string) {
	switch {
	case w.cut && w.wrote:
		return w.status, "panic"
	case w.cut:
		return 0, "panic"
	case w.status >= 500:
		return w.status, strconv.Itoa(w.status)
	}
	return w.status, ""
}

// attrs are attributes without those that are empty.
type attrs []attribute.KeyValue

func (a *attrs) text(key attribute.Key, value string) {
	if value != "" {
		*a = append(*a, key.String(value))
	}
}

func (a *attrs) number(key attribute.Key, value int) {
	if value > 0 {
		*a = append(*a, key.Int(value))
	}
}

const scheme = "http" // our servers speak no other

func requestAttrs(req *http.Request) attrs {
	host, port := hostPort(req.Host)
	peer, peerPort := hostPort(req.RemoteAddr)
	client, _, _ := strings.Cut(req.Header.Get("X-Forwarded-For"), ",")
	a := make(attrs, 0, 16) // with those of the answer
	a.text(semconv.HTTPRequestMethodKey, method(req))
	if method(req) != req.Method {
		a.text(semconv.HTTPRequestMethodOriginalKey, req.Method)
	}
	a.text(semconv.URLSchemeKey, scheme)
	a.text(semconv.URLPathKey, req.URL.Path)
	a.text(semconv.ServerAddressKey, host)
	if port != 80 {
		a.number(semconv.ServerPortKey, port)
	}
	a.text(semconv.NetworkPeerAddressKey, peer)
	a.number(semconv.NetworkPeerPortKey, peerPort)
	a.text(semconv.NetworkProtocolVersionKey, strings.TrimPrefix(req.Proto, "HTTP/"))
	a.text(semconv.ClientAddressKey, cmp.Or(client, peer))
	a.text(semconv.UserAgentOriginalKey, req.UserAgent())
	return a
}

func spanName(req *http.Request) string {
	name := method(req)
	if name == otherMethod {
		name = "HTTP"
	}
	if route := route(req); route != "" {
		name += " " + route
	}
	return name
}

// route is the path of the pattern that the request has matched; empty if it has none.
func route(req *http.Request) string {
	if i := strings.IndexByte(req.Pattern, '/'); i >= 0 {
		return req.Pattern[i:] // without method and host
	}
	return ""
}

// otherMethod stands for what clients make up: the conventions do not know it.
const otherMethod = "_OTHER"

func method(req *http.Request) string {
	switch m := strings.ToUpper(req.Method); m {
	case "CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE":
		return m
	}
	return otherMethod
}

// hostPort splits an address whose port may be missing, or be none: then it is 0.
func hostPort(addr string) (host string, port int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return strings.Trim(addr, "[]"), 0
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return host, 0
	}
	return host, int(n)
}
