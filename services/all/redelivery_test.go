package all_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
)

// state is what a shop has done, as far as anybody can see it.
type state struct {
	Orders    map[string]order
	Ledgers   map[string][]sent
	Stock     stock
	Movements []movement
	Facts     map[string]int // by topic and ID
}

func (s *shop) state(sku string, orders []accepted) (st state) {
	s.Helper()
	st = state{Orders: map[string]order{}, Ledgers: map[string][]sent{}, Stock: s.stock(sku), Movements: s.movements(sku), Facts: map[string]int{}}
	for _, o := range orders {
		st.Orders[o.OrderID], st.Ledgers[o.OrderID] = s.get(o.OrderID), s.ledger(o.OrderID)
	}
	for _, topic := range topics {
		for _, f := range s.facts(topic) {
			st.Facts[topic+" "+f.id]++
		}
	}
	return st
}

// openKept starts a shop that keeps its data over a stop, on a broker beside it.
func openKept(t testing.TB) *shop {
	t.Helper()
	vars, data := map[string]string{}, t.TempDir() // which is removed after the stop
	if real["KAFKA_BROKERS"] == "" {
		vars["KAFKA_BROKERS"] = broker(t, 0).Addr()
	}
	s := prepare(t, vars)
	s.cfg.Data = data
	s.start()
	return s
}

// broker starts an embedded Kafka that has the shop's topics.
func broker(t testing.TB, port int) *embedded.Kafka {
	t.Helper()
	var topics []embedded.Topic
	for _, topic := range schemas.Topics() {
		topics = append(topics, embedded.Topic(topic))
	}
	k, err := embedded.StartKafka(embedded.KafkaConfig{Port: port, Topics: topics})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// business places orders that are confirmed, rejected and cancelled, and waits for their
// ends.
func (s *shop) business(sku string, n int) (orders []accepted) {
	s.Helper()
	s.receive(sku, n)
	for i := range n {
		o := s.place(line{sku, 1 + i%3, 450})
		orders = append(orders, o)
		if i%4 == 0 {
			s.cancel(o.OrderID)
		}
	}
	s.settled(orders)
	s.quiet()
	return orders
}

// TestEffectOnce_redelivery is promise 4: every group reads all topics again from the start,
// and nothing happens a second time.
func TestEffectOnce_redelivery(t *testing.T) {
	parallel(t)
	s := openKept(t)
	sku := newSKU("tea")
	orders := s.business(sku, 30)
	s.check(orders...)
	before := s.state(sku, orders)

	s.stop()
	s.rewind()
	s.start()
	s.quiet()

	if diff := cmp.Diff(before, s.state(sku, orders)); diff != "" {
		t.Errorf("the redelivery has changed something (-before +after):\n%s", diff)
	}
	if mails := s.Mailbox().Messages(); len(mails) > 0 { // the mailbox is new
		t.Errorf("the redelivery has sent %d mails: %q", len(mails), subjects(mails))
	}
	for service, topic := range map[string]string{"inventory": "orders", "email": "orders", "order": "inventory"} {
		if again := s.metric(service, "inbox_duplicates_total"); again == 0 {
			t.Errorf("%s has not seen one record of %s again: the test has no teeth", service, topic)
		}
	}
}

// TestEffectOnce_republication writes every record a second time, as a relay does that has
// died before it noted what it had published.
func TestEffectOnce_republication(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku := newSKU("tea")
	orders := s.business(sku, 30)
	before, mails := s.state(sku, orders), len(s.Mailbox().Messages())
	var twins []*kgo.Record
	for _, topic := range []string{schemas.TopicOrders, schemas.TopicInventory} {
		for _, r := range s.dump(topic) {
			twins = append(twins, &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers})
		}
	}
	rand.Shuffle(len(twins), func(i, j int) { twins[i], twins[j] = twins[j], twins[i] })
	s.write(twins...)
	s.quiet()

	after := s.state(sku, orders)
	for id, n := range after.Facts {
		if id := strings.Fields(id); id[0] != schemas.TopicEmails && n != 2 {
			t.Errorf("%s is there %d times, want twice", id, n)
		}
		after.Facts[id] = before.Facts[id]
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the second sight has changed something (-before +after):\n%s", diff)
	}
	if got := len(s.Mailbox().Messages()); got != mails {
		t.Errorf("%d mails, %d before", got, mails)
	}
	s.check(orders...)
}

// metric sums a metric of a service over its labels.
func (s *shop) metric(service, name string) (sum float64) {
	s.Helper()
	return s.metricAt(s.URLs.HTTP+"/"+service, name)
}

// metricAt is metric by the address of the service itself.
func (s *shop) metricAt(base, name string) (sum float64) {
	s.Helper()
	for line := range strings.Lines(s.sendTo(base, "GET", "/metrics", nil).want(s, 200).body) {
		var value float64
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		if _, err := fmt.Sscan(line[strings.LastIndexByte(strings.TrimSpace(line), ' '):], &value); err != nil {
			s.Fatalf("%v in %q", err, line)
		}
		sum += value
	}
	return sum
}
