package event

import (
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

// Headers returns the CloudEvents headers of an event; trace context is added where the
// record is written.
func (m Meta) Headers() []Header {
	h := make([]Header, 0, 11)
	h = append(h,
		Header{HeaderSpecVersion, []byte("1.0")},
		Header{HeaderID, []byte(m.ID)},
		Header{HeaderType, []byte(m.Type)},
		Header{HeaderSource, []byte(m.Source)},
		Header{HeaderSubject, []byte(m.Subject)},
		Header{HeaderTime, m.Time.UTC().AppendFormat(nil, time.RFC3339Nano)},
		Header{HeaderAggregateVersion, strconv.AppendInt(nil, m.Version, 10)},
	)
	if m.CausationID != "" {
		h = append(h, Header{HeaderCausationID, []byte(m.CausationID)})
	}
	return append(h, Header{HeaderContentType, []byte(ContentType)})
}

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
func text(v []byte) string {
	if len(v) == 0 || !utf8.Valid(v) || strings.ContainsRune(string(v), 0) {
		return ""
	}
	return string(v)
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
	var headers []Header
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
		headers = append(headers, Header{string(key), value})
	}
	return headers, nil
}
