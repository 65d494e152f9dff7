//go:build synctests

package sim_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// poisonKey begins the keys of records that are no events.
const poisonKey = "poison-"

// kind is a kind of fault. do makes one happen and returns when it is over; ctx ends when the
// shop heals.
type kind struct {
	name string
	do   func(w *world, ctx context.Context)
}

var kinds = []kind{
	{"crash", (*world).crash},
	{"crash at a commit", (*world).crashAtCommit},
	{"restart", (*world).restart},
	{"second replica", (*world).secondReplica},
	{"cut of a service", (*world).cutService},
	{"cut of a broker", (*world).cutBroker},
	{"broker down", (*world).brokerDown},
	{"lost answers", (*world).loseAnswers},
	{"broker errors", (*world).brokerErrors},
	{"leader moves", (*world).moveLeaders},
	{"coordinator moves", (*world).moveCoordinators},
	{"process stands still", (*world).stall},
	{"slow database", (*world).slowDatabase},
	{"broken database", (*world).breakDatabase},
	{"failing handlers", (*world).failHandlers},
	{"lost commits", (*world).loseCommits},
	{"clock jump", (*world).jump},
	{"duplicates", (*world).duplicate},
	{"poison", (*world).poison},
	{"registry away", (*world).registryAway},
	{"mail trouble", (*world).mailTrouble},
	{"trim", (*world).trim},
	{"impatient operator", (*world).impatient},
}

// breakThings lets kinds of faults happen that the seed has chosen, until ctx ends.
func (w *world) breakThings(ctx context.Context) {
	var chosen []kind
	some := 0.1 + 0.4*float64(w.dice.n(3))
	for _, k := range kinds {
		if yes := w.dice.chance(some); *onlyFlag == "" && yes || slices.Contains(strings.Split(*onlyFlag, ","), k.name) {
			chosen = append(chosen, k)
		}
	}
	if *onlyFlag == "none" || len(chosen) == 0 {
		return
	}
	pace := w.dice.between(100*time.Millisecond, 3*time.Second)
	for _, k := range chosen {
		w.log.line("sim", "faults: %s", k.name)
	}
	w.faults.Go(func() {
		for w.pause(ctx, w.dice.between(0, pace)) == nil {
			k := chosen[w.dice.n(len(chosen))]
			w.faults.Go(func() {
				w.log.line("fault", "%s", k.name)
				k.do(w, ctx)
			})
			w.watch.lag() // no offset goes back
		}
	})
}

// repair waits for the faults to end and undoes what they left.
func (w *world) repair() {
	w.faults.Wait()
	for _, h := range w.kafka.hosts {
		w.net.setDown(h, false)
	}
	for _, s := range services {
		w.databases[s].set(func(d *database) { d.slow, d.broken, d.skew, d.fails = 0, time.Time{}, 0, 0 })
	}
	w.mu.Lock()
	for _, p := range w.alive {
		p.mu.Lock()
		p.forget = 0 // else a batch may lose its next five commits, half a minute apart
		p.mu.Unlock()
	}
	w.mu.Unlock()
	w.registry.set(time.Time{}, false)
	w.mail.feel(func() mood { return mood{} })
}

// someone is a process of any service that lives; nil if none does.
func (w *world) someone() *process {
	names := w.names()
	if len(names) == 0 {
		return nil
	}
	name := names[w.dice.n(len(names))]
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alive[name]
}

// again starts a replica after some time, if nobody else has.
func (w *world) again(ctx context.Context, p *process) {
	_ = w.pause(ctx, w.dice.between(0, 5*time.Second))
	if strings.HasSuffix(p.name, "-0") && w.living(p.service, 0) == nil {
		w.start(p.service, 0)
	}
}

func (w *world) crash(ctx context.Context) {
	if p := w.someone(); p != nil {
		w.mayRepeat(p.service)
		p.crash("at any time")
		w.again(ctx, p)
	}
}

// mayRepeat allows mails to come again: so many may be under way.
func (w *world) mayRepeat(service string) {
	if service == "email" {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.repeats += 16
	}
}

func (w *world) crashAtCommit(ctx context.Context) {
	p := w.someone()
	if p == nil {
		return
	}
	w.mayRepeat(p.service)
	p.setTrap([]point{beforeCommit, afterCommit}[w.dice.n(2)], 1+w.dice.n(10))
	for !p.isDead() && ctx.Err() == nil {
		_ = w.pause(ctx, 50*time.Millisecond)
	}
	p.setTrap(nowhere, 0)
	w.again(ctx, p)
}

