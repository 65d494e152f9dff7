package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/hamba/avro/v2"
)

// coder writes code that encodes the newest version of an event and decodes all of them, one
// line for each field, out of the pieces in schemas/avro.go.
type coder struct {
	*declared
	out    bytes.Buffer
	bodies map[string]string // of the functions that are written, by their names
	open   map[string]bool   // the records that are being written
}

// code returns the code of all events, to stand below the structs in source. What it cannot
// write it leaves to pkg/codec, which then goes by the schema, and says so in a comment.
func code(source string, versions []version) (string, error) {
	d, err := declarations(source)
	if err != nil {
		return "", err
	}
	c := &coder{declared: d, bodies: make(map[string]string)}
	for start := 0; start < len(versions); {
		end := start + 1
		for end < len(versions) && versions[end].event == versions[start].event {
			end++
		}
		if err := c.event(versions[start:end]); err != nil {
			return "", err
		}
		start = end
	}
	return c.out.String(), nil
}

// event writes the code of one event.
func (c *coder) event(versions []version) error {
	var schemas []*avro.RecordSchema
	for _, v := range versions {
		schema, err := avro.ParseWithCache(v.text, "", &avro.SchemaCache{})
		if err != nil {
			return fmt.Errorf("%s: %w", v.file, err)
		}
		record, ok := schema.(*avro.RecordSchema)
		if !ok {
			return fmt.Errorf("%s: this file must define a record", v.file)
		}
		schemas = append(schemas, record)
	}
	newest := len(versions) - 1
	name := schemas[newest].Name()
	texts, decoders := "", ""
	for i := newest; i >= 0; i-- {
		suffix := ""
		if i < newest {
			suffix = strconv.Itoa(versions[i].number)
		}
		decoder, err := c.try(schemas[i], schemas[newest], suffix)
		if err != nil {
			fmt.Fprintf(&c.out, "\n// %s goes by the schema: %v.\n", versions[i].file, err)
			if i == newest {
				return nil
			}
			decoder = "nil"
		}
		texts = fmt.Sprintf("%q, ", versions[i].file) + texts
		decoders = decoder + ", " + decoders
	}
	fmt.Fprintf(&c.out, "\n// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.\n"+
		"func (%s) AvroVersions() ([]string, []any) {\nreturn texts(%s), []any{%s}\n}\n", name, texts, decoders)
	return nil
}

// try is version that leaves nothing behind if it fails.
func (c *coder) try(w, r *avro.RecordSchema, suffix string) (decoder string, err error) {
	size, bodies := c.out.Len(), maps.Clone(c.bodies)
	c.open = make(map[string]bool)
	if decoder, err = c.version(w, r, suffix); err != nil {
		c.out.Truncate(size)
		c.bodies = bodies
	}
	return decoder, err
}

// version writes the code of one version, w, that reads into the newest, r; for the newest
// itself also what writes it. It returns the name of the decoder.
func (c *coder) version(w, r *avro.RecordSchema, suffix string) (decoder string, err error) {
	appends, reads, err := c.fields(w, r, "e", suffix)
	if err != nil {
		return "", err
	}
	if suffix == "" {
		fmt.Fprintf(&c.out, "\n// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.\n"+
			"func (e %s) AppendAvro(dst []byte) (_ []byte, ok bool) {\nok = true\n%sreturn dst, ok\n}\n", r.Name(), appends)
	}
	decoder = "decode" + r.Name() + suffix
	fmt.Fprintf(&c.out, "\nfunc %s(datum []byte) (e %s, ok bool) {\nsrc, at := string(datum), 0\n%sreturn e, at == len(src)\n}\n",
		decoder, r.Name(), reads)
	return decoder, nil
}

