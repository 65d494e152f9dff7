package event

import (
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"
)

// maxTracestate bounds what is carried on of a foreign tracestate, in bytes.
const maxTracestate = 512

// SpanContext reads the trace context of a record, in place. A malformed or doubled header
// yields an invalid context, which starts a new trace: headers are a caller's input.
func SpanContext(headers []Header) trace.SpanContext {
	var parent, state []byte
	for i := range headers {
		switch headers[i].Key {
		case HeaderTraceparent:
			if parent != nil {
				return trace.SpanContext{}
			}
			parent = headers[i].Value
		case HeaderTracestate:
			state = headers[i].Value
		}
	}
	cfg, ok := parseTraceparent(parent)
	if !ok {
		return trace.SpanContext{}
	}
	if len(state) > 0 && len(state) <= maxTracestate {
		if ts, err := trace.ParseTraceState(string(state)); err == nil {
			cfg.TraceState = ts
		}
	}
	return trace.NewSpanContext(cfg)
}

// WithSpanContext returns headers with exactly one traceparent, and one tracestate if sc
// has any, in place of those that were there. headers is not changed.
func WithSpanContext(headers []Header, sc trace.SpanContext) []Header {
	out := make([]Header, 0, len(headers)+2)
	for _, h := range headers {
		if h.Key != HeaderTraceparent && h.Key != HeaderTracestate {
			out = append(out, h)
		}
	}
	return AppendSpanContext(out, sc)
}

// AppendSpanContext is [WithSpanContext] for headers that have no trace context and are the
// caller's own: it appends to them.
func AppendSpanContext(headers []Header, sc trace.SpanContext) []Header {
	if !sc.IsValid() {
		return headers
	}
	headers = append(headers, Header{HeaderTraceparent, Traceparent(sc)})
	if s := sc.TraceState().String(); s != "" {
		headers = append(headers, Header{HeaderTracestate, []byte(s)})
	}
	return headers
}

// Traceparent is the W3C traceparent of a valid span context, version 00.
func Traceparent(sc trace.SpanContext) []byte {
	b := make([]byte, 55)
	copy(b, "00-")
	tid, sid := sc.TraceID(), sc.SpanID()
	hex.Encode(b[3:35], tid[:])
	b[35] = '-'
	hex.Encode(b[36:52], sid[:])
	b[52], b[53], b[54] = '-', '0', '0'
	if sc.IsSampled() {
		b[54] = '1'
	}
	return b
}

// parseTraceparent reads a traceparent of version 00
// (https://www.w3.org/TR/trace-context/#traceparent-header-field-values): 55 bytes, lower
// case, no zero IDs.
func parseTraceparent(b []byte) (cfg trace.SpanContextConfig, ok bool) {
	if len(b) != 55 || b[0] != '0' || b[1] != '0' || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return cfg, false
	}
	var flags [1]byte
	if !unhex(cfg.TraceID[:], b[3:35]) || !unhex(cfg.SpanID[:], b[36:52]) || !unhex(flags[:], b[53:55]) {
		return cfg, false
	}
	cfg.TraceFlags = trace.TraceFlags(flags[0]) & trace.FlagsSampled
	cfg.Remote = true
	return cfg, cfg.TraceID.IsValid() && cfg.SpanID.IsValid()
}

func unhex(dst, src []byte) bool {
	for _, c := range src {
		if c >= 'A' && c <= 'F' { // the specification allows lower case only
			return false
		}
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}
