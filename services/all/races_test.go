package all_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"
)

// TestRaces lets customers order, change their minds at any moment and order what is short,
// while mails are refused, and inventory is away for longer than some orders wait; then every
// promise must hold.
func TestRaces(t *testing.T) {
	parallel(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := open(t, map[string]string{"ORDER_DEADLINE": "1s", "RETRY_MAX_BACKOFF": "100ms", "RETRY_ATTEMPTS": "1000"})
	s.Mailbox().Fail(refuseSome(seed))
	c := &crowd{shop: s, plenty: newSKU("tea"), scarce: newSKU("saffron"), cancels: map[string]string{}}
	s.receive(c.plenty, 1_000_000)
	s.receive(c.scarce, 40)
	for i := range 10 {
		c.customers = append(c.customers, rand.New(rand.NewPCG(seed, uint64(i))))
	}

	c.order(8)
	release := s.hold("inventory")
	c.order(5)
	eventually(t, "a deadline passes", func() bool { return s.count("order", overdue) > 0 })
	go release()
	c.order(7)
	release() // at the latest
	s.settled(c.orders)
	s.quiet()
	s.checkCancelled(c.cancels, c.orders...)

	count := map[string]int{}
	for _, o := range c.orders {
		got := s.get(o.OrderID)
		count[got.Status+" "+got.Reason]++
	}
	t.Logf("%d orders: %v", len(c.orders), count)
	if len(count) < 3 {
		t.Errorf("the run was too tame: %v", count)
	}
}

// crowd are customers who order all at once.
type crowd struct {
	*shop
	plenty, scarce string
	customers      []*rand.Rand

	mu      sync.Mutex
	orders  []accepted
	cancels map[string]string // by order, the trace of the request that cancelled it
}

// order lets each customer place n orders, and cancel some.
func (c *crowd) order(n int) {
	c.Helper()
	var all sync.WaitGroup
	for _, r := range c.customers {
		all.Go(func() {
			for range n {
				lines := []line{{c.plenty, 1 + r.IntN(5), 450}}
				if r.IntN(2) == 0 {
					lines = append(lines, line{c.scarce, 1 + r.IntN(4), 990})
				}
				o := c.place(lines...)
				trace := c.maybeCancel(r, o)
				c.mu.Lock()
				c.orders = append(c.orders, o)
				if trace != "" {
					c.cancels[o.OrderID] = trace
				}
				c.mu.Unlock()
			}
		})
	}
	all.Wait()
}

// overdue are the orders that were cancelled by their deadline.
const overdue = "orders where reason = 'deadline'"

// maybeCancel cancels some orders, at once or at some step of theirs, and returns the trace
// of the request if it was that which cancelled the order.
func (s *shop) maybeCancel(r *rand.Rand, o accepted) (trace string) {
	s.Helper()
	switch r.IntN(4) {
	case 0: // at once
	case 1: // when it is likely to be confirmed
		s.send("GET", "/v1/orders/"+o.OrderID+"?wait="+fmt.Sprintf("%dms", r.IntN(50)), nil).want(s, http.StatusOK)
	default:
		return ""
	}
	before := s.get(o.OrderID).Status
	a := s.cancel(o.OrderID)
	if a.status == http.StatusConflict {
		return "" // rejected meanwhile
	}
	var answer accepted
	a.want(s, http.StatusAccepted).into(s, &answer)
	if before == "cancelled" || s.get(o.OrderID).Reason != "customer" {
		return "" // the deadline was quicker
	}
	return answer.TraceID
}

// refuseSome answers one mail in five with a passing refusal.
func refuseSome(seed uint64) func(context.Context, embedded.Mail) error {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 1<<32))
	return func(context.Context, embedded.Mail) error {
		mu.Lock()
		defer mu.Unlock()
		if r.IntN(5) == 0 {
			return tryLater
		}
		return nil
	}
}

// settled waits until every order has settled, and every cancelled one's stock is back.
func (s *shop) settled(orders []accepted) {
	s.Helper()
	for _, o := range orders {
		eventually(s, "order "+o.OrderID+" settles", func() bool {
			got := s.get(o.OrderID)
			switch got.Status {
			case "confirmed", "rejected":
				return true
			case "cancelled":
				return len(got.History) > 0 && got.History[len(got.History)-1].Step == "stock released"
			}
			return false
		})
	}
}