// fields returns the lines for all fields of a record in the variable v.
func (c *coder) fields(w, r *avro.RecordSchema, v, suffix string) (appends, reads string, err error) {
	if c.open[r.FullName()] {
		return "", "", fmt.Errorf("%s contains itself", r.Name())
	}
	c.open[r.FullName()] = true
	defer delete(c.open, r.FullName())
	rest := make(map[string]*avro.Field)
	for _, f := range r.Fields() {
		rest[f.Name()] = f
	}
	for _, f := range w.Fields() {
		to := rest[f.Name()]
		if to == nil {
			return "", "", fmt.Errorf("field %s: it is gone", f.Name())
		}
		delete(rest, f.Name())
		value, err := c.value(f.Type(), to.Type(), suffix)
		goes := c.structs[r.Name()][f.Name()]
		if err == nil && goes.typ != value.typ {
			err = fmt.Errorf("the struct has a %s for a %s", goes.typ, value.typ)
		}
		if err != nil {
			return "", "", fmt.Errorf("field %s: %w", f.Name(), err)
		}
		appends += fmt.Sprintf("dst, ok = %s(dst, %s.%s, ok%s)\n", value.append, v, goes.name, value.appendWith)
		reads += fmt.Sprintf("%s.%s, at = %s(src, at%s)\n", v, goes.name, value.read, value.readWith)
	}
	for _, f := range r.Fields() {
		if rest[f.Name()] == nil {
			continue
		}
		goes := c.structs[r.Name()][f.Name()]
		text, err := c.literal(f, goes.typ)
		if err != nil {
			return "", "", fmt.Errorf("field %s: %w", f.Name(), err)
		}
		reads += fmt.Sprintf("%s.%s = %s\n", v, goes.name, text)
	}
	return appends, reads, nil
}

// value is how a type is written and read: two functions, and what they are given at the end.
type value struct {
	typ                string
	append, appendWith string
	read, readWith     string
	nilable            bool // so that null could be written for it
}

// simple are the types that have a piece of their own, with their logical type.
var simple = map[string]value{
	"boolean":               {typ: "bool", append: "appendBoolean", read: "readBoolean"},
	"int":                   {typ: "int", append: "appendInt", read: "readInt"},
	"long":                  {typ: "int64", append: "appendLong", read: "readLong"},
	"float":                 {typ: "float32", append: "appendFloat", read: "readFloat"},
	"double":                {typ: "float64", append: "appendDouble", read: "readDouble"},
	"string":                {typ: "string", append: "appendString", read: "readString"},
	"bytes":                 {typ: "[]byte", append: "appendBytes", read: "readBytes", nilable: true},
	"long timestamp-millis": {typ: "time.Time", append: "appendMillis", read: "readMillis"},
}

// pieces are what the functions in schemas/avro.go append and read.
var pieces = []string{"Array", "Block", "Boolean", "Bytes", "Double", "Float", "Int", "Long", "Millis", "Nullable", "String", "Symbol"}

// value returns how the type r is written, and how it is read where w was written.
func (c *coder) value(w, r avro.Schema, suffix string) (value, error) {
	w, r = target(w), target(r)
	if kind(w) != kind(r) {
		return value{}, fmt.Errorf("it was %s and is %s", kind(w), kind(r))
	}
	if v, ok := simple[kind(r)]; ok {
		return v, nil
	}
	if named, ok := r.(avro.NamedSchema); ok && slices.Contains(pieces, named.Name()) {
		return value{}, fmt.Errorf("code for a type %s is a piece in schemas/avro.go", named.Name())
	}
	switch r := r.(type) {
	case *avro.RecordSchema:
		return c.record(w.(*avro.RecordSchema), r, suffix)
	case *avro.EnumSchema:
		return c.enum(w.(*avro.EnumSchema), r, suffix)
	case *avro.ArraySchema:
		item, err := c.value(w.(*avro.ArraySchema).Items(), r.Items(), suffix)
		return value{
			typ:    "[]" + item.typ,
			append: "appendArray", appendWith: ", " + item.appendFunc(),
			read: "readArray", readWith: ", " + item.readFunc(),
			nilable: true,
		}, err
	case *avro.UnionSchema:
		return c.nullable(w.(*avro.UnionSchema), r, suffix)
	}
	return value{}, fmt.Errorf("there is no code for %s", kind(r))
}

