package codec

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"example.com/keyline/pkg/event"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrUndecodable is in the error for bytes that are no event: too short or too long, cut,
	// with bytes left over, or built to exhaust the reader. Trying again changes nothing.
	ErrUndecodable = errors.New("undecodable value")
	// ErrUnknownSchema is in the error if the registry says that the value's schema ID does
	// not exist.
	ErrUnknownSchema = errors.New("schema unknown to the registry")
	// ErrIncompatible is in the error if the writer's schema is known but cannot be read as
	// the event: not Avro, too large, or not compatible. Trying again changes nothing.
	ErrIncompatible = errors.New("writer's schema is incompatible")
	// ErrUnavailable is in the error if the registry has to be asked and cannot be.
	ErrUnavailable = errors.New("schema registry unavailable")
	// ErrNotVerified is in the error of an Encode before Verify has succeeded.
	ErrNotVerified = errors.New("schema not verified with the registry")
)

// MaxSize is the size in bytes of the longest value that is encoded or decoded.
const MaxSize = 1 << 20

// Store keeps schemas by their registry ID over restarts. The codec saves few and small
// ones: at most 32 KiB each, each once.
type Store interface {
	LoadSchemas(ctx context.Context) (map[int]string, error)
	SaveSchema(ctx context.Context, id int, schema string) error
}

// Config says where the registry is. Only URL is required.
type Config struct {
	URL      string `env:"SCHEMA_REGISTRY_URL,required,notEmpty" expect:"the registry's URL, http or https"`
	Username string `env:"SCHEMA_REGISTRY_USERNAME"` // for basic authentication; empty is none
	Password string `env:"SCHEMA_REGISTRY_PASSWORD"`
	CAFile   string `env:"SCHEMA_REGISTRY_CA_FILE"` // PEM; the only authorities trusted; empty is the system's

	// Transport carries the requests in place of a transport of its own, which is what
	// CAFile is for.
	Transport http.RoundTripper `env:"-"`

	Store Store        `env:"-"` // nil keeps nothing
	Meter metric.Meter `env:"-"` // nil measures nothing
	Log   *slog.Logger `env:"-"` // nil logs nothing
}

// Codec encodes and decodes the payloads that New was given. It is safe for concurrent use
// and needs no closing: idle connections to the registry end after 5 s.
type Codec struct {
	registry *registry
	store    Store
	log      *slog.Logger
	fetches  metric.Int64Counter

	order   []*reader           // as New was given them
	readers map[uintptr]*reader // by the address of the payload's type, and of a pointer to it
	byName  map[string]*reader  // by the event's full name
	masked  map[string]bool     // names of fields with personal data

	// writers has every schema in use by its ID. It is replaced under mu, never changed.
	writers atomic.Pointer[map[int]*writer]

	mu      sync.Mutex
	stored  map[int]string // what the store had at the start; nil until it was asked
	flights map[int]*flight
	refused map[int]refusal
	down    refusal
	// rechecked is when a schema was contradicted and was found to be what it was, by its ID.
	rechecked map[int]time.Time
}

// New returns a codec for the payloads, zero values of every event that the service encodes
// or decodes. It connects to nothing; an error means a malformed Config or schema.
func New(cfg Config, payloads ...event.Payload) (*Codec, error) {
	c := &Codec{
		store:   cfg.Store,
		log:     cfg.Log,
		readers: make(map[uintptr]*reader),
		byName:  make(map[string]*reader),
		masked:  make(map[string]bool),
		flights: make(map[int]*flight),
		refused: make(map[int]refusal), rechecked: make(map[int]time.Time),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = noop.Meter{}
	}
	var err error
	if c.fetches, err = cfg.Meter.Int64Counter("schema_fetches_total",
		metric.WithDescription("Schemas asked of the registry, by outcome.")); err != nil {
		return nil, err
	}
	if c.registry, err = newRegistry(cfg); err != nil {
		return nil, err
	}
	c.writers.Store(&map[int]*writer{})
	for _, p := range payloads {
		if err := c.addReader(p); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Codec) addReader(p event.Payload) error {
	r, err := newReader(p)
	if err != nil {
		return fmt.Errorf("codec: schema of %T: %w", p, err)
	}
	if c.readers[address(r.typ)] != nil || c.byName[r.name] != nil {
		return fmt.Errorf("codec: %s is given twice", r.name)
	}
	c.order = append(c.order, r)
	c.readers[address(r.typ)], c.readers[address(reflect.PointerTo(r.typ))], c.byName[r.name] = r, r, r
	r.tree.mask(c.masked, make(map[*node]bool))
	return nil
}

// Encode returns p as the newest version of its event. The error is ErrNotVerified before
// Verify has succeeded; any other is the payload's fault, such as an enum without a symbol.
// p may be a pointer, which spares a copy.
func (c *Codec) Encode(p event.Payload) ([]byte, error) {
	return c.AppendEncode(make([]byte, 0, 256), p)
}

// AppendEncode is Encode that appends to dst. It allocates nothing if dst has room and p is
// a pointer.
func (c *Codec) AppendEncode(dst []byte, p event.Payload) ([]byte, error) {
	r := c.reader(p)
	if r == nil {
		return nil, fmt.Errorf("encode %T: the codec was made without it", p)
	}
	id := r.id.Load()
	if id == unverified {
		return nil, fmt.Errorf("encode %s: %w", r.name, ErrNotVerified)
	}
	out, err := r.append(binary.BigEndian.AppendUint32(append(dst, 0), uint32(id)), p)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", r.name, err)
	}
	if size := len(out) - len(dst); size > MaxSize {
		return nil, fmt.Errorf("encode %s: %d bytes, and the limit is %d", r.name, size, MaxSize)
	}
	return out, nil
}

