package schemas

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	hamba "github.com/hamba/avro/v2"
	"github.com/twmb/avro"
)

// coded is an event that has code of its own, and what twmb makes of its schemas.
type coded struct {
	typ      reflect.Type
	schemas  []*avro.Schema // of all versions
	resolved []*avro.Schema // the same, to be read as the newest
	decoders []reflect.Value
	hamba    hamba.Schema // of the newest
}

type straight interface {
	AppendAvro(dst []byte) ([]byte, bool)
	AvroVersions() ([]string, []any)
}

// allCoded are all events, and the sample of every type that there is code for.
func allCoded(tb testing.TB) (all []coded) {
	tb.Helper()
	for _, e := range events {
		p, ok := e.payload.(straight)
		if !ok {
			continue // there is no code for one of its types
		}
		all = append(all, newCoded(tb, p, nil))
	}
	texts := make(map[string]string)
	for _, name := range []string{"kinds/sample.v1.avsc", "kinds/sample.v2.avsc"} {
		text, err := os.ReadFile("internal/generate/testdata/kinds/" + name)
		if err != nil {
			tb.Fatal(err)
		}
		texts[name] = string(text)
	}
	return append(all, newCoded(tb, Sample{}, []string{texts["kinds/sample.v1.avsc"], texts["kinds/sample.v2.avsc"]}))
}

func newCoded(tb testing.TB, p straight, texts []string) coded {
	tb.Helper()
	c := coded{typ: reflect.TypeOf(p)}
	embedded, decoders := p.AvroVersions()
	if texts == nil {
		texts = embedded
	}
	for i, text := range texts {
		schema, err := avro.Parse(text)
		if err != nil {
			tb.Fatalf("%s, version %d: %v", c.typ, i+1, err)
		}
		c.schemas = append(c.schemas, schema)
		c.decoders = append(c.decoders, reflect.ValueOf(decoders[i]))
	}
	for i, schema := range c.schemas {
		resolved, err := avro.Resolve(schema, c.schemas[len(c.schemas)-1])
		if err != nil {
			tb.Fatalf("%s, version %d: %v", c.typ, i+1, err)
		}
		c.resolved = append(c.resolved, resolved)
	}
	var err error
	if c.hamba, err = hamba.ParseWithCache(texts[len(texts)-1], "", new(hamba.SchemaCache)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// encode checks that the code writes what twmb writes, or that both refuse, and returns it.
func (c coded) encode(tb testing.TB, p reflect.Value) []byte {
	tb.Helper()
	got, ok := p.Interface().(straight).AppendAvro([]byte("head"))
	want, err := c.schemas[len(c.schemas)-1].AppendEncode([]byte("head"), p.Interface())
	if ok != (err == nil) || ok && !bytes.Equal(got, want) {
		tb.Fatalf("%#v is written as\n%x, %v, want\n%x, error %v", p.Interface(), got, ok, want, err)
	}
	if !ok {
		return nil
	}
	return got[4:]
}

// decode checks that the code reads what twmb reads from data of a version, or that both
// refuse.
func (c coded) decode(tb testing.TB, version int, datum []byte) {
	tb.Helper()
	if !c.decoders[version].IsValid() {
		return // there is no code for it
	}
	given := bytes.Clone(datum)
	out := c.decoders[version].Call([]reflect.Value{reflect.ValueOf(given)})
	clear(given) // nothing of it may be kept
	want := reflect.New(c.typ)
	rest, err := c.resolved[version].Decode(datum, want.Interface())
	ok := err == nil && len(rest) == 0
	if out[1].Bool() != ok {
		tb.Fatalf("%s, version %d: %x: code says %v, twmb has %d bytes left, error %v", c.typ, version+1, datum, out[1].Bool(), len(rest), err)
	}
	if !ok {
		return
	}
	if diff := cmp.Diff(want.Elem().Interface(), out[0].Interface(), cmpopts.EquateNaNs()); diff != "" {
		tb.Fatalf("%s, version %d: %x is read otherwise (-twmb +code):\n%s", c.typ, version+1, datum, diff)
	}
}

// TestCode compares the generated code with twmb, on random events and on their bytes, whole
// and damaged.
func TestCode(t *testing.T) {
	t.Parallel()
	for _, c := range allCoded(t) {
		t.Run(c.typ.Name(), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(1, 2))
			written := 0
			for range 500 {
				p := reflect.New(c.typ).Elem()
				fill(p, rnd)
				datum := c.encode(t, p)
				if datum == nil {
					continue
				}
				written++
				for version, schema := range c.schemas {
					old, err := schema.AppendEncode(nil, p.Interface())
					if err != nil {
						continue // a symbol that it does not have
					}
					c.decode(t, version, old)
					for range 20 {
						c.decode(t, version, damage(bytes.Clone(old), rnd))
					}
				}
				if blocks, err := hamba.Marshal(c.hamba, p.Interface()); err == nil { // with their sizes
					c.decode(t, len(c.schemas)-1, blocks)
				}
			}
			if written < 100 {
				t.Errorf("only %d events could be written", written)
			}
		})
	}
}