func (c *coder) nullable(w, r *avro.UnionSchema, suffix string) (value, error) {
	if !w.Nullable() || !r.Nullable() {
		return value{}, errors.New("there is no code for a union of other than null and one type")
	}
	null, typ := r.Indices()
	nullThen, typThen := w.Indices()
	v, err := c.value(w.Types()[typThen], r.Types()[typ], suffix)
	if err == nil && v.nilable {
		err = fmt.Errorf("there is no code for null beside %s", kind(r.Types()[typ]))
	}
	return value{
		typ:    "*" + v.typ,
		append: "appendNullable", appendWith: fmt.Sprintf(", %d, %s", null, v.appendFunc()),
		read: "readNullable", readWith: fmt.Sprintf(", %d, %s", nullThen, v.readFunc()),
		nilable: true,
	}, err
}

func (c *coder) record(w, r *avro.RecordSchema, suffix string) (value, error) {
	appends, reads, err := c.fields(w, r, "v", suffix)
	if err != nil {
		return value{}, err
	}
	name := r.Name()
	v := value{typ: name, append: "append" + name}
	if suffix == "" {
		c.declare("func", v.append, "", fmt.Sprintf("(dst []byte, v %s, ok bool) ([]byte, bool) {\n%sreturn dst, ok\n}", name, appends))
	}
	v.read = c.declare("func", "read"+name, suffix, fmt.Sprintf("(src string, at int) (v %s, _ int) {\n%sreturn v, at\n}", name, reads))
	return v, nil
}

func (c *coder) enum(w, r *avro.EnumSchema, suffix string) (value, error) {
	name, list := r.Name(), ""
	for _, symbol := range w.Symbols() {
		constant := c.symbols[name][symbol]
		if constant == "" && r.HasDefault() {
			constant = c.symbols[name][r.Default()]
		}
		if constant == "" {
			return value{}, fmt.Errorf("the symbol %s is gone", symbol)
		}
		list += constant + ", "
	}
	symbols := c.declare("var", "symbolsOf"+name, suffix, fmt.Sprintf(" = []%s{%s}", name, list))
	v := value{typ: name, append: "append" + name}
	if suffix == "" {
		c.declare("func", v.append, "", fmt.Sprintf("(dst []byte, v %s, ok bool) ([]byte, bool) {\nreturn appendSymbol(dst, v, ok, %s)\n}", name, symbols))
	}
	v.read = c.declare("func", "read"+name, suffix, fmt.Sprintf("(src string, at int) (%s, int) {\nreturn readSymbol(src, at, %s)\n}", name, symbols))
	return v, nil
}

// declare writes a declaration and returns its name, which has the suffix behind it if there
// is one of that name that says something else.
func (c *coder) declare(keyword, name, suffix, body string) string {
	if other, ok := c.bodies[name]; ok && other != body {
		name += suffix
	}
	if c.bodies[name] == "" {
		c.bodies[name] = body
		fmt.Fprintf(&c.out, "\n%s %s%s\n", keyword, name, body)
	}
	return name
}

// appendFunc is the append of a value as a function of its own.
func (v value) appendFunc() string {
	if v.appendWith == "" {
		return v.append
	}
	return fmt.Sprintf("func(dst []byte, v %s, ok bool) ([]byte, bool) { return %s(dst, v, ok%s) }", v.typ, v.append, v.appendWith)
}

func (v value) readFunc() string {
	if v.readWith == "" {
		return v.read
	}
	return fmt.Sprintf("func(src string, at int) (%s, int) { return %s(src, at%s) }", v.typ, v.read, v.readWith)
}
