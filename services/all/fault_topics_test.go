package all_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/kafka/kafkatest"
	"example.com/keyline/schemas"
	"example.com/keyline/services/all"
	"example.com/keyline/services/all/check"
	"example.com/keyline/services/email"
	"example.com/keyline/services/inventory"
	orders "example.com/keyline/services/order"
)

// An order of 100 lines is an event that the broker refuses: its key is held back, and no
// other. When the broker takes it, all goes on.
func TestF16_an_event_too_large_holds_its_key_only(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	limit := func(bytes string) {
		t.Helper()
		admin, done := f.admin()
		defer done()
		answers, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &bytes}}, schemas.TopicOrders)
		if err != nil || answers[0].Err != nil {
			t.Fatal(err, answers)
		}
	}
	huge := draftOf()
	for i := range 100 {
		huge.Lines = append(huge.Lines, line{itoa(int64(i)) + rand.Text() + rand.Text(), 1, 1}) // nobody has them
	}
	limit("4000")
	var held []string
	for range size(2, 4) { // five in a row are taken for brokers that take nothing
		held = append(held, f.orderOf(huge).OrderID)
	}
	eventually(t, "they are held back", func() bool { return f.metric("order", "outbox_held") == float64(len(held)) })
	f.trade(size(30, 1000))
	f.settle(held...)
	for _, id := range held {
		if got := f.get(id); got.Status != "pending" || len(f.factsOf(schemas.TopicOrders, id)) > 0 {
			t.Errorf("order %s is %s while its event cannot be published", id, got.Status)
		}
	}
	if !f.logged("level=ERROR", "event cannot be published, those behind it are held back", "MESSAGE_TOO_LARGE") {
		t.Error("the log does not say so")
	}
	f.injected = len(held)
	limit("1000000")
	f.settle()
	f.judge(check.Expect{})

	a := f.send("POST", "/v1/orders", manyLines(10_000, `,"quantity":1,"unit_price_cents":1`), "Idempotency-Key", newKey())
	a.want(t, http.StatusRequestEntityTooLarge)
}

// Two topics are not there when the shop opens, since it must not make them. Orders are taken
// and wait; when the topics are there, nothing is missing.
func TestF17_a_missing_topic_loses_nothing(t *testing.T) {
	t.Parallel()
	f := newTrial(t, nil)
	missing := []string{schemas.TopicOrders, schemas.TopicEmails}
	var forbidden []*kfake.FaultHandle
	for _, topic := range missing {
		forbidden = append(forbidden, f.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1}))
	}
	base := f.tuneAddresses()
	opened, ended := f.run() // not before all services have joined their groups
	eventually(t, "the order service is ready", func() bool {
		a, err := f.try(base("order"), "GET", "/readyz", nil)
		return err == nil && a.status == http.StatusOK
	})
	f.Shop = &all.Shop{URLs: all.URLs{HTTP: base("order")}}
	for range size(20, 500) {
		f.order(line{f.articles[f.chance.IntN(len(f.articles))], 1, 450})
	}
	eventually(t, "the relay holds the topic back, and says so", func() bool {
		return f.metricAt(base("order"), "outbox_held") == 1 && f.logged("level=ERROR", "event cannot be published", "topic=orders", "whole_topic=true")
	})
	for _, service := range []string{"inventory", "email"} {
		eventually(t, service+" misses it, and says so", func() bool {
			return f.metricAt(base(service), "consumer_topic_missing") == 1 && f.logged("group="+service, "topic=orders", "topic does not exist")
		})
	}
	for i, topic := range missing {
		forbidden[i].Remove()
		f.injected += forbidden[i].Hits()
		if err := f.cluster.CreateTopic(topic, 6, nil); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			t.Fatal(err)
		}
	}
	select {
	case f.Shop = <-opened:
	case err := <-ended:
		t.Fatalf("the shop has ended: %v", err)
	case <-time.After(patience):
		t.Fatal("the shop does not open")
	}
	f.stockUp()
	f.trade(size(10, 200))
	f.settle()
	f.judge(check.Expect{})
	for _, service := range services {
		if n := f.metric(service, "outbox_held"); n > 0 {
			t.Errorf("%s still holds back %v topics", service, n)
		}
	}
}

// tuneAddresses tells where each service itself listens, once the shop runs.
func (f *trial) tuneAddresses() (base func(service string) string) {
	var mu sync.Mutex
	addresses := map[string]string{}
	f.cfg.Tune = func(cfg any) {
		mu.Lock()
		defer mu.Unlock()
		switch c := cfg.(type) {
		case *orders.Config:
			addresses["order"] = c.Service.Listener.Addr().String()
		case *inventory.Config:
			addresses["inventory"] = c.Service.Listener.Addr().String()
		case *email.Config:
			addresses["email"] = c.Service.Listener.Addr().String()
		}
	}
	return func(service string) string {
		mu.Lock()
		defer mu.Unlock()
		return "http://" + addresses[service]
	}
}

