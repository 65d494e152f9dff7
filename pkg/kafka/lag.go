package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Lag is how far a group is behind in a partition.
type Lag struct {
	Group     string
	Topic     string
	Partition int32
	Committed int64 // -1: nothing; the group will begin at Start
	Start     int64 // offset of the first record that the brokers still hold
	End       int64 // offset behind the last
	// Oldest is the timestamp of the first record that is not committed, by its producer's
	// clock; zero if there is none, or if Err says why it cannot be read.
	Oldest time.Time
	Err    error
}

// Records are those that the group has still to read.
func (l Lag) Records() int64 { return max(0, l.End-max(l.Committed, l.Start)) }

// Lost are records that the brokers have removed before the group has read them.
func (l Lag) Lost() int64 {
	if l.Committed < 0 {
		return 0
	}
	return max(0, l.Start-l.Committed)
}

// Age is how long the group has been behind, 0 if it is not or if that cannot be told.
func (l Lag) Age(now time.Time) time.Duration {
	if l.Oldest.IsZero() {
		return 0
	}
	return max(0, now.Sub(l.Oldest))
}

// Groups are the consumer groups that have committed offsets of any of the topics.
func (r *Reader) Groups(ctx context.Context, topics ...string) ([]string, error) {
	listed, err := r.admin.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	names := listed.Groups()
	if len(names) == 0 {
		return nil, nil
	}
	var groups []string
	for name, of := range r.admin.FetchManyOffsets(ctx, names...) {
		if slices.ContainsFunc(topics, func(t string) bool { return len(of.Fetched[t]) > 0 }) {
			groups = append(groups, name)
		}
	}
	slices.Sort(groups)
	return groups, nil
}

// Lag tells how far a group is behind, in every partition of the topics that it has committed
// offsets of, and of those given beside. It reads one record of each partition that is
// behind; wait bounds how long it waits for those. A group that nobody knows has no lag. An
// error that wraps [ErrNoTopic] stands beside the lags in the topics that exist.
func (r *Reader) Lag(ctx context.Context, group string, wait time.Duration, topics ...string) ([]Lag, error) {
	committed, err := r.committed(ctx, group)
	if err != nil {
		return nil, err
	}
	for topic := range committed {
		if !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
	}
	if len(topics) == 0 {
		return nil, nil
	}
	starts, err := r.Starts(ctx, topics...)
	if err != nil && !errors.Is(err, ErrNoTopic) {
		return nil, err
	}
	ends, missing := r.Ends(ctx, topics...)
	if missing != nil && !errors.Is(missing, ErrNoTopic) {
		return nil, missing
	}
	var all []Lag
	for topic, partitions := range ends {
		for id, end := range partitions {
			l := Lag{Group: group, Topic: topic, Partition: id, Committed: -1, Start: starts[topic][id], End: end}
			if at, ok := committed[topic][id]; ok {
				l.Committed = at
			}
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b Lag) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all, errors.Join(missing, r.date(ctx, all, wait))
}

func (r *Reader) committed(ctx context.Context, group string) (Positions, error) {
	fetched, err := r.admin.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("offsets of group %s: %w", group, err)
	}
	all := Positions{}
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.Err == nil && o.At >= 0 {
			all.set(o.Topic, o.Partition, o.At)
		}
	})
	return all, nil
}

// errNoRecord is for what a log should hold and did not deliver in time.
var errNoRecord = errors.New("the record did not come in time")

// date finds out how old what is not committed is.
func (r *Reader) date(ctx context.Context, all []Lag, wait time.Duration) error {
	from, until, of := Positions{}, Positions{}, map[topicPartition]*Lag{}
	for i := range all {
		if l := &all[i]; l.Records() > 0 {
			from.set(l.Topic, l.Partition, max(l.Committed, l.Start))
			until.set(l.Topic, l.Partition, l.End)
			of[topicPartition{l.Topic, l.Partition}] = l
		}
	}
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err := r.scan(bounded, from, until, func(f *fetched) verdict {
		l := of[f.topicPartition]
		delete(of, f.topicPartition)
		if len(f.records) > 0 {
			l.Oldest = f.records[0].Timestamp
		} else {
			l.Err = f.err
		}
		return leave
	})
	for _, l := range of {
		l.Err = errNoRecord
	}
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