// TestCode_cut cuts an event's bytes everywhere, and lets some be left over.
func TestCode_cut(t *testing.T) {
	t.Parallel()
	for _, c := range allCoded(t) {
		p, rnd := reflect.New(c.typ).Elem(), rand.New(rand.NewPCG(3, 4))
		var datum []byte
		for range 100 {
			fill(p, rnd)
			if datum = c.encode(t, p); datum != nil {
				break
			}
		}
		if datum == nil {
			t.Fatalf("%s: none of 100 events could be written", c.typ)
		}
		for n := range datum {
			c.decode(t, len(c.schemas)-1, datum[:n])
		}
		for _, more := range []byte{0, 1, 2, 0xff} {
			c.decode(t, len(c.schemas)-1, append(bytes.Clone(datum), more))
		}
	}
}

// TestCode_numbers writes numbers in all ways that a varint has, right and wrong.
func TestCode_numbers(t *testing.T) {
	t.Parallel()
	for _, c := range allCoded(t) {
		for _, number := range []string{
			"00", "01", "7f", "8000", "8001", "ffff03", "feffffff0f", "ffffffff0f", "8080808010", "ffffffff7f", "808080808000",
			"feffffffffffffffff01", "ffffffffffffffffff01", "ffffffffffffffffff02", "ffffffffffffffffff7f", "8080808080808080808000", "80", "ffffffffffffffffffff",
		} {
			n, err := hex.DecodeString(number)
			if err != nil {
				t.Fatal(err)
			}
			for version, schema := range c.schemas {
				datum, err := schema.AppendEncode(nil, plain(c.typ).Interface())
				if err != nil {
					t.Fatal(err)
				}
				for at := range datum {
					c.decode(t, version, append(append(bytes.Clone(datum[:at]), n...), datum[at+1:]...))
					c.decode(t, version, append(append(bytes.Clone(datum[:at]), n...), datum[at:]...))
				}
			}
		}
	}
}

// plain is an event with zeros, whose enums have symbols and whose arrays have an item.
func plain(typ reflect.Type) reflect.Value {
	p := reflect.New(typ).Elem()
	if symbols := symbolsOf(typ); symbols != nil {
		p.SetString(symbols[0])
		return p
	}
	switch {
	case typ.Kind() == reflect.Struct && typ != reflect.TypeFor[time.Time]():
		for i := range typ.NumField() {
			p.Field(i).Set(plain(typ.Field(i).Type))
		}
	case typ.Kind() == reflect.Slice:
		return reflect.Append(p, plain(typ.Elem()))
	}
	return p
}

