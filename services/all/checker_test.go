package all_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
)

// outcomes are the ways in which an order may go, as the types of its events on `orders`,
// with the status that each ends in.
var outcomes = map[string]string{
	"OrderPlaced OrderConfirmed":                "confirmed",
	"OrderPlaced OrderRejected":                 "rejected",
	"OrderPlaced OrderCancelled":                "cancelled",
	"OrderPlaced OrderConfirmed OrderCancelled": "cancelled",
}

// checker judges a quiet shop by what it has written: all topics, the ledgers of stock and
// mails, and what it tells its customers. I1 to I5 are those of promises.
type checker struct {
	*shop
	facts   map[string][]fact // by topic; the first sight of each ID, in the order of each key
	mails   []embedded.Mail
	cancels map[string]string // the trace of each cancellation by a customer, by order
}

// check wants all invariants to hold of orders that were accepted.
func (s *shop) check(orders ...accepted) {
	s.Helper()
	s.checkCancelled(nil, orders...)
}

// checkCancelled is check with the traces of the requests that cancelled orders.
func (s *shop) checkCancelled(cancels map[string]string, orders ...accepted) {
	s.Helper()
	c := &checker{shop: s, facts: map[string][]fact{}, cancels: cancels, mails: s.Mailbox().Messages()}
	for _, topic := range topics {
		c.facts[topic] = firstSights(s.facts(topic))
		c.versionsRise(topic)
	}
	reserved := map[string]int64{} // by SKU, by orders neither rejected nor cancelled
	skus := map[string]bool{}
	for _, o := range orders {
		got := c.ends(o)
		for _, l := range got.Lines {
			skus[l.SKU] = true
			if got.Status == "confirmed" {
				reserved[l.SKU] += int64(l.Quantity)
			}
		}
	}
	for sku := range skus {
		c.stockRight(sku, reserved[sku])
	}
}

func firstSights(all []fact) (first []fact) {
	seen := map[string]bool{}
	for _, f := range all {
		if !seen[f.source+f.id] {
			first = append(first, f)
		}
		seen[f.source+f.id] = true
	}
	return first
}

// of are the facts of one order.
func (c *checker) of(topic, orderID string) (facts []fact) {
	for _, f := range c.facts[topic] {
		if f.key() == orderID {
			facts = append(facts, f)
		}
	}
	return facts
}

// versionsRise is I3: what an order's source has written comes in order, without gaps.
func (c *checker) versionsRise(topic string) {
	c.Helper()
	last := map[string]int64{}
	for _, f := range c.facts[topic] {
		if f.source == "" {
			continue // a producer that is not ours
		}
		of := f.source + " " + f.key()
		if last[of]++; f.version != last[of] {
			c.Errorf("I3: %s of order %s has version %d, want %d", f.typ, f.key(), f.version, last[of])
		}
	}
}

// ends is I1, I4 and I5: the order has one of the known outcomes, with one mail for each
// event that settled it, in the trace of the request that did.
func (c *checker) ends(o accepted) order {
	c.Helper()
	got := c.get(o.OrderID)
	var types []string
	var settling []fact
	for _, f := range c.of(schemas.TopicOrders, o.OrderID) {
		typ := f.typ[strings.LastIndexByte(f.typ, '.')+1:]
		types = append(types, typ)
		if typ != "OrderPlaced" {
			settling = append(settling, f)
		}
	}
	if want, ok := outcomes[strings.Join(types, " ")]; !ok || got.Status != want {
		c.Errorf("I1: order %s is %s, its events are %v", o.OrderID, got.Status, types)
	}
	mails, told, ledger := about(o.OrderID, c.mails), c.of(schemas.TopicEmails, o.OrderID), c.ledger(o.OrderID)
	if len(mails) != len(settling) || len(told) != len(settling) || len(ledger) != len(settling) {
		c.Errorf("I4: order %s has %d settling events, %d mails, %d EmailSent, %d rows in the ledger", o.OrderID, len(settling), len(mails), len(told), len(ledger))
		return got
	}
	for i, f := range settling {
		if want := "<" + f.id + "@keyline.example>"; mails[i].ID != want || told[i].data["message_id"] != want || ledger[i].MessageID != want || ledger[i].SentAt == nil {
			c.Errorf("I1: mail %d of order %s is not that of %s %s", i+1, o.OrderID, f.typ, f.id)
		}
		want := o.TraceID
		if f.data["reason"] == "customer" {
			want = c.cancels[o.OrderID]
		}
		if want != "" && (f.traceID != want || told[i].traceID != want) {
			c.Errorf("I5: %s of order %s is of trace %s, its mail of %s, want %s", f.typ, o.OrderID, f.traceID, told[i].traceID, want)
		}
	}
	return got
}

// stockRight is I2 and I4: the ledger never falls below zero, each order is in it at most
// once each way, and what is available is what no order holds.
func (c *checker) stockRight(sku string, reserved int64) {
	c.Helper()
	if c.send("GET", "/v1/stock/"+sku, nil).status == http.StatusNotFound && reserved == 0 {
		return // nobody has ever received it
	}
	var now stock
	done := map[string]bool{}
	for i, m := range c.movements(sku) {
		switch m.Kind {
		case "received":
			now.OnHand += m.Quantity
		case "reserved":
			now.Reserved += m.Quantity
		case "released":
			now.Reserved -= m.Quantity
		}
		if m.Version != int64(i+1) || now.Reserved < 0 || now.Reserved > now.OnHand {
			c.Errorf("I2: movement %d of %s, version %d, leaves %d reserved of %d", i+1, sku, m.Version, now.Reserved, now.OnHand)
		}
		if effect := m.Kind + " " + m.OrderID; m.OrderID != "" && done[effect] || done[m.Cause] {
			c.Errorf("I4: %s is %s a second time, by %s", sku, effect, m.Cause)
		} else {
			done[effect], done[m.Cause] = true, true
		}
	}
	now.Available = now.OnHand - now.Reserved
	if got := c.stock(sku); got != now || now.Reserved != reserved {
		c.Errorf("I2: stock of %s is %+v, its ledger says %+v, its orders hold %d", sku, got, now, reserved)
	}
}

// The checker has teeth: it finds what each invariant forbids.
func TestChecker_firstSights(t *testing.T) {
	t.Parallel()
	twin := fact{id: "1", source: "/order"}
	got := firstSights([]fact{twin, {id: "2", source: "/order"}, twin, {id: "1", source: "/email"}})
	if len(got) != 3 {
		t.Errorf("%d first sights, want 3", len(got))
	}
	if ways := slices.Sorted(maps.Keys(outcomes)); len(ways) != 4 {
		t.Errorf("%d outcomes", len(ways))
	}
}