func (w *world) restart(ctx context.Context) {
	p := w.someone()
	if p == nil {
		return
	}
	w.log.count("restart")
	w.log.line("fault", "%s is stopped", p.name)
	w.mayRepeat(p.service)
	_ = p.stop() // with what is broken around it, it need not be clean
	w.again(ctx, p)
}

// secondReplica lets a second replica of a service join for some time.
func (w *world) secondReplica(ctx context.Context) {
	s := services[w.dice.n(len(services))]
	w.mu.Lock()
	taken := w.alive[s+"-1"] != nil || w.joining[s]
	w.joining[s] = true
	w.mu.Unlock()
	if taken {
		return
	}
	w.log.count("second replica")
	p := w.start(s, 1)
	_ = w.pause(ctx, w.dice.between(0, 15*time.Second))
	w.mayRepeat(s)
	if w.dice.chance(0.5) {
		p.crash("of a second replica")
	} else {
		_ = p.stop()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.joining[s] = false
}

func (w *world) cutService(context.Context) {
	p := w.someone()
	if p == nil {
		return
	}
	w.mayRepeat(p.service)
	n := w.net.cut(func(k *link) bool { return (k.from == p.host || k.to == p.host) && w.dice.chance(0.7) })
	for range n {
		w.log.count("connection cut")
	}
}

func (w *world) broker() *host { return w.kafka.hosts[w.dice.n(len(w.kafka.hosts))] }

func (w *world) cutBroker(context.Context) {
	h := w.broker()
	for range w.net.cut(func(k *link) bool { return k.to == h }) {
		w.log.count("connection cut")
	}
}

func (w *world) brokerDown(ctx context.Context) {
	hosts := []*host{w.broker()}
	if w.dice.chance(0.2) {
		hosts = w.kafka.hosts
	}
	w.log.count("broker down")
	for _, h := range hosts {
		w.net.setDown(h, true)
	}
	_ = w.pause(ctx, w.dice.between(100*time.Millisecond, 15*time.Second))
	for _, h := range hosts {
		w.net.setDown(h, false)
	}
}

// loseAnswers breaks connections to brokers when an answer is due: the request has had its
// effect, and nobody knows.
func (w *world) loseAnswers(ctx context.Context) {
	only := []kmsg.Key{-1, kmsg.Produce, kmsg.OffsetCommit, kmsg.JoinGroup, kmsg.SyncGroup}[w.dice.n(5)]
	for range 1 + w.dice.n(5) {
		w.net.mu.Lock()
		for _, k := range w.net.links {
			if strings.HasPrefix(k.to.name, "kafka") && (only < 0 || k.lastKey == int16(only)) {
				k.lose = true
				break
			}
		}
		w.net.mu.Unlock()
		if w.pause(ctx, w.dice.between(0, 500*time.Millisecond)) != nil {
			return
		}
	}
}

func (w *world) brokerErrors(ctx context.Context) {
	choices := []struct {
		keys []kmsg.Key
		errs []*kerr.Error
	}{
		{[]kmsg.Key{kmsg.Produce}, []*kerr.Error{kerr.NotLeaderForPartition, kerr.RequestTimedOut, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.LeaderNotAvailable, kerr.KafkaStorageError}},
		{[]kmsg.Key{kmsg.Fetch}, []*kerr.Error{kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.OffsetNotAvailable, kerr.UnknownServerError}},
		{[]kmsg.Key{kmsg.OffsetCommit}, []*kerr.Error{kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.RequestTimedOut, kerr.UnknownMemberID, kerr.IllegalGeneration, kerr.RebalanceInProgress}},
		{[]kmsg.Key{kmsg.OffsetFetch}, []*kerr.Error{kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.UnstableOffsetCommit}},
		{[]kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat}, []*kerr.Error{kerr.NotCoordinator, kerr.CoordinatorLoadInProgress, kerr.UnknownMemberID, kerr.RebalanceInProgress, kerr.IllegalGeneration}},
		{[]kmsg.Key{kmsg.FindCoordinator}, []*kerr.Error{kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress}},
		{[]kmsg.Key{kmsg.InitProducerID}, []*kerr.Error{kerr.CoordinatorLoadInProgress, kerr.NotCoordinator, kerr.ConcurrentTransactions}},
		{[]kmsg.Key{kmsg.ListOffsets}, []*kerr.Error{kerr.NotLeaderForPartition, kerr.OffsetNotAvailable}},
	}
	c := choices[w.dice.n(len(choices))]
	err := c.errs[w.dice.n(len(c.errs))]
	w.log.line("fault", "%s answers %s", c.keys[0].Name(), err.Message)
	// Real brokers give OffsetFetch's errors by group, where kfake has none.
	top := w.dice.chance(0.5) && c.keys[0] != kmsg.OffsetFetch
	f := w.kafka.Fault(kfake.Fault{Keys: c.keys, Err: err, Count: 1 + w.dice.n(8), TopLevel: top})
	_ = w.pause(ctx, w.dice.between(time.Second, 10*time.Second))
	f.Remove()
	for range f.Hits() {
		w.log.count("broker error " + c.keys[0].Name())
	}
}

