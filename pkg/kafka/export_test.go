package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Client is the client under the consumer; nil before Run.
func (c *Consumer) Client() *kgo.Client { return c.client.Load() }

// Paused are the partitions of topic that the client does not fetch.
func (c *Consumer) Paused(topic string) []int32 {
	cl := c.client.Load()
	if cl == nil {
		return nil
	}
	return cl.PauseFetchPartitions(nil)[topic]
}

// SetHandTimeout bounds the batch in hand at a revoke.
func (c *Consumer) SetHandTimeout(d time.Duration) { c.timing.hand = d }

// SetCommitTimeout bounds one commit.
func (c *Consumer) SetCommitTimeout(d time.Duration) { c.timing.commit = d }

// SetWatchEvery sets how often the topics are looked at from outside.
func (c *Consumer) SetWatchEvery(d time.Duration) { c.timing.watch = d }

// SetOpenFor sets how long a transaction may hold a partition up.
func (c *Consumer) SetOpenFor(d time.Duration) { c.timing.open = d }

// SetBackoff sets the waits between two tries of a batch.
func (c *Consumer) SetBackoff(least, most time.Duration) {
	c.timing.minBackoff, c.timing.maxBackoff = least, most
}

// SetCloseTimeout bounds the Publish under way at Close.
func (p *Producer) SetCloseTimeout(d time.Duration) { p.grace = d }

// The bounds of a partition's memory.
const (
	QueueRecords = queueRecords
	BatchRecords = batchRecords
	PollRecords  = pollRecords
)

// Queued is how many records of each partition wait in memory.
func (c *Consumer) Queued() map[int32]int {
	n := map[int32]int{}
	for _, p := range c.owned() {
		p.mu.Lock()
		n[p.id] = len(p.queue)
		p.mu.Unlock()
	}
	return n
}

// QueuedBytes is what they take.
func (c *Consumer) QueuedBytes() (n int) {
	for _, p := range c.owned() {
		p.mu.Lock()
		n += p.bytes
		p.mu.Unlock()
	}
	return n
}

// Group is the consumer's group.
func (c *Consumer) Group() string { return c.cfg.Group }

// Uncommitted reports whether something is done whose commit has not been answered.
func (c *Consumer) Uncommitted() bool {
	for _, p := range c.owned() {
		if _, ok := p.uncommitted(); ok {
			return true
		}
	}
	return false
}
