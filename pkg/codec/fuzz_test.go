package codec_test

import (
	"testing"

	"example.com/keyline/pkg/codec"
)

// FuzzDecode looks for a value that crashes the decoder or costs more than promised.
func FuzzDecode(f *testing.F) {
	c := newCodec(f, codec.Config{URL: newRegistry(f).URL()}, placed{})
	value := encode(f, c, now())
	f.Add(value)
	f.Add(value[:len(value)/2])
	f.Add(append(frame(idV1), value[5:]...))
	f.Add(frame(idV1, 0, 0, 1, 2, 0, 0, 0))
	f.Add(frame(idSettled, 2, 'x'))
	f.Add(frame(99))
	f.Fuzz(func(t *testing.T, value []byte) {
		_ = decoded(t, c, value)
	})
}
