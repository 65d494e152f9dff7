package event

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"
)

// Payload is a fact that a service publishes: a struct generated from its newest Avro
// schema. Its methods work on the zero value too, Key apart.
type Payload interface {
	// Schema is the newest version of the event's Avro schema, as JSON.
	Schema() string
	// Topic is the topic that the event's records go to.
	Topic() string
	// Key is the aggregate's ID. Events that share a topic and a key keep their order.
	Key() string
}

// Event is a payload with what is known about it.
type Event[P Payload] struct {
	Data P
	Meta Meta
}

// Meta is what the headers of a record, and its place in the log, say about an event.
type Meta struct {
	// ID is the idempotency key of the event: the same in every redelivery,
	// republication, retry and redrive. Never empty.
	ID string
	// Type is the Avro full name of the writer's schema.
	Type string
	// Source is the service that published the event, such as "/order"; empty if the
	// producer did not say.
	Source string
	// Subject is the aggregate's ID, which is the record's key.
	Subject string
	// Time is when the event happened, in UTC; the record's timestamp if the producer did
	// not say. Nothing may depend on it for correctness.
	Time time.Time
	// Version is the event's position among those of its aggregate from this source, from
	// 1, without gaps; 0 if the producer did not say.
	Version int64
	// CausationID is the ID of the event that caused this one; empty on the first.
	CausationID string
	// Attempt counts the deliveries to the handler, from 1.
	Attempt int
	// Trace is the span in which the event is handled, or to be published, the span that it
	// came of; invalid if there is none.
	Trace trace.SpanContext
}

// Record is one record of a topic, free of any client library's types. Whoever receives
// one may keep it but not change its bytes.
type Record struct {
	Topic     string
	TopicID   [16]byte // zero from brokers older than Kafka 3.1
	Partition int32
	Offset    int64
	Timestamp time.Time
	Key       []byte // nil is no key
	Value     []byte // nil is a tombstone
	Headers   []Header
}

// Header is one header of a record.
type Header struct {
	Key   string
	Value []byte
}

// Batch is a run of records of one partition, in offset order.
type Batch struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
	// LogStart is the offset of the first record that the broker still holds.
	LogStart int64
	Records  []Record
}

// Header returns the value of the first header of that name that is not longer than 512
// bytes, and nil if there is none. A longer value is treated as absent: no header of ours
// is that long, and a hostile one must not travel on.
func (r *Record) Header(name string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == name {
			if len(r.Headers[i].Value) > maxHeader {
				return nil
			}
			return r.Headers[i].Value
		}
	}
	return nil
}

const maxHeader = 512

// ErrTopic is wrapped by a publisher's error when the record's whole topic is missing or
// forbidden, so that other records of the topic would fail alike.
var ErrTopic = errors.New("topic cannot be written")
