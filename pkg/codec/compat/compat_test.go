package compat_test

import (
	"strings"
	"testing"

	"example.com/keyline/pkg/codec/compat"
)

const base = `{"type": "record", "name": "Placed", "namespace": "shop", "fields": [
	{"name": "id", "type": "string"},
	{"name": "email", "type": "string", "pii": true},
	{"name": "note", "type": ["null", "string"], "default": null},
	{"name": "currency", "type": "string", "default": "EUR"},
	{"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
	{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
	{"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 16}},
	{"name": "reason", "type": {"type": "enum", "name": "Reason", "symbols": ["unknown", "gift"], "default": "unknown"}},
	{"name": "tags", "type": {"type": "map", "values": "string"}},
	{"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
		{"name": "sku", "type": "string"},
		{"name": "quantity", "type": "int"},
		{"name": "parts", "type": ["null", "Line"], "default": null}]}}}]}`

// change returns base with one piece of its text replaced.
func change(t *testing.T, old, with string) string {
	t.Helper()
	if strings.Count(base, old) != 1 {
		t.Fatalf("%s is not in the schema once", old)
	}
	return strings.Replace(base, old, with, 1)
}

const (
	note     = `{"name": "note", "type": ["null", "string"], "default": null},`
	currency = `{"name": "currency", "type": "string", "default": "EUR"},`
	id       = `{"name": "id", "type": "string"},`
	added    = `{"name": "shop", "type": "string", "default": ""},`
)

