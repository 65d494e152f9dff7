package compat

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/avro"
)

// node is a type of a schema, its references resolved, so that a tree may have cycles.
type node struct {
	*avro.SchemaNode
	name     string  // of a named type, with its namespace
	fields   []field // of a record
	element  *node   // an array's items, a map's values
	branches []*node // of a union
}

type field struct {
	avro.SchemaField
	node *node
}

// builder makes a tree of twmb's description of a schema.
type builder struct {
	named map[string]*node
	refs  []reference
}

// reference is the use of a named type, which may come before its definition.
type reference struct {
	to          **node
	name, space string
}

func newTree(root *avro.SchemaNode) (tree *node, err error) {
	b := builder{named: make(map[string]*node)}
	b.build(root, "", &tree)
	for _, r := range b.refs {
		if *r.to = b.resolve(r); *r.to == nil {
			return nil, fmt.Errorf("the type %s is not defined", r.name)
		}
	}
	return tree, nil
}

func (b *builder) build(s *avro.SchemaNode, space string, to **node) {
	n := &node{SchemaNode: s}
	*to = n
	switch s.Type {
	case "null", "boolean", "int", "long", "float", "double", "bytes", "string":
	case "fixed", "enum":
		b.define(n)
	case "record", "error":
		space = b.define(n)
		n.fields = make([]field, len(s.Fields))
		for i, f := range s.Fields {
			n.fields[i].SchemaField = f
			b.build(&s.Fields[i].Type, space, &n.fields[i].node)
		}
	case "union":
		n.branches = make([]*node, len(s.Branches))
		for i := range s.Branches {
			b.build(&s.Branches[i], space, &n.branches[i])
		}
	case "array":
		b.build(s.Items, space, &n.element)
	case "map":
		b.build(s.Values, space, &n.element)
	default:
		b.refs = append(b.refs, reference{to, s.Type, space})
	}
}

// define keeps a named type and returns the namespace in it.
func (b *builder) define(n *node) string {
	n.name = n.Name
	if n.Namespace != "" && !strings.Contains(n.name, ".") {
		n.name = n.Namespace + "." + n.name
	}
	b.named[n.name] = n
	return n.name[:max(0, strings.LastIndexByte(n.name, '.'))]
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

// field returns the record's field of a name; nil if it has none.
func (n *node) field(name string) *field {
	for i := range n.fields {
		if n.fields[i].Name == name {
			return &n.fields[i]
		}
	}
	return nil
}

// describe names a type with all that a field may not change: full name, size, logical
// type, the branches of a union.
func (n *node) describe() string {
	text := n.Type
	switch n.Type {
	case "union":
		var branches []string
		for _, branch := range n.branches {
			branches = append(branches, branch.describe())
		}
		slices.Sort(branches)
		return fmt.Sprint(branches)
	case "fixed":
		text = fmt.Sprintf("fixed %s of %d bytes", n.name, n.Size)
	case "record", "error", "enum":
		text += " " + n.name
	}
	switch {
	case n.LogicalType == "decimal":
		return fmt.Sprintf("%s with decimal(%d,%d)", text, n.Precision, n.Scale)
	case n.LogicalType != "":
		return text + " with " + n.LogicalType
	case n.Props["logicalType"] != nil:
		return fmt.Sprintf("%s with %v", text, n.Props["logicalType"]) // which is no string
	}
	return text
}
