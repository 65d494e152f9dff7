package kafka_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// A member that stands still holds up a rebalance for as long as its timeout. Another one that
// is stopped meanwhile must not wait for it.
func TestConsumer_StopDuringRebalance(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic, group := newTopic(t, addrs, 2), unique(t, "group")
	publish(t, addrs, event.Record{Topic: topic, Key: []byte("a"), Value: []byte("1")})
	still, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.RebalanceTimeout(time.Minute), kgo.BlockRebalanceOnPoll())
	if err != nil {
		t.Fatal(err)
	}
	defer still.CloseAllowingRebalance()
	if fetches := still.PollFetches(t.Context()); fetches.Err() != nil { // and from now on no rebalance
		t.Fatal(fetches.Err())
	}
	c := consume(t, kafka.Config{Brokers: addrs, Group: group}, newRecorder(), nil, topic)
	eventually(t, "the group waits for both to join", func() bool {
		info := cluster.GroupInfo(group)
		return info != nil && info.State == "PreparingRebalance"
	})
	if err := c.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
}