func (w *world) moveLeaders(context.Context) {
	w.log.count("leaders moved")
	w.kafka.ShufflePartitionLeaders()
}

func (w *world) moveCoordinators(context.Context) {
	w.log.count("coordinators moved")
	w.kafka.RehashCoordinators()
}

// stall stops a process for a while, or cuts it off from everybody, which looks the same.
func (w *world) stall(ctx context.Context) {
	p := w.someone()
	if p == nil {
		return
	}
	d := w.dice.between(500*time.Millisecond, 40*time.Second)
	w.log.count("process stands still")
	w.log.line("fault", "%s stands still for %v", p.name, d)
	w.mayRepeat(p.service)
	w.net.hold(p.host, d)
}

func (w *world) slowDatabase(ctx context.Context) {
	s := services[w.dice.n(len(services))]
	slow := w.dice.between(5*time.Millisecond, 3*time.Second)
	w.log.count("slow database")
	w.mayRepeat(s)
	w.databases[s].set(func(d *database) { d.slow = slow })
	_ = w.pause(ctx, w.dice.between(time.Second, 8*time.Second))
	w.databases[s].set(func(d *database) { d.slow = 0 })
}

func (w *world) breakDatabase(ctx context.Context) {
	s := services[w.dice.n(len(services))]
	w.log.count("broken database")
	w.mayRepeat(s)
	until := time.Now().Add(w.dice.between(10*time.Millisecond, 8*time.Second))
	w.databases[s].set(func(d *database) { d.broken = until })
}

// failHandlers lets statements of a service's own code fail for some time.
func (w *world) failHandlers(ctx context.Context) {
	s := services[w.dice.n(len(services))]
	often := []float64{0.05, 0.3, 1}[w.dice.n(3)]
	w.mayRepeat(s)
	w.databases[s].set(func(d *database) { d.fails = often })
	_ = w.pause(ctx, w.dice.between(500*time.Millisecond, 8*time.Second))
	w.databases[s].set(func(d *database) { d.fails = 0 })
}

func (w *world) loseCommits(context.Context) {
	if p := w.someone(); p != nil {
		w.mayRepeat(p.service)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.forget = 1 + w.dice.n(5)
	}
}

// jump sets the clock of a database forward or back for some time.
func (w *world) jump(ctx context.Context) {
	s := services[w.dice.n(len(services))]
	by := w.dice.between(time.Second, 50*time.Second)
	if w.dice.chance(0.5) {
		by = -by
	}
	w.log.count("clock jump")
	w.log.line("fault", "the clock of %s jumps by %v", s, by)
	w.mayRepeat(s)
	w.databases[s].set(func(d *database) { d.skew = by })
	_ = w.pause(ctx, w.dice.between(time.Second, 10*time.Second))
	w.databases[s].set(func(d *database) { d.skew = 0 })
}

// produce writes records as a foreign producer.
func (w *world) produce(ctx context.Context, records ...*kgo.Record) error {
	cl := w.kafka.client(&host{name: "stranger"}, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	defer cl.Close()
	return cl.ProduceSync(context.WithoutCancel(ctx), records...).FirstErr()
}

// duplicate writes records again that are there already.
func (w *world) duplicate(ctx context.Context) {
	seen := w.watch.seen()
	if len(seen) == 0 {
		return
	}
	w.mu.Lock()
	w.duplicating++
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.duplicating--
	}()
	from := w.dice.n(len(seen))
	var again []*kgo.Record
	for _, r := range seen[from:min(len(seen), from+1+w.dice.n(20))] {
		if !strings.HasPrefix(string(r.Key), poisonKey) && r.Offset >= w.kafka.start(r.Topic, r.Partition) {
			again = append(again, &kgo.Record{Topic: r.Topic, Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers})
		}
	}
	if err := w.produce(ctx, again...); err == nil {
		for range again {
			w.log.count("duplicate written")
		}
	}
}

