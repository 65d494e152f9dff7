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

// What one partition holds in memory, at most: its queue up to one of the bounds, what one
// poll brings on top, and one batch in hand.
const (
	batchRecords = 500     // handed to Process at once
	queueRecords = 8192    // beyond it fetching pauses, until half of it is left
	queueBytes   = 8 << 20 // likewise: keys, values and headers
)

// errBackwards is a partition whose offsets begin again below those that were read.
var errBackwards = errors.New("offsets went backwards: the log was cut and written anew")

// partition is one assigned partition: a queue that dispatch fills, and a worker that empties
// it in order. It lives from its assignment to its revoke. When the partition comes back, it
// is another one: no offset, pause or record of the earlier life survives.
type partition struct {
	c      *Consumer
	cl     *kgo.Client
	topic  string
	id     int32
	log    *slog.Logger
	taking context.Context // ended: no further batch is begun
	finish context.CancelFunc
	work   context.Context // for Process
	cancel context.CancelFunc
	wake   chan struct{} // holds one: the queue is not empty
	idle   chan struct{} // closed: the worker has returned

	mu       sync.Mutex
	queue    []*kgo.Record
	bytes    int
	topicID  [16]byte
	logStart int64
	logEnd   int64 // the last stable offset; -1 is unknown
	next     int64 // offset after what was handed over, or the committed one; -1 is unknown
	fault    fault
	open     openTransaction
	full     bool
	paused   bool

	done      kgo.EpochOffset // behind the last record that Process has finished
	committed int64
	aside     bool      // an operator decides where it goes on: it commits nothing of its own
	doubted   bool      // another program has set where it begins
	moved     time.Time // when done last changed
	oldest    time.Time // of the records in memory, zero if there is none
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

// push queues fetched records, and pauses fetching when the queue is over its bound.
//
// The first offset may lie beyond the expected one: transaction markers, aborted records and
// compacted ones have offsets, and the broker does not say which these were. No loss hides
// there, because a position that is not in the log is refused by the broker (loss.go). But it
// may not lie below the expected one.
func (p *partition) push(topicID [16]byte, fp *kgo.FetchPartition) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.final {
		return nil // nothing behind a loss may be processed, let alone committed
	}
	first, last := fp.Records[0], fp.Records[len(fp.Records)-1]
	if first.Offset < p.next {
		return fmt.Errorf("%w: %d after %d", errBackwards, first.Offset, p.next-1)
	}
	p.topicID, p.logStart, p.logEnd = topicID, fp.LogStartOffset, max(fp.LastStableOffset, p.logEnd)
	p.next = last.Offset + 1
	if p.oldest.IsZero() {
		p.oldest = first.Timestamp
	}
	p.queue = append(p.queue, fp.Records...)
	for _, r := range fp.Records {
		p.bytes += size(r)
	}
	p.full = p.full || len(p.queue) > queueRecords || p.bytes > queueBytes
	p.pause()
	signal(p.wake)
	return nil
}

// pause makes the client fetch the partition or not, as its state demands. The caller holds
// mu, so that the client hears last what was decided last.
func (p *partition) pause() {
	want := p.full || p.fault.reason != ""
	if want == p.paused {
		return
	}
	p.paused = want
	if this := map[string][]int32{p.topic: {p.id}}; want {
		p.cl.PauseFetchPartitions(this)
	} else {
		p.cl.ResumeFetchPartitions(this)
	}
}

// release drops the queue, and the pause, which the client would remember beyond the revoke.
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
		b, end, ok := p.take()
		if !ok || !p.process(b) {
			return
		}
		p.finished(end)
		signal(p.c.commits)
	}
}

// take waits for records and returns those that have gathered, with the offset behind them;
// ok is false when the partition is to stop.
func (p *partition) take() (b event.Batch, end kgo.EpochOffset, ok bool) {
	for p.taking.Err() == nil {
		if !p.trusted() {
			continue
		}
		if records := p.dequeue(&b); len(records) > 0 {
			last := records[len(records)-1]
			b.Records = convert(b.TopicID, records)
			clear(records) // the queue's array would keep them
			return b, kgo.EpochOffset{Epoch: last.LeaderEpoch, Offset: last.Offset + 1}, true
		}
		select {
		case <-p.wake:
		case <-p.taking.Done():
		}
	}
	return b, end, false
}

// doubt has the worker look at where the partition begins before it takes a record.
func (p *partition) doubt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubted = true
	signal(p.wake)
}

// trusted reports whether the partition may go on from where it begins. What another program
// has set is looked at, while no record is taken: those would hide what is left out. Then it is
// committed again, for the next owner to trust.
func (p *partition) trusted() bool {
	p.mu.Lock()
	doubted := p.doubted
	p.mu.Unlock()
	if !doubted {
		return true
	}
	settled, err := p.c.checkMoved(p)
	if err != nil {
		p.log.Warn("the group's offset was set from outside, looking at what that leaves out", "error", err)
		select {
		case <-time.After(10 * p.c.timing.minBackoff):
		case <-p.taking.Done():
		}
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doubted = false; settled {
		p.committed = -1
		signal(p.c.commits)
	}
	return true
}

// dequeue takes the next records off the queue, and fills in what b says of the partition.
func (p *partition) dequeue(b *event.Batch) []*kgo.Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	*b = event.Batch{Topic: p.topic, TopicID: p.topicID, Partition: p.id, LogStart: p.logStart}
	n := min(len(p.queue), batchRecords)
	records := p.queue[:n]
	p.queue = p.queue[n:]
	for _, r := range records {
		p.bytes -= size(r)
	}
	if len(p.queue) <= queueRecords/2 && p.bytes <= queueBytes/2 {
		p.full = false
		p.pause()
	}
	return records
}

// process hands b over until it is done; false says that the partition stops before it is.
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
		select {
		case <-time.After(wait):
		case <-p.taking.Done():
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

// finished notes that everything before end is done.
func (p *partition) finished(end kgo.EpochOffset) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.moved, p.oldest = end, time.Now(), time.Time{}
	if len(p.queue) > 0 {
		p.oldest = p.queue[0].Timestamp
	}
}

// backoff doubles with every attempt, up to most, and is shortened at random by up to a half,
// so that partitions that failed together do not all come back together.
func backoff(attempt int, least, most time.Duration) time.Duration {
	d := min(least<<min(attempt-1, 20), most)
	return d/2 + rand.N(d/2+1)
}

// convert makes records of the client's, whose headers they share.
func convert(topicID [16]byte, records []*kgo.Record) []event.Record {
	out := make([]event.Record, len(records))
	for i, r := range records {
		out[i] = event.Record{
			Topic: r.Topic, TopicID: topicID, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp,
			Key: r.Key, Value: r.Value, Headers: fromClient(r.Headers),
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
