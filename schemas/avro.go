package schemas

import (
	"encoding/binary"
	"math"
	"strings"
	"time"
)

// The pieces that the generated code is made of. Each append writes a value behind dst, and
// ok stays true as long as every value fits its Avro type. Each read returns the value at an
// offset of src and the offset behind it; from the first one that is malformed on that is bad,
// and the values are zero. What went wrong nobody says here: pkg/codec finds out.

const bad = -1

// texts returns the schemas in the files.
func texts(names ...string) []string {
	all := make([]string, len(names))
	for i, name := range names {
		text, _ := files.ReadFile(name) // all of them are embedded
		all[i] = string(text)
	}
	return all
}

// shared is the length in bytes up to which the strings of a datum share one copy of it.
// Whoever keeps one of them keeps the others, so those of a longer datum get a copy each.
const shared = 1 << 10

func appendLong(dst []byte, v int64, ok bool) ([]byte, bool) {
	u := uint64(v)<<1 ^ uint64(v>>63)
	for u >= 0x80 {
		dst = append(dst, byte(u)|0x80)
		u >>= 7
	}
	return append(dst, byte(u)), ok
}

func readLong(src string, at int) (int64, int) {
	if at == bad {
		return 0, bad
	}
	var u uint64
	for shift := 0; shift < 64 && at < len(src); shift += 7 {
		b := src[at]
		at++
		u |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if shift == 63 && b > 1 {
				break // more than 64 bits
			}
			return int64(u>>1) ^ -int64(u&1), at
		}
	}
	return 0, bad
}

func appendInt(dst []byte, v int, ok bool) ([]byte, bool) {
	return appendLong(dst, int64(v), ok && v == int(int32(v)))
}

func readInt(src string, at int) (int, int) {
	if uint(at) < uint(len(src)) && src[at] < 0x80 { // most
		return int(src[at]>>1) ^ -int(src[at]&1), at + 1
	}
	v, end := readLong(src, at)
	if v != int64(int32(v)) || end-at > binary.MaxVarintLen32 {
		return 0, bad
	}
	return int(v), end
}

func appendBoolean(dst []byte, v, ok bool) ([]byte, bool) {
	if v {
		return append(dst, 1), ok
	}
	return append(dst, 0), ok
}

func readBoolean(src string, at int) (bool, int) {
	b, at := take(src, at, 1)
	return b == "\x01", at
}

func appendFloat(dst []byte, v float32, ok bool) ([]byte, bool) {
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(v)), ok
}

func readFloat(src string, at int) (float32, int) {
	b, at := take(src, at, 4)
	if at == bad {
		return 0, bad
	}
	return math.Float32frombits(binary.LittleEndian.Uint32([]byte(b))), at
}

func appendDouble(dst []byte, v float64, ok bool) ([]byte, bool) {
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(v)), ok
}

func readDouble(src string, at int) (float64, int) {
	b, at := take(src, at, 8)
	if at == bad {
		return 0, bad
	}
	return math.Float64frombits(binary.LittleEndian.Uint64([]byte(b))), at
}

func appendString(dst []byte, v string, ok bool) ([]byte, bool) {
	if len(v) < 64 { // most: the length takes one byte
		return append(append(dst, byte(len(v)<<1)), v...), ok
	}
	dst, ok = appendLong(dst, int64(len(v)), ok)
	return append(dst, v...), ok
}

func readString(src string, at int) (string, int) {
	if uint(at) < uint(len(src)) && src[at]&0x81 == 0 && len(src) <= shared { // most
		start := at + 1
		if end := start + int(src[at]>>1); end <= len(src) {
			return src[start:end], end
		}
	}
	n, at := readLong(src, at)
	v, at := take(src, at, n)
	if len(src) > shared {
		v = strings.Clone(v)
	}
	return v, at
}

func appendBytes(dst, v []byte, ok bool) ([]byte, bool) {
	dst, ok = appendLong(dst, int64(len(v)), ok)
	return append(dst, v...), ok
}

func readBytes(src string, at int) ([]byte, int) {
	n, at := readLong(src, at)
	v, at := take(src, at, n)
	return []byte(v), at
}

// take returns n bytes.
func take(src string, at int, n int64) (string, int) {
	if at == bad || uint64(n) > uint64(len(src)-at) {
		return "", bad
	}
	end := at + int(n)
	return src[at:end], end
}

func appendMillis(dst []byte, v time.Time, ok bool) ([]byte, bool) {
	const most = math.MaxInt64/1000 - 1 // seconds; some 292 million years
	s := v.Unix()
	return appendLong(dst, v.UnixMilli(), ok && -most < s && s < most)
}

func readMillis(src string, at int) (time.Time, int) {
	v, at := readLong(src, at)
	return time.UnixMilli(v).UTC(), at
}

func appendSymbol[T ~string](dst []byte, v T, ok bool, symbols []T) ([]byte, bool) {
	for i, symbol := range symbols {
		if v == symbol {
			return appendLong(dst, int64(i), ok)
		}
	}
	return dst, false
}

func readSymbol[T ~string](src string, at int, symbols []T) (T, int) {
	i, at := readInt(src, at)
	if at == bad || uint(i) >= uint(len(symbols)) {
		return "", bad
	}
	return symbols[i], at
}

// appendNullable writes a union of null, at the place null in it, and one type more.
func appendNullable[T any](dst []byte, v *T, ok bool, null int64, value func([]byte, T, bool) ([]byte, bool)) ([]byte, bool) {
	if v == nil {
		return appendLong(dst, null, ok)
	}
	dst, ok = appendLong(dst, 1-null, ok)
	return value(dst, *v, ok)
}

func readNullable[T any](src string, at, null int, value func(string, int) (T, int)) (*T, int) {
	branch, at := readInt(src, at)
	switch {
	case at == bad || branch < 0 || branch > 1:
		return nil, bad
	case branch == null:
		return nil, at
	}
	v, at := value(src, at)
	return &v, at
}

func appendArray[T any](dst []byte, items []T, ok bool, item func([]byte, T, bool) ([]byte, bool)) ([]byte, bool) {
	if len(items) > 0 {
		dst, ok = appendLong(dst, int64(len(items)), ok)
		for i := range items {
			dst, ok = item(dst, items[i], ok)
		}
	}
	return append(dst, 0), ok
}

// readArray makes the slice anew with each block, as pkg/codec reckons when it bounds what a
// value may cost.
func readArray[T any](src string, at int, item func(string, int) (T, int)) ([]T, int) {
	items := []T{}
	n, at := readBlock(src, at)
	for ; n > 0; n, at = readBlock(src, at) {
		done := len(items)
		items = append(make([]T, 0, done+n), items...)[:done+n]
		for i := done; i < len(items) && at != bad; i++ {
			items[i], at = item(src, at)
		}
	}
	return items, at
}

// readBlock reads how many items the next block of an array has; 0 is the end. An item takes
// at least one byte.
func readBlock(src string, at int) (int, int) {
	n, at := readLong(src, at)
	if n < 0 {
		_, at = readLong(src, at) // the block's size in bytes, for those who skip it
		n = -n
	}
	if at == bad || uint64(n) > uint64(len(src)-at) {
		return 0, bad
	}
	return int(n), at
}
