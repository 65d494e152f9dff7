package compat

import (
	"fmt"
	"reflect"
	"slices"
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
type linter struct{ seen map[*node]bool } // types under way or done, which ends recursion

func (l *linter) check(path string, n *node) *problem {
	if l.seen[n] {
		return nil
	}
	l.seen[n] = true
	if len(n.Aliases) > 0 {
		return &problem{path, fmt.Sprintf("the type %s has aliases", n.name), ruleAlias}
	}
	switch n.Type {
	case "record", "error":
		return l.record(path, n)
	case "enum":
		if !n.HasEnumDefault {
			return &problem{path, fmt.Sprintf("the enum %s has no default symbol", n.name), ruleSymbol}
		}
	case "array", "map":
		return l.check(path, n.element)
	case "union":
		for _, branch := range n.branches {
			if branch.Type == "null" {
				continue
			}
			if p := l.check(path, branch); p != nil {
				return p
			}
		}
	case "null":
		return &problem{path, "null outside a union", ruleBytes}
	}
	return nil
}

func (l *linter) record(path string, n *node) *problem {
	if len(n.fields) == 0 {
		return &problem{path, fmt.Sprintf("the record %s has no fields", n.name), ruleBytes}
	}
	for _, f := range n.fields {
		at := join(path, f.Name)
		if len(f.Aliases) > 0 {
			return &problem{at, "it has aliases", ruleAlias}
		}
		if p := l.check(at, f.node); p != nil {
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

func (d *differ) check(path string, older, newer *node) *problem {
	if from, to := older.describe(), newer.describe(); from != to {
		rule := ruleType
		if path == "" {
			rule = ruleRename
		}
		return &problem{path, fmt.Sprintf("the type changed from %s to %s", from, to), rule}
	}
	if older.name != "" {
		if d.seen[older.name] {
			return nil
		}
		d.seen[older.name] = true
	}
	switch older.Type {
	case "record", "error":
		return d.record(path, older, newer)
	case "enum":
		return d.enum(path, older, newer)
	case "array", "map":
		return d.check(path, older.element, newer.element)
	case "union":
		return d.union(path, older, newer)
	}
	return nil
}

func (d *differ) record(path string, older, newer *node) *problem {
	var removed, added []field
	for _, f := range older.fields {
		same := newer.field(f.Name)
		if same == nil {
			removed = append(removed, f)
		} else if p := d.field(join(path, f.Name), f, *same); p != nil {
			return p
		}
	}
	for _, f := range newer.fields {
		if older.field(f.Name) == nil {
			added = append(added, f)
		}
	}
	for _, gone := range removed {
		for _, come := range added {
			if d.adjacent && gone.node.describe() == come.node.describe() {
				return &problem{join(path, gone.Name), "it became " + come.Name, ruleRename}
			}
		}
		if !gone.HasDefault {
			return &problem{join(path, gone.Name), "it was removed and had no default", ruleRemoved}
		}
	}
	for _, f := range added {
		if !f.HasDefault {
			return &problem{join(path, f.Name), "it was added without a default", ruleAdded}
		}
	}
	return nil
}

func (d *differ) field(path string, older, newer field) *problem {
	if p := d.check(path, older.node, newer.node); p != nil {
		return p
	}
	if older.HasDefault && newer.HasDefault && !reflect.DeepEqual(older.Default, newer.Default) {
		return &problem{path, fmt.Sprintf("its default changed from %v to %v", older.Default, newer.Default), ruleDefault}
	}
	if older.Props["pii"] == true && newer.Props["pii"] != true {
		return &problem{path, `it lost its mark "pii"`, ruleMark}
	}
	return nil
}

func (d *differ) enum(path string, older, newer *node) *problem {
	for _, symbol := range older.Symbols {
		if !slices.Contains(newer.Symbols, symbol) {
			return &problem{path, "the symbol " + symbol + " was removed", ruleSymbols}
		}
	}
	if older.EnumDefault != newer.EnumDefault {
		return &problem{path, fmt.Sprintf("the default symbol changed from %s to %s", older.EnumDefault, newer.EnumDefault), ruleDefault}
	}
	return nil
}

// union compares the branches, which describe has found to be the same in some order.
func (d *differ) union(path string, older, newer *node) *problem {
	for _, was := range older.branches {
		for _, is := range newer.branches {
			if was.describe() != is.describe() {
				continue
			}
			if p := d.check(path, was, is); p != nil {
				return p
			}
		}
	}
	return nil
}
