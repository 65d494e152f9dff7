package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/pkg/codec"
)

// Promise 11: hostile bytes never crash a process, and cost at most 64 x their size + 1 MiB.

// decoded decodes and shows a value and fails the test if that costs more than promised, or
// if the error is of no class. It must not run beside other tests, whose memory it would
// count.
func decoded(tb testing.TB, c *codec.Codec, value []byte) error {
	tb.Helper()
	ctx := tb.Context()
	typ, _ := c.Type(ctx, value) // a schema is fetched once and is not part of a value's cost
	var start, middle, end runtime.MemStats
	runtime.ReadMemStats(&start)
	_, err := codec.Decode[placed](ctx, c, value)
	runtime.ReadMemStats(&middle)
	_, errJSON := c.JSON(ctx, value, true)
	runtime.ReadMemStats(&end)

	limit := uint64(64*len(value) + 1<<20)
	if cost := middle.TotalAlloc - start.TotalAlloc; cost > limit {
		tb.Errorf("decoding %d bytes (%.20x…) cost %d bytes", len(value), value, cost)
	}
	if cost := end.TotalAlloc - middle.TotalAlloc; cost > limit {
		tb.Errorf("showing %d bytes (%.20x…) cost %d bytes", len(value), value, cost)
	}
	for _, err := range []error{err, errJSON} {
		if err != nil && class(err) == nil && typ != "test.Settled" {
			tb.Errorf("%.20x…: error of no class: %v", value, err)
		}
	}
	return err
}

func TestHostile_cut(t *testing.T) {
	c := newCodec(t, codec.Config{URL: newRegistry(t).URL()}, placed{})
	v1 := encode(t, newCodec(t, codec.Config{URL: newRegistry(t).URL()}, placedThen{}), then())
	for _, value := range [][]byte{encode(t, c, now()), v1} {
		for n := range value {
			if err := decoded(t, c, value[:n]); !errors.Is(err, codec.ErrUndecodable) {
				t.Errorf("%x cut to %d bytes: error %v, want ErrUndecodable", value, n, err)
			}
		}
		for _, more := range [][]byte{{0}, {2}, bytes.Repeat([]byte{0}, 1000)} {
			if err := decoded(t, c, append(value[:len(value):len(value)], more...)); !errors.Is(err, codec.ErrUndecodable) {
				t.Errorf("%x with %d bytes more: error %v, want ErrUndecodable", value, len(more), err)
			}
		}
	}
}

func TestHostile_random(t *testing.T) {
	c := newCodec(t, codec.Config{URL: newRegistry(t).URL()}, placed{})
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		value := frame(idV1+rnd.IntN(2), make([]byte, rnd.IntN(2000))...)
		for i := range value[5:] {
			value[5+i] = byte(rnd.Uint32()) >> (rnd.Uint32() % 8) // small bytes come further
		}
		_ = decoded(t, c, value)
	}
}

// long is Avro's encoding of a number.
func long(n int64) []byte { return binary.AppendVarint(nil, n) }

func TestHostile_arrays(t *testing.T) {
	c := newCodec(t, codec.Config{URL: newRegistry(t).URL()}, placed{})
	head := []byte{0, 0} // id, email
	line := []byte{0, 0, 0}
	rest := 128 << 10 // the square of the number of blocks would be seconds and gigabytes
	for _, tt := range []struct {
		name  string
		datum []byte
		valid bool // with the rest of the event behind it
	}{
		{"more items than bytes", long(1 << 40), false},
		{"the most items there are", long(1<<63 - 1), false},
		{"the least number of items", append(long(-1<<63), 0), false},
		{"a negative count and no size", long(-1 << 40), false},
		{"an item for each byte", append(long(int64(rest)), make([]byte, rest)...), false},
		{"as many items as fit, then nothing", append(long(int64(rest/3)), make([]byte, rest)...), true},
		{"a block for each item", bytes.Repeat(append(long(1), line...), rest/4), false},
		{"a sized block for each item", bytes.Repeat(append(append(long(-1), long(3)...), line...), rest/5), false},
		{"a few such blocks", bytes.Repeat(append(long(1), line...), 150), true},
		{"blocks that double", doubling(line, rest), true},
	} {
		for _, id := range []int{idV1, idV2} {
			datum := append(head[:2:2], tt.datum...)
			for _, datum := range [][]byte{datum, append(datum[:len(datum):len(datum)], 0, 0), append(datum[:len(datum):len(datum)], 0, 0, 0, 0, 0)} {
				err := decoded(t, c, frame(id, datum...))
				if err == nil && !tt.valid {
					t.Errorf("%s: no error", tt.name)
				}
			}
		}
	}
}

func doubling(line []byte, size int) (blocks []byte) {
	for n := 1; len(blocks)+(n+1)*len(line) < size; n *= 2 {
		blocks = append(append(blocks, long(int64(n))...), bytes.Repeat(line, n)...)
	}
	return blocks
}

// with returns version 1 of the event with a field more in front, by which a producer that
// got its schema into the registry could harm its readers.
func with(typ string) string {
	return strings.Replace(placedV1, `"fields": [`, `"fields": [{"name": "evil", "type": `+typ+`},`, 1)
}

