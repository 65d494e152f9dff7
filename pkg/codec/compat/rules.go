package compat

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/hamba/avro/v2"
)

const (
	ruleAlias   = "nothing is ever renamed, so there are no aliases"
	ruleRename  = "nothing is ever renamed"
	ruleSymbol  = "every enum has a default symbol"
	ruleSymbols = "a symbol is never removed"
	ruleBytes   = "every value takes at least one byte, or an array of them is a bomb"
	ruleType    = "a field keeps its type"
	ruleAdded   = "an added field has a default"
	ruleRemoved = "a field without a default is never removed"
	ruleDefault = "a default never changes: old records would read differently"
	ruleMark    = "personal data stays marked"
)

// linter checks one version by itself.
type linter struct{ seen map[string]bool }

func (l *linter) check(path string, s avro.Schema) *problem {
	if _, ok := s.(*avro.RefSchema); ok {
		return nil // checked where it is defined
	}
	if named, ok := s.(avro.NamedSchema); ok && len(named.Aliases()) > 0 {
		return &problem{path, fmt.Sprintf("the type %s has aliases", named.FullName()), ruleAlias}
	}
	switch s := s.(type) {
	case *avro.RecordSchema:
		return l.record(path, s)
	case *avro.EnumSchema:
		if !s.HasDefault() {
			return &problem{path, fmt.Sprintf("the enum %s has no default symbol", s.FullName()), ruleSymbol}
		}
	case *avro.ArraySchema:
		return l.check(path, s.Items())
	case *avro.MapSchema:
		return l.check(path, s.Values())
	case *avro.UnionSchema:
		for _, branch := range s.Types() {
			if branch.Type() == avro.Null {
				continue
			}
			if p := l.check(path, branch); p != nil {
				return p
			}
		}
	case *avro.NullSchema:
		return &problem{path, "null outside a union", ruleBytes}
	}
	return nil
}

func (l *linter) record(path string, s *avro.RecordSchema) *problem {
	if len(s.Fields()) == 0 {
		return &problem{path, fmt.Sprintf("the record %s has no fields", s.FullName()), ruleBytes}
	}
	for _, f := range s.Fields() {
		at := join(path, f.Name())
		if len(f.Aliases()) > 0 {
			return &problem{at, "it has aliases", ruleAlias}
		}
		if p := l.check(at, f.Type()); p != nil {
			return p
		}
	}
	return nil
}

// differ compares an older version with a newer one.
type differ struct {
	adjacent bool            // no version lies between the two
	seen     map[string]bool // named types under way or done, which ends recursion
}

func (d *differ) check(path string, older, newer avro.Schema) *problem {
	older, newer = deref(older), deref(newer)
	if from, to := describe(older), describe(newer); from != to {
		rule := ruleType
		if path == "" {
			rule = ruleRename
		}
		return &problem{path, fmt.Sprintf("the type changed from %s to %s", from, to), rule}
	}
	if named, ok := older.(avro.NamedSchema); ok {
		if d.seen[named.FullName()] {
			return nil
		}
		d.seen[named.FullName()] = true
	}
	switch newer := newer.(type) {
	case *avro.RecordSchema:
		return d.record(path, older.(*avro.RecordSchema), newer)
	case *avro.EnumSchema:
		return d.enum(path, older.(*avro.EnumSchema), newer)
	case *avro.ArraySchema:
		return d.check(path, older.(*avro.ArraySchema).Items(), newer.Items())
	case *avro.MapSchema:
		return d.check(path, older.(*avro.MapSchema).Values(), newer.Values())
	case *avro.UnionSchema:
		return d.union(path, older.(*avro.UnionSchema), newer)
	}
	return nil
}

// describe names a type with all that a field may not change: full name, size, logical
// type, the branches of a union.
func describe(s avro.Schema) string {
	text := string(s.Type())
	switch s := s.(type) {
	case *avro.UnionSchema:
		var branches []string
		for _, branch := range s.Types() {
			branches = append(branches, describe(deref(branch)))
		}
		slices.Sort(branches)
		return fmt.Sprint(branches)
	case *avro.FixedSchema:
		text = fmt.Sprintf("fixed %s of %d bytes", s.FullName(), s.Size())
	case avro.NamedSchema:
		text += " " + s.FullName()
	}
	if s, ok := s.(avro.LogicalTypeSchema); ok && s.Logical() != nil {
		return text + " with " + s.Logical().String()
	}
	if s, ok := s.(avro.PropertySchema); ok && s.Prop("logicalType") != nil {
		return fmt.Sprintf("%s with %v", text, s.Prop("logicalType")) // one that hamba does not know
	}
	return text
}

func (d *differ) record(path string, older, newer *avro.RecordSchema) *problem {
	var removed, added []*avro.Field
	for _, f := range older.Fields() {
		same := field(newer, f.Name())
		if same == nil {
			removed = append(removed, f)
		} else if p := d.field(join(path, f.Name()), f, same); p != nil {
			return p
		}
	}
	for _, f := range newer.Fields() {
		if field(older, f.Name()) == nil {
			added = append(added, f)
		}
	}
	for _, gone := range removed {
		for _, come := range added {
			if d.adjacent && describe(deref(gone.Type())) == describe(deref(come.Type())) {
				return &problem{join(path, gone.Name()), "it became " + come.Name(), ruleRename}
			}
		}
		if !gone.HasDefault() {
			return &problem{join(path, gone.Name()), "it was removed and had no default", ruleRemoved}
		}
	}
	for _, f := range added {
		if !f.HasDefault() {
			return &problem{join(path, f.Name()), "it was added without a default", ruleAdded}
		}
	}
	return nil
}

func (d *differ) field(path string, older, newer *avro.Field) *problem {
	if p := d.check(path, older.Type(), newer.Type()); p != nil {
		return p
	}
	if older.HasDefault() && newer.HasDefault() && !reflect.DeepEqual(older.Default(), newer.Default()) {
		return &problem{path, fmt.Sprintf("its default changed from %v to %v", older.Default(), newer.Default()), ruleDefault}
	}
	if older.Prop("pii") == true && newer.Prop("pii") != true {
		return &problem{path, `it lost its mark "pii"`, ruleMark}
	}
	return nil
}

func (d *differ) enum(path string, older, newer *avro.EnumSchema) *problem {
	for _, symbol := range older.Symbols() {
		if !slices.Contains(newer.Symbols(), symbol) {
			return &problem{path, "the symbol " + symbol + " was removed", ruleSymbols}
		}
	}
	if older.Default() != newer.Default() {
		return &problem{path, fmt.Sprintf("the default symbol changed from %s to %s", older.Default(), newer.Default()), ruleDefault}
	}
	return nil
}

// union compares the branches, which describe has found to be the same in some order.
func (d *differ) union(path string, older, newer *avro.UnionSchema) *problem {
	for _, was := range older.Types() {
		for _, is := range newer.Types() {
			if describe(deref(was)) != describe(deref(is)) {
				continue
			}
			if p := d.check(path, was, is); p != nil {
				return p
			}
		}
	}
	return nil
}

func field(s *avro.RecordSchema, name string) *avro.Field {
	for _, f := range s.Fields() {
		if f.Name() == name {
			return f
		}
	}
	return nil
}
