package codec_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
)

// sent is a payload with code of its own, which counts how often it runs and does nothing for
// the word "odd".
type sent struct {
	Word string `avro:"word"`
	At   int64  `avro:"at"`
}

const (
	sentV1 = `{"type": "record", "name": "Sent", "namespace": "test", "fields": [{"name": "word", "type": "string"}]}`
	sentV2 = `{"type": "record", "name": "Sent", "namespace": "test", "fields": [{"name": "word", "type": "string"}, {"name": "at", "type": "long", "default": 7}]}`

	idSentV1, idSentV2 = 71, 72
)

var appended, decoded1, decoded2 atomic.Int64

func (sent) Schema() string { return sentV2 }
func (sent) Topic() string  { return "words" }
func (s sent) Key() string  { return s.Word }

func (s sent) AppendAvro(dst []byte) ([]byte, bool) {
	if s.Word == "odd" {
		return append(dst, "rubbish"...), false
	}
	appended.Add(1)
	return append(append(append(dst, byte(2*len(s.Word))), s.Word...), byte(2*s.At)), true
}

func (sent) AvroVersions() ([]string, []any) {
	return []string{sentV1, sentV2}, []any{
		func(datum []byte) (sent, bool) { decoded1.Add(1); return sent{string(datum[1:]), 7}, true },
		func(datum []byte) (sent, bool) {
			decoded2.Add(1)
			end := len(datum) - 1
			return sent{string(datum[1:end]), int64(datum[end] / 2)}, !strings.Contains(string(datum), "odd")
		},
	}
}

// embedding has the methods of sent, but is another type.
type embedding struct {
	sent
}

// stale returns another schema than the one its code is for.
type stale struct{ sent }

func (stale) Schema() string { return sentV1 }
func (stale) AvroVersions() ([]string, []any) {
	return []string{sentV1, sentV2}, []any{nil, func([]byte) (stale, bool) { return stale{}, true }}
}

