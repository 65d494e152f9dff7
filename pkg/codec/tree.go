package codec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/avro"
)

// kind is the kind of an Avro type.
type kind uint8

const (
	kindNull kind = iota
	kindBoolean
	kindInt
	kindLong
	kindFloat
	kindDouble
	kindBytes
	kindString
	kindFixed
	kindEnum
	kindArray
	kindMap
	kindUnion
	kindRecord
)

var kinds = map[string]kind{
	"null": kindNull, "boolean": kindBoolean, "int": kindInt, "long": kindLong,
	"float": kindFloat, "double": kindDouble, "bytes": kindBytes, "string": kindString,
	"fixed": kindFixed, "enum": kindEnum, "array": kindArray, "map": kindMap,
	"union": kindUnion, "record": kindRecord, "error": kindRecord,
}

// node is a type of a schema, its references resolved, so that a tree may have cycles. It
// never changes once it is built.
type node struct {
	kind     kind
	logical  string
	fields   []field  // of a record
	element  *node    // an array's items, a map's values
	branches []*node  // of a union
	symbols  []string // of an enum
	size     int      // of a fixed, in bytes
}

type field struct {
	name string
	pii  bool
	node *node
}

// maxNesting is how deep records may lie in records without an array, a map or a union
// between them, so without a byte for each.
const maxNesting = 32

// builder makes a tree of twmb's description of a schema.
type builder struct {
	nodes []*node
	named map[string]*node
	refs  []reference
}

// reference is the use of a named type, which may come before its definition.
type reference struct {
	to          **node
	name, space string
}

// newTree returns a record's schema as a tree. In a tree every value takes at least one
// byte, and at most maxNesting nodes are visited for each: array items without bytes, and
// records nested without end, are refused.
func newTree(root *avro.SchemaNode) (*node, error) {
	b := builder{named: make(map[string]*node)}
	var tree *node
	b.build(root, "", &tree)
	for _, r := range b.refs {
		if *r.to = b.resolve(r); *r.to == nil {
			return nil, fmt.Errorf("the type %s is not defined", r.name)
		}
	}
	if tree.kind != kindRecord {
		return nil, errors.New("an event is a record")
	}
	nesting := make(map[*node]int)
	for _, n := range b.nodes {
		if err := n.check(); err != nil {
			return nil, err
		}
		if depth(n, nesting) > maxNesting {
			return nil, fmt.Errorf("records nest deeper than %d", maxNesting)
		}
	}
	return tree, nil
}

func (b *builder) build(s *avro.SchemaNode, space string, to **node) {
	kind, ok := kinds[s.Type]
	if !ok {
		b.refs = append(b.refs, reference{to, s.Type, space})
		return
	}
	n := &node{kind: kind, logical: s.LogicalType, symbols: s.Symbols, size: s.Size}
	*to = n
	b.nodes = append(b.nodes, n)
	switch kind {
	case kindEnum, kindFixed, kindRecord:
		space = b.define(s, n)
	}
	switch kind {
	case kindRecord:
		n.fields = make([]field, len(s.Fields))
		for i, f := range s.Fields {
			n.fields[i].name = f.Name
			n.fields[i].pii = f.Props["pii"] == true
			b.build(&f.Type, space, &n.fields[i].node)
		}
	case kindUnion:
		n.branches = make([]*node, len(s.Branches))
		for i := range s.Branches {
			b.build(&s.Branches[i], space, &n.branches[i])
		}
	case kindArray:
		b.build(s.Items, space, &n.element)
	case kindMap:
		b.build(s.Values, space, &n.element)
	}
}

// define keeps a named type and returns the namespace in it.
func (b *builder) define(s *avro.SchemaNode, n *node) string {
	name := s.Name
	if s.Namespace != "" && !strings.Contains(name, ".") {
		name = s.Namespace + "." + name
	}
	b.named[name] = n
	return name[:max(0, strings.LastIndexByte(name, '.'))]
}

// resolve finds a named type as Avro does: in the namespace around its use, then as it
// stands.
func (b *builder) resolve(r reference) *node {
	if r.space != "" && !strings.Contains(r.name, ".") {
		if n := b.named[r.space+"."+r.name]; n != nil {
			return n
		}
	}
	return b.named[r.name]
}

// check refuses a node whose children could take no bytes.
func (n *node) check() error {
	switch {
	case n.kind == kindRecord && len(n.fields) == 0:
		return errors.New("a record without fields takes no bytes")
	case n.kind == kindFixed && n.size == 0:
		return errors.New("a fixed of size 0 takes no bytes")
	case n.element != nil && n.element.kind == kindNull:
		return errors.New("null in an array or a map takes no bytes")
	}
	for _, f := range n.fields {
		if f.node.kind == kindNull {
			return fmt.Errorf("the field %s takes no bytes", f.name)
		}
	}
	return nil
}

// depth returns how many records lie directly in each other from n on; memo holds what is
// known, and more than enough for those under way, which so contain themselves.
func depth(n *node, memo map[*node]int) int {
	if n.kind != kindRecord {
		return 0
	}
	if d, ok := memo[n]; ok {
		return d
	}
	memo[n] = maxNesting + 1
	deepest := 0
	for _, f := range n.fields {
		deepest = max(deepest, depth(f.node, memo))
	}
	memo[n] = deepest + 1
	return memo[n]
}

// mask adds the names of all fields in n that hold personal data; seen ends recursion.
func (n *node) mask(names map[string]bool, seen map[*node]bool) {
	if n == nil || seen[n] {
		return
	}
	seen[n] = true
	for _, f := range n.fields {
		if f.pii {
			names[f.name] = true
		}
		f.node.mask(names, seen)
	}
	n.element.mask(names, seen)
	for _, branch := range n.branches {
		branch.mask(names, seen)
	}
}
