package check_test

import (
	"slices"
	"strings"
	"testing"

	"example.com/keyline/services/all/check"
)

// shop is a shop in order: a was confirmed, b rejected, c confirmed and then cancelled by its
// customer, d cancelled by the deadline before the answer of inventory had come. All events come in the order
// of the log, in two partitions.
func shop() *check.Facts {
	f := &check.Facts{
		Requests: []check.Request{
			{Key: "ka", OrderID: "a", TraceID: "ta", Lines: []check.Line{{SKU: "tea", Quantity: 2}}},
			{Key: "kb", OrderID: "b", TraceID: "tb", Lines: []check.Line{{SKU: "tea", Quantity: 99}}},
			{Key: "kc", OrderID: "c", TraceID: "tc", Lines: []check.Line{{SKU: "tea", Quantity: 3}}},
			{Key: "kc", OrderID: "c", TraceID: "tc"}, // the answer was lost, and asked for again
			{Key: "kd", OrderID: "d", TraceID: "td", Lines: []check.Line{{SKU: "tea", Quantity: 1}}},
			{OrderID: "c", TraceID: "tc2", Cancel: true},
		},
		Orders: []check.Order{
			{ID: "a", Status: "confirmed", Steps: []string{"placed", "stock reserved", "confirmed"}},
			{ID: "b", Status: "rejected", Steps: []string{"placed", "stock rejected", "rejected"}},
			{ID: "c", Status: "cancelled", Steps: []string{"placed", "stock reserved", "confirmed", "cancelled", "stock released"}},
			{ID: "d", Status: "cancelled", Steps: []string{"placed", "cancelled"}},
		},
		Rows:  map[string]check.Versions{"/order": {"a": 2, "b": 2, "c": 3, "d": 2}, "/inventory": {"a": 1, "b": 1, "c": 2, "d": 2}, "/email": {"a": 1, "b": 1, "c": 2, "d": 1}},
		Stock: []check.Stock{{SKU: "tea", OnHand: 10, Reserved: 2, Available: 8}},
		Movements: map[string][]check.Movement{"tea": {
			{Version: 1, Kind: "received", Quantity: 10, Cause: "r1"}, {Version: 2, Kind: "reserved", Quantity: 2, OrderID: "a", Cause: "a1"},
			{Version: 3, Kind: "reserved", Quantity: 3, OrderID: "c", Cause: "c1"}, {Version: 4, Kind: "released", Quantity: 3, OrderID: "c", Cause: "c3"},
		}},
		Outbox: map[string]int64{"order": 0}, Lag: map[string]int64{"email": 0}, Memory: map[string]int64{"order": 50 << 20},
	}
	add := func(topic, source, key, id, typ, cause, trace string, version int64, data map[string]any) {
		partition := int32(key[0]) % 2
		f.Records = append(f.Records, check.Record{
			Topic: topic, Partition: partition, Offset: int64(len(f.Records)), Key: key, ID: id, Type: "shop." + typ,
			Source: source, Cause: cause, TraceID: trace, Version: version, Data: data,
		})
	}
	for _, o := range []struct{ key, settled, answer, cause string }{
		{"a", "OrderConfirmed", "StockReserved", "a1"}, {"b", "OrderRejected", "StockRejected", "b1"}, {"c", "OrderConfirmed", "StockReserved", "c1"}, {"d", "OrderCancelled", "StockRejected", "d1"},
	} {
		trace := "t" + o.key
		because := o.key + "s1"
		if o.settled == "OrderCancelled" {
			because = ""
		}
		add("orders", "/order", o.key, o.key+"1", "OrderPlaced", "", trace, 1, nil)
		add("inventory", "/inventory", o.key, o.key+"s1", o.answer, o.cause, trace, 1, nil)
		add("orders", "/order", o.key, o.key+"2", o.settled, because, trace, 2, map[string]any{"reason": "deadline"})
		add("emails", "/email", o.key, o.key+"m2", "EmailSent", o.key+"2", trace, 1, map[string]any{"event_id": o.key + "2", "message_id": "<" + o.key + "2@x>"})
	}
	add("inventory", "/inventory", "d", "ds2", "StockReleased", "d2", "td", 2, nil)
	add("orders", "/order", "c", "c3", "OrderCancelled", "", "tc2", 3, map[string]any{"reason": "customer"})
	add("inventory", "/inventory", "c", "cs2", "StockReleased", "c3", "tc2", 2, nil)
	add("emails", "/email", "c", "cm3", "EmailSent", "c3", "tc2", 2, map[string]any{"event_id": "c3", "message_id": "<c3@x>"})
	for _, id := range []string{"a2", "b2", "c2", "d2", "c3"} {
		f.Mails = append(f.Mails, check.Mail{ID: "<" + id + "@x>"})
		f.Ledger = append(f.Ledger, check.Sent{OrderID: id[:1], EventID: id, MessageID: "<" + id + "@x>", Done: true})
	}
	return f
}