func TestStraight(t *testing.T) { // not parallel: it counts
	r := newRegistry(t)
	r.SeedSchema("words-test.Sent", 1, idSentV1, sr.Schema{Schema: sentV1})
	r.SeedSchema("words-test.Sent", 2, idSentV2, sr.Schema{Schema: sentV2})
	c := newCodec(t, codec.Config{URL: r.URL()}, sent{})
	ran := func(count *atomic.Int64, want int64) {
		t.Helper()
		if got := count.Swap(0); got != want {
			t.Errorf("the payload's code ran %d times, want %d", got, want)
		}
	}
	decode := func(value []byte, want sent) {
		t.Helper()
		if got, err := codec.Decode[sent](t.Context(), c, value); err != nil || got != want {
			t.Errorf("%x: got %+v, error %v, want %+v", value, got, err, want)
		}
	}
	hello := frame(idSentV2, 10, 'h', 'e', 'l', 'l', 'o', 2)

	t.Run("the payload's code encodes values and pointers", func(t *testing.T) {
		for _, p := range []event.Payload{sent{"hello", 1}, &sent{"hello", 1}} {
			if diff := cmp.Diff(hello, encode(t, c, p)); diff != "" {
				t.Error(diff)
			}
		}
		ran(&appended, 2)
	})
	t.Run("what it leaves is encoded by the schema", func(t *testing.T) {
		if diff := cmp.Diff(frame(idSentV2, 6, 'o', 'd', 'd', 2), encode(t, c, sent{"odd", 1})); diff != "" {
			t.Error(diff)
		}
		ran(&appended, 0)
	})
	t.Run("a nil pointer is an error", func(t *testing.T) {
		if _, err := c.Encode((*sent)(nil)); err == nil {
			t.Error("no error")
		}
	})
	t.Run("it decodes every version it has code for", func(t *testing.T) {
		decode(hello, sent{"hello", 1})
		ran(&decoded2, 1)
		decode(frame(idSentV1, 4, 'h', 'i'), sent{"hi", 7})
		ran(&decoded1, 1)
	})
	t.Run("a schema that only looks otherwise is the same", func(t *testing.T) {
		r.SeedSchema("other", 1, 73, sr.Schema{Schema: strings.Replace(sentV2, `"fields":`, `"doc": "A word",  "fields":`, 1)})
		decode(append(frame(73), hello[5:]...), sent{"hello", 1})
		ran(&decoded2, 1)
	})
	for i, tt := range []struct {
		name, old, with string
		datum           []byte
		at              int64
	}{
		{"fields in another order", sentV2, `{"type": "record", "name": "Sent", "namespace": "test", "fields": [{"name": "at", "type": "long"}, {"name": "word", "type": "string"}]}`, []byte{2, 4, 'h', 'i'}, 1},
		{"a field more", `"fields": [`, `"fields": [{"name": "more", "type": "boolean", "default": true}, `, []byte{0, 4, 'h', 'i', 2}, 1},
		{"a field of another name", `{"name": "at", "type": "long", "default": 7}`, `{"name": "when", "type": "long", "default": 7}`, []byte{4, 'h', 'i', 2}, 7},
		{"another type", `"long"`, `"int"`, []byte{4, 'h', 'i', 2}, 1},
		{"a union", `"string"`, `["string"]`, []byte{0, 4, 'h', 'i', 2}, 1},
		{"a logical type", `"long"`, `{"type": "long", "logicalType": "timestamp-micros"}`, nil, 0},
	} {
		t.Run(tt.name+" is another schema", func(t *testing.T) {
			id := 80 + i
			r.SeedSchema("others", i+1, id, sr.Schema{Schema: strings.Replace(sentV2, tt.old, tt.with, 1)})
			if tt.datum != nil {
				decode(frame(id, tt.datum...), sent{"hi", tt.at})
			} else if _, err := codec.Decode[sent](t.Context(), c, frame(id, 4, 'h', 'i', 2)); err != nil && class(err) == nil {
				t.Error(err)
			}
			ran(&decoded1, 0)
			ran(&decoded2, 0)
		})
	}
	t.Run("what it refuses is undecodable, with a reason", func(t *testing.T) {
		for _, tt := range []struct {
			datum  []byte
			reason string
		}{
			{[]byte{10, 'o', 'd', 'd'}, "cut short"},
			{[]byte{6, 'o', 'd', 'd', 2, 2}, "1 bytes left over"},
			{[]byte{6, 'o', 'd', 'd', 2}, "does not fit"},
		} {
			_, err := codec.Decode[sent](t.Context(), c, frame(idSentV2, tt.datum...))
			if !errors.Is(err, codec.ErrUndecodable) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("%x: error %v, want ErrUndecodable, %q", tt.datum, err, tt.reason)
			}
		}
		decoded2.Store(0)
	})
	t.Run("a struct that embeds the payload goes by the schema", func(t *testing.T) {
		c := newCodec(t, codec.Config{URL: r.URL()}, embedding{})
		value := encode(t, c, embedding{sent{"hello", 1}})
		if diff := cmp.Diff(hello, value); diff != "" {
			t.Error(diff)
		}
		ran(&appended, 0)
		if got, err := codec.Decode[embedding](t.Context(), c, value); err != nil || got.Word != "hello" {
			t.Errorf("got %+v, error %v", got, err)
		}
		ran(&decoded2, 0)
	})
	t.Run("a service that still writes an older version goes by the schema", func(t *testing.T) {
		c := newCodec(t, codec.Config{URL: r.URL()}, stale{})
		if diff := cmp.Diff(frame(idSentV1, 10, 'h', 'e', 'l', 'l', 'o'), encode(t, c, stale{sent{"hello", 1}})); diff != "" {
			t.Error(diff)
		}
		ran(&appended, 0)
	})
}
