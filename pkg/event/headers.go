package event

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// The headers of a record: CloudEvents 1.0, Kafka protocol binding, binary mode
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md),
// and W3C trace context (https://www.w3.org/TR/trace-context/).
const (
	HeaderSpecVersion      = "ce_specversion"
	HeaderID               = "ce_id"
	HeaderType             = "ce_type"
	HeaderSource           = "ce_source"
	HeaderSubject          = "ce_subject"
	HeaderTime             = "ce_time"
	HeaderAggregateVersion = "ce_aggregateversion"
	HeaderCausationID      = "ce_causationid"
	HeaderContentType      = "content-type"
	HeaderTraceparent      = "traceparent"
	HeaderTracestate       = "tracestate"
)

// ContentType is the content type of every value that we write.
const ContentType = "application/avro"

// Headers returns the headers of an event: CloudEvents, and its trace if there is one. They and
// their values share one piece of memory.
func (m Meta) Headers() []Header {
	var room struct {
		headers [11]Header // all names
		values  [256]byte  // of an ordinary event; more is put elsewhere
	}
	h, b := room.headers[:0], room.values[:0]
	add := func(name string, from int) {
		h = append(h, Header{name, b[from:len(b):len(b)]})
	}
	text := func(name, value string) {
		from := len(b)
		b = append(b, value...)
		add(name, from)
	}
	text(HeaderSpecVersion, "1.0")
	text(HeaderID, m.ID)
	text(HeaderType, m.Type)
	text(HeaderSource, m.Source)
	text(HeaderSubject, m.Subject)
	from := len(b)
	b = m.Time.UTC().AppendFormat(b, time.RFC3339Nano)
	add(HeaderTime, from)
	from = len(b)
	b = strconv.AppendInt(b, m.Version, 10)
	add(HeaderAggregateVersion, from)
	if m.CausationID != "" {
		text(HeaderCausationID, m.CausationID)
	}
	text(HeaderContentType, ContentType)
	if m.Trace.IsValid() {
		from = len(b)
		b = appendTraceparent(b, m.Trace)
		add(HeaderTraceparent, from)
		if state := m.Trace.TraceState(); state.Len() > 0 {
			text(HeaderTracestate, state.String())
		}
	}
	return h
}

// names are those of our headers, so that reading them back makes no new strings.
var names = func() map[string]string {
	all := map[string]string{}
	for _, name := range []string{
		HeaderSpecVersion, HeaderID, HeaderType, HeaderSource, HeaderSubject, HeaderTime, HeaderAggregateVersion,
		HeaderCausationID, HeaderContentType, HeaderTraceparent, HeaderTracestate,
	} {
		all[name] = name
	}
	return all
}()

// ReadMeta reads what a record says about its event. typ is the full name of the writer's
// schema, which decides over the ce_type header. What is missing or malformed is derived:
// the ID from the topic's ID, partition and offset, the subject from the key, the time from
// the record's timestamp.
func ReadMeta(r *Record, typ string) Meta {
	m := Meta{
		ID:          text(r.Header(HeaderID)),
		Type:        typ,
		Source:      text(r.Header(HeaderSource)),
		Subject:     strings.ToValidUTF8(string(r.Key), "\uFFFD"),
		CausationID: text(r.Header(HeaderCausationID)),
		Time:        r.Timestamp.UTC(),
		Attempt:     1,
	}
	if m.ID == "" {
		m.ID = positionID(r)
	}
	if t, err := time.Parse(time.RFC3339Nano, text(r.Header(HeaderTime))); err == nil {
		m.Time = t.UTC()
	}
	if v, err := strconv.ParseInt(text(r.Header(HeaderAggregateVersion)), 10, 64); err == nil && v > 0 {
		m.Version = v
	}
	return m
}

// text is a header's value if it can be stored and printed, else empty.
func text(v []byte) string { return string(printable(v)) }

// printable is v if it can be stored and printed, else nil.
func printable(v []byte) []byte {
	if !utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0 {
		return nil
	}
	return v
}

// AppendHeaders appends headers as a database keeps them: each name and value behind its
// length.
func AppendHeaders(dst []byte, headers []Header) []byte {
	for _, h := range headers {
		dst = binary.AppendUvarint(dst, uint64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = binary.AppendUvarint(dst, uint64(len(h.Value)))
		dst = append(dst, h.Value...)
	}
	return dst
}

// ParseHeaders reads what AppendHeaders wrote. The values share b's memory.
func ParseHeaders(b []byte) ([]Header, error) {
	if len(b) == 0 {
		return nil, nil
	}
	headers := make([]Header, 0, len(names))
	next := func() ([]byte, bool) {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, false
		}
		part := b[size : size+int(n)]
		b = b[size+int(n):]
		return part, true
	}
	for len(b) > 0 {
		key, ok := next()
		if !ok {
			return nil, errors.New("stored headers are cut")
		}
		value, ok := next()
		if !ok {
			return nil, errors.New("stored headers are cut")
		}
		name, ours := names[string(key)]
		if !ours {
			name = string(key)
		}
		headers = append(headers, Header{name, value})
	}
	return headers, nil
}
