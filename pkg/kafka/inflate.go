package kafka

import (
	"fmt"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Sizes of what is fetched ahead. With those of a partition's queue (partition.go) they bound
// the memory of a reader.
const (
	fetchBytes     = 4 << 20  // one fetch of one broker, compressed
	partitionBytes = 1 << 20  // of it one partition's
	inflatedBytes  = 16 << 20 // one record batch, decompressed
	heapBytes      = 32 << 20 // the batches of one fetch, decompressed and taken apart
	responseBytes  = 32 << 20 // one answer of a broker; holds any batch that inflates to less

	// A partition that resumes is in the next fetch, which is sent when the one under way
	// has been answered; where the other partitions are idle, that is after fetchWait.
	fetchWait = 100 * time.Millisecond
)

// fetchOpts bound what a client fetches.
func fetchOpts() ([]kgo.Opt, error) {
	i, err := newInflater()
	if err != nil {
		return nil, err
	}
	return []kgo.Opt{
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(fetchWait),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(partitionBytes),
		kgo.BrokerMaxReadBytes(responseBytes),
		kgo.WithDecompressor(i),
		kgo.WithHooks(i),
	}, nil
}

// inflater decompresses the batches of a fetch until they would take more than heapBytes. The
// client hands out what it has by then, and fetches the rest again: a few kilobytes can hold
// gigabytes of equal bytes, or millions of empty records. With several brokers each fetch that
// is read allows for as much again.
type inflater struct {
	kgo.Decompressor
	used atomic.Int64
}

func newInflater() (*inflater, error) {
	// Only a client's own decompressor has a bound. This one never connects.
	cl, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(inflatedBytes), kgo.DisableClientMetrics())
	if err != nil {
		return nil, fmt.Errorf("kafka decompressor: %w", err)
	}
	defer cl.Close()
	return &inflater{Decompressor: cl.OptValue(kgo.WithDecompressor).(kgo.Decompressor)}, nil
}

// OnBrokerRead implements kgo.HookBrokerRead. It comes before the batches of a fetch.
func (i *inflater) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	if kmsg.Key(key) == kmsg.Fetch {
		i.used.Store(0)
	}
}

// errLater makes the client try again without a word, being of those that it does so for.
var errLater = fmt.Errorf("the fetch has no room left, the batch is fetched again: %w", kerr.ThrottlingQuotaExceeded)

// Decompress implements kgo.Decompressor. The first batch of a fetch is never put off.
func (i *inflater) Decompress(src []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if i.used.Load() >= heapBytes {
		return nil, errLater
	}
	raw, err := i.Decompressor.Decompress(src, codec)
	if err != nil {
		return nil, err
	}
	switch n := int64(heapOf(raw)); {
	case n > heapBytes:
		return nil, kgo.ErrMaxDecompress
	case i.used.Add(n) > heapBytes:
		return nil, errLater
	}
	return raw, nil
}

// What the client makes of a record and of a header, beside their bytes.
var (
	recordHeap = int(reflect.TypeFor[kgo.Record]().Size() + reflect.TypeFor[*kgo.Record]().Size())
	headerHeap = int(reflect.TypeFor[kgo.RecordHeader]().Size())
)

// heapOf is what a batch's records take in memory, read as the client reads them. What is no
// record ends it.
func heapOf(raw []byte) int {
	n := len(raw)
	for len(raw) > 0 {
		length, used := kbin.Varint(raw)
		if used <= 0 || length <= 0 || int(length) > len(raw)-used {
			break
		}
		end := used + int(length)
		n += recordHeap + headerHeap*headersOf(raw[used:end])
		raw = raw[end:]
	}
	return n
}

func headersOf(record []byte) int {
	r := kbin.Reader{Src: record}
	r.Int8()    // attributes
	r.Varlong() // timestamp
	r.Varint()  // offset
	r.VarintBytes()
	r.VarintBytes()
	return max(0, int(r.VarintArrayLen()))
}
