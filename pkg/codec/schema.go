package codec

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/avro"

	"example.com/keyline/pkg/event"
)

// maxSchema is the length in bytes of the longest schema that is read. Reading one costs, once
// for each ID, up to 300 times its length.
const maxSchema = 32 << 10

const unverified = -1

// reader is the newest version of a payload that the service knows.
type reader struct {
	typ     reflect.Type
	name    string
	subject string
	text    string
	schema  *avro.Schema
	tree    *node
	id      atomic.Int64 // in the registry, or unverified

	straight bool      // the payload has code of its own
	decoders []decoder // the code for data, of all versions that have some

	element  int // the most bytes that an element of a slice in the payload takes
	harmless int // data up to this length cannot exceed the budget for slices
}

func newReader(p event.Payload) (*reader, error) {
	r := &reader{typ: reflect.TypeOf(p), name: FullName(p.Schema()), subject: SubjectName(p), text: p.Schema()}
	if r.typ.Kind() != reflect.Struct {
		return nil, fmt.Errorf("a payload is a struct, not a %s", r.typ.Kind())
	}
	var err error
	if r.schema, r.tree, err = parse(r.text); err != nil {
		return nil, err
	}
	if s, ok := p.(Straight); ok {
		if err := r.straighten(s); err != nil {
			return nil, err
		}
	}
	weigh(r.typ, &r.element, make(map[reflect.Type]bool))
	r.harmless = harmless(r.element)
	r.id.Store(unverified)
	return r, nil
}

// writer is a schema by which values are written.
type writer struct {
	name     string
	tree     *node
	reader   *reader      // of the event of that name; nil if the service has none
	resolved *avro.Schema // decodes into reader's payload
	straight any          // does so for most data, and faster; nil if there is no code for this schema
	size     int          // of its text, in bytes
	own      bool         // it is what Encode writes, and stays in use
	// incompatible is why reader cannot read what was written; Type and JSON work.
	incompatible error
}

func (c *Codec) newWriter(id int, text string) (*writer, error) {
	schema, tree, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIncompatible, err)
	}
	w := &writer{name: FullName(text), tree: tree, size: len(text)}
	if w.reader = c.byName[w.name]; w.reader == nil {
		return w, nil
	}
	if w.resolved, err = avro.Resolve(schema, w.reader.schema); err != nil {
		w.incompatible = fmt.Errorf("decode %s: schema %d: %w: %w", w.name, id, ErrIncompatible, err)
		return w, nil
	}
	w.straight = w.reader.decoder(tree)
	return w, nil
}

// parse reads a record's schema and refuses one by which few bytes could cost much.
func parse(text string) (*avro.Schema, *node, error) {
	if len(text) > maxSchema {
		return nil, nil, fmt.Errorf("%d bytes, and the limit is %d", len(text), maxSchema)
	}
	schema, err := avro.Parse(text)
	if err != nil {
		return nil, nil, err
	}
	tree, err := newTree(schema.Root())
	return schema, tree, err
}

// Name returns the full name of a payload that the codec was made with, as [FullName] does,
// without reading its schema again; "" for any other.
func (c *Codec) Name(p event.Payload) string {
	if r := c.reader(p); r != nil {
		return r.name
	}
	return ""
}

// reader returns that of a payload or of a pointer to one, nil if there is none.
func (c *Codec) reader(p event.Payload) *reader {
	if p == nil {
		return nil
	}
	return c.readers[address(reflect.TypeOf(p))]
}

// address is where the description of a type stands, for good. As a map's key it costs half
// of what the reflect.Type does, which an encoder would notice.
func address(t reflect.Type) uintptr { return reflect.ValueOf(t).Pointer() }

// FullName returns the full name of a record's schema, such as "shop.order.OrderPlaced", or
// "" for what is no such schema.
func FullName(schema string) string {
	var record map[string]any // not a struct, whose fields match in any case
	if err := json.Unmarshal([]byte(schema), &record); err != nil {
		return ""
	}
	name, _ := record["name"].(string)
	if space, _ := record["namespace"].(string); space != "" && name != "" && !strings.Contains(name, ".") {
		return space + "." + name
	}
	return name
}

// SubjectName returns the registry's subject of a payload, "<topic>-<full name>".
func SubjectName(p event.Payload) string {
	return p.Topic() + "-" + FullName(p.Schema())
}

// sliceBudget is how many bytes a value of the given size may spend on slices. Half of the
// promise is left for strings and for what is not counted.
func sliceBudget(size int) int { return 32*size + 512<<10 }

// harmless returns the length up to which no value can spend more than the budget's constant
// part on slices. The worst value has blocks of one element in 2 bytes, and the decoder
// copies all elements so far with each block.
func harmless(element int) int {
	if element == 0 {
		return math.MaxInt
	}
	return int(math.Sqrt(8 * float64(sliceBudget(0)) / float64(element)))
}

// weigh returns how many bytes a value of type t takes without what its slices and maps
// hold, and raises largest to the weight of their elements.
func weigh(t reflect.Type, largest *int, seen map[reflect.Type]bool) int {
	weight := int(t.Size())
	if seen[t] || t == reflect.TypeFor[time.Time]() {
		return weight
	}
	switch t.Kind() {
	case reflect.Struct:
		seen[t] = true // a type may contain itself
		for i := range t.NumField() {
			field := t.Field(i).Type
			weight += weigh(field, largest, seen) - int(field.Size())
		}
		delete(seen, t)
	case reflect.Pointer:
		weight += weigh(t.Elem(), largest, seen)
	case reflect.Slice:
		*largest = max(*largest, weigh(t.Elem(), largest, seen))
	case reflect.Map:
		// A map has spare room, and tables beside its entries.
		*largest = max(*largest, 4*(weigh(t.Key(), largest, seen)+weigh(t.Elem(), largest, seen)))
	}
	return weight
}