// append appends the datum.
func (r *reader) append(dst []byte, p event.Payload) ([]byte, error) {
	if s, ok := p.(Straight); ok && r.straight && !isNil(p) {
		if out, ok := s.AppendAvro(dst); ok {
			return out, nil
		}
	}
	return r.schema.AppendEncode(dst, p)
}

func isNil(p event.Payload) bool {
	v := reflect.ValueOf(p)
	return v.Kind() == reflect.Pointer && v.IsNil()
}

// header reads Confluent's wire format.
var header = new(sr.ConfluentHeader)

// Type returns the full name of the event that value is, by its writer's schema. For a
// schema seen for the first time it asks the registry, which blocks for at most 2 s, and
// saves the answer in the Store, which must not wait for a transaction of the caller's. The
// error is ErrUndecodable, ErrUnknownSchema, ErrIncompatible, ErrUnavailable, or ctx's.
func (c *Codec) Type(ctx context.Context, value []byte) (string, error) {
	w, _, err := c.open(ctx, value)
	if err != nil {
		return "", err
	}
	return w.name, nil
}

// Knows reports whether Type can answer for a value without asking the registry. It never
// blocks.
func (c *Codec) Knows(value []byte) bool {
	id, _, err := header.DecodeID(value)
	return err != nil || (*c.writers.Load())[id] != nil
}

// Decode returns value as the newest version of P that the service knows: a field that the
// writer did not know has its default. Errors are those of Type; an event of another type
// than P is an error that is none of them. Decode blocks only where Type does.
func Decode[P event.Payload](ctx context.Context, c *Codec, value []byte) (P, error) {
	var zero P
	w, datum, err := c.open(ctx, value)
	if err != nil {
		return zero, err
	}
	run, straight := w.straight.(func([]byte) (P, bool)) // if so, the value is a P and compatible
	if !straight {
		if err := c.decodable(w, reflect.TypeFor[P]()); err != nil {
			return zero, err
		}
	}
	if len(datum) > w.reader.harmless {
		if err := w.tree.scan(datum, w.reader.element); err != nil {
			return zero, fmt.Errorf("decode %s: %w: %w", w.name, ErrUndecodable, err)
		}
	}
	if !straight {
		return resolve[P](w, datum)
	}
	p, ok := run(datum)
	if !ok {
		return zero, fmt.Errorf("decode %s: %w: %w", w.name, ErrUndecodable, w.tree.fault(datum))
	}
	return p, nil
}

// decodable returns why what w has written can never be a payload of the type typ.
func (c *Codec) decodable(w *writer, typ reflect.Type) error {
	if w.reader == nil || w.reader.typ != typ {
		if r := c.readers[address(typ)]; r != nil && r.typ == typ {
			return fmt.Errorf("decode %s: the value is of type %s", r.name, w.name)
		}
		return fmt.Errorf("decode %s: the codec was made without it", typ)
	}
	return w.incompatible
}

// resolve decodes a datum by its schema.
func resolve[P any](w *writer, datum []byte) (P, error) {
	var p, zero P
	rest, err := w.resolved.Decode(datum, &p)
	if err != nil {
		return zero, fmt.Errorf("decode %s: %w: %w", w.name, ErrUndecodable, err)
	}
	if len(rest) > 0 {
		return zero, fmt.Errorf("decode %s: %w: %d bytes left over", w.name, ErrUndecodable, len(rest))
	}
	return p, nil
}

// JSON returns value as JSON for people to read, by its writer's schema, of any event and
// not only those that New was given: times in RFC 3339, bytes in base64. With mask, fields
// tagged "pii" read "***". Errors are those of Type.
func (c *Codec) JSON(ctx context.Context, value []byte, mask bool) ([]byte, error) {
	w, datum, err := c.open(ctx, value)
	if err != nil {
		return nil, err
	}
	out, err := w.tree.json(datum, mask, c.masked)
	if err != nil {
		return nil, fmt.Errorf("show %s: %w: %w", w.name, ErrUndecodable, err)
	}
	return out, nil
}

// open reads the frame of a value and finds its writer.
func (c *Codec) open(ctx context.Context, value []byte) (*writer, []byte, error) {
	if len(value) > MaxSize {
		return nil, nil, fmt.Errorf("%w: %d bytes, and the limit is %d", ErrUndecodable, len(value), MaxSize)
	}
	id, datum, err := header.DecodeID(value)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: no schema ID in front", ErrUndecodable)
	}
	if id > math.MaxInt32 {
		return nil, nil, fmt.Errorf("%w: no registry has a schema ID of %d", ErrUndecodable, id)
	}
	w, err := c.writer(ctx, id)
	return w, datum, err
}
