package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	gotypes "go/types"
	"reflect"
	"strconv"

	"github.com/hamba/avro/v2"
)

// declared is what the structs and constants in the generated source are called.
type declared struct {
	structs map[string]map[string]member // by the struct, and by the field's name in Avro
	symbols map[string]map[string]string // constants, by the enum and by the symbol
}

// member is a field of a struct.
type member struct{ name, typ string }

// declarations reads what hamba's generator made of a schema's names: it does not tell.
func declarations(source string) (*declared, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "", source, 0)
	if err != nil {
		return nil, err
	}
	d := &declared{structs: make(map[string]map[string]member), symbols: make(map[string]map[string]string)}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.TypeSpec:
			if s, ok := n.Type.(*ast.StructType); ok {
				d.structs[n.Name.Name] = members(s)
			}
		case *ast.ValueSpec:
			enum := gotypes.ExprString(n.Type)
			if d.symbols[enum] == nil {
				d.symbols[enum] = make(map[string]string)
			}
			symbol, _ := strconv.Unquote(gotypes.ExprString(n.Values[0]))
			d.symbols[enum][symbol] = n.Names[0].Name
		}
		return true
	})
	return d, nil
}

func members(s *ast.StructType) map[string]member {
	all := make(map[string]member)
	for _, f := range s.Fields.List {
		tag, _ := strconv.Unquote(f.Tag.Value)
		all[reflect.StructTag(tag).Get("avro")] = member{f.Names[0].Name, gotypes.ExprString(f.Type)}
	}
	return all
}

// literal is the default of a field in Go.
func (d *declared) literal(f *avro.Field, typ string) (string, error) {
	if !f.HasDefault() {
		return "", errors.New("it has no default")
	}
	switch v := f.Default().(type) {
	case nil:
		return "nil", nil
	case string:
		if constant := d.symbols[typ][v]; constant != "" {
			return constant, nil
		}
		if typ == "string" {
			return strconv.Quote(v), nil
		}
	case bool, int, int64, float32, float64:
		if typ == "time.Time" {
			return fmt.Sprintf("time.UnixMilli(%v).UTC()", v), nil
		}
		return fmt.Sprint(v), nil
	case []any:
		if len(v) == 0 {
			return typ + "{}", nil
		}
	}
	return "", fmt.Errorf("there is no code for the default %v of a %s", f.Default(), typ)
}

// target is the type that a name refers to.
func target(s avro.Schema) avro.Schema {
	if ref, ok := s.(*avro.RefSchema); ok {
		return ref.Schema()
	}
	return s
}

// kind is a type without what it is called or holds, but with its logical type.
func kind(s avro.Schema) string {
	name := string(s.Type())
	if logical, ok := s.(avro.LogicalTypeSchema); ok && logical.Logical() != nil {
		name += " " + string(logical.Logical().Type())
	}
	return name
}
