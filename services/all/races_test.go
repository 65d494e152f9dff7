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
// while inventory is away now and then and mails are refused; then every promise must hold.
func TestRaces(t *testing.T) {
	parallel(t)
	const customers, each = 10, 20
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := open(t, map[string]string{"ORDER_DEADLINE": "1s", "RETRY_MAX_BACKOFF": "100ms", "RETRY_ATTEMPTS": "1000"})
	s.Mailbox().Fail(refuseSome(seed))
	plenty, scarce := newSKU("tea"), newSKU("saffron")
	s.receive(plenty, 1_000_000)
	s.receive(scarce, 40)

	var mu sync.Mutex
	var orders []accepted
	cancels := map[string]string{}
	var all sync.WaitGroup
	for c := range customers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(c)))
			for range each {
				lines := []line{{plenty, 1 + r.IntN(5), 450}}
				if r.IntN(2) == 0 {
					lines = append(lines, line{scarce, 1 + r.IntN(4), 990})
				}
				o := s.place(lines...)
				trace := s.maybeCancel(r, o)
				mu.Lock()
				orders = append(orders, o)
				if trace != "" {
					cancels[o.OrderID] = trace
				}
				mu.Unlock()
			}
		})
	}
	all.Go(func() { // inventory is away for longer than some orders wait
		for range 2 {
			before := s.count("order", overdue)
			release := s.hold("inventory")
			eventually(t, "a deadline passes", func() bool { return s.count("order", overdue) > before })
			release()
		}
	})
	all.Wait()
	s.settled(orders)
	s.quiet()
	s.checkCancelled(cancels, orders...)

	count := map[string]int{}
	for _, o := range orders {
		got := s.get(o.OrderID)
		count[got.Status+" "+got.Reason]++
	}
	t.Logf("%d orders: %v", len(orders), count)
	if len(count) < 3 {
		t.Errorf("the run was too tame: %v", count)
	}
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
