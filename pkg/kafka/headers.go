package kafka

import (
	"slices"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
)

// Our headers and the client's are the same in memory: without that, this line does not compile.
// So neither is copied to be seen as the other, which was about half of what this package did for
// a record.
var _ = kgo.RecordHeader(event.Header{})

// toClient shows headers as the client's. Nobody can append to them in place.
func toClient(headers []event.Header) []kgo.RecordHeader {
	headers = slices.Clip(headers)
	return *(*[]kgo.RecordHeader)(unsafe.Pointer(&headers))
}

// fromClient shows the client's headers as ours.
func fromClient(headers []kgo.RecordHeader) []event.Header {
	headers = slices.Clip(headers)
	return *(*[]event.Header)(unsafe.Pointer(&headers))
}
