package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
)

// What one partition holds in memory, at most: the queue up to one of its bounds, what one
// poll brings on top (pollRecords), and one batch in hand.
const (
	batchRecords = 500     // handed to Process at once
	queueRecords = 8192    // beyond it fetching pauses, until half of it is left
	queueBytes   = 8 << 20 // likewise: keys, values and headers
)

// errBackwards is a partition whose offsets begin again below those that were read.
var errBackwards = errors.New("offsets went backwards: the log was cut and written anew")

// partition is one assigned partition: a queue that dispatch fills, and a worker that empties
// it in order. It lives from its assignment to its revoke; when the partition comes back, it
// is another one, so that nothing of the earlier life, a pause or an offset, survives.
type partition struct {
	c      *Consumer
	cl     *kgo.Client
	topic  string
	id     int32
	log    *slog.Logger
	taking context.Context // ended: no further batch
	finish context.CancelFunc
	work   context.Context // given to Process
	cancel context.CancelFunc
	wake   chan struct{} // holds one: the queue is not empty
	idle   chan struct{} // closed: the worker has returned

	mu       sync.Mutex
	queue    []*kgo.Record
	bytes    int
	topicID  [16]byte
	logStart int64
	logEnd   int64 // last stable offset, -1 while unknown
	next     int64 // after what was handed over, or the committed offset; -1 while unknown
	fault    fault
	full     bool
	paused   bool

	done      kgo.EpochOffset // after the last record that Process has finished
	committed int64
	moved     time.Time // when done last changed
	oldest    time.Time // timestamp of the oldest record in memory, zero if there is none
}

func newPartition(c *Consumer, cl *kgo.Client, topic string, id int32) *partition {
	p := &partition{
		c: c, cl: cl, topic: topic, id: id,
		log:  c.logger(topic).With("partition", id),
		wake: make(chan struct{}, 1), idle: make(chan struct{}),
		logEnd: -1, next: -1, committed: -1, done: kgo.EpochOffset{Epoch: -1, Offset: -1},
		moved: time.Now(),
	}
	p.taking, p.finish = context.WithCancel(c.taking)
	p.work, p.cancel = context.WithCancel(c.work)
	return p
}

// startAt sets the offset that the group has committed.
func (p *partition) startAt(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next, p.committed, p.done.Offset = offset, offset, offset
}

// push queues fetched records and pauses fetching when the queue is over its bound.
//
// The first offset may lie beyond the expected one: transaction markers, aborted and compacted
// records have offsets and are not delivered, and the broker tells nobody which ones they
// were. It is not where losses hide: a position below the log's start is refused by the
// broker, see loss.go. The first offset may not lie below the expected one.
func (p *partition) push(topicID [16]byte, fp *kgo.FetchPartition) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.final {
		return nil // nothing behind a loss may be processed, let alone committed
	}
	if fp.Records[0].Offset < p.next {
		return fmt.Errorf("%w: %d after %d", errBackwards, fp.Records[0].Offset, p.next-1)
	}
	p.topicID, p.logStart, p.logEnd = topicID, fp.LogStartOffset, max(fp.LastStableOffset, p.logEnd)
	for _, r := range fp.Records {
		p.bytes += size(r)
	}
	if len(p.queue) == 0 && p.oldest.IsZero() {
		p.oldest = fp.Records[0].Timestamp
	}
	p.queue = append(p.queue, fp.Records...)
	p.next = fp.Records[len(fp.Records)-1].Offset + 1
	p.full = p.full || len(p.queue) > queueRecords || p.bytes > queueBytes
	p.pause()
	signal(p.wake)
	return nil
}

// pause makes the client fetch, or not fetch, as the state demands. The caller holds mu, so
// that the last word is about the last state.
func (p *partition) pause() {
	want := p.full || p.fault.reason != ""
	if want == p.paused {
		return
	}
	p.paused = want
	this := map[string][]int32{p.topic: {p.id}}
	if want {
		p.cl.PauseFetchPartitions(this)
	} else {
		p.cl.ResumeFetchPartitions(this)
	}
}