// The topic of orders is deleted and made again while the shop runs. Its groups stop loudly
// and read nothing of the new one by old offsets, until an operator lets them go on.
func TestF18_a_recreated_topic_is_not_read_by_old_offsets(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	f.trade(size(20, 500))
	f.settle()
	f.quiet()
	f.before = f.records(schemas.TopicOrders)
	if err := f.cluster.DeleteTopic(schemas.TopicOrders); err != nil {
		t.Fatal(err)
	}
	f.trade(size(5, 50)) // they wait in the outbox, or are in the new topic already
	if err := f.cluster.CreateTopic(schemas.TopicOrders, 6, nil); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatal(err)
	}
	f.trade(size(20, 500))
	groups := []string{"inventory", "email"}
	for _, service := range groups {
		var stopped []stoppedPartition
		eventually(t, service+" has stopped, and says so", func() bool {
			stopped = f.stoppedPartitions(service)
			return len(stopped) > 0 && f.logged("level=ERROR", "group="+service, "reason=topic_recreated", "next_step=") && f.metric(service, "consumer_partition_stopped") > 0
		})
		f.injected += len(stopped)
		if info := f.cluster.GroupInfo(service); len(info.Commits[schemas.TopicOrders]) > 0 {
			t.Errorf("%s has offsets in the new topic: %v", service, info.Commits)
		}
	}
	for _, service := range groups {
		f.skipAll(service, "topic_recreated", 0)
	}
	f.settle()
	f.judge(check.Expect{})
}

// stoppedPartition is a partition as the operator's route shows it.
type stoppedPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"`
	LogStart  int64  `json:"log_start"`
	Stopped   string `json:"stopped"`
	SkipTo    *int64 `json:"skip_to"`
}

func (s *shop) stoppedPartitions(service string) (stopped []stoppedPartition) {
	s.Helper()
	var list struct{ Items []stoppedPartition }
	s.sendTo(s.URLs.Admin, "GET", "/"+service+"/admin/partitions", nil).want(s, http.StatusOK).into(s, &list)
	for _, p := range list.Items {
		if p.Stopped != "" {
			stopped = append(stopped, p)
		}
	}
	return stopped
}

// skipAll lets a service's stopped partitions go on where it is offered, one after the other:
// each time its consumer joins anew. want is that place, -1 for any.
func (s *shop) skipAll(service, reason string, want int64) {
	s.Helper()
	eventually(s, service+" goes on", func() bool {
		stopped := s.stoppedPartitions(service)
		for _, p := range stopped {
			if p.Stopped != reason || p.SkipTo == nil || want >= 0 && *p.SkipTo != want {
				continue // what has just joined does not know yet
			}
			s.sendTo(s.URLs.Admin, "POST", "/"+service+"/admin/partitions/skip", map[string]any{
				"topic": p.Topic, "partition": p.Partition, "from": p.Position, "to": *p.SkipTo, "dry_run": false,
			})
		}
		return len(stopped) == 0
	})
}

