package service

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
)

// object is what may be in a JSON object.
type object struct {
	fields   map[string]reflect.Type // nil: any name
	each     reflect.Type            // of any name; nil is anything
	required []string
}

func (o *object) member(name string) (t reflect.Type, known bool) {
	if o.fields == nil {
		return o.each, true
	}
	t, known = o.fields[name]
	return t, known
}

// objectOf tells what may be in an object of type t.
func objectOf(t reflect.Type) *object {
	t = concrete(t)
	switch {
	case t != nil && t.Kind() == reflect.Map:
		return &object{each: t.Elem()}
	case t == nil || t.Kind() != reflect.Struct:
		return &object{}
	}
	if known, ok := structs.Load(t); ok {
		return known.(*object)
	}
	o := &object{fields: map[string]reflect.Type{}}
	for _, f := range reflect.VisibleFields(t) {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		if !f.IsExported() || tag == "-" || f.Anonymous && name == "" {
			continue
		}
		name = cmp.Or(name, f.Name)
		o.fields[name] = f.Type
		if f.Tag.Get("required") == "true" {
			o.required = append(o.required, name)
		}
	}
	structs.Store(t, o)
	return o
}

// structs has what objectOf has found out of structs, by their types.
var structs sync.Map

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// concrete is the type behind pointers; nil if it reads its JSON itself.
func concrete(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || reflect.PointerTo(t).Implements(jsonUnmarshaler) || reflect.PointerTo(t).Implements(textUnmarshaler) {
		return nil
	}
	return t
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return fmt.Sprintf("a whole number of at most %d bits", t.Bits())
}
