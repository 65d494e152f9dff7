package event

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"strconv"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
)

// namespace is the fixed namespace of all derived event IDs. Changing it changes every ID.
var namespace = uuid.MustParse("6f1d2c1e-7b0a-5f53-9c4e-3a8e0d6b9a41")

// Cause is what made an event happen: an event that was handled, or a request. The zero
// value is no cause.
type Cause struct {
	seed    string
	eventID string
	trace   trace.SpanContext
}

// By is the cause of an event that is published while handling another.
func By(m Meta) Cause {
	return Cause{seed: string(join(nil, "event", m.Source, m.ID)), eventID: m.ID, trace: m.Trace}
}

// Because is the cause of an event that no other event caused: a request (the aggregate's
// ID and the idempotency key), or a decision (the aggregate's ID and a word, such as
// "deadline"). The same parts are the same cause.
func Because(parts ...string) Cause {
	return Cause{seed: string(join(join(nil, "request"), parts...))}
}

// EventID is the ID of the causing event, empty if it was none.
func (c Cause) EventID() string { return c.eventID }

// Trace is the span in which the causing event is handled, else that of ctx: the parent of
// what the cause brings about.
func (c Cause) Trace(ctx context.Context) trace.SpanContext {
	if c.trace.IsValid() {
		return c.trace
	}
	return trace.SpanContextFromContext(ctx)
}

// NewID derives an event's ID (UUID version 5, RFC 9562) from the service that publishes
// it, its cause, its type, and its ordinal among the events of that type that the cause
// brings about. The same work done twice yields the same IDs.
func NewID(source string, cause Cause, typ string, ordinal int) string {
	var room [256]byte // on the stack
	return uuid.NewSHA1(namespace, join(room[:0], source, cause.seed, typ, strconv.Itoa(ordinal))).String()
}

// positionID is the ID of a record whose producer gave none. It is made from the topic's
// ID, not its name: a recreated topic holds other records.
func positionID(r *Record) string {
	return uuid.NewSHA1(namespace, position(r)).String()
}

func position(r *Record) []byte {
	b := append([]byte("position"), r.TopicID[:]...)
	if r.TopicID == ([16]byte{}) {
		b = append(b, r.Topic...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(r.Partition))
	return binary.BigEndian.AppendUint64(b, uint64(r.Offset))
}

// Identity is what an inbox remembers of a record: 16 bytes of SHA-256.
type Identity [16]byte

// IdentityOf is the identity of a record's event. Records that carry an ID share it with
// their republished twins: it is made of topic, source and ID, because two sources may
// count alike. Any other record is identified by its position.
func IdentityOf(r *Record) Identity {
	id := printable(r.Header(HeaderID))
	if len(id) == 0 {
		return identity(position(r))
	}
	var room [256]byte // on the stack
	b := join(room[:0], "event", r.Topic)
	return identity(join(b, printable(r.Header(HeaderSource)), id))
}

// PositionIdentity is the identity of a record whose headers cannot be trusted, because
// its value is no event.
func PositionIdentity(r *Record) Identity { return identity(position(r)) }

func identity(b []byte) (id Identity) {
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
}

// join appends each part behind its length, so that no two lists of parts look alike.
func join[T string | []byte](b []byte, parts ...T) []byte {
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}
