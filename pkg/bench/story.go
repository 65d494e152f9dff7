package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
)

// story goes round a ring and gives every message an ID of its own and the next version of its
// key, so that whoever reads it in the end can tell what is missing, double or out of order.
type story struct {
	ring     []message
	topic    string
	told     int
	versions map[string]int64 // the last one of each key
}

func newStory(ring []message, topic string) *story {
	return &story{ring: ring, topic: topic, versions: map[string]int64{}}
}

func (s *story) next() event.Record {
	m := &s.ring[s.told%len(s.ring)]
	s.versions[string(m.key)]++
	r := m.record(s.topic, s.told, s.versions[string(m.key)])
	s.told++
	return r
}

// whole reports whether a topic holds n events, each key's versions from 1 on, in order, once.
func (b *broker) whole(ctx context.Context, topic string, n int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr), kgo.DisableClientMetrics(),
		kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer cl.Close()
	seen := map[string]int64{}
	for left := n; left > 0; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return err
		}
		for it := fetches.RecordIter(); !it.Done(); left-- {
			r := ownRecord(it.Next())
			if err := follow(seen, &r); err != nil {
				return err
			}
		}
	}
	switch end, err := b.end(ctx, topic); {
	case err != nil:
		return err
	case end != n:
		return fmt.Errorf("%d records were written, not %d", end, n)
	}
	return nil
}

// follow notes a record's version, which must be the one after its key's last.
func follow(seen map[string]int64, r *event.Record) error {
	key := string(r.Key)
	version := event.ReadMeta(r, orderPlaced).Version
	if version != seen[key]+1 {
		return fmt.Errorf("version %d of key %s follows version %d", version, key, seen[key])
	}
	seen[key] = version
	return nil
}