func TestCheck_accepts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, old, with string }{
		{"an added field with a default", id, id + added},
		{"an added nullable field", id, id + `{"name": "shop", "type": ["null", "string"], "default": null},`},
		{"an added field with a default in a nested record", `{"name": "quantity",`, `{"name": "unit", "type": "string", "default": "piece"}, {"name": "quantity",`},
		{"a removed field that had a default", note, ""},
		{"fields in another order", id + "\n\t" + `{"name": "email", "type": "string", "pii": true},`, `{"name": "email", "type": "string", "pii": true},` + id},
		{"an added symbol", `"gift"]`, `"gift", "bulk"]`},
		{"another doc", `"name": "id",`, `"name": "id", "doc": "The order",`},
		{"a default for a field that had none", `{"name": "quantity", "type": "int"}`, `{"name": "quantity", "type": "int", "default": 1}`},
		{"a mark for personal data", `"name": "id",`, `"name": "id", "pii": true,`},
		{"a union's branches in another order", note, `{"name": "note", "type": ["string", "null"], "default": ""},`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			newer := change(t, tt.old, tt.with)
			if tt.name == "a union's branches in another order" {
				newer = strings.Replace(newer, `, "default": ""}`, "}", 1) // another default would be another matter
			}
			for _, versions := range [][]string{{base, newer}, {base, base, newer}, {base, newer, newer}} {
				if err := compat.Check("orders-shop.Placed", versions); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("a single schema of any type", func(t *testing.T) {
		t.Parallel()
		for _, schema := range []string{base, `"string"`, `{"type": "array", "items": "long"}`} {
			if err := compat.Check("any", []string{schema}); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestCheck_refuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, old, with, field, rule string }{
		{"a renamed event", `"name": "Placed"`, `"name": "Ordered"`, "the event", "renamed"},
		{"a renamed namespace", `"namespace": "shop"`, `"namespace": "store"`, "the event", "renamed"},
		{"a renamed nested type", `"name": "Hash"`, `"name": "Digest"`, "field hash", "keeps its type"},
		{"a renamed nested type with an alias", `"name": "Hash"`, `"name": "Digest", "aliases": ["Hash"]`, "field hash", "aliases"},
		{"a nested record in another namespace", `"name": "Line", "fields"`, `"name": "Line", "namespace": "store", "fields"`, "lines", ""},
		{"an alias of the event", `"namespace": "shop"`, `"namespace": "shop", "aliases": ["Bought"]`, "the event", "aliases"},
		{"an alias of a field", `"name": "id",`, `"name": "id", "aliases": ["order_id"],`, "field id", "aliases"},
		{"a renamed field", `"name": "id"`, `"name": "order_id"`, "field id: it became order_id", "renamed"},
		{"a renamed field with a default", `"name": "currency"`, `"name": "money"`, "field currency: it became money", "renamed"},
		{"a renamed nested field", `"name": "sku"`, `"name": "article"`, "field lines.sku: it became article", "renamed"},
		{"an added field without a default", id, id + `{"name": "shop", "type": "string"},`, "field shop", "an added field has a default"},
		{"an added nullable field without a default", id, id + `{"name": "shop", "type": ["null", "string"]},`, "field shop", "an added field has a default"},
		{"an added nested field without a default", `{"name": "sku",`, `{"name": "unit", "type": "string"}, {"name": "sku",`, "field lines.unit", "an added field has a default"},
		{"a removed field without a default", id, "", "field id", "never removed"},
		{"a removed nested field without a default", `{"name": "sku", "type": "string"},`, "", "field lines.sku", "never removed"},
		{"a wider type", `"name": "quantity", "type": "int"`, `"name": "quantity", "type": "long"`, "field lines.quantity", "keeps its type"},
		{"bytes for a string, which Avro converts", `{"name": "id", "type": "string"}`, `{"name": "id", "type": "bytes"}`, "field id", "keeps its type"},
		{"a field that becomes nullable", `{"name": "id", "type": "string"}`, `{"name": "id", "type": ["null", "string"]}`, "field id", "keeps its type"},
		{"a field that is no longer nullable", note, `{"name": "note", "type": "string", "default": ""},`, "field note", "keeps its type"},
		{"one more branch", `["null", "string"]`, `["null", "string", "int"]`, "field note", "keeps its type"},
		{"other values of a map", `"values": "string"`, `"values": "bytes"`, "field tags", "keeps its type"},
		{"another size", `"size": 16`, `"size": 32`, "field hash", "keeps its type"},
		{"another unit of time", `timestamp-millis`, `timestamp-micros`, "field at", "keeps its type"},
		{"a unit of time that Avro did not have at first", `timestamp-millis`, `timestamp-nanos`, "field at", "keeps its type"},
		{"a time that becomes a number", `{"type": "long", "logicalType": "timestamp-millis"}`, `"long"`, "field at", "keeps its type"},
		{"another scale", `"scale": 2`, `"scale": 3`, "field total", "keeps its type"},
		{"an enum without a default symbol", `, "default": "unknown"`, ``, "field reason", "default symbol"},
		{"another default symbol", `"default": "unknown"`, `"default": "gift"`, "field reason", "default never changes"},
		{"a removed symbol", `["unknown", "gift"]`, `["unknown"]`, "field reason", "symbol is never removed"},
		{"a renamed symbol", `"gift"]`, `"present"]`, "field reason", "symbol is never removed"},
		{"another default", `"default": "EUR"`, `"default": "USD"`, "field currency", "default never changes"},
		{"a default of another type", currency, `{"name": "currency", "type": "string", "default": 1},`, "version 2 is not an Avro schema", ""},
		{"a default key in another case", id, id + `{"name": "shop", "type": "string", "Default": ""},`, "field shop", "an added field has a default"},
		{"null by itself", id, id + `{"name": "nothing", "type": "null", "default": null},`, "field nothing", "at least one byte"},
		{"a record without fields", id, id + `{"name": "nothing", "type": {"type": "record", "name": "N", "fields": []}, "default": {}},`, "field nothing", "at least one byte"},
		{"personal data without its mark", `, "pii": true`, ``, "field email", "stays marked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refused(t, []string{base, change(t, tt.old, tt.with)}, "version 2", tt.field, tt.rule)
		})
	}
}

func TestCheck_history(t *testing.T) {
	t.Parallel()
	t.Run("a field removed with its default cannot come back as another type", func(t *testing.T) {
		t.Parallel()
		refused(t, []string{base, change(t, note, ""), change(t, note, `{"name": "note", "type": "string", "default": ""},`)},
			"version 1 to version 3", "field note", "keeps its type")
	})
	t.Run("a default may not go while a version without the field is readable", func(t *testing.T) {
		t.Parallel()
		refused(t, []string{base, change(t, id, id+added), change(t, id, id+`{"name": "shop", "type": "string"},`)},
			"version 1 to version 3", "field shop", "an added field has a default")
	})
	t.Run("a field may leave long after another of its type came", func(t *testing.T) {
		t.Parallel()
		both := change(t, id, id+added)
		if err := compat.Check("orders-shop.Placed", []string{base, both, strings.Replace(both, currency, "", 1)}); err != nil {
			t.Error(err)
		}
	})
	t.Run("what our rules do not look at, a reader still has to resolve", func(t *testing.T) {
		t.Parallel()
		const total = `"type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}`
		refused(t, []string{
			change(t, total, `"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}`),
			change(t, total, `"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 3}`),
		}, "version 2 cannot read version 1", "total", "Avro schema resolution")
	})
	t.Run("what is no schema is refused", func(t *testing.T) {
		t.Parallel()
		refused(t, []string{base, `{"type": "record"}`}, "version 2 is not an Avro schema")
	})
	t.Run("an event cannot become something else", func(t *testing.T) {
		t.Parallel()
		refused(t, []string{base, `"string"`}, "the event", "from record shop.Placed to string")
	})
}

// refused checks that the versions are refused with an error that has the event and all of
// the words.
func refused(t *testing.T, versions []string, words ...string) {
	t.Helper()
	err := compat.Check("orders-shop.Placed", versions)
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range append(words, "orders-shop.Placed") {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q, want one with %q", err, word)
		}
	}
	t.Log(err)
}
