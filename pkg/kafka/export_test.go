package kafka

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Client is the client under the consumer, for tests that ask the group about it.
func (c *Consumer) Client() *kgo.Client { return c.client.Load() }

// SetHandTimeout bounds the batch in hand at a revoke.
func (c *Consumer) SetHandTimeout(d time.Duration) { c.timing.hand = d }

// SetCommitTimeout bounds one commit.
func (c *Consumer) SetCommitTimeout(d time.Duration) { c.timing.commit = d }

// SetWatchEvery sets how often the topics are looked at from outside.
func (c *Consumer) SetWatchEvery(d time.Duration) { c.timing.watch = d }

// SetBackoff sets the waits between two tries of a batch.
func (c *Consumer) SetBackoff(least, most time.Duration) {
	c.timing.minBackoff, c.timing.maxBackoff = least, most
}

// The bounds of a partition's memory.
const (
	QueueRecords = queueRecords
	BatchRecords = batchRecords
	PollRecords  = pollRecords
)
