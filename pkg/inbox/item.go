package inbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
)

// item is a record on its way through the inbox.
type item struct {
	*event.Record
	identity event.Identity
	meta     event.Meta
	producer trace.SpanContext
	handler  *handler // nil: nobody handles the type
	data     any      // the decoded payload
	err      error    // why there is none
	probe    *string  // the type that this is a probe of, if it is one
	letter
}

// letter is what a waiting event carries beside its record.
type letter struct {
	seq           int64
	attempts      int
	redrives      int
	reason        string
	lastError     string
	firstFailedAt int64
	failedAt      int64
	takenAt       int64
	setAside      bool
}

// Each of these makes a record undecodable that is no event of ours whatever its bytes say.
var (
	errNoKey   = fmt.Errorf("%w: the record has no key", codec.ErrUndecodable)
	errNoValue = fmt.Errorf("%w: the record has no value", codec.ErrUndecodable)
	errLongKey = fmt.Errorf("%w: the record's key is longer than %d bytes", codec.ErrUndecodable, maxKey)
)

// errOtherKey is of an event under another aggregate's key: nothing would keep it in order with
// the events of its own.
var errOtherKey = Permanent(errors.New("the record's key is not the event's"))

// maxKey bounds a key in bytes: the tables of waiting have it in their indexes, which take
// 2,704 bytes on PostgreSQL.
const maxKey = 1024

// open reads a record: whose it is, who handles it, what it says. It may wait for the
// registry, for a bounded time, if the schema has never been seen.
func (in *Inbox) open(ctx context.Context, r *event.Record) *item {
	it := &item{Record: r, identity: event.IdentityOf(r)}
	var typ string
	typ, it.err = in.read(ctx, r)
	it.meta = event.ReadMeta(r, typ)
	it.producer = event.SpanContext(r.Headers)
	if errors.Is(it.err, codec.ErrUndecodable) {
		// Its headers may be anything too, another event's ID among them.
		it.identity = event.PositionIdentity(r)
	}
	if it.err != nil {
		return it
	}
	if it.handler = in.handlers[typ]; it.handler == nil || it.handler.topic != r.Topic {
		it.handler = nil
		return it
	}
	it.data, it.err = it.handler.decode(ctx, r.Value)
	switch p, ok := it.data.(event.Payload); {
	case errors.Is(it.err, codec.ErrUndecodable):
		it.identity = event.PositionIdentity(r)
	case it.err == nil && ok && p.Key() != string(r.Key):
		it.err = errOtherKey
	}
	return it
}

func (in *Inbox) read(ctx context.Context, r *event.Record) (typ string, err error) {
	switch {
	case r.Key == nil:
		return "", errNoKey
	case len(r.Key) > maxKey:
		return "", errLongKey
	case r.Value == nil:
		return "", errNoValue
	}
	if typ, err = in.codec.Type(ctx, r.Value); err != nil || !in.contradicts(r, typ) {
		return typ, err
	}
	if typ, err = in.codec.Recheck(ctx, r.Value, string(r.Header(event.HeaderType))); err != nil || !in.contradicts(r, typ) {
		return typ, err
	}
	// Without a type: what it is will be told by the schema if it is read again.
	return "", Permanent(fmt.Errorf("the record says that it is of another type than its schema, %s", typ))
}

// contradicts reports whether a record says of itself that it is not of the type that its
// schema has, and it matters here which is true.
func (in *Inbox) contradicts(r *event.Record, typ string) bool {
	said := string(r.Header(event.HeaderType))
	return said != "" && said != typ && (in.handlers[typ] != nil || in.handlers[said] != nil)
}

// asks reports whether the registry would be asked in order to open a record.
func (in *Inbox) asks(ctx context.Context, r *event.Record) bool {
	if !in.codec.Knows(r.Value) {
		return true
	}
	typ, err := in.codec.Type(ctx, r.Value)
	return err == nil && in.contradicts(r, typ)
}

// ignored reports whether the item is acknowledged without a trace: it was understood, and
// nobody here handles its type.
func (it *item) ignored() bool { return it.handler == nil && it.err == nil }

func (it *item) key() string { return string(it.Key) }

// keyBytes is the key as the tables keep it: empty if there is none.
func (it *item) keyBytes() []byte {
	if it.Key == nil {
		return []byte{}
	}
	return it.Key
}

func (it *item) delivery(span *processSpan) delivery {
	m := it.meta
	m.Attempt = it.attempts + 1
	m.Trace = span.sc
	return delivery{meta: m, data: it.data}
}

// topicRef is a topic's ID; from brokers that give none, it is made of the name.
func topicRef(id [16]byte, name string) []byte {
	if id != ([16]byte{}) {
		return id[:]
	}
	sum := sha256.Sum256([]byte(name))
	return sum[:16]
}
