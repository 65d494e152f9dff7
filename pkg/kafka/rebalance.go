package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// assigned starts a worker for each new partition, before its first record is fetched.
func (c *Consumer) assigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	c.joined.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, ids := range added {
		for _, id := range ids {
			p := newPartition(c, cl, topic, id)
			c.partitions[topicPartition{topic, id}] = p
			c.tasks.Go(p.run)
		}
		c.logger(topic).Info("partitions assigned", "partitions", ids)
	}
}

// offsetsFetched notes where the new partitions begin.
func (c *Consumer) offsetsFetched(_ context.Context, _ *kgo.Client, resp *kmsg.OffsetFetchResponse) error {
	for _, g := range resp.Groups {
		for _, t := range g.Topics {
			for _, o := range t.Partitions {
				if p := c.partition(t.Topic, o.Partition); p != nil && o.ErrorCode == 0 && o.Offset >= 0 {
					p.startAt(o.Offset)
					if o.Metadata == nil || *o.Metadata == "" {
						p.doubt()
					}
				}
			}
		}
	}
	return nil
}

// revoked gives up partitions that move to another member, who goes on from what is committed
// here. When it returns, their workers have stopped and their offsets are committed.
func (c *Consumer) revoked(_ context.Context, cl *kgo.Client, gone map[string][]int32) {
	leaving := c.find(gone)
	if len(leaving) == 0 {
		return // the end of a session in which nothing moves
	}
	if err := c.giveUp(cl, leaving); err != nil {
		c.cfg.Log.Error("commit before a revoke failed, records will be read again", "group", c.cfg.Group, "error", err)
	}
	for topic, ids := range gone {
		c.logger(topic).Info("partitions revoked", "partitions", ids)
	}
}

// giveUp finishes the batches that are in hand, commits, and forgets the partitions.
func (c *Consumer) giveUp(cl *kgo.Client, leaving []*partition) error {
	c.stop(leaving)
	ctx, cancel := context.WithTimeout(c.work, c.timing.commit)
	defer cancel()
	err := c.commitWithRetry(ctx, cl)
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	c.forget(leaving)
	return err
}

// lost drops partitions that the group has taken away without asking. Somebody else may be at
// work on them already: nothing is finished, and nothing is committed.
func (c *Consumer) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	leaving := c.find(gone)
	c.forget(leaving)
	for _, p := range leaving {
		p.finish()
		p.cancel()
	}
	c.stop(leaving)
	c.commitMu.Lock() // a commit that still had them has ended, too
	defer c.commitMu.Unlock()
	for topic, ids := range gone {
		c.logger(topic).Warn("partitions lost", "partitions", ids)
	}
}

// stop returns when no worker of leaving runs any more. Until the bound, a batch in hand may
// be finished; then its context is cancelled. A Process that does not heed that is waited for
// all the same: its partition could come back, and two batches of it would run at once.
func (c *Consumer) stop(leaving []*partition) {
	late := time.AfterFunc(c.timing.hand, func() {
		c.cfg.Log.Warn("batches in hand take too long, cancelling them", "group", c.cfg.Group)
		for _, p := range leaving {
			p.cancel()
		}
	})
	defer late.Stop()
	for _, p := range leaving {
		p.finish()
	}
	for _, p := range leaving {
		<-p.idle
		p.release()
	}
}

// forget takes partitions off the map: no commit that begins afterwards has them.
func (c *Consumer) forget(leaving []*partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range leaving {
		delete(c.partitions, topicPartition{p.topic, p.id})
	}
}

func (c *Consumer) find(m map[string][]int32) (found []*partition) {
	for topic, ids := range m {
		for _, id := range ids {
			if p := c.partition(topic, id); p != nil {
				found = append(found, p)
			}
		}
	}
	return found
}
