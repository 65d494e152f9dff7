package kafka

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Partition is where this member stands in a partition that it owns. An offset of -1 is not
// known.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"`  // of the next record to be read
	Committed int64  `json:"committed"` // by this member, or found when the partition came
	LogStart  int64  `json:"log_start"`
	LogEnd    int64  `json:"log_end"`
	Stopped   string `json:"stopped,omitempty"` // why it is not read
	Error     string `json:"error,omitempty"`
	SkipTo    *int64 `json:"skip_to,omitempty"` // the lowest offset at which a stopped partition can go on, if that can be told
}

// recreated is the fault of a topic that was deleted and made again.
const recreated = "topic_recreated"

// ErrNotSkipped is wrapped by the errors of [Consumer.Skip] that no other try would mend.
var ErrNotSkipped = errors.New("nothing skipped")

// Partitions tells where this member stands in each partition that it owns, by topic and
// partition. It asks the brokers about those that are stopped.
func (c *Consumer) Partitions(ctx context.Context) []Partition {
	var all []Partition
	for _, p := range c.owned() {
		all = append(all, p.status(ctx))
	}
	slices.SortFunc(all, func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

func (p *partition) status(ctx context.Context) Partition {
	p.mu.Lock()
	f := p.fault
	s := Partition{
		Topic: p.topic, Partition: p.id, Position: p.next, Committed: p.committed, LogStart: p.logStart, LogEnd: max(p.logEnd, p.open.end),
		Stopped: p.stopped(),
	}
	if f.err == nil && p.open.end > 0 {
		s.Error = fmt.Sprintf("a transaction has been open since %s; %s", p.open.since.UTC().Format(time.RFC3339), p.abortHint(p.open.at))
	}
	p.mu.Unlock()
	if f.err == nil {
		return s
	}
	s.Error = f.err.Error()
	s.LogStart, s.LogEnd = p.bounds(ctx)
	if s.Position < 0 {
		s.Position = s.LogStart // a group without a commit begins there
	}
	if f.final || f.reason == recreated {
		s.SkipTo = p.skipTo(ctx, f, s)
	}
	return s
}

// bounds asks the brokers for the log's start and end; -1 is not known.
func (p *partition) bounds(ctx context.Context) (start, end int64) {
	start, end = -1, -1
	admin := kadm.NewClient(p.cl)
	if l, ok := listed(admin.ListStartOffsets(ctx, p.topic)).Lookup(p.topic, p.id); ok && l.Err == nil {
		start = l.Offset
	}
	if l, ok := listed(admin.ListEndOffsets(ctx, p.topic)).Lookup(p.topic, p.id); ok && l.Err == nil {
		end = l.Offset
	}
	return start, end
}

// skipTo is the lowest offset at which reading can go on, so that nothing is left out but what
// cannot be read. Where the log is another one than was read, that is its start: what is still
// known of it does nothing twice.
func (p *partition) skipTo(ctx context.Context, f fault, s Partition) *int64 {
	to := s.LogStart
	if loss, ok := errors.AsType[*kgo.ErrDataLoss](f.err); ok {
		to = max(loss.ResetTo, s.LogStart) // what lies before is as it was read
	} else if f.reason == "batch_too_large" && s.Position >= s.LogStart {
		to = behindBatch(ctx, p.cl, p.topic, p.id, s.Position, f.err)
	}
	if to < 0 {
		return nil
	}
	return &to
}

// behindBatch is the offset behind the batch that is too large, and -1 if that cannot be told:
// the error may not name it. Then it is the one that holds the offset; the head of a batch is
// never compressed.
func behindBatch(ctx context.Context, cl *kgo.Client, topic string, id int32, offset int64, err error) int64 {
	if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok && large.NextOffset > offset {
		return large.NextOffset
	}
	topics, err := kadm.NewClient(cl).Metadata(ctx, topic)
	if err != nil {
		return -1
	}
	t := topics.Topics[topic]
	req := kmsg.NewPtrFetchRequest()
	req.MinBytes, req.MaxBytes = 1, 1 // a broker sends one batch whole all the same
	rt, rp := kmsg.NewFetchRequestTopic(), kmsg.NewFetchRequestTopicPartition()
	rt.Topic, rt.TopicID = topic, t.ID
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = id, offset, 1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, cl.Broker(int(t.Partitions[id].Leader)))
	if err != nil || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return -1
	}
	// The layout of a record batch: baseOffset int64, length int32, leader epoch int32,
	// magic int8, crc uint32, attributes int16, lastOffsetDelta int32.
	head := resp.Topics[0].Partitions[0].RecordBatches
	if len(head) < 27 || head[16] != 2 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(head)) + int64(binary.BigEndian.Uint32(head[23:])) + 1
}