// release drops the queue, and the pause: the client remembers it beyond the assignment.
func (p *partition) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue, p.bytes, p.full, p.fault = nil, 0, false, fault{}
	p.pause()
}

// run is the worker.
func (p *partition) run() {
	defer close(p.idle)
	defer p.cancel()
	for {
		b, last, ok := p.take()
		if !ok || !p.process(b) {
			return
		}
		p.finished(b, last)
		signal(p.c.commits)
	}
}

// take waits for records and returns those that have gathered; ok is false when the partition
// is to stop.
func (p *partition) take() (b event.Batch, last kgo.EpochOffset, ok bool) {
	for {
		if p.taking.Err() != nil {
			return b, last, false
		}
		if records := p.dequeue(&b); len(records) > 0 {
			r := records[len(records)-1]
			b.Records = convert(b.TopicID, records)
			return b, kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset + 1}, true
		}
		select {
		case <-p.wake:
		case <-p.taking.Done():
		}
	}
}

// dequeue takes the next records off the queue and fills in what b says about their partition.
func (p *partition) dequeue(b *event.Batch) []*kgo.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(p.queue), batchRecords)
	records := p.queue[:n:n]
	if p.queue = p.queue[n:]; len(p.queue) == 0 {
		p.queue = nil // lets go of the records that the array still refers to
	}
	for _, r := range records {
		p.bytes -= size(r)
	}
	if len(p.queue) <= queueRecords/2 && p.bytes <= queueBytes/2 {
		p.full = false
		p.pause()
	}
	*b = event.Batch{Topic: p.topic, TopicID: p.topicID, Partition: p.id, LogStart: p.logStart}
	return records
}

// process hands b over until it is done; false means that the partition stops before.
func (p *partition) process(b event.Batch) bool {
	for attempt := 1; ; attempt++ {
		err := p.try(b)
		if err == nil {
			return true
		}
		if p.taking.Err() != nil {
			p.log.Info("batch given up, it will be read again", "offset", b.Records[0].Offset, "error", err)
			return false
		}
		wait := backoff(attempt, p.c.timing.minBackoff, p.c.timing.maxBackoff)
		p.c.metrics.retried(p.topic)
		p.log.Warn("batch failed, handing it over again",
			"offset", b.Records[0].Offset, "records", len(b.Records), "attempt", attempt, "wait", wait, "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.taking.Done():
			timer.Stop()
			return false
		}
	}
}

func (p *partition) try(b event.Batch) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return p.c.processor.Process(p.work, b)
}

// finished notes that everything below last is done.
func (p *partition) finished(b event.Batch, last kgo.EpochOffset) {
	p.c.metrics.consumed(p.topic, len(b.Records))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.moved, p.oldest = last, time.Now(), time.Time{}
	if len(p.queue) > 0 {
		p.oldest = p.queue[0].Timestamp
	}
}

// backoff doubles from least to most, and is shortened at random by up to a half, so that
// members that failed together do not return together.
func backoff(attempt int, least, most time.Duration) time.Duration {
	d := most
	if shift := attempt - 1; shift < 30 && least<<shift < most {
		d = least << shift
	}
	return d/2 + rand.N(d/2+1)
}

// convert copies records out of the client's type, with one allocation for all headers.
func convert(topicID [16]byte, records []*kgo.Record) []event.Record {
	n := 0
	for _, r := range records {
		n += len(r.Headers)
	}
	headers := make([]event.Header, 0, n)
	out := make([]event.Record, len(records))
	for i, r := range records {
		from := len(headers)
		for _, h := range r.Headers {
			headers = append(headers, event.Header(h))
		}
		out[i] = event.Record{
			Topic: r.Topic, TopicID: topicID, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp,
			Key: r.Key, Value: r.Value, Headers: headers[from:len(headers):len(headers)],
		}
	}
	return out
}

// size is what a record counts against queueBytes.
func size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return n
}

// signal fills a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
