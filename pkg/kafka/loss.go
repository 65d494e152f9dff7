package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// fault is why a partition is not fetched. One that is final lasts as long as the assignment:
// records are lost, or can only be skipped, and that is for a person to decide. Any other is
// tried again with every look of the watch.
type fault struct {
	reason string // a metric's label, empty for none
	final  bool
	err    error
}

func faultOf(err error) fault {
	_, loss := errors.AsType[*kgo.ErrDataLoss](err)
	switch {
	case loss:
		// The client would go on at the new end of the log.
		return fault{"data_loss", true, err}
	case errors.Is(err, errBackwards):
		return fault{"offset_backwards", true, err}
	case errors.Is(err, kerr.OffsetOutOfRange):
		// Final also where the position lies behind the end: once the log has grown past
		// it, the broker would accept it, and what came before would be skipped.
		return fault{"offset_out_of_range", true, err}
	case errors.Is(err, kgo.ErrMaxDecompress):
		return fault{"batch_too_large", true, err}
	case errors.Is(err, kerr.UnknownTopicID):
		// The client never takes up a recreated topic, so trying again skips nothing.
		return fault{recreated, false, err}
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fault{"forbidden", false, err}
	}
	return fault{"fetch_failed", false, err}
}

// fetchFailed handles an error of a poll. The client hands out only those that it does not
// retry, and then fetches the partition again at once, so that without a pause a lasting
// error would make a busy loop.
func (c *Consumer) fetchFailed(topic string, id int32, err error) {
	if c.taking.Err() != nil {
		return // the end of Run is an error of the poll
	}
	p := c.partition(topic, id)
	if p == nil {
		c.failedWhole(topic, err)
		return
	}
	if f := faultOf(err); p.fail(f) {
		c.tasks.Go(func() { c.report(p, f) })
	}
}

// failedWhole reports an error of the whole group or topic, for which the client backs off
// and tries again; that can be every second.
func (c *Consumer) failedWhole(topic string, err error) {
	what, now := topic+" "+err.Error(), time.Now()
	maps.DeleteFunc(c.saidAt, func(_ string, at time.Time) bool { return now.Sub(at) >= c.timing.watch })
	if _, said := c.saidAt[what]; !said {
		c.saidAt[what] = now
		c.logger(topic).Error("consuming failed, trying again", "error", err)
	}
}

// fail stops fetching; false if that is known already.
func (p *partition) fail(f fault) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault.final || p.fault.reason == f.reason {
		return false
	}
	p.fault = f
	p.pause()
	return true
}

// retry resumes a partition whose fault is not final.
func (p *partition) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.fault.final {
		p.fault = fault{}
		p.pause()
	}
}

// report says what happened to a partition, with the range that is lost as far as the brokers
// tell it, and what to do. It asks them, and so is not for the polling goroutine.
func (c *Consumer) report(p *partition, f fault) {
	ctx, cancel := context.WithTimeout(c.work, 5*time.Second)
	defer cancel()
	position := p.position()
	start, end := p.bounds(ctx)
	attrs := []any{"reason", f.reason, "error", f.err, "position", position, "log_start", start, "log_end", end}
	look := fmt.Sprintf("look: console skip; go on where it says: console skip %s/%s/%d --yes", c.cfg.Group, p.topic, p.id)
	if !f.final {
		if f.reason == recreated {
			attrs = append(attrs, "next_step", look)
		}
		p.log.Error("partition cannot be read, trying again", attrs...)
		return
	}
	if position >= 0 && start > position {
		// A member that was away for long wakes where it was, and others have done the rest.
		if done := p.askCommitted(ctx, c.cfg.Group); done > position {
			attrs = append(attrs, "committed", done)
			position = done
		}
	}
	if position >= 0 && start > position {
		attrs = append(attrs, "lost_from", position, "lost_to", start-1)
		c.metrics.recordsLost(p.topic, p.id, c.newlyLost(p, position, start))
	}
	p.log.Error("partition stopped, no record is skipped", append(attrs, "next_step", look)...)
}

// checkMoved says that the group's offset was set by another program, such as Kafka's own tools,
// and what that leaves out: whoever has done it may not know. settled is false if it must be
// looked at again by the next owner: an offset beyond the log's end will leave out what is
// still to be written.
func (c *Consumer) checkMoved(p *partition) (settled bool, err error) {
	ctx, cancel := context.WithTimeout(p.taking, 10*time.Second)
	defer cancel()
	to := p.begin()
	if c.cfg.Reached == nil {
		p.log.Warn("the group's offset was set from outside", "position", to)
		return true, nil
	}
	topicID, err := askTopicID(ctx, p.cl, p.topic)
	if err != nil {
		return false, err
	}
	from, err := c.cfg.Reached(ctx, p.topic, topicID, p.id)
	if err != nil {
		return false, err
	}
	start, end := p.bounds(ctx)
	if start < 0 || end < 0 {
		return false, errors.New("the brokers do not tell where the log begins and ends")
	}
	if from == 0 {
		from = start
	}
	attrs := []any{"position", to, "log_start", start, "log_end", end}
	if from >= min(to, end) {
		p.log.Warn("the group's offset was set from outside", attrs...)
		return to <= end, nil
	}
	c.metrics.recordsLost(p.topic, p.id, c.newlyLost(p, from, min(to, end)))
	p.log.Error("the group's offset was set from outside: records are left out", append(attrs, "lost_from", from, "lost_to", min(to, end)-1,
		"next_step", fmt.Sprintf("if that was not meant: stop the group, then kafka-consumer-groups.sh --bootstrap-server %s --group %s --topic %s:%d --reset-offsets --to-offset %d --execute; what was done is not done twice, but what is left out then runs behind later events of its keys",
			strings.Join(c.cfg.Brokers, ","), c.cfg.Group, p.topic, p.id, from))...)
	return to <= end, nil
}

// askCommitted asks the brokers how far the group has come; -1 is not known.
func (p *partition) askCommitted(ctx context.Context, group string) int64 {
	offsets, err := kadm.NewClient(p.cl).FetchOffsets(ctx, group)
	if o, ok := offsets.Lookup(p.topic, p.id); ok && err == nil && o.Err == nil {
		return o.At
	}
	return -1
}

// newlyLost is how many of the records from position to start have not been counted yet: each
// assignment finds the same ones missing again.
func (c *Consumer) newlyLost(p *partition, position, start int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	where, from := topicPartition{p.topic, p.id}, position
	if known, ok := c.lostRecords[where]; ok && known[0] == position {
		from = min(known[1], start)
	}
	c.lostRecords[where] = [2]int64{position, start}
	return start - from
}

// listed drops the error of a listing: what could not be listed is absent from it.
func listed(l kadm.ListedOffsets, _ error) kadm.ListedOffsets { return l }

// begin is the offset behind what is done, which before anything is done is where the group is.
func (p *partition) begin() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done.Offset
}

// position is the offset at which the partition is read next.
func (p *partition) position() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}