// handles are the types that a service handles.
var handles = map[string]map[string]bool{
	"order":     {"StockReserved": true, "StockRejected": true, "StockReleased": true},
	"inventory": {"OrderPlaced": true, "OrderCancelled": true},
	"email":     {"OrderPlaced": true, "OrderConfirmed": true, "OrderRejected": true, "OrderCancelled": true},
}

// poison writes a record that is no event.
func (w *world) poison(ctx context.Context) {
	key := fmt.Sprintf("%s%d", poisonKey, w.crowd.number())
	topic := topics[w.dice.n(2)]
	typ := "" // of a cut event: those who do not handle it do not look further
	r := &kgo.Record{Topic: topic, Partition: int32(w.dice.n(6)), Key: []byte(key), Value: [][]byte{nil, {}, []byte("no event"), {0, 0, 0, 0, 99}}[w.dice.n(3)]}
	if seen := w.watch.seen(); len(seen) > 0 && w.dice.chance(0.5) {
		if of := seen[w.dice.n(len(seen))]; len(of.Value) > 8 && of.Topic == topic {
			r.Value, r.Headers = of.Value[:len(of.Value)-1-w.dice.n(3)], of.Headers // a cut event, with the other's ID
			typ = header(of, "ce_type")
		}
	}
	if err := w.produce(ctx, r); err != nil {
		w.complain("SIM: poison: %v", err)
		return
	}
	w.log.count("poison")
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range services {
		if consumed[s] == topic && (typ == "" || handles[s][typ[strings.LastIndexByte(typ, '.')+1:]]) {
			w.poisoned = append(w.poisoned, check.Waiting{Group: s, Topic: topic, Key: key, Reason: "undecodable"})
		}
	}
}

func (w *world) registryAway(ctx context.Context) {
	w.registry.set(time.Now().Add(w.dice.between(time.Second, 15*time.Second)), w.dice.chance(0.5))
}

func (w *world) mailTrouble(ctx context.Context) {
	p := []float64{0.1, 0.5, 1}[w.dice.n(3)]
	what := w.dice.n(6)
	w.mail.feel(func() mood {
		if !w.dice.chance(p) {
			return mood{}
		}
		switch what {
		case 0:
			return mood{greeting: "421 closing"}
		case 1:
			return mood{answer: "451 try later"}
		case 2:
			return mood{answer: "550 never"}
		case 3:
			w.mayRepeat("email")
			return mood{drop: true, taken: w.dice.chance(0.5)}
		case 4:
			w.mayRepeat("email")
			return mood{slow: w.dice.between(0, 20*time.Second)}
		}
		return mood{greeting: "554 no service"}
	})
	_ = w.pause(ctx, w.dice.between(time.Second, 10*time.Second))
	w.mail.feel(func() mood { return mood{} })
}

// trim removes records that everybody has read and committed, as retention does. An effect
// is once for as long as its event can be read, so nothing may be left that could bring an
// event back afterwards: retention is longer than any relay stands still.
func (w *world) trim(context.Context) {
	topic := topics[w.dice.n(2)]
	if w.mayComeBack(topic) {
		return
	}
	for _, p := range w.kafka.PartitionInfos(topic) {
		// Of an empty log these brokers would say that it has lost what is behind its start.
		least := min(w.watch.position(topic, p.Partition), p.HighWatermark-1)
		for _, s := range services {
			if consumed[s] != topic {
				continue
			}
			committed := int64(0)
			if info := w.kafka.GroupInfo(s); info != nil {
				if c, ok := info.Commits[topic][p.Partition]; ok {
					committed = c.Offset
				}
			}
			least = min(least, committed)
		}
		if least > 0 && w.dice.chance(0.5) {
			if err := w.kafka.DeleteRecords(topic, p.Partition, least); err == nil {
				w.log.count("partition trimmed")
			}
		}
	}
}

// mayComeBack is whether some event is under way that the topic has already. Who has taken it
// may stand still with it: there the inbox's mark is all that helps.
func (w *world) mayComeBack(topic string) bool {
	producer := map[string]string{schemas.TopicOrders: "order", schemas.TopicInventory: "inventory"}[topic]
	if w.count(producer, "outbox") > 0 {
		return true
	}
	for _, s := range services {
		if consumed[s] == topic && w.watch.lag()[s] > 0 {
			return true
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.alive[producer+"-0"]
	return w.duplicating > 0 || w.alive[producer+"-1"] != nil || p == nil || time.Now().Before(w.net.heldHost(p.host))
}

// impatient redrives dead letters while everything is broken.
func (w *world) impatient(context.Context) { w.redriveAll() }
