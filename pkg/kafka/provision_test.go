package kafka_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/kafka"
)

func TestProvision(t *testing.T) {
	t.Parallel()

	t.Run("creates what is missing, and changes nothing when run again", func(t *testing.T) {
		t.Parallel()
		cfg := kafka.Config{Brokers: brokers(t)}
		topics := []kafka.Topic{{Name: unique(t, "a"), Partitions: 6, Retention: 72 * time.Hour}, {Name: unique(t, "b"), Partitions: 2}}
		for range 2 {
			if err := kafka.Provision(t.Context(), cfg, topics); err != nil {
				t.Fatal(err)
			}
			for _, topic := range topics {
				if got := len(ends(t, cfg.Brokers, topic.Name)); got != int(topic.Partitions) {
					t.Errorf("%s: got %d partitions, want %d", topic.Name, got, topic.Partitions)
				}
			}
			eventually(t, "a retention of 72 h", func() bool { return retentionOf(t, cfg.Brokers, topics[0].Name) == "259200000" })
			topics = append(topics, kafka.Topic{Name: unique(t, "c"), Partitions: 1})
		}
	})

	t.Run("corrects the retention, and leaves an undeclared one alone", func(t *testing.T) {
		t.Parallel()
		cfg := kafka.Config{Brokers: brokers(t)}
		topic := kafka.Topic{Name: unique(t, "a"), Partitions: 1, Retention: time.Hour}
		for _, of := range []struct {
			declared time.Duration
			want     string
		}{{time.Hour, "3600000"}, {2 * time.Hour, "7200000"}, {0, "7200000"}} {
			topic.Retention = of.declared
			if err := kafka.Provision(t.Context(), cfg, []kafka.Topic{topic}); err != nil {
				t.Fatal(err)
			}
			eventually(t, fmt.Sprint("a retention of ", of.want), func() bool { return retentionOf(t, cfg.Brokers, topic.Name) == of.want })
		}
	})

	t.Run("refuses another partition count and then creates nothing", func(t *testing.T) {
		t.Parallel()
		cfg := kafka.Config{Brokers: brokers(t)}
		has, more := unique(t, "has"), unique(t, "more")
		if err := kafka.Provision(t.Context(), cfg, []kafka.Topic{{Name: has, Partitions: 3}}); err != nil {
			t.Fatal(err)
		}
		err := kafka.Provision(t.Context(), cfg, []kafka.Topic{{Name: more, Partitions: 1}, {Name: has, Partitions: 6}})
		if err == nil || !strings.Contains(err.Error(), "topic "+has+" has 3 partitions, declared are 6") || !strings.Contains(err.Error(), "declare 3") {
			t.Errorf("got %v, want an error with topic, have, want and next step", err)
		}
		if got := ends(t, cfg.Brokers, more)[0]; len(ends(t, cfg.Brokers, more)) > 1 || got > 0 {
			t.Errorf("%s was created", more)
		}
	})

	t.Run("loses a race for a topic without harm", func(t *testing.T) {
		t.Parallel()
		cfg := kafka.Config{Brokers: brokers(t)}
		topics := []kafka.Topic{{Name: unique(t, "a"), Partitions: 3, Retention: time.Hour}}
		done := make(chan error, 4)
		for range cap(done) {
			go func() { done <- kafka.Provision(t.Context(), cfg, topics) }()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("asks for fewer replicas where the brokers' default cannot be had", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t, kfake.NumBrokers(2))
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Err: kerr.InvalidReplicationFactor, When: func(r kmsg.Request) bool {
			return r.(*kmsg.CreateTopicsRequest).Topics[0].ReplicationFactor == -1
		}})
		if err := kafka.Provision(t.Context(), kafka.Config{Brokers: cluster.ListenAddrs()}, []kafka.Topic{{Name: "orders", Partitions: 1}}); err != nil {
			t.Error(err)
		}
	})

	t.Run("a topic that may not be created is named, and keeps no other from being made", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "mine", Err: kerr.TopicAuthorizationFailed, Count: -1})
		err := kafka.Provision(t.Context(), kafka.Config{Brokers: addrs}, []kafka.Topic{{Name: "mine", Partitions: 1}, {Name: "other", Partitions: 2}})
		if err == nil || !strings.Contains(err.Error(), "create topic mine: TOPIC_AUTHORIZATION_FAILED") {
			t.Errorf("got %v, want it to name topic and cause", err)
		}
		if got := len(ends(t, addrs, "other")); got != 2 {
			t.Errorf("the other topic has %d partitions, want 2", got)
		}
	})
}

func retentionOf(t *testing.T, addrs []string, topic string) string {
	t.Helper()
	configs, err := admin(t, addrs).DescribeTopicConfigs(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "retention.ms" {
			return c.MaybeValue()
		}
	}
	return ""
}
