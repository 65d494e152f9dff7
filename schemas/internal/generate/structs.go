package main

import (
	"bytes"
	"fmt"
	"go/format"
	"slices"
	"strings"

	"github.com/hamba/avro/v2"
	"github.com/hamba/avro/v2/gen"
)

// layout is hamba's template, except that an enum's constants are named Go's way, and that enums have
// cuts before them.
const layout = `// Code generated from the .avsc files by schemas/internal/generate. DO NOT EDIT.

package {{ .PackageName }}

import (
{{- range .Imports }}
	"{{ . }}"
{{- end }}
)
{{ range .Typedefs }}
// {{ .Doc }}
type {{ .Name }} struct {
{{- range .Fields }}
	// {{ .Doc }}
	{{ .Name }} {{ .Type }} ` + "`avro:\"{{ .AvroFieldName }}\"`" + `
{{- end }}
}
{{ end }}
{{- range .Typeenums }}{{ $enum := .Name }}` + cut + `
// {{ $enum }} is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type {{ $enum }} string

// The symbols of {{ $enum }}.
const (
{{- range .Symbols }}
	{{ $enum }}{{ upperCamel . }} {{ $enum }} = "{{ . }}"
{{- end }}
)
{{ end }}`

// cut is between the enums, since hamba gives one as often as it is used.
const cut = "\x00"

// structs returns the Go source of the given versions.
func structs(versions []version) (string, error) {
	g := gen.NewGenerator("schemas", nil,
		gen.WithTemplate(layout), gen.WithEnums(true), gen.WithInitialisms([]string{"SKU"}))
	defined := make(map[string]string)
	for _, v := range versions {
		// A cache of its own: versions of one event define the same names.
		schema, err := avro.ParseWithCache(v.text, "", &avro.SchemaCache{})
		if err != nil {
			return "", fmt.Errorf("%s: %w", v.file, err)
		}
		if err := checkNames(v, schema, defined); err != nil {
			return "", err
		}
		g.Parse(schema)
	}
	var buf bytes.Buffer
	if err := g.Write(&buf); err != nil {
		return "", err
	}
	var parts []string
	for part := range strings.SplitSeq(buf.String(), cut) {
		if !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	code, err := format.Source([]byte(strings.Join(parts, "")))
	return string(code), err
}

// checkNames refuses what would generate wrong code: an event whose name does not follow
// from its file, and two types of one name, which would share one Go type.
func checkNames(v version, schema avro.Schema, defined map[string]string) error {
	folder, base, _ := strings.Cut(v.event, "/")
	record, ok := schema.(*avro.RecordSchema)
	if !ok || record.Namespace() != "shop."+folder || snake(record.Name()) != base {
		return fmt.Errorf("%s: this file must define the record shop.%s.%s", v.file, folder, pascal(base))
	}
	for _, name := range types(record) {
		if other, ok := defined[name]; ok {
			return fmt.Errorf("%s: the type %s is also defined in %s: all types become Go types of one package, so each needs a name of its own", v.file, name, other)
		}
		defined[name] = v.file
	}
	return nil
}

// types returns the short names of all types that a schema defines.
func types(schema avro.Schema) (names []string) {
	switch s := schema.(type) {
	case *avro.RecordSchema:
		names = append(names, s.Name())
		for _, f := range s.Fields() {
			names = append(names, types(f.Type())...)
		}
	case *avro.EnumSchema:
		names = append(names, s.Name())
	case *avro.ArraySchema:
		return types(s.Items())
	case *avro.MapSchema:
		return types(s.Values())
	case *avro.UnionSchema:
		for _, branch := range s.Types() {
			names = append(names, types(branch)...)
		}
	}
	return names
}

func snake(pascal string) string {
	var b strings.Builder
	for i, r := range pascal {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func pascal(snake string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(snake, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}