// at finds a record by its ID.
func at(f *check.Facts, id string) int {
	return slices.IndexFunc(f.Records, func(r check.Record) bool { return r.ID == id })
}

// drop takes a record out.
func drop(f *check.Facts, id string) { f.Records = slices.Delete(f.Records, at(f, id), at(f, id)+1) }

func TestJudge_allowed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		do     func(*check.Facts)
		expect check.Expect
	}{
		{"a shop in order", func(*check.Facts) {}, check.Expect{Received: map[string]int64{"tea": 10}, MemoryCap: 60 << 20}},
		{"a twin that comes later", func(f *check.Facts) { f.Records = append(f.Records, f.Records[at(f, "c1")]) }, check.Expect{}},
		{"a mail that came again, as declared", func(f *check.Facts) { f.Mails = append(f.Mails, f.Mails[0]) }, check.Expect{MailRepeats: 1}},
		{"what others did on the same topics", func(f *check.Facts) {
			f.Records = append(f.Records, check.Record{Topic: "orders", Source: "/order", Key: "x", ID: "x9", Type: "OrderCancelled", Version: 9})
			f.Mails = append(f.Mails, check.Mail{ID: "x9@x"})
			f.Orders = append(f.Orders, check.Order{ID: "x", Status: "pending"})
		}, check.Expect{Foreign: true}},
		{"bytes that are no event of ours", func(f *check.Facts) { f.Records = append(f.Records, check.Record{Topic: "orders", Key: "a"}) }, check.Expect{}},
		{"an order behind its expected dead letter", func(f *check.Facts) {
			drop(f, "am2")
			f.Mails, f.Ledger, f.Rows["/email"] = f.Mails[1:], f.Ledger[1:], check.Versions{"b": 1, "c": 2, "d": 1}
			f.Waiting = []check.Waiting{{Group: "email", Topic: "orders", Key: "a", Type: "OrderConfirmed", State: "dead"}, {Group: "email", Topic: "orders", Key: "a", State: "behind"}}
		}, check.Expect{Dead: []check.Waiting{{Group: "email", Key: "a"}}}},
		{"nothing was looked at but the log", func(f *check.Facts) { *f = check.Facts{Requests: f.Requests, Records: f.Records} }, check.Expect{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := shop()
			tt.do(f)
			if got := f.Judge(tt.expect); got != nil {
				t.Errorf("complaints:\n%s", strings.Join(got, "\n"))
			}
		})
	}
}

