package kafka_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/kafka"
)

// stuckCommit holds back one commit just before it is built, by way of the client's log.
type stuckCommit struct {
	armed, caught, entered atomic.Bool
	release                chan struct{}
}

func (*stuckCommit) Level() kgo.LogLevel { return kgo.LogLevelDebug }

func (s *stuckCommit) Log(_ kgo.LogLevel, msg string, _ ...any) {
	if msg == "entering OnPartitionsRevoked" && s.caught.Load() {
		s.entered.Store(true)
	}
	if msg == "in CommitOffsetsSync" && s.armed.Load() && s.caught.CompareAndSwap(false, true) {
		<-s.release
	}
}

// A commit is held back between the choice of its offsets and the request. If the revoke of
// one of its partitions did not wait for it, the next owner's offset would be set back.
func TestConsumer_CommitDoesNotOutliveRevoke(t *testing.T) {
	t.Parallel()
	cluster := fake(t)
	addrs := cluster.ListenAddrs()
	topic, group := newTopic(t, addrs, 2), unique(t, "group")
	commits := watchCommits(cluster)
	stuck := &stuckCommit{release: make(chan struct{})}
	rec := newRecorder()
	consume(t, kafka.Config{Brokers: addrs, Group: group, Opts: []kgo.Opt{kgo.WithLogger(stuck)}}, rec, nil, topic)
	publish(t, addrs, numbered(topic, 0, 10, keys(8)...)...)
	rec.waitFor(t, 80)
	eventually(t, "the first commits", func() bool { return sum(committed(t, addrs, group, topic)) == 80 })

	stuck.armed.Store(true)
	publish(t, addrs, numbered(topic, 10, 10, keys(8)...)...)
	rec.waitFor(t, 160)
	eventually(t, "a commit that is held back", stuck.caught.Load)
	consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
	eventually(t, "the revoke", stuck.entered.Load)
	// A revoke that does not wait lets the other member come and commit further. It has
	// about a second to do so, which it needs only if something is wrong.
	publish(t, addrs, numbered(topic, 20, 10, keys(8)...)...)
	limit := time.After(time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for wait := true; wait; {
		select {
		case <-limit:
			wait = false
		case <-tick.C:
			wait = !commits.further(20 * 4)
		}
	}
	close(stuck.release)
	rec.waitFor(t, 240)
	eventually(t, "all commits", func() bool { return commits.back() != "" || sum(committed(t, addrs, group, topic)) == 240 })
	if back := commits.back(); back != "" {
		t.Error(back)
	}
}

// commitLog is every offset that the broker was asked to commit, in order.
type commitLog struct {
	mu  sync.Mutex
	all map[int32][]int64
}

func watchCommits(cluster *kfake.Cluster) *commitLog {
	l := &commitLog{all: map[int32][]int64{}}
	cluster.ControlKey(int16(kmsg.OffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, t := range r.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range t.Partitions {
				l.all[p.Partition] = append(l.all[p.Partition], p.Offset)
			}
		}
		return nil, nil, false
	})
	return l
}

// further reports whether any partition was committed beyond n.
func (l *commitLog) further(n int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, offsets := range l.all {
		for _, o := range offsets {
			if o > n {
				return true
			}
		}
	}
	return false
}

// back says where a commit was lower than the one before, or "".
func (l *commitLog) back() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, offsets := range l.all {
		for i := 1; i < len(offsets); i++ {
			if offsets[i] < offsets[i-1] {
				return fmt.Sprintf("partition %d: commits go back: %v", id, offsets)
			}
		}
	}
	return ""
}

func TestConsumer_CommitErrors(t *testing.T) {
	t.Parallel()
	for _, fault := range []*kerr.Error{
		kerr.NotCoordinator, kerr.CoordinatorNotAvailable, kerr.RequestTimedOut, kerr.UnknownServerError,
		kerr.RebalanceInProgress, kerr.IllegalGeneration, kerr.UnknownMemberID,
	} {
		t.Run(fault.Message+" is repeated by the next commit and never goes back", func(t *testing.T) {
			t.Parallel()
			cluster := fake(t)
			addrs := cluster.ListenAddrs()
			topic, group := newTopic(t, addrs, 3), unique(t, "group")
			commits := watchCommits(cluster)
			faults := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: fault, Count: 3})
			rec := newRecorder()
			c := consume(t, kafka.Config{Brokers: addrs, Group: group}, rec, nil, topic)
			for i := range 10 {
				publish(t, addrs, numbered(topic, i*10, 10, keys(10)...)...)
				rec.waitFor(t, (i+1)*100)
			}
			eventually(t, "the faults", func() bool { return faults.Hits() >= 3 })
			eventually(t, "all commits", func() bool { return sum(committed(t, addrs, group, topic)) == 1000 })
			if err := c.stop(t); err != nil {
				t.Errorf("Run: %v", err)
			}
			rec.inOrder(t)
			if back := commits.back(); back != "" {
				t.Error(back)
			}
		})
	}
}
