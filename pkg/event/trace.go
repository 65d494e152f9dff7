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
	if !sc.IsValid() {
		return out
	}
	out = append(out, Header{HeaderTraceparent, Traceparent(sc)})
	if state := sc.TraceState(); state.Len() > 0 {
		out = append(out, Header{HeaderTracestate, []byte(state.String())})
	}
	return out
}

// Traceparent is the W3C traceparent of a valid span context, version 00.
func Traceparent(sc trace.SpanContext) []byte {
	return appendTraceparent(make([]byte, 0, 55), sc)
}

func appendTraceparent(b []byte, sc trace.SpanContext) []byte {
	tid, sid := sc.TraceID(), sc.SpanID()
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, tid[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, sid[:])
	if sc.IsSampled() {
		return append(b, "-01"...)
	}
	return append(b, "-00"...)
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
