package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// wellMade refuses a version that breaks a rule of this folder which no reader would notice: that
// everything has a doc, and that a time is a timestamp-millis.
func wellMade(versions []version) error {
	var all []error
	for _, v := range versions {
		var schema any
		if err := json.Unmarshal([]byte(v.text), &schema); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				return fmt.Errorf("%s: line %d: %w", v.file, 1+bytes.Count([]byte(v.text)[:syntax.Offset], []byte("\n")), err)
			}
			return fmt.Errorf("%s: %w", v.file, err)
		}
		ruled(schema, "", func(at, rule string) { all = append(all, fmt.Errorf("%s: %s: %s", v.file, at, rule)) })
	}
	return errors.Join(all...)
}

// ruled looks at a type, which is a field's if that has a name, and at all below it.
func ruled(schema any, field string, broken func(at, rule string)) {
	switch s := schema.(type) {
	case string:
		if s == "long" && strings.HasSuffix(field, "_at") {
			broken(field, `a time is {"type": "long", "logicalType": "timestamp-millis"}`)
		}
	case []any: // a union
		for _, branch := range s {
			ruled(branch, field, broken)
		}
	case map[string]any:
		if name, ok := s["name"].(string); ok && !documented(s) {
			broken(name, "has no doc")
		}
		fields, _ := s["fields"].([]any)
		for _, f := range fields {
			f, _ := f.(map[string]any)
			name, _ := f["name"].(string)
			if !documented(f) {
				broken(name, "has no doc")
			}
			ruled(f["type"], name, broken)
		}
		if s["logicalType"] == nil {
			ruled(s["type"], field, broken)
		}
		ruled(s["items"], field, broken)
		ruled(s["values"], field, broken)
	}
}

func documented(declared map[string]any) bool {
	doc, _ := declared["doc"].(string)
	return doc != ""
}