// FuzzCode looks for bytes that the generated code reads otherwise than twmb.
func FuzzCode(f *testing.F) {
	all := allCoded(f)
	paths, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(paths) == 0 {
		f.Fatal(paths, err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		datum, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
		if err != nil {
			f.Fatal(err)
		}
		for i := range all {
			f.Add(uint8(i), uint8(0), datum)
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		p := reflect.New(all[len(all)-1].typ).Elem()
		fill(p, rnd)
		for version, schema := range all[len(all)-1].schemas {
			if datum, err := schema.AppendEncode(nil, p.Interface()); err == nil {
				f.Add(uint8(len(all)-1), uint8(version), datum)
			}
		}
	}
	f.Fuzz(func(t *testing.T, event, version uint8, datum []byte) {
		c := all[int(event)%len(all)]
		if len(datum) < 1<<16 { // pkg/codec walks long ones first
			c.decode(t, int(version)%len(c.schemas), datum)
		}
	})
}

// symbolsOf are the symbols of an enum by its name, which is its type's; nil for other types.
func symbolsOf(typ reflect.Type) []string { return allSymbols()[typ.Name()] }

var allSymbols = sync.OnceValue(func() map[string][]string {
	texts := []string{string(must(os.ReadFile("internal/generate/testdata/kinds/kinds/sample.v2.avsc")))}
	for _, e := range events {
		if p, ok := e.payload.(straight); ok {
			versions, _ := p.AvroVersions()
			texts = append(texts, versions[len(versions)-1])
		}
	}
	all := make(map[string][]string)
	var look func(schema any)
	look = func(schema any) {
		switch s := schema.(type) {
		case []any:
			for _, part := range s {
				look(part)
			}
		case map[string]any:
			if symbols, ok := s["symbols"].([]any); ok {
				name := s["name"].(string)
				all[name] = nil
				for _, symbol := range symbols {
					all[name] = append(all[name], symbol.(string))
				}
			}
			for _, part := range s {
				look(part)
			}
		}
	}
	for _, text := range texts {
		var schema any
		if err := json.Unmarshal([]byte(text), &schema); err != nil {
			panic(err)
		}
		look(schema)
	}
	return all
})

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// fill gives v a random value; a few do not fit their Avro type.
func fill(v reflect.Value, rnd *rand.Rand) {
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		ms := time.UnixMilli(int64(rnd.Uint64()) >> rnd.IntN(64))
		v.Set(reflect.ValueOf(ms.Add(time.Duration(rnd.IntN(1e6)))))
		if rnd.IntN(200) == 0 {
			v.Set(reflect.ValueOf(time.Unix(math.MinInt64/1000*2, 0)))
		}
		return
	case symbolsOf(v.Type()) != nil:
		symbols := symbolsOf(v.Type())
		if v.SetString(symbols[rnd.IntN(len(symbols))]); rnd.IntN(200) == 0 {
			v.SetString("no symbol")
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), rnd)
		}
	case reflect.Slice:
		if n := rnd.IntN(5); n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n-1, n))
		}
		for i := range v.Len() {
			fill(v.Index(i), rnd)
		}
	case reflect.Pointer:
		if rnd.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(v.Elem(), rnd)
		}
	case reflect.String:
		b := make([]byte, rnd.IntN(1<<rnd.IntN(9)))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		v.SetString(string(b))
	case reflect.Int:
		v.SetInt(int64(int32(rnd.Uint32()) >> rnd.IntN(32)))
		if rnd.IntN(200) == 0 {
			v.SetInt(math.MaxInt32 + 1)
		}
	case reflect.Int64:
		v.SetInt(int64(rnd.Uint64()) >> rnd.IntN(64))
	case reflect.Uint8:
		v.SetUint(uint64(rnd.Uint32() & 0xff))
	case reflect.Bool:
		v.SetBool(rnd.IntN(2) == 0)
	case reflect.Float32:
		v.SetFloat(float64(math.Float32frombits(rnd.Uint32())))
	case reflect.Float64:
		v.SetFloat(math.Float64frombits(rnd.Uint64()))
	default:
		panic(fmt.Sprintf("no values of type %s", v.Type()))
	}
}

// damage changes a few bytes.
func damage(datum []byte, rnd *rand.Rand) []byte {
	for range 1 + rnd.IntN(3) {
		switch at := rnd.IntN(len(datum) + 1); {
		case at == len(datum) || rnd.IntN(4) == 0:
			datum = append(datum[:at:at], append([]byte{byte(rnd.Uint32()) >> rnd.IntN(8)}, datum[at:]...)...)
		case rnd.IntN(4) == 0:
			datum = append(datum[:at:at], datum[at+1:]...)
		case rnd.IntN(2) == 0:
			datum[at] ^= 1 << rnd.IntN(8)
		default:
			datum[at] = byte(rnd.Uint32()) >> rnd.IntN(8)
		}
	}
	return datum
}