// The judge has teeth: each way to break an invariant is found, under its name.
func TestJudge_forbidden(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		do         func(*check.Facts)
	}{
		{"an accepted order that is not there", "I1: order a was accepted and is not there", func(f *check.Facts) { f.Orders = f.Orders[1:] }},
		{"an accepted order without its event", "I1", func(f *check.Facts) { drop(f, "a1") }},
		{"an order that never settles", "I1", func(f *check.Facts) { drop(f, "a2"); f.Orders[0].Status = "pending" }},
		{"an order that ends in two ways", "I1", func(f *check.Facts) {
			f.Records = append(f.Records, check.Record{Topic: "orders", Source: "/order", Key: "a", ID: "a3", Type: "OrderRejected", Version: 3})
		}},
		{"a status that is not that of the events", "I1", func(f *check.Facts) { f.Orders[0].Status = "cancelled" }},
		{"a key with two orders", "I1", func(f *check.Facts) { f.Requests[1].Key = "ka" }},
		{"an order that nobody placed", "I1", func(f *check.Facts) { f.Orders = append(f.Orders, check.Order{ID: "x"}) }},
		{"a settling event without a mail", "I1: OrderConfirmed of order a has no mail", func(f *check.Facts) { f.Mails = f.Mails[1:] }},
		{"a settling event without EmailSent", "I1: order a has 1 settling events, but 0 EmailSent", func(f *check.Facts) { drop(f, "am2") }},
		{"a mail under another Message-ID", "I1: the mail of OrderConfirmed", func(f *check.Facts) { f.Records[at(f, "am2")].Data["message_id"] = "<zz@x>" }},
		{"a mail that came again", "I1: 1 mails came again", func(f *check.Facts) { f.Mails = append(f.Mails, f.Mails[0]) }},
		{"an event of a row that is lost at the end", "I1", func(f *check.Facts) { drop(f, "cs2") }},
		{"more reserved than there is", "I2: movement 3 of tea", func(f *check.Facts) { f.Movements["tea"][0].Quantity = 3 }},
		{"more given back than was held", "I2", func(f *check.Facts) { f.Movements["tea"][3].Quantity = 9 }},
		{"a movement that nobody knows", "I2: movement 4 of tea is", func(f *check.Facts) { f.Movements["tea"][3].Kind = "lost" }},
		{"stock that is not its ledger", "I2", func(f *check.Facts) { f.Stock[0].OnHand++ }},
		{"stock that no order holds any more", "I2", func(f *check.Facts) { f.Orders[0].Status = "rejected" }},
		{"a hole in the ledger", "I2: movement 2 of tea, version 3", func(f *check.Facts) { f.Movements["tea"] = slices.Delete(f.Movements["tea"], 1, 2) }},
		{"no ledger for what an order holds", "I2", func(f *check.Facts) { f.Movements, f.Stock = map[string][]check.Movement{}, nil }},
		{"goods received twice", "I2", func(f *check.Facts) {
			f.Movements["tea"] = append(f.Movements["tea"], check.Movement{Version: 5, Kind: "received", Quantity: 10, Cause: "r1b"})
			f.Stock[0].OnHand, f.Stock[0].Available = 20, 18
		}},
		{"a gap in the log", "I3: OrderCancelled of order c on orders/1", func(f *check.Facts) { drop(f, "c2") }},
		{"an inversion in the log", "I3: OrderConfirmed of order c on orders/1", func(f *check.Facts) {
			i, j := at(f, "c2"), at(f, "c3")
			f.Records[i], f.Records[j] = f.Records[j], f.Records[i]
		}},
		{"mails in another order", "I3", func(f *check.Facts) { f.Mails[2], f.Mails[4] = f.Mails[4], f.Mails[2] }},
		{"EmailSent in another order", "I3", func(f *check.Facts) {
			f.Records[at(f, "cm2")].Data, f.Records[at(f, "cm3")].Data = f.Records[at(f, "cm3")].Data, f.Records[at(f, "cm2")].Data
		}},
		{"a consumer that lets an event overtake", "I3: /inventory has handled OrderCancelled of order c before OrderPlaced", func(f *check.Facts) {
			f.Records[at(f, "cs1")].Cause, f.Records[at(f, "cs2")].Cause = "c3", "c1"
		}},
		{"a consumer for which an overtaken event comes too late", "I3: inventory has not answered OrderPlaced of order c", func(f *check.Facts) {
			drop(f, "cs1")
			f.Records[at(f, "cs2")].Version, f.Rows["/inventory"]["c"] = 1, 1
		}},
		{"an order that reserves twice", "I4", func(f *check.Facts) {
			f.Movements["tea"] = append(f.Movements["tea"], check.Movement{Version: 5, Kind: "reserved", Quantity: 2, OrderID: "a", Cause: "a1"})
		}},
		{"an event with two answers", "I4", func(f *check.Facts) {
			f.Records = append(f.Records, check.Record{Topic: "inventory", Source: "/inventory", Key: "a", ID: "as9", Type: "StockReserved", Cause: "a1", Version: 2})
		}},
		{"a step of an order that happens twice", "I4", func(f *check.Facts) { f.Orders[0].Steps = append(f.Orders[0].Steps, "stock reserved") }},
		{"a mail that the ledger has not noted as sent", "I4", func(f *check.Facts) { f.Ledger[0].Done = false }},
		{"a mail without a row in the ledger", "I4: order a has 1 settling events, but 0 rows", func(f *check.Facts) { f.Ledger = f.Ledger[1:] }},
		{"a row of the ledger that is about another event", "I4: OrderConfirmed of order a has 0 rows", func(f *check.Facts) { f.Ledger[0].EventID = "b2" }},
		{"a mail with two rows in the ledger", "I4", func(f *check.Facts) { f.Ledger = append(f.Ledger, f.Ledger[0]) }},
		{"a settling event of another trace", "I5", func(f *check.Facts) { f.Records[at(f, "a2")].TraceID = "t9"; f.Records[at(f, "am2")].TraceID = "t9" }},
		{"a mail of another trace", "I5", func(f *check.Facts) { f.Records[at(f, "am2")].TraceID = "t9" }},
		{"a cancellation of the order's trace", "I5", func(f *check.Facts) { f.Records[at(f, "c3")].TraceID = "tc"; f.Records[at(f, "cm3")].TraceID = "tc" }},
		{"a cancellation that nobody asked for", "I5", func(f *check.Facts) { f.Requests = f.Requests[:5] }},
		{"something left to publish", "I6", func(f *check.Facts) { f.Outbox["order"] = 1 }},
		{"something left to consume", "I6", func(f *check.Facts) { f.Lag["email"] = 1 }},
		{"something left to retry", "I6", func(f *check.Facts) { f.Waiting = []check.Waiting{{Group: "email", Key: "a", State: "retrying"}} }},
		{"an unexpected dead letter", "I6", func(f *check.Facts) { f.Waiting = []check.Waiting{{Group: "email", Key: "a", State: "dead"}} }},
		{"an event behind no dead letter", "I6", func(f *check.Facts) { f.Waiting = []check.Waiting{{Group: "email", Key: "a", State: "behind"}} }},
		{"a process that has grown", "I7", func(f *check.Facts) { f.Memory["order"] = 61 << 20 }},
		{"an event without its change", "I8", func(f *check.Facts) { f.Rows["/order"]["a"] = 1 }},
		{"an event of an order that is nowhere", "I8: OrderPlaced x1 on orders is of x", func(f *check.Facts) {
			f.Records = append(f.Records, check.Record{Topic: "orders", Source: "/order", Key: "x", ID: "x1", Type: "OrderPlaced", Version: 1})
		}},
		{"a mail about nothing", "I8", func(f *check.Facts) { f.Mails = append(f.Mails, check.Mail{ID: "<zz@x>"}) }},
		{"a movement for an order that is nowhere", "I8", func(f *check.Facts) {
			f.Movements["tea"] = append(f.Movements["tea"], check.Movement{Version: 5, Kind: "reserved", Quantity: 1, OrderID: "x", Cause: "x1"})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := shop()
			tt.do(f)
			got := f.Judge(check.Expect{Received: map[string]int64{"tea": 10}, MemoryCap: 60 << 20})
			if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, tt.want) }) {
				t.Errorf("found %q, want a line of %s", got, tt.want)
			}
		})
	}
	t.Run("an expected dead letter that did not come", func(t *testing.T) {
		t.Parallel()
		if got := shop().Judge(check.Expect{Dead: []check.Waiting{{Group: "email"}}}); len(got) != 1 || !strings.HasPrefix(got[0], "I6: ") {
			t.Errorf("found %q, want one line of I6", got)
		}
	})
}

func TestFacts_figures(t *testing.T) {
	t.Parallel()
	f := shop()
	f.Records = append(f.Records, f.Records[0], f.Records[1], f.Records[0])
	f.Mails = append(f.Mails, f.Mails[0])
	if got := f.Duplicates(); got["/order"] != 2 || got["/inventory"] != 1 || f.MailRepeats() != 1 {
		t.Errorf("duplicates %v and %d mails, want 2 of /order, 1 of /inventory, 1 mail", got, f.MailRepeats())
	}
}
