// Code generated from the .avsc files by schemas/internal/generate. DO NOT EDIT.

package schemas

import (
	"time"
)

// Part is a record in an array.
type Part struct {
	// An int.
	Size int `avro:"size"`
	// A double.
	Weight float64 `avro:"weight"`
	// An array in an array.
	Tags []string `avro:"tags"`
}

// Sample has every type that has code.
type Sample struct {
	// A boolean, which stood elsewhere.
	Flag bool `avro:"flag"`
	// An int.
	Count int `avro:"count"`
	// A string.
	ID string `avro:"id"`
	// A long.
	Total int64 `avro:"total"`
	// A float.
	Ratio float32 `avro:"ratio"`
	// A double.
	Share float64 `avro:"share"`
	// A double or null.
	Blob *float64 `avro:"blob"`
	// A string or null.
	Note *string `avro:"note"`
	// A string with a default that has quotes.
	Text string `avro:"text"`
	// A boolean.
	Yes bool `avro:"yes"`
	// A time.
	At time.Time `avro:"at"`
	// A symbol.
	Colour Colour `avro:"colour"`
	// A symbol with a default of its own.
	Other Shade `avro:"other"`
	// Symbols.
	Colours []Tone `avro:"colours"`
	// Records.
	Parts []Part `avro:"parts"`
	// A record or null.
	Part *Part `avro:"part"`
	// Times or nulls.
	Times []*time.Time `avro:"times"`
	// Bytes.
	Raw []byte `avro:"raw"`
	// Arrays in an array.
	Grid [][]int `avro:"grid"`
}

// Colour is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type Colour string

// The symbols of Colour.
const (
	ColourRed  Colour = "red"
	ColourNone Colour = "none"
	ColourBlue Colour = "blue"
)

// Shade is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type Shade string

// The symbols of Shade.
const (
	ShadeLight Shade = "light"
	ShadeDark  Shade = "dark"
)

// Tone is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type Tone string

// The symbols of Tone.
const (
	ToneWarm     Tone = "warm"
	ToneColdBlue Tone = "cold_blue"
)

var symbolsOfColour = []Colour{ColourRed, ColourNone, ColourBlue}

func appendColour(dst []byte, v Colour, ok bool) ([]byte, bool) {
	return appendSymbol(dst, v, ok, symbolsOfColour)
}

func readColour(src string, at int) (Colour, int) {
	return readSymbol(src, at, symbolsOfColour)
}

var symbolsOfShade = []Shade{ShadeLight, ShadeDark}

func appendShade(dst []byte, v Shade, ok bool) ([]byte, bool) {
	return appendSymbol(dst, v, ok, symbolsOfShade)
}

func readShade(src string, at int) (Shade, int) {
	return readSymbol(src, at, symbolsOfShade)
}

var symbolsOfTone = []Tone{ToneWarm, ToneColdBlue}

func appendTone(dst []byte, v Tone, ok bool) ([]byte, bool) {
	return appendSymbol(dst, v, ok, symbolsOfTone)
}

func readTone(src string, at int) (Tone, int) {
	return readSymbol(src, at, symbolsOfTone)
}

func appendPart(dst []byte, v Part, ok bool) ([]byte, bool) {
	dst, ok = appendInt(dst, v.Size, ok)
	dst, ok = appendDouble(dst, v.Weight, ok)
	dst, ok = appendArray(dst, v.Tags, ok, appendString)
	return dst, ok
}

