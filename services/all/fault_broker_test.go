package all_test

import (
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/services/all/check"
	"example.com/keyline/services/inventory"
)

// All partitions change their leader again and again: what is produced and fetched is
// answered NOT_LEADER, and order holds.
func TestF12_leaders_move_while_orders_flow(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	refused := f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce, kmsg.Fetch}, Count: -1, Observe: true})
	moved := 0
	f.during(size(50, 2000), 20, size(50*time.Millisecond, 500*time.Millisecond), func(int) {
		before := f.leaders()
		f.cluster.ShufflePartitionLeaders()
		for p, leader := range f.leaders() {
			if before[p] != leader {
				moved++
			}
		}
	})
	f.injected = moved
	if refused.Hits() == 0 {
		t.Error("nothing was produced or fetched meanwhile")
	}
	f.judge(check.Expect{})
}

// leaders are those of the partitions of orders.
func (f *trial) leaders() map[int32]int32 {
	all := map[int32]int32{}
	for _, p := range f.cluster.PartitionInfos("orders") {
		all[p.Partition] = p.Leader
	}
	return all
}

// The broker writes the records and answers that it did not get to the end in time. The
// producer sends them again, and the broker knows them by their number.
func TestF13_a_timeout_behind_the_append_makes_no_duplicate(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	var n atomic.Int64
	third := func(kmsg.Request) bool { return n.Add(1)%3 == 0 }
	fault := f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, When: third, Count: -1})
	f.trade(size(40, 2000))
	f.settle()
	f.quiet()
	fault.Remove()
	f.injected = fault.Hits()
	f.wantNoDuplicates(f.judge(check.Expect{}))
}

func (f *trial) wantNoDuplicates(facts *check.Facts) {
	f.Helper()
	if n := facts.Duplicates(); len(n) > 0 {
		f.Errorf("duplicates on the wire: %v", n)
	}
}

// The answer to a request that was carried out is lost with its connection.
func TestF14_a_lost_answer_makes_no_duplicate(t *testing.T) {
	t.Parallel()
	cut := &cutter{every: 4}
	f := openTrial(t, nil, kfake.ListenFn(cut.listen))
	cut.on.Store(true)
	f.trade(size(40, 2000))
	f.settle()
	f.quiet()
	cut.on.Store(false)
	f.injected = int(cut.cuts.Load())
	f.wantNoDuplicates(f.judge(check.Expect{}))
}

// cutter closes connections in place of writing the answer to a produce request.
type cutter struct {
	every int64
	on    atomic.Bool
	seen  atomic.Int64
	cuts  atomic.Int64
}

func (c *cutter) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return &cutListener{l, c}, err
}

type cutListener struct {
	net.Listener
	c *cutter
}

func (l *cutListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: conn, c: l.c, lost: map[uint32]bool{}}, nil
}

// cutConn reads along: a request's length, key, version and correlation ID, and a response's
// length and correlation ID.
type cutConn struct {
	net.Conn
	c *cutter

	mu   sync.Mutex
	head []byte          // what is known of the request's first 12 bytes
	left int             // of the request, behind the head
	lost map[uint32]bool // requests that are to get no answer
}

func (c *cutConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := p[:n]; len(b) > 0; {
		if c.left > 0 {
			skip := min(c.left, len(b))
			c.left, b = c.left-skip, b[skip:]
			continue
		}
		take := min(12-len(c.head), len(b))
		c.head, b = append(c.head, b[:take]...), b[take:]
		if len(c.head) == 12 {
			c.request(c.head)
			c.left, c.head = int(binary.BigEndian.Uint32(c.head))-8, nil
		}
	}
	return n, err
}

func (c *cutConn) request(head []byte) {
	key, correlation := int16(binary.BigEndian.Uint16(head[4:])), binary.BigEndian.Uint32(head[8:])
	if kmsg.Key(key) == kmsg.Produce && c.c.on.Load() && c.c.seen.Add(1)%c.c.every == 0 {
		c.lost[correlation] = true
	}
}

func (c *cutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	lost := len(p) >= 8 && c.lost[binary.BigEndian.Uint32(p[4:])]
	c.mu.Unlock()
	if lost {
		c.c.cuts.Add(1)
		return 0, c.Close()
	}
	return c.Conn.Write(p)
}

// The groups' coordinator moves, and says now and then that it is none.
func TestF15_coordinators_move_and_commits_go_on(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	var n atomic.Int64
	some := func(kmsg.Request) bool { return n.Add(1)%3 == 0 }
	away := f.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit, kmsg.Heartbeat}, Err: kerr.NotCoordinator, When: some, Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.FindCoordinator, kmsg.OffsetFetch}, Err: kerr.CoordinatorNotAvailable, When: some, Count: -1},
	)
	f.during(size(40, 2000), 10, size(100*time.Millisecond, 500*time.Millisecond), func(int) { f.cluster.RehashCoordinators() })
	away.Remove()
	f.injected = away.Hits() + f.rounds
	healed := time.Now()
	f.quiet()
	if took := time.Since(healed); took > 10*time.Second {
		t.Errorf("the groups were up to date %v after the last move, want 10s at most", took)
	}
	f.judge(check.Expect{})
}

