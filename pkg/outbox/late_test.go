package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
)

// sick is a broker that does not answer for some topics until it is healed.
type sick struct {
	wire
	topics func(topic string) bool
	health chan struct{}
	heal   func()
}

func newSick(topics func(string) bool) *sick {
	s := &sick{topics: topics, health: make(chan struct{})}
	s.heal = sync.OnceFunc(func() { close(s.health) })
	return s
}

func (s *sick) Publish(ctx context.Context, window []event.Record) []error {
	var well, ill []event.Record
	for _, r := range window {
		if s.topics(r.Topic) {
			ill = append(ill, r)
		} else {
			well = append(well, r)
		}
	}
	if s.wire.Publish(ctx, well); ill == nil {
		return nil
	}
	select {
	case <-s.health:
	case <-ctx.Done():
	}
	select {
	case <-s.health:
		return s.wire.Publish(ctx, ill)
	default:
	}
	errs := make([]error, len(window))
	for i, r := range window {
		if s.topics(r.Topic) {
			errs[i] = ctx.Err()
		}
	}
	return errs
}

func numbered(topic string, n int) (records []event.Record) {
	for i := range n {
		records = append(records, event.Record{Topic: topic, Key: fmt.Append(nil, topic, "-", i)})
	}
	return records
}

func (w *wire) of(topic string) (keys []string) {
	for _, key := range w.keys() {
		if strings.HasPrefix(key, topic) {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestRelay_goes_around_a_topic_that_does_not_answer(t *testing.T) {
	t.Parallel()
	for name, together := range map[string]bool{"beside others in the window": true, "before all others": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, c := open(t)
			o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Patience: 100 * time.Millisecond, Retry: time.Millisecond, Window: 20})
			s := newSick(func(topic string) bool { return topic == "ill" })
			n := 50
			if together {
				n = 5
			}
			put(t, d, o, numbered("ill", n)...)
			put(t, d, o, numbered("well", 10)...)
			start(t, o, s)
			eventually(t, "the others are published", func() bool { return len(s.of("well")) == 10 })
			all := held(t, o, "the topic is held back", func(all []outbox.Held) bool { return len(all) == 1 })
			if h := all[0]; h.Topic != "ill" || h.Key != nil || !strings.Contains(h.Error, "no answer within 100ms") {
				t.Errorf("%+v", h)
			}
			put(t, d, o, numbered("ill", 1)...)
			put(t, d, o, numbered("well", 1)...)
			eventually(t, "the others still flow", func() bool { return len(s.of("well")) == 11 })
			if got := s.of("ill"); got != nil {
				t.Errorf("published around those that are held back: %v", got)
			}
			s.heal()
			eventually(t, "the topic follows", func() bool { return len(s.of("ill")) == n+1 })
			var want []string
			for _, r := range append(numbered("ill", n), numbered("ill", 1)...) {
				want = append(want, string(r.Key))
			}
			if diff := cmp.Diff(s.of("ill"), want); diff != "" {
				t.Error(diff)
			}
			held(t, o, "nothing is held back", none)
		})
	}
}

// If nobody answers, no topic is at fault, and everything counts as waiting.
func TestRelay_waits_while_nobody_answers(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	log := &lines{}
	o := outbox.New(d, c, outbox.Config{Source: "/test", Log: log.logger()}).Tune(outbox.Tuning{Patience: 10 * time.Millisecond, Retry: time.Millisecond})
	s := newSick(func(string) bool { return true })
	put(t, d, o, numbered("a", 5)...)
	put(t, d, o, numbered("b", 5)...)
	stop := start(t, o, s)
	eventually(t, "it is told", func() bool { return log.count("brokers take no events") == 1 })
	for range 20 {
		_, flowing, err := o.Stats(t.Context())
		if all, err2 := o.Held(t.Context()); errors.Join(err, err2) != nil || len(all) > 0 || flowing.Events != 10 {
			t.Fatalf("%+v flow, %+v are held back, %v, %v", flowing, all, err, err2)
		}
	}
	s.heal()
	eventually(t, "all are published", func() bool { return pending(t, o) == 0 })
	stop()
	if log.count(refused) > 0 || log.count("brokers take no events") != 1 || log.count("brokers take events again") != 1 {
		t.Error(log.text.String())
	}
}

// A partition with too few replicas is waited for by the client without an end.
func TestRelay_goes_around_a_partition_without_enough_replicas(t *testing.T) {
	t.Parallel()
	d, c := open(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "ill", "well"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "ill", Err: kerr.NotEnoughReplicas, Count: -1})
	p, err := kafka.NewProducer(kafka.Config{Brokers: cluster.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	o := outbox.New(d, c, outbox.Config{Source: "/test"}).Tune(outbox.Tuning{Patience: time.Second})
	put(t, d, o, numbered("ill", 10)...)
	put(t, d, o, numbered("well", 10)...)
	start(t, o, p)
	eventually(t, "the others are published", func() bool { return cluster.PartitionInfo("well", 0).HighWatermark >= 10 })
	held(t, o, "the topic is held back", func(all []outbox.Held) bool { return len(all) == 1 && all[0].Topic == "ill" })
	fault.Remove()
	eventually(t, "all are published", func() bool { return pending(t, o) == 0 && cluster.PartitionInfo("ill", 0).HighWatermark >= 10 })
}
