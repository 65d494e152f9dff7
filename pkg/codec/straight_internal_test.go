package codec

import "testing"

func TestSame(t *testing.T) {
	t.Parallel()
	tree := func(typ string) *node {
		_, tree, err := parse(`{"type": "record", "name": "T", "fields": [{"name": "f", "type": ` + typ + `}]}`)
		if err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
		return tree
	}
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{`"string"`, `{"type": "string"}`, true},
		{`"string"`, `"bytes"`, false},
		{`{"type": "array", "items": "int"}`, `{"type": "array", "items": "long"}`, false},
		{`{"type": "map", "values": "int"}`, `{"type": "map", "values": "int"}`, true},
		{`{"type": "enum", "name": "E", "symbols": ["A", "B"]}`, `{"type": "enum", "name": "E", "symbols": ["A", "B"], "default": "A"}`, true},
		{`{"type": "enum", "name": "E", "symbols": ["A", "B"]}`, `{"type": "enum", "name": "E", "symbols": ["B", "A"]}`, false},
		{`{"type": "fixed", "name": "F", "size": 1}`, `{"type": "fixed", "name": "F", "size": 2}`, false},
		{`["null", "string"]`, `["string", "null"]`, false},
		{`["null", "string"]`, `["null", "string", "int"]`, false},
		{`{"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}`, `{"type": "record", "name": "R", "fields": [{"name": "y", "type": "int"}]}`, false},
		{`{"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}]}`, `{"type": "record", "name": "R", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int"}]}`, false},
		{`{"type": "long", "logicalType": "timestamp-millis"}`, `"long"`, false},
		{`["null", "T"]`, `["null", "T"]`, true}, // a list, which has no end
	} {
		for range 2 {
			if got := same(tree(tt.a), tree(tt.b), make(map[[2]*node]bool)); got != tt.want {
				t.Errorf("%s and %s: the same: %v, want %v", tt.a, tt.b, got, tt.want)
			}
			tt.a, tt.b = tt.b, tt.a
		}
	}
}
