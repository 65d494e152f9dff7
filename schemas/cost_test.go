package schemas_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/schemas"
)

// order returns an order of so many lines.
func order(lines int) schemas.OrderPlaced {
	o := schemas.OrderPlaced{OrderID: "o-1", CustomerID: "c-1", CustomerEmail: strings.Repeat("jane.", 20) + "@example.com", PlacedAt: at, Currency: "EUR"}
	for i := range lines {
		o.Lines = append(o.Lines, schemas.OrderLine{SKU: fmt.Sprintf("sku-%016d", i), Quantity: 1 + i, UnitPriceCents: 1250})
	}
	return o
}

func TestCost_encode(t *testing.T) { // not parallel: it counts
	s := newShop(t, events...)
	for _, lines := range []int{0, 3, 100} {
		o, dst := order(lines), make([]byte, 0, 8<<10)
		if got := testing.AllocsPerRun(100, func() {
			if _, err := s.codec.AppendEncode(dst, &o); err != nil {
				t.Fatal(err)
			}
		}); got > 0 {
			t.Errorf("%d lines: %v allocations, want none", lines, got)
		}
	}
}

func TestCost_decode(t *testing.T) { // not parallel: it counts
	s := newShop(t, events...)
	for _, tt := range []struct {
		name           string
		lines, version int
		want           float64
	}{
		{"the strings of a short datum share one copy of it, and the lines are a slice", 3, 2, 2},
		{"so they do of the version before", 3, 1, 2},
		{"each string of a long datum can be kept without the others", 100, 2, 2 + 4 + 100},
	} {
		value, err := s.codec.Encode(order(tt.lines))
		if err != nil {
			t.Fatal(err)
		}
		if tt.version == 1 {
			value = append(s.header(schemas.OrderPlaced{}, 1), value[5:len(value)-4]...) // without the currency
		}
		if got := testing.AllocsPerRun(100, func() {
			if _, err := codec.Decode[schemas.OrderPlaced](t.Context(), s.codec, value); err != nil {
				t.Fatal(err)
			}
		}); got != tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, got, tt.want)
		}
	}
}

// TestCost_hostile is part of promise 11: what bytes are built to cost has a limit with code
// of the payload's own too.
func TestCost_hostile(t *testing.T) { // not parallel: it counts
	s := newShop(t, events...)
	long := func(n int64) []byte { return binary.AppendVarint(nil, n) }
	line, size := []byte{0, 0, 0}, 16<<10 // what is not walked costs the square
	head := []byte{0, 0, 0}               // order, customer, address
	for _, tt := range []struct {
		name  string
		datum []byte
	}{
		{"more lines than bytes", long(1 << 40)},
		{"the least number of lines", append(long(-1<<63), 0)},
		{"a line for each byte", append(long(int64(size)), make([]byte, size)...)},
		{"as many lines as fit", append(long(int64(size/3)), make([]byte, size)...)},
		{"a block for each line", bytes.Repeat(append(long(1), line...), size/4)},
		{"a sized block for each line", bytes.Repeat(append(append(long(-1), long(3)...), line...), size/5)},
		{"a few such blocks", bytes.Repeat(append(long(1), line...), 70)},
		{"blocks without end", bytes.Repeat([]byte{2}, size)},
		{"a string longer than all", long(1 << 40)},
	} {
		for version := 1; version <= 2; version++ {
			for _, rest := range [][]byte{nil, {0, 0}, {0, 0, 0}, bytes.Repeat([]byte{0xff}, 20)} {
				value := bytes.Join([][]byte{s.header(schemas.OrderPlaced{}, version), head, tt.datum, rest}, nil)
				_, _ = codec.Decode[schemas.OrderPlaced](t.Context(), s.codec, value) // fetches the schema
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				_, _ = codec.Decode[schemas.OrderPlaced](t.Context(), s.codec, value)
				runtime.ReadMemStats(&after)
				if cost := after.TotalAlloc - before.TotalAlloc; cost > uint64(64*len(value)+1<<20) {
					t.Errorf("%s, version %d: decoding %d bytes cost %d bytes", tt.name, version, len(value), cost)
				}
			}
		}
	}
}