// chain is a record in a record in a record, the last with a field of the type leaf.
func chain(n int, width int, leaf string) string {
	if n == 0 {
		return leaf
	}
	var fields strings.Builder
	fmt.Fprintf(&fields, `{"name": "a", "type": %s}`, chain(n-1, width, leaf))
	for i := 1; i < width && n > 1; i++ {
		fmt.Fprintf(&fields, `, {"name": "b%d", "type": "C%d"}`, i, n-1)
	}
	return fmt.Sprintf(`{"type": "record", "name": "C%d", "fields": [%s]}`, n, &fields)
}

func TestHostile_schemas(t *testing.T) {
	r := newRegistry(t)
	c := newCodec(t, codec.Config{URL: r.URL()}, placed{})
	zeros, twos := make([]byte, 256<<10), bytes.Repeat([]byte{2}, 256<<10)
	for i, tt := range []struct {
		name string
		typ  string
		want error // of the schema; nil if it may be used
	}{
		{"an array of nulls", `{"type": "array", "items": "null"}`, codec.ErrIncompatible},
		{"an array of arrays of nulls", `{"type": "array", "items": {"type": "array", "items": "null"}}`, codec.ErrIncompatible},
		{"an array of records of nulls", `{"type": "array", "items": {"type": "record", "name": "N", "fields": [{"name": "n", "type": "null"}]}}`, codec.ErrIncompatible},
		{"an array of empty records", `{"type": "array", "items": {"type": "record", "name": "N", "fields": []}}`, codec.ErrIncompatible},
		{"an array of fixed of no size", `{"type": "array", "items": {"type": "fixed", "name": "N", "size": 0}}`, codec.ErrIncompatible},
		{"two to the power of 30 nulls", chain(30, 2, `"null"`), codec.ErrIncompatible},
		{"two to the power of 30 numbers", chain(30, 2, `"int"`), nil},
		{"32 records in each other", `{"type": "array", "items": ` + chain(32, 1, `"int"`) + `}`, nil},
		{"one more", `{"type": "array", "items": ` + chain(33, 1, `"int"`) + `}`, codec.ErrIncompatible},
		{"many more", `{"type": "array", "items": ` + chain(200, 1, `"int"`) + `}`, codec.ErrIncompatible},
		{"a record that contains itself", `{"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}`, codec.ErrIncompatible},
		{"a list", `{"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}`, nil},
		{"arrays of arrays without end", `{"type": "record", "name": "R", "fields": [{"name": "r", "type": {"type": "array", "items": "R"}}]}`, nil},
		{"maps of maps without end", `{"type": "record", "name": "R", "fields": [{"name": "r", "type": {"type": "map", "values": "R"}}]}`, nil},
		{"a type used before it is defined", `{"type": "array", "items": "Line"}`, nil},
		{"a record with a long name", `{"type": "array", "items": {"type": "record", "name": "R", "fields": [{"name": "` + strings.Repeat("x", 20000) + `", "type": "boolean"}]}}`, nil},
		{"a schema above the limit", `{"type": "enum", "name": "E", "symbols": ["` + strings.Repeat("x", 40000) + `"]}`, codec.ErrIncompatible},
	} {
		id := 200 + i
		r.SeedSchema(fmt.Sprintf("evil-%d", i), 1, id, sr.Schema{Schema: with(tt.typ)})
		if _, err := c.Type(t.Context(), frame(id)); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
			continue
		}
		for _, datum := range [][]byte{zeros, twos, twos[:1000], append(long(100_000), zeros[:200_000]...)} {
			if err := decoded(t, c, frame(id, datum...)); err == nil {
				t.Errorf("%s: no error", tt.name)
			}
		}
	}
}

// A value may be valid and yet lie in itself deeper than anybody can mean: each level costs
// stack, which no count of what is allocated shows.
func TestHostile_depth(t *testing.T) {
	t.Parallel()
	const id, deepest = 300, 498 // the event is one level, the list's end two, and each link two more
	r := newRegistry(t)
	r.SeedSchema("evil-list", 1, id, sr.Schema{Schema: with(`{"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}`)})
	c := newCodec(t, codec.Config{URL: r.URL()}, placed{})
	list := func(links int) []byte {
		return frame(id, append(bytes.Repeat([]byte{2}, links), 0, 0, 0, 0, 0)...)
	}
	t.Run("a list within the limit is read and shown", func(t *testing.T) {
		t.Parallel()
		if _, err := codec.Decode[placed](t.Context(), c, list(deepest)); err != nil {
			t.Errorf("Decode: %v", err)
		}
		if _, err := c.JSON(t.Context(), list(deepest), true); err != nil {
			t.Errorf("JSON: %v", err)
		}
	})
	t.Run("one that is deeper is neither", func(t *testing.T) {
		t.Parallel()
		for _, links := range []int{deepest + 1, 100_000} {
			if _, err := codec.Decode[placed](t.Context(), c, list(links)); !errors.Is(err, codec.ErrUndecodable) {
				t.Errorf("Decode of %d links = %v, want ErrUndecodable", links, err)
			}
			if _, err := c.JSON(t.Context(), list(links), true); !errors.Is(err, codec.ErrUndecodable) {
				t.Errorf("JSON of %d links = %v, want ErrUndecodable", links, err)
			}
		}
	})
}