func readPart(src string, at int) (v Part, _ int) {
	v.Size, at = readInt(src, at)
	v.Weight, at = readDouble(src, at)
	v.Tags, at = readArray(src, at, readString)
	return v, at
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e Sample) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendBoolean(dst, e.Flag, ok)
	dst, ok = appendInt(dst, e.Count, ok)
	dst, ok = appendString(dst, e.ID, ok)
	dst, ok = appendLong(dst, e.Total, ok)
	dst, ok = appendFloat(dst, e.Ratio, ok)
	dst, ok = appendDouble(dst, e.Share, ok)
	dst, ok = appendNullable(dst, e.Blob, ok, 0, appendDouble)
	dst, ok = appendNullable(dst, e.Note, ok, 0, appendString)
	dst, ok = appendString(dst, e.Text, ok)
	dst, ok = appendBoolean(dst, e.Yes, ok)
	dst, ok = appendMillis(dst, e.At, ok)
	dst, ok = appendColour(dst, e.Colour, ok)
	dst, ok = appendShade(dst, e.Other, ok)
	dst, ok = appendArray(dst, e.Colours, ok, appendTone)
	dst, ok = appendArray(dst, e.Parts, ok, appendPart)
	dst, ok = appendNullable(dst, e.Part, ok, 0, appendPart)
	dst, ok = appendArray(dst, e.Times, ok, func(dst []byte, v *time.Time, ok bool) ([]byte, bool) {
		return appendNullable(dst, v, ok, 0, appendMillis)
	})
	dst, ok = appendBytes(dst, e.Raw, ok)
	dst, ok = appendArray(dst, e.Grid, ok, func(dst []byte, v []int, ok bool) ([]byte, bool) { return appendArray(dst, v, ok, appendInt) })
	return dst, ok
}

func decodeSample(datum []byte) (e Sample, ok bool) {
	src, at := string(datum), 0
	e.Flag, at = readBoolean(src, at)
	e.Count, at = readInt(src, at)
	e.ID, at = readString(src, at)
	e.Total, at = readLong(src, at)
	e.Ratio, at = readFloat(src, at)
	e.Share, at = readDouble(src, at)
	e.Blob, at = readNullable(src, at, 0, readDouble)
	e.Note, at = readNullable(src, at, 0, readString)
	e.Text, at = readString(src, at)
	e.Yes, at = readBoolean(src, at)
	e.At, at = readMillis(src, at)
	e.Colour, at = readColour(src, at)
	e.Other, at = readShade(src, at)
	e.Colours, at = readArray(src, at, readTone)
	e.Parts, at = readArray(src, at, readPart)
	e.Part, at = readNullable(src, at, 0, readPart)
	e.Times, at = readArray(src, at, func(src string, at int) (*time.Time, int) { return readNullable(src, at, 0, readMillis) })
	e.Raw, at = readBytes(src, at)
	e.Grid, at = readArray(src, at, func(src string, at int) ([]int, int) { return readArray(src, at, readInt) })
	return e, at == len(src)
}

var symbolsOfColour1 = []Colour{ColourNone, ColourRed, ColourNone}

func readColour1(src string, at int) (Colour, int) {
	return readSymbol(src, at, symbolsOfColour1)
}

func readPart1(src string, at int) (v Part, _ int) {
	v.Weight, at = readDouble(src, at)
	v.Size = 3
	v.Tags = []string{}
	return v, at
}

func decodeSample1(datum []byte) (e Sample, ok bool) {
	src, at := string(datum), 0
	e.ID, at = readString(src, at)
	e.Note, at = readNullable(src, at, 1, readString)
	e.Colour, at = readColour1(src, at)
	e.Parts, at = readArray(src, at, readPart1)
	e.Raw, at = readBytes(src, at)
	e.Flag, at = readBoolean(src, at)
	e.Count = -7
	e.Total = 1234567890123
	e.Ratio = 0.5
	e.Share = 1e+100
	e.Blob = nil
	e.Text = "say \"hello\""
	e.Yes = true
	e.At = time.UnixMilli(1500).UTC()
	e.Other = ShadeDark
	e.Colours = []Tone{}
	e.Part = nil
	e.Times = []*time.Time{}
	e.Grid = [][]int{}
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (Sample) AvroVersions() ([]string, []any) {
	return texts("kinds/sample.v1.avsc", "kinds/sample.v2.avsc"), []any{decodeSample1, decodeSample}
}
