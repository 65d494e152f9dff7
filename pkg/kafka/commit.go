package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An offset is committed when Process has returned nil for every record before it. A commit
// takes all partitions that have moved since the last one. The first one is sent at once,
// those that follow at most every commitEvery: each is a write to the brokers' log, and a
// crash in between costs no more than reading a few records again.
const (
	commitEvery = 50 * time.Millisecond
	commitRetry = time.Second
)

// commitLoop commits what finished, until ctx ends. A failed commit loses nothing: the next
// one carries the same partitions, with newer offsets.
func (c *Consumer) commitLoop(ctx context.Context, cl *kgo.Client) {
	for {
		select {
		case <-c.commits:
		case <-ctx.Done():
			return
		}
		pause := commitEvery
		if err := c.commit(ctx, cl); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("commit failed, the next one repeats it", "group", c.cfg.Group, "error", err)
			signal(c.commits)
			pause = commitRetry
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// commitWithRetry commits all that is done, and gives up when ctx ends or the group has gone
// on without us.
func (c *Consumer) commitWithRetry(ctx context.Context, cl *kgo.Client) error {
	for {
		err := c.commit(ctx, cl)
		if err == nil || !retriable(err) {
			return err
		}
		select {
		case <-time.After(commitEvery):
		case <-ctx.Done():
			return err
		}
	}
}

func retriable(err error) bool {
	return kerr.IsRetriable(err) || errors.Is(err, kerr.RebalanceInProgress)
}

// commit sends one commit and waits for its answer; ctx and the commit timeout bound it.
// Offsets of a partition only ever rise: done does, commitMu keeps two commits from being sent
// at a time, and one that reaches the broker after the group has gone on carries an old
// generation, which the broker refuses.
//
// One that was sent and is not waited for any more is still on its way. The client keeps its
// connection, and the next one follows on the same, so that it cannot be overtaken. If nothing
// is answered for longer than a session, the client takes another connection; but by then the
// broker, which has heard nothing on the old one, heartbeats neither, has ended the member's
// session, a static member's too.
func (c *Consumer) commit(ctx context.Context, cl *kgo.Client) error {
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for _, p := range c.owned() {
		if done, ok := p.uncommitted(); ok {
			if offsets[p.topic] == nil {
				offsets[p.topic] = map[int32]kgo.EpochOffset{}
			}
			offsets[p.topic][p.id] = done
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.timing.commit)
	defer cancel()
	var failed error
	cl.CommitOffsetsSync(signed(ctx), offsets, func(_ *kgo.Client, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if failed = err; err == nil {
			failed = c.settle(offsets, req, resp)
		}
	})
	return failed
}

// ours is the metadata of our commits. Other programs leave theirs empty, but for group members
// of this client, which write their IDs.
const ours = "keyline"

// signed makes a commit ours.
func signed(ctx context.Context) context.Context {
	return kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		for _, t := range req.Topics {
			for i := range t.Partitions {
				t.Partitions[i].Metadata = kmsg.StringPtr(ours)
			}
		}
		return nil
	})
}

// settle notes what the broker has accepted, and returns the first error of those it has not.
func (c *Consumer) settle(offsets map[string]map[int32]kgo.EpochOffset, req *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse) (failed error) {
	names := map[[16]byte]string{} // newer brokers answer with the topic's ID alone
	for _, t := range req.Topics {
		names[t.TopicID] = t.Topic
	}
	for _, t := range resp.Topics {
		topic := t.Topic
		if topic == "" {
			topic = names[t.TopicID]
		}
		for _, r := range t.Partitions {
			err := kerr.ErrorForCode(r.ErrorCode)
			if failed == nil && err != nil {
				failed = fmt.Errorf("%s/%d: %w", topic, r.Partition, err)
			}
			// A topic that was deleted has taken its offsets along: there is nothing to repeat.
			if p := c.partition(topic, r.Partition); p != nil && (err == nil || errors.Is(err, kerr.UnknownTopicID)) {
				p.settled(offsets[topic][r.Partition].Offset)
			}
		}
	}
	return failed
}

func (p *partition) uncommitted() (kgo.EpochOffset, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done, p.done.Offset > p.committed && !p.aside
}

func (p *partition) settled(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.committed = max(p.committed, offset)
}

// lock is a mutex for what takes long, such as a request. A goroutine that waits for it waits
// on a channel, which lets testing/synctest's clock go on, as a sync.Mutex would not.
type lock chan struct{}

// Lock takes the lock.
func (l lock) Lock() { l <- struct{}{} }

// Unlock gives it back.
func (l lock) Unlock() { <-l }
