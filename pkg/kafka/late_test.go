package kafka_test

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/kafka"
)

// slowNet is a network in which, once armed, what is sent on one connection is under way for
// long: from a commit's bytes on, in order, and even if the sender closes it meanwhile.
type slowNet struct {
	mu      sync.Mutex
	armed   bool
	held    *slowConn
	commits int // written since, on any connection
}

type slowConn struct {
	net.Conn
	n      *slowNet
	late   [][]byte // guarded by n.mu, as is closed
	closed bool
}

func (n *slowNet) dial(ctx context.Context, network, host string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, host)
	if err != nil {
		return nil, err
	}
	return &slowConn{Conn: c, n: n}, nil
}

func (c *slowConn) Write(b []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.n.armed && len(b) > 6 && kmsg.Key(binary.BigEndian.Uint16(b[4:])) == kmsg.OffsetCommit {
		c.n.commits++
		if c.n.held == nil {
			c.n.held = c
		}
	}
	if c.n.held == c && !c.closed {
		c.late = append(c.late, slices.Clone(b))
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *slowConn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.closed = true
	if c.n.held == c {
		return c.SetReadDeadline(time.Unix(1, 0)) // the reader here is gone, what is under way is not
	}
	return c.Conn.Close()
}

// arm holds up the next commit.
func (n *slowNet) arm() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.armed = true
}

// written counts the commits that were sent, arrived or not.
func (n *slowNet) written() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.commits
}

// givenUp reports whether the sender has closed the connection.
func (n *slowNet) givenUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held != nil && n.held.closed
}

// arrive delivers what was under way, and ends the delay.
func (n *slowNet) arrive(t *testing.T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.held
	n.held = nil
	for _, b := range c.late {
		if _, err := c.Conn.Write(b); err != nil {
			t.Error(err)
		}
	}
	if c.closed {
		t.Cleanup(func() { _ = c.Conn.Close() }) // the broker reads all of it before
	}
}

func TestConsumer_LateCommit(t *testing.T) {
	t.Parallel()

	t.Run("one that is not answered in time is not overtaken by the next", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t)
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		n, commits, rec := &slowNet{}, watchCommits(cluster), newRecorder()
		consume(t, kafka.Config{Brokers: addrs, Group: group, Opts: []kgo.Opt{kgo.Dialer(n.dial)}}, rec,
			func(c *kafka.Consumer) { c.SetCommitTimeout(50 * time.Millisecond) }, topic)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec.waitFor(t, 10)
		eventually(t, "the first commit", func() bool { return committed(t, addrs, group, topic)[0] == 10 })
		n.arm()
		publish(t, addrs, numbered(topic, 10, 10, "k")...)
		rec.waitFor(t, 20)
		eventually(t, "a commit that is under way", func() bool { return n.written() == 1 })
		publish(t, addrs, numbered(topic, 20, 10, "k")...)
		rec.waitFor(t, 30)
		eventually(t, "the next one", func() bool { return n.written() >= 2 })
		n.arrive(t)
		eventually(t, "both", func() bool { return commits.further(19) && commits.further(29) })
		if got := committed(t, addrs, group, topic)[0]; got != 30 || commits.back() != "" {
			t.Errorf("committed: got %d, want 30; %s", got, commits.back())
		}
	})

	t.Run("one that arrives after its connection was given up is refused", func(t *testing.T) {
		t.Parallel()
		cluster := fake(t, kfake.GroupMinSessionTimeout(time.Millisecond))
		addrs := cluster.ListenAddrs()
		topic, group := newTopic(t, addrs, 1), unique(t, "group")
		n, commits, rec := &slowNet{}, watchCommits(cluster), newRecorder()
		// Shorter than the real ones, which the last test looks at.
		consume(t, kafka.Config{Brokers: addrs, Group: group, Opts: []kgo.Opt{kgo.Dialer(n.dial),
			kgo.SessionTimeout(time.Second), kgo.RequestTimeoutOverhead(2 * time.Second)}}, rec, nil, topic)
		publish(t, addrs, numbered(topic, 0, 10, "k")...)
		rec.waitFor(t, 10)
		eventually(t, "the first commit", func() bool { return committed(t, addrs, group, topic)[0] == 10 })
		n.arm()
		publish(t, addrs, numbered(topic, 10, 10, "k")...)
		rec.waitFor(t, 20)
		eventually(t, "the end of its connection", n.givenUp)
		publish(t, addrs, numbered(topic, 20, 10, "k")...)
		rec.waitFor(t, 30)
		eventually(t, "the next commit", func() bool { return committed(t, addrs, group, topic)[0] == 30 })
		n.arrive(t)
		eventually(t, "the late one", func() bool { return commits.back() != "" })
		if got := committed(t, addrs, group, topic)[0]; got != 30 {
			t.Errorf("committed: got %d, want 30", got)
		}
	})

	t.Run("no connection is given up before a session would have ended", func(t *testing.T) {
		t.Parallel()
		for instance, lasts := range map[string]time.Duration{"": 10 * time.Second, "order-0": 20 * time.Second} {
			c := consume(t, kafka.Config{Brokers: fake(t).ListenAddrs(), Group: "group", InstanceID: instance}, newRecorder(), nil, "topic")
			eventually(t, "a client", func() bool { return c.Client() != nil })
			answer, session := c.Client().OptValue(kgo.RequestTimeoutOverhead).(time.Duration), c.Client().OptValue(kgo.SessionTimeout).(time.Duration)
			if session != lasts || answer != session+2*time.Second {
				t.Errorf("instance %q: a session lasts %v, want %v; answers are waited for %v, want 2 s more", instance, session, lasts, answer)
			}
		}
	})
}