// Commits are refused, as of a member that the group has thrown out. What was refused is
// dropped or committed again, and no committed offset goes back.
func TestF34_a_refused_commit_never_rewinds(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	watch := f.watchCommits()
	half := func() func(kmsg.Request) bool {
		var n atomic.Int64
		return func(kmsg.Request) bool { return n.Add(1)%2 == 0 }
	}
	commits := f.cluster.Fault(
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.IllegalGeneration, When: half(), Count: -1},
		kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownMemberID, When: half(), Count: -1},
	)
	f.during(size(40, 1000), 4, 500*time.Millisecond, func(round int) {
		// Now and then the heartbeat says so too, and the member has to join again.
		f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Heartbeat}, Group: services[round%3], Err: kerr.UnknownMemberID, TopLevel: true})
	})
	commits.Remove()
	f.injected = commits.Hits()
	f.judge(check.Expect{})
	if seen := watch(); seen < 10 {
		t.Errorf("only %d committed offsets were seen", seen)
	}
}

// watchCommits looks at the groups' committed offsets all the time, and complains about one
// that goes back. stop ends it and returns how many changes it has seen.
func (f *trial) watchCommits() (stop func() (seen int)) {
	admin, done := f.admin()
	over, ended := make(chan struct{}), make(chan struct{})
	seen := 0
	go func() {
		defer close(ended)
		defer done()
		last := map[string]int64{}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			for _, group := range services {
				offsets, err := admin.FetchOffsets(f.Context(), group)
				if err != nil {
					continue
				}
				offsets.Each(func(o kadm.OffsetResponse) {
					at := group + " " + o.Topic + " " + itoa(int64(o.Partition))
					if o.At < last[at] {
						f.Errorf("the committed offset of %s went from %d back to %d", at, last[at], o.At)
					}
					if o.At != last[at] {
						seen++
					}
					last[at] = o.At
				})
			}
			select {
			case <-over:
				return
			case <-tick.C:
			}
		}
	}()
	return func() int {
		close(over)
		<-ended
		return seen
	}
}

// A handler takes longer than twice the time that a rebalance gives its members. The member is
// thrown out in the middle of its work, and what it finishes later changes nothing.
func TestF33_a_handler_slower_than_two_rebalances_is_fenced(t *testing.T) {
	t.Parallel()
	f := newTrial(t, nil)
	const rebalance = time.Second
	f.cfg.Tune = func(cfg any) {
		if c, ok := cfg.(*inventory.Config); ok { // which hears of a rebalance by its heartbeat
			c.Kafka.Opts = append(c.Kafka.Opts, kgo.HeartbeatInterval(rebalance/5))
		}
	}
	f.cluster.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.cluster.KeepControl()
		if join, ok := req.(*kmsg.JoinGroupRequest); ok {
			join.RebalanceTimeoutMillis = int32(rebalance.Milliseconds())
		}
		return nil, nil, false
	})
	f.start()
	f.stockUp()
	watch := f.watchCommits()
	f.trade(size(10, 100))
	for range size(1, 10) {
		if _, err := f.cluster.WaitGroupStable(t.Context(), "inventory", 1); err != nil {
			t.Fatal(err)
		}
		member := f.cluster.GroupInfo("inventory").Members[0].MemberID
		release := f.hold("inventory") // its handlers wait for the database
		var all sync.WaitGroup
		all.Go(func() { f.trade(size(20, 100)) })
		eventually(t, "records are in the handler's hands", func() bool {
			ends := f.ends("orders")["orders"]
			for _, end := range ends {
				if end > 5 {
					return true
				}
			}
			return false
		})
		held := time.Now()
		// The first newcomer is to get partitions that are in those hands; the second one's
		// rebalance is not answered.
		leave := f.visitor("inventory", "orders")
		if _, err := f.cluster.WaitGroupStable(t.Context(), "inventory", 2); err != nil {
			t.Fatal(err)
		}
		visitors := []func(){leave, f.visitor("inventory", "orders")}
		last := time.Now()
		eventually(t, "the group goes on without its slow member", func() bool {
			if time.Since(last) > 5*rebalance { // on a busy machine it is the visitors that are thrown out
				visitors, last = append(visitors, f.visitor("inventory", "orders")), time.Now()
			}
			return !slices.ContainsFunc(f.cluster.GroupInfo("inventory").Members, func(m kfake.GroupMember) bool { return m.MemberID == member })
		})
		<-time.After(time.Until(held.Add(2*rebalance + rebalance/10)))
		f.injected++
		for _, leave := range visitors {
			leave()
		}
		release()
		all.Wait()
		f.rounds++
	}
	f.settle()
	f.quiet()
	watch()
	f.judge(check.Expect{})
}

// visitor joins a group, takes what partitions it is given, commits nothing, and leaves.
func (f *trial) visitor(group, topic string) (leave func()) {
	f.Helper()
	cl := f.kafka(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(), kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.HeartbeatInterval(200*time.Millisecond))
	polled := make(chan struct{})
	go func() {
		defer close(polled)
		for !cl.PollFetches(f.Context()).IsClientClosed() && f.Context().Err() == nil {
		}
	}()
	return func() {
		cl.LeaveGroup()
		cl.Close()
		<-polled
	}
}
