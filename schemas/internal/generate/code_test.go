package main

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the code of testdata/kinds, which the tests of schemas compile")

// TestCode_kinds keeps the code of an event that has every type, which schemas/kinds_test.go is:
// there it is compiled, and compared with what twmb does.
func TestCode_kinds(t *testing.T) {
	versions, err := read("testdata/kinds")
	if err != nil {
		t.Fatal(err)
	}
	got, err := generate(versions)
	if err != nil {
		t.Fatal(err)
	}
	const file = "../../kinds_test.go"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := text(file); err != nil || got != want {
		t.Errorf("%s is stale, error %v: go test ./schemas/internal/generate -run TestCode_kinds -update", file, err)
	}
}

func TestCode_without(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, typ, why string }{
		{"a map", `{"type": "map", "values": "string"}`, "there is no code for map"},
		{"a fixed", `{"type": "fixed", "name": "Hash", "size": 4}`, "there is no code for fixed"},
		{"another logical type", `{"type": "long", "logicalType": "timestamp-micros"}`, "there is no code for long timestamp-micros"},
		{"a union of several types", `["null", "string", "long"]`, "a union of other than null and one type"},
		{"null beside what may be nil", `["null", {"type": "array", "items": "int"}]`, "null beside array"},
		{"a record in itself", `["null", "OrderCancelled"]`, "OrderCancelled contains itself"},
		{"a type that is called like a piece", `{"type": "enum", "name": "String", "symbols": ["A"]}`, "a type String is a piece"},
		{"such a type in an array", `{"type": "array", "items": {"type": "map", "values": "int"}}`, "there is no code for map"},
	} {
		t.Run(tt.name+" goes by the schema", func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			v1 := readFile(t, dir, "order/order_cancelled.v1.avsc")
			writeFile(t, dir, "order/order_cancelled.v1.avsc", strings.Replace(v1, `"fields": [`, `"fields": [{"name": "odd", "doc": "Odd", "type": `+tt.typ+`},`, 1))
			versions, err := read(dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := generate(versions)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"order/order_cancelled.v1.avsc goes by the schema: field odd: ", tt.why} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			for _, not := range []string{"(e OrderCancelled) AppendAvro", "(OrderCancelled) AvroVersions", "readCancellationReason"} {
				if strings.Contains(got, not) {
					t.Errorf("%q in\n%s", not, got)
				}
			}
			if !strings.Contains(got, "(e OrderPlaced) AppendAvro") {
				t.Errorf("another event lost its code in\n%s", got)
			}
		})
	}
}

func TestCode_oldVersion(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, old, with, why string }{
		{"a field that is gone", `"fields": [`, `"fields": [{"name": "gone", "type": "string", "default": "", "doc": "Gone"},`, "field gone: it is gone"},
		{"a type that has changed", `"type": "int", "doc": "How many`, `"type": "long", "doc": "How many`, "field lines: field quantity: it was long and is int"},
		{"a field that has no default", `{"name": "customer_id", "type": "string", "doc": "Who ordered, as the shop knows them"},`, "", "field customer_id: it has no default"},
	} {
		t.Run(tt.name+" leaves the version to the schema", func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			const file = "order/order_placed.v1.avsc"
			writeFile(t, dir, file, strings.Replace(readFile(t, dir, file), tt.old, tt.with, 1))
			versions, err := read(dir)
			if err != nil {
				t.Fatal(err)
			}
			got, err := generate(versions)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{file + " goes by the schema: " + tt.why, "[]any{nil, decodeOrderPlaced}", "(e OrderPlaced) AppendAvro"} {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
}
