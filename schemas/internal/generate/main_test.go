package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun_current(t *testing.T) {
	t.Parallel()
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()

	t.Run("a change is stale until it is generated", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		v3 := strings.Replace(readFile(t, dir, "order/order_placed.v2.avsc"), `{"name": "currency"`,
			`{"name": "note", "type": ["null", "string"], "default": null, "doc": "What the customer said"}, {"name": "currency"`, 1)
		writeFile(t, dir, "order/order_placed.v3.avsc", v3)
		fails(t, run(dir, true), "stale", "make generate")
		if err := run(dir, false); err != nil {
			t.Fatal(err)
		}
		if err := run(dir, true); err != nil {
			t.Error(err)
		}
		if code := readFile(t, dir, "events.gen.go"); !strings.Contains(code, "Note *string `avro:\"note\"`") {
			t.Errorf("no field in\n%s", code)
		}
		if sums := readFile(t, dir, "versions.sum"); strings.Count(sums, "order_placed") != 3 {
			t.Errorf("no checksum in\n%s", sums)
		}
	})
	t.Run("an enum that is used twice is one type", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		writeFile(t, dir, "order/order_moved.v1.avsc", `{"type": "record", "name": "OrderMoved", "namespace": "shop.order", "doc": "It has moved.", "fields": [
			{"name": "from", "type": {"type": "enum", "name": "Place", "doc": "A place.", "symbols": ["UNKNOWN", "SHELF"], "default": "UNKNOWN"}, "doc": "Where it was"},
			{"name": "to", "type": "Place", "doc": "Where it is"}]}`)
		if err := run(dir, false); err != nil {
			t.Fatal(err)
		}
		if code := readFile(t, dir, "events.gen.go"); strings.Count(code, "type Place string") != 1 {
			t.Errorf("it is not there once in\n%s", code)
		}
	})
	t.Run("an incompatible version is refused before anything is written", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		before := readFile(t, dir, "versions.sum")
		v2 := strings.Replace(readFile(t, dir, "order/order_cancelled.v1.avsc"), `"fields": [`, `"fields": [{"name": "by", "type": "string", "doc": "Who"},`, 1)
		writeFile(t, dir, "order/order_cancelled.v2.avsc", v2)
		for _, check := range []bool{true, false} {
			fails(t, run(dir, check), "order/order_cancelled", "by", "rule")
		}
		if readFile(t, dir, "versions.sum") != before {
			t.Error("it was frozen all the same")
		}
	})
	t.Run("edited code is stale", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		writeFile(t, dir, "events.gen.go", readFile(t, dir, "events.gen.go")+"// mine\n")
		fails(t, run(dir, true), "events.gen.go", "make generate")
	})
	t.Run("an edited version is refused, the newest too", func(t *testing.T) {
		t.Parallel()
		for file, next := range map[string]string{
			"order/order_placed.v1.avsc":       "order/order_placed.v3.avsc",
			"order/order_placed.v2.avsc":       "order/order_placed.v3.avsc",
			"inventory/stock_reserved.v1.avsc": "inventory/stock_reserved.v2.avsc",
		} {
			dir := folder(t)
			writeFile(t, dir, file, strings.Replace(readFile(t, dir, file), "order_id", "id", 1))
			for _, check := range []bool{true, false} {
				fails(t, run(dir, check), file, "never changes", next)
			}
		}
	})
	t.Run("a removed version is refused", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		if err := os.Rename(filepath.Join(dir, "order/order_placed.v2.avsc"), filepath.Join(t.TempDir(), "gone")); err != nil {
			t.Fatal(err)
		}
		fails(t, run(dir, false), "order/order_placed.v2.avsc", "restore it")
	})
	t.Run("a checkout with other line ends is the same", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		for _, file := range []string{"order/order_placed.v1.avsc", "events.gen.go", "versions.sum"} {
			writeFile(t, dir, file, strings.ReplaceAll(readFile(t, dir, file), "\n", "\r\n"))
		}
		if err := run(dir, true); err != nil {
			t.Error(err)
		}
	})
	t.Run("what has no doc, and a time that is none, are refused by field", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		writeFile(t, dir, "order/order_shipped.v1.avsc", `{"type": "record", "name": "OrderShipped", "namespace": "shop.order", "doc": "…", "fields": [
			{"name": "order_id", "doc": "…", "type": "string"},
			{"name": "carrier", "type": "string", "doc": ""},
			{"name": "shipped_at", "doc": "…", "type": ["null", "long"], "default": null},
			{"name": "parcels", "doc": "…", "type": {"type": "array", "items": {"type": "record", "name": "Parcel", "fields": [
				{"name": "seen_at", "doc": "…", "type": {"type": "long"}},
				{"name": "packed_at", "doc": "…", "type": {"type": "long", "logicalType": "timestamp-millis"}}
			]}}}
		]}`)
		before := readFile(t, dir, "versions.sum")
		err := run(dir, false)
		fails(t, err, "order/order_shipped.v1.avsc: carrier: has no doc", "shipped_at: a time is", "Parcel: has no doc", "seen_at: a time is")
		if n := strings.Count(err.Error(), "order_shipped"); n != 4 || readFile(t, dir, "versions.sum") != before {
			t.Errorf("%d errors, want 4, and nothing frozen:\n%v", n, err)
		}
	})
	t.Run("what is no JSON is refused by line", func(t *testing.T) {
		t.Parallel()
		dir := folder(t)
		writeFile(t, dir, "order/order_shipped.v1.avsc", "{\n\t\"type\": \"record\",\n}\n")
		fails(t, run(dir, false), "order/order_shipped.v1.avsc: line 3: invalid character '}'")
	})
	for _, tt := range []struct{ name, file, from, old, with, want string }{
		{"a file that names no version", "order/order_shipped.avsc", "order/order_cancelled.v1.avsc", "", "", "<event>.v<number>.avsc"},
		{"a gap between versions", "order/order_placed.v4.avsc", "order/order_placed.v2.avsc", "", "", "version 3 of this event is missing"},
		{"an event that is called otherwise than its file", "order/order_shipped.v1.avsc", "order/order_cancelled.v1.avsc", "", "", "shop.order.OrderShipped"},
		{"an event in another namespace", "order/order_cancelled.v2.avsc", "order/order_cancelled.v1.avsc", "shop.order", "shop", "shop.order.OrderCancelled"},
		{"two types of one name", "order/order_shipped.v1.avsc", "order/order_cancelled.v1.avsc", "OrderCancelled", "OrderShipped", "CancellationReason is also defined"},
		{"what is no schema", "order/order_shipped.v1.avsc", "versions.sum", "", "", "order/order_shipped.v1.avsc"},
	} {
		t.Run(tt.name+" is refused", func(t *testing.T) {
			t.Parallel()
			dir := folder(t)
			writeFile(t, dir, tt.file, strings.ReplaceAll(readFile(t, dir, tt.from), tt.old, tt.with))
			fails(t, run(dir, true), tt.want)
		})
	}
}

// folder returns a copy of a small folder of schemas: the live one grows.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, pattern := range []string{"*/*.avsc", "versions.sum", "events.gen.go"} {
		paths, err := filepath.Glob(filepath.Join("testdata/schemas", pattern))
		if err != nil || len(paths) == 0 {
			t.Fatal(pattern, err)
		}
		for _, path := range paths {
			rel, err := filepath.Rel("testdata/schemas", path)
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, dir, rel, readFile(t, "testdata/schemas", rel))
		}
	}
	return dir
}

func readFile(t *testing.T, dir, file string) string {
	t.Helper()
	content, err := text(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t *testing.T, dir, file, content string) {
	t.Helper()
	path := filepath.Join(dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func fails(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q, want one with %q", err, word)
		}
	}
}
