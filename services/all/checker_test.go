package all_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

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
		c.report(judgeVersions(c.facts[topic]))
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

// judgeVersions is I3: what an order's source has written comes in order, without gaps.
func judgeVersions(facts []fact) (wrong []string) {
	last := map[string]int64{}
	for _, f := range facts {
		if f.source == "" {
			continue // a producer that is not ours
		}
		of := f.source + " " + f.key()
		if last[of]++; f.version != last[of] {
			wrong = append(wrong, fmt.Sprintf("I3: %s of order %s has version %d, want %d", f.typ, f.key(), f.version, last[of]))
		}
	}
	return wrong
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

// stockRight is I2 and I4, of an article of which the orders hold so many.
func (c *checker) stockRight(sku string, reserved int64) {
	c.Helper()
	if c.send("GET", "/v1/stock/"+sku, nil).status == http.StatusNotFound && reserved == 0 {
		return // nobody has ever received it
	}
	for _, wrong := range judgeStock(c.movements(sku), c.stock(sku), reserved) {
		c.Errorf("%s: %s", sku, wrong)
	}
}

// judgeStock is I2 and I4: the ledger never falls below zero, each order is in it at most
// once each way, and what is available is what no order holds.
func judgeStock(moved []movement, told stock, reserved int64) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	var now stock
	done := map[string]bool{}
	for i, m := range moved {
		switch m.Kind {
		case "received":
			now.OnHand += m.Quantity
		case "reserved":
			now.Reserved += m.Quantity
		case "released":
			now.Reserved -= m.Quantity
		}
		if m.Version != int64(i+1) || now.Reserved < 0 || now.Reserved > now.OnHand {
			complain("I2: movement %d, version %d, leaves %d reserved of %d", i+1, m.Version, now.Reserved, now.OnHand)
		}
		if effect := m.Kind + " " + m.OrderID; m.OrderID != "" && done[effect] || done[m.Cause] {
			complain("I4: %s a second time, by %s", effect, m.Cause)
		} else {
			done[effect], done[m.Cause] = true, true
		}
	}
	now.Available = now.OnHand - now.Reserved
	if told != now || now.Reserved != reserved {
		complain("I2: stock is %+v, its ledger says %+v, its orders hold %d", told, now, reserved)
	}
	return wrong
}

func (c *checker) report(wrong []string) {
	c.Helper()
	for _, w := range wrong {
		c.Error(w)
	}
}

// The checker has teeth: it finds what the invariants forbid.
func TestChecker(t *testing.T) {
	t.Parallel()
	record := func(key string) *kgo.Record { return &kgo.Record{Key: []byte(key)} }
	of := func(key, id string, version int64) fact {
		return fact{Record: record(key), source: "/order", id: id, version: version}
	}
	received := movement{1, "received", 5, "", "receipt"}
	for _, tt := range []struct {
		name string
		got  []string
		want string // empty: nothing is wrong
	}{
		{"events in order", judgeVersions([]fact{of("a", "1", 1), of("b", "2", 1), of("a", "3", 2)}), ""},
		{"a twin that comes later", judgeVersions(firstSights([]fact{of("a", "1", 1), of("a", "2", 2), of("a", "1", 1)})), ""},
		{"a gap", judgeVersions([]fact{of("a", "1", 1), of("a", "3", 3)}), "I3"},
		{"an inversion", judgeVersions([]fact{of("a", "2", 2), of("a", "1", 1)}), "I3"},
		{"a ledger in order", judgeStock([]movement{received, {2, "reserved", 3, "a", "e1"}, {3, "released", 3, "a", "e2"}}, stock{5, 0, 5}, 0), ""},
		{"more reserved than there is", judgeStock([]movement{received, {2, "reserved", 6, "a", "e1"}}, stock{5, 6, -1}, 6), "I2"},
		{"an order that reserves twice", judgeStock([]movement{received, {2, "reserved", 1, "a", "e1"}, {3, "reserved", 1, "a", "e2"}}, stock{5, 2, 3}, 2), "I4"},
		{"an event with two effects", judgeStock([]movement{received, {2, "reserved", 1, "a", "e1"}, {3, "reserved", 1, "b", "e1"}}, stock{5, 2, 3}, 2), "I4"},
		{"more given back than was held", judgeStock([]movement{received, {2, "released", 1, "a", "e1"}}, stock{5, -1, 6}, -1), "I2"},
		{"a row that is not the fold", judgeStock([]movement{received}, stock{6, 0, 6}, 0), "I2"},
		{"stock that no order holds any more", judgeStock([]movement{received, {2, "reserved", 1, "a", "e1"}}, stock{5, 1, 4}, 0), "I2"},
	} {
		if got := strings.Join(tt.got, "; "); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: found %q, want %q", tt.name, got, tt.want)
		}
	}
}
