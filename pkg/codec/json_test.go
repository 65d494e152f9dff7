package codec_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/pkg/codec"
)

// everything has every type of Avro, a type that contains itself, and one used twice.
const everything = `{"type": "record", "name": "Everything", "namespace": "test", "fields": [
	{"name": "boolean", "type": "boolean"},
	{"name": "int", "type": "int"},
	{"name": "long", "type": "long"},
	{"name": "float", "type": "float"},
	{"name": "double", "type": "double"},
	{"name": "nan", "type": "double"},
	{"name": "bytes", "type": "bytes"},
	{"name": "string", "type": "string"},
	{"name": "email", "type": "string"},
	{"name": "secret", "pii": true, "type": {"type": "array", "items": "string"}},
	{"name": "fixed", "type": {"type": "fixed", "name": "Four", "size": 4}},
	{"name": "enum", "type": {"type": "enum", "name": "Suit", "namespace": "cards", "symbols": ["hearts", "spades"]}},
	{"name": "array", "type": {"type": "array", "items": {"type": "array", "items": "int"}}},
	{"name": "map", "type": {"type": "map", "values": "cards.Suit"}},
	{"name": "union", "type": ["null", "string", "Four"]},
	{"name": "millis", "type": {"type": "long", "logicalType": "timestamp-millis"}},
	{"name": "micros", "type": {"type": "long", "logicalType": "timestamp-micros"}},
	{"name": "nanos", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
	{"name": "next", "type": {"type": "record", "name": "Node", "fields": [
		{"name": "n", "type": "int"}, {"name": "next", "type": ["null", "Node"]}]}}]}`

func TestCodec_JSON(t *testing.T) {
	t.Parallel()
	r := newRegistry(t)
	r.SeedSchema("everything", 1, 70, sr.Schema{Schema: everything})
	c := newCodec(t, codec.Config{URL: r.URL()}, placed{})
	at := time.Date(2026, 3, 1, 12, 30, 0, 123456789, time.UTC)
	datum, err := avro.MustParse(everything).Encode(map[string]any{
		"boolean": true, "int": -7, "long": int64(math.MinInt64), "float": float32(1.5), "double": 1e300, "nan": math.NaN(),
		"bytes": []byte{0xff, 0}, "string": "a \"quote\"\n\xff", "email": "jane@example.com", "secret": []string{"a", "b"},
		"fixed": []byte("four"), "enum": "spades", "array": []any{[]int{1, 2}, []int{}}, "map": map[string]string{"k": "hearts"},
		"union": map[string]any{"test.Four": []byte("four")}, "millis": at, "micros": at, "nanos": at,
		"next": map[string]any{"n": 1, "next": map[string]any{"n": 2, "next": nil}},
	})
	if err != nil {
		t.Fatal(err)
	}
	value := append(frame(70), datum...)

	t.Run("every type is shown", func(t *testing.T) {
		t.Parallel()
		got, err := c.JSON(t.Context(), value, false)
		if err != nil {
			t.Fatal(err)
		}
		want := `{"boolean":true,"int":-7,"long":-9223372036854775808,"float":1.5,"double":1e+300,"nan":"NaN",` +
			`"bytes":"/wA=","string":"a \"quote\"\n` + `\ufffd","email":"jane@example.com","secret":["a","b"],` +
			`"fixed":"Zm91cg==","enum":"spades","array":[[1,2],[]],"map":{"k":"hearts"},"union":"Zm91cg==",` +
			`"millis":"2026-03-01T12:30:00.123Z","micros":"2026-03-01T12:30:00.123456Z","nanos":"2026-03-01T12:30:00.123456789Z",` +
			`"next":{"n":1,"next":{"n":2,"next":null}}}`
		if diff := cmp.Diff(string(got), want); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("personal data is masked by the writer's tags and by our own", func(t *testing.T) {
		t.Parallel()
		got, err := c.JSON(t.Context(), value, true)
		if err != nil {
			t.Fatal(err)
		}
		if want := `"email":"***","secret":"***","fixed"`; !strings.Contains(string(got), want) {
			t.Errorf("got %s, want %s in it", got, want)
		}
	})
	t.Run("what is cut at any byte is undecodable", func(t *testing.T) {
		t.Parallel()
		for n := range datum {
			if _, err := c.JSON(t.Context(), value[:5+n], false); !errors.Is(err, codec.ErrUndecodable) {
				t.Errorf("%d bytes: error %v, want ErrUndecodable", n, err)
			}
		}
	})
	t.Run("bytes left over are undecodable", func(t *testing.T) {
		t.Parallel()
		if _, err := c.JSON(t.Context(), append(value[:len(value):len(value)], 0), false); !errors.Is(err, codec.ErrUndecodable) {
			t.Errorf("error %v, want ErrUndecodable", err)
		}
	})
}