// Retention passes the groups' committed offset in one partition. The loss is told with its
// exact range, that partition stops, and all others flow; the operator lets it go on.
func TestF19_retention_that_overtakes_a_group_is_told(t *testing.T) {
	t.Parallel()
	f := openTrial(t, nil)
	f.trade(size(20, 500))
	f.settle()
	f.quiet()
	f.before = f.records(schemas.TopicOrders)
	noise := f.noise(60)

	wake := kafkatest.HoldFetches(f.cluster, 10)
	ends := f.ends(schemas.TopicOrders)[schemas.TopicOrders]
	f.write(noise...)
	const lost = 3
	// A partition of which the groups have read something, and that has as much to lose.
	behind := map[int32]int64{}
	overtaken := int32(-1)
	for _, r := range noise {
		if behind[r.Partition]++; ends[r.Partition] > 0 && behind[r.Partition] >= lost {
			overtaken = r.Partition
		}
	}
	from := ends[overtaken]
	if err := f.cluster.DeleteRecords(schemas.TopicOrders, overtaken, from+lost); err != nil {
		t.Fatal(err)
	}
	f.starts = offsets{schemas.TopicOrders: ends}
	f.starts[schemas.TopicOrders][overtaken] = from + lost
	wake()

	groups := []string{"inventory", "email"}
	for _, service := range groups {
		eventually(t, service+" tells the loss", func() bool {
			return f.logged("level=ERROR", "partition stopped, no record is skipped", "group="+service, "reason=offset_out_of_range",
				"partition="+itoa(int64(overtaken)), "lost_from="+itoa(from)+" lost_to="+itoa(from+lost-1)) &&
				f.metric(service, "consumer_records_lost_total") == lost && f.metric(service, "consumer_partition_stopped") == 1
		})
		f.injected += lost
	}
	f.trade(size(24, 500))
	var waiting []string
	for _, r := range f.requests { // those in the other partitions settle
		if !r.Cancel && f.partitionOf(r.OrderID) == overtaken {
			waiting = append(waiting, r.OrderID)
		}
	}
	f.settle(waiting...)
	for _, service := range groups {
		p := f.stoppedPartitions(service)[0]
		if p.Position != from || p.SkipTo == nil || *p.SkipTo != from+lost {
			t.Errorf("%s offers to go on from %d at %v, want from %d at %d", service, p.Position, p.SkipTo, from, from+lost)
		}
		a := f.sendTo(f.URLs.Admin, "POST", "/"+service+"/admin/partitions/skip", map[string]any{"topic": p.Topic, "partition": p.Partition, "from": from - 1, "to": from + lost, "dry_run": false})
		a.want(t, http.StatusConflict) // it is not what somebody has looked at
		// As if the log had been cut, too: what comes next stands where old records stood.
		f.raiseMark(service, overtaken, from+1000)
		f.skipAll(service, "offset_out_of_range", from+lost)
	}
	f.settle()
	f.judge(check.Expect{Foreign: true})
}

// Somebody sets the groups' offsets on to the end while they are stopped, with Kafka's own tools:
// what that leaves out is told to the record, though most of what inventory reads it ignores.
func TestOffsets_that_were_set_on_from_outside_are_told(t *testing.T) {
	t.Parallel()
	f := openLasting(t, nil)
	f.trade(size(20, 20))
	f.settle()
	f.quiet()
	noise := f.noise(60)
	f.stop()
	admin, done := f.admin()
	defer done()
	groups := []string{"inventory", "email"}
	before := f.ends(schemas.TopicOrders)[schemas.TopicOrders]
	f.write(noise...)
	listed, err := admin.ListEndOffsets(t.Context(), schemas.TopicOrders)
	for _, group := range groups {
		if err == nil {
			err = admin.CommitAllOffsets(t.Context(), group, listed.Offsets())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	f.start()
	for _, group := range groups {
		for partition, from := range before {
			end, _ := listed.Lookup(schemas.TopicOrders, partition)
			if end.Offset == from {
				continue
			}
			line := []string{"level=ERROR", "set from outside: records are left out", "group=" + group, "partition=" + itoa(int64(partition)),
				fmt.Sprintf("lost_from=%d lost_to=%d", from, end.Offset-1), "next_step="}
			eventually(t, fmt.Sprint("the log has ", line), func() bool { return f.logged(line...) })
		}
		if got := f.metric(group, "consumer_records_lost_total"); got != float64(len(noise)) {
			t.Errorf("consumer_records_lost_total of %s: got %v, want %d", group, got, len(noise))
		}
	}
	f.trade(4)
	f.settle()
	f.quiet()
	if f.logged("set from outside", "group=order") {
		t.Error("the offsets of order were set by nobody")
	}
}

// raiseMark makes a service take all records of a partition of orders that stand below a
// position for old ones.
func (f *trial) raiseMark(service string, partition int32, position int64) {
	f.Helper()
	d, err := db.Open(db.Config{URL: f.databaseURL(service)})
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	topicID := f.cluster.TopicInfo(schemas.TopicOrders).TopicID
	_, err = d.Exec(f.Context(), `insert into inbox_mark (group_name, topic_id, part, position) values ($1, $2, $3, $4)
		on conflict (group_name, topic_id, part) do update set position = excluded.position`, service, topicID[:], partition, position)
	if err != nil {
		f.Fatal(err)
	}
}

// partitionOf is where the events of an order are.
func (f *trial) partitionOf(orderID string) int32 {
	return int32(kgo.StickyKeyPartitioner(nil).ForTopic(schemas.TopicOrders).Partition(&kgo.Record{Key: []byte(orderID)}, 6))
}

// noise are records on the topic of orders that no group of ours handles.
func (f *trial) noise(n int) (records []*kgo.Record) {
	f.Helper()
	value := f.encode(f.registered("emails-shop.email.EmailSent", 1), map[string]any{
		"order_id": "noise", "event_id": "noise", "message_id": "noise", "kind": "confirmation", "sent_at": time.Now(),
	})
	for range n {
		records = append(records, &kgo.Record{Topic: schemas.TopicOrders, Key: []byte(newKey()), Value: value})
	}
	return records
}
