package codec

import (
	"strings"
	"testing"
)

// FuzzSchema looks for a writer's schema by which a datum crashes the decoder, or for which
// our walk of a datum disagrees with the library's.
func FuzzSchema(f *testing.F) {
	c, err := New(Config{URL: "http://registry.invalid"}, fetched{})
	if err != nil {
		f.Fatal(err)
	}
	with := func(typ string) string {
		return strings.Replace(fetchedSchema, `"fields": [`, `"fields": [{"name": "more", "type": `+typ+`},`, 1)
	}
	f.Add(fetchedSchema, []byte{2, 'x'})
	f.Add(with(`["null", "Fetched"]`), []byte{2, 2, 0, 2, 'x', 2, 'x'})
	f.Add(with(`{"type": "array", "items": {"type": "record", "name": "R", "fields": [{"name": "r", "type": "int"}]}}`), []byte{1, 2, 0, 0, 2, 'x'})
	f.Add(with(`{"type": "map", "values": ["double", "boolean", {"type": "enum", "name": "a.E", "symbols": ["A"]}]}`), []byte{2, 2, 'k', 4, 0, 0, 2, 'x'})
	f.Add(with(`{"type": "fixed", "name": "F", "size": 3}`), []byte{1, 2, 3, 2, 'x'})
	f.Add(with(`"null"`), []byte{2, 'x'})
	f.Fuzz(func(t *testing.T, schema string, datum []byte) {
		if len(datum) > MaxSize {
			return
		}
		w, err := c.newWriter(1, schema)
		if err != nil {
			return
		}
		_, errJSON := w.tree.json(datum, true, c.masked)
		if w.reader == nil || w.incompatible != nil {
			return
		}
		var p fetched
		rest, err := w.resolved.Decode(datum, &p)
		if err != nil || len(rest) > 0 {
			return
		}
		if err := w.tree.scan(datum, w.reader.element); err != nil {
			t.Errorf("decoded, but the walk says: %v", err)
		}
		if errJSON != nil && errJSON.Error() != "too long to show" {
			t.Errorf("decoded, but cannot be shown: %v", errJSON)
		}
	})
}
