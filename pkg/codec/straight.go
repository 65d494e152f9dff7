package codec

import (
	"fmt"
	"reflect"
	"slices"
)

// Straight is what a payload may have beside its methods: code for its bytes that goes field
// by field, without reflection, which is some times as fast. The code says only whether it
// could. A payload that it could not encode is looked at by its schema, which encodes it or says what
// is wrong; a value that it could not decode is undecodable. A payload without these methods always
// goes by its schema, and so does one whose Schema is not the newest version.
type Straight interface {
	// AppendAvro appends the payload as a datum of the schema's newest version, the bytes
	// that going by the schema appends. If ok is false it may have appended anything.
	AppendAvro(dst []byte) (_ []byte, ok bool)
	// AvroVersions returns all versions of the schema, oldest first, and beside each what
	// decodes its data into today's payload: a func(datum []byte) (P, bool), P being the
	// payload's type, or nil. It keeps nothing of datum, and is false for what is no such
	// datum, bytes left over included.
	AvroVersions() (schemas []string, decoders []any)
}

// decoder is what decodes the data of one version of a payload's schema.
type decoder struct {
	tree *node
	run  any // a func(datum []byte) (P, bool)
}

// straighten makes a reader use the payload's own code.
func (r *reader) straighten(p Straight) error {
	texts, decoders := p.AvroVersions()
	newest := len(texts) - 1
	if newest < 0 || len(decoders) != len(texts) {
		return fmt.Errorf("AvroVersions has %d versions and %d decoders", len(texts), len(decoders))
	}
	// A struct that embeds the payload has its methods too, and a service may still write an older version.
	if !decodes(decoders[newest], r.typ) || texts[newest] != r.text {
		return nil
	}
	for i, run := range decoders {
		if !decodes(run, r.typ) {
			continue
		}
		_, tree, err := parse(texts[i])
		if err != nil {
			return fmt.Errorf("version %d: %w", i+1, err)
		}
		r.decoders = append(r.decoders, decoder{tree, run})
	}
	r.straight = true
	return nil
}

// decodes reports whether run is a decoder that returns a typ.
func decodes(run any, typ reflect.Type) bool {
	return reflect.TypeOf(run) == reflect.FuncOf([]reflect.Type{reflect.TypeFor[[]byte]()}, []reflect.Type{typ, reflect.TypeFor[bool]()}, false)
}

// decoder returns the code for the data of a schema that can be resolved to the reader's, nil
// if there is none.
func (r *reader) decoder(tree *node) any {
	for _, d := range r.decoders {
		if same(tree, d.tree, make(map[[2]*node]bool)) {
			return d.run
		}
	}
	return nil
}

// same reports whether two schemas that can be resolved to the same one mean the same by the
// same bytes; seen ends recursion. What their types are called was compared by resolving them.
func same(a, b *node, seen map[[2]*node]bool) bool {
	if a == nil || b == nil || seen[[2]*node{a, b}] {
		return (a == nil) == (b == nil)
	}
	seen[[2]*node{a, b}] = true
	if a.kind != b.kind || a.logical != b.logical || a.size != b.size || !slices.Equal(a.symbols, b.symbols) ||
		len(a.fields) != len(b.fields) || len(a.branches) != len(b.branches) || !same(a.element, b.element, seen) {
		return false
	}
	for i := range a.fields {
		if a.fields[i].name != b.fields[i].name || !same(a.fields[i].node, b.fields[i].node, seen) {
			return false
		}
	}
	for i := range a.branches {
		if !same(a.branches[i], b.branches[i], seen) {
			return false
		}
	}
	return true
}