// Skip lets a stopped partition go on at another offset within its log: it commits that offset
// for the group and joins the group anew, which the other partitions of this member wait for.
// What lies before it is not read; the log names that range. [Partition] tells the position,
// which from must be, so that nobody skips what has changed since they looked, and the lowest
// offset to go on at. Errors that wrap [ErrNotSkipped] say why it must not be; after any other
// the outcome is not known, and asking again is right.
func (c *Consumer) Skip(ctx context.Context, topic string, id int32, from, to int64) error {
	p, cl := c.partition(topic, id), c.client.Load()
	if p == nil || cl == nil {
		return fmt.Errorf("%w: this member does not have %s/%d", ErrNotSkipped, topic, id)
	}
	s := p.status(ctx)
	switch {
	case s.SkipTo == nil || from != s.Position:
		return fmt.Errorf("%w: %s/%d stands at %d and is stopped by %q; from must be that, and there must be a place to go on", ErrNotSkipped, topic, id, s.Position, s.Stopped)
	case s.LogStart < 0 || s.LogEnd < 0:
		return fmt.Errorf("skip %s/%d: the brokers do not tell where its log begins and ends", topic, id)
	case to < s.LogStart || to > s.LogEnd:
		return fmt.Errorf("%w: the log of %s/%d reaches from %d to %d, which %d is not within", ErrNotSkipped, topic, id, s.LogStart, s.LogEnd, to)
	case s.Stopped == recreated && to != *s.SkipTo:
		return fmt.Errorf("%w: %s/%d was made anew and is read from its start, %d", ErrNotSkipped, topic, id, *s.SkipTo)
	}
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	if !p.setAside() {
		return fmt.Errorf("%w: records before it are still being worked on, or the partition has just gone", ErrNotSkipped)
	}
	attrs := []any{"reason", s.Stopped, "position", from, "go_on_at", to}
	if first := min(from, *s.SkipTo); first < to {
		attrs = append(attrs, "skipped_from", first, "skipped_to", to-1)
	}
	// A topic that was deleted has taken its offsets along: the new one begins at its start.
	if s.Stopped != recreated {
		err := c.beforeSkip(ctx, cl, topic, id, to)
		if err == nil {
			err = c.commitFor(ctx, cl, topic, id, to)
		}
		if err != nil {
			p.takeBack()
			p.log.Warn("skipping by an operator failed, or is not known to be done", append(attrs, "error", err)...)
			return fmt.Errorf("skip %s/%d: %w", topic, id, err)
		}
		p.setCommitted(to)
	}
	p.log.Warn("records skipped by an operator", attrs...)
	signal(c.rejoin)
	return nil
}

func (c *Consumer) beforeSkip(ctx context.Context, cl *kgo.Client, topic string, id int32, to int64) error {
	if c.cfg.BeforeSkip == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timing.commit) // all commits of this member wait for it
	defer cancel()
	topicID, err := askTopicID(ctx, cl, topic)
	if err != nil {
		return err
	}
	return c.cfg.BeforeSkip(ctx, topic, topicID, id, to)
}

func askTopicID(ctx context.Context, cl *kgo.Client, topic string) ([16]byte, error) {
	topics, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err == nil {
		err = topics[topic].Err
	}
	if err != nil {
		return [16]byte{}, fmt.Errorf("look up the topic's ID: %w", err)
	}
	return topics[topic].ID, nil
}

// commitFor commits one partition's offset whatever has been done of it. It does not end with
// ctx: that the operator has gone does not tell how far the commit got.
func (c *Consumer) commitFor(ctx context.Context, cl *kgo.Client, topic string, id int32, to int64) (failed error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timing.commit)
	defer cancel()
	offsets := map[string]map[int32]kgo.EpochOffset{topic: {id: {Epoch: -1, Offset: to}}}
	cl.CommitOffsetsSync(signed(ctx), offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err == nil && len(resp.Topics) == 1 && len(resp.Topics[0].Partitions) == 1 {
			failed = kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
		}
	})
	return failed
}

// setAside keeps a stopped partition's own commits from following one by an operator; false
// if it is not at rest.
func (p *partition) setAside() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.reason == "" || len(p.queue) > 0 || p.done.Offset != p.next {
		return false
	}
	p.aside = true
	return true
}

// takeBack undoes setAside.
func (p *partition) takeBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.aside = false
}

// setCommitted notes the offset that an operator has committed.
func (p *partition) setCommitted(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = offset
}
