package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	watchEvery = 10 * time.Second
	openFor    = time.Minute // longer is no ordinary transaction
)

// watch looks at the topics from outside the group, again and again: whether they exist, and
// how far they reach. A fetch tells the latter too, but not for a partition that is paused,
// stopped or not ours yet, which is when one wants to know.
func (c *Consumer) watch(ctx context.Context, cl *kgo.Client) {
	missing := map[string]bool{}
	for {
		c.look(ctx, cl, missing)
		select {
		case <-time.After(c.timing.watch):
		case <-ctx.Done():
			return
		}
	}
}

func (c *Consumer) look(ctx context.Context, cl *kgo.Client, missing map[string]bool) {
	bounded, cancel := context.WithTimeout(ctx, watchEvery)
	defer cancel()
	// A ping says at once what is wrong; other requests are first tried for a while.
	if err := cl.Ping(bounded); err != nil {
		if ctx.Err() == nil {
			c.cfg.Log.Warn("the brokers do not answer, trying again", "group", c.cfg.Group, "brokers", c.cfg.Brokers, "error", err)
		}
		return
	}
	// The error is left to the next ping: what could not be listed is not in the list.
	offsets, _ := kadm.NewClient(cl).ListCommittedOffsets(bounded, c.topics...)
	for _, topic := range c.topics {
		c.noteMissing(topic, offsets, missing)
	}
	ends, _ := kadm.NewClient(cl).ListEndOffsets(bounded, c.topics...)
	offsets.Each(func(o kadm.ListedOffset) {
		if p := c.partition(o.Topic, o.Partition); p != nil && o.Err == nil {
			p.reaches(o.Offset)
			if end, ok := ends.Lookup(o.Topic, o.Partition); ok && end.Err == nil {
				p.heldUp(o.Offset, end.Offset)
			}
		}
	})
	for _, p := range c.owned() {
		p.retry()
	}
}

// noteMissing reports a topic that has gone, or has come. Nothing else has to be done: the
// client asks for it every second, and joins the group when it is there.
func (c *Consumer) noteMissing(topic string, offsets kadm.ListedOffsets, missing map[string]bool) {
	of, ok := offsets[topic]
	if !ok {
		return // not known this time
	}
	gone := errors.Is(of[-1].Err, kerr.UnknownTopicOrPartition)
	if gone == missing[topic] {
		return
	}
	missing[topic] = gone
	c.metrics.topicMissing(topic, gone)
	if gone {
		c.logger(topic).Warn("topic does not exist, waiting for it; provision it")
	} else {
		c.logger(topic).Info("topic exists now")
	}
}

// reaches notes the log's end as seen from outside.
func (p *partition) reaches(end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.logEnd = max(p.logEnd, end)
}

// heldUp notes whether a transaction that another producer has left open keeps the records
// behind it from being read: the stable offset has stood still for long below the log's end.
func (p *partition) heldUp(stable, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch now := time.Now(); {
	case end <= stable:
		p.open = openTransaction{}
	case p.open.since.IsZero() || stable != p.open.at:
		p.open = openTransaction{at: stable, since: now}
	case now.Sub(p.open.since) >= p.c.timing.open:
		if p.open.end == 0 {
			p.log.Error("an open transaction holds the partition up, waiting for its end", "position", stable, "log_end", end, "since", p.open.since,
				"next_step", p.abortHint(stable))
		}
		p.open.end = end
	}
}

// openTransaction is what is known of one that holds a partition up; its end is 0 until that
// has lasted for long.
type openTransaction struct {
	at, end int64
	since   time.Time
}

// abortHint is what to type, if need be with --command-config, about the transaction at an offset.
func (p *partition) abortHint(at int64) string {
	tool := fmt.Sprintf("kafka-transactions.sh --bootstrap-server %s", strings.Join(p.c.cfg.Brokers, ","))
	return fmt.Sprintf("whose it is: %s describe-producers --topic %s --partition %d; end it: %s abort --topic %s --partition %d --start-offset %d",
		tool, p.topic, p.id, tool, p.topic, p.id, at)
}
