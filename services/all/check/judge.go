package check

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// outcomes are the ways in which an order may go, as its events, with the status that each
// ends in.
var outcomes = map[string]string{
	"OrderPlaced OrderConfirmed":                "confirmed",
	"OrderPlaced OrderRejected":                 "rejected",
	"OrderPlaced OrderCancelled":                "cancelled",
	"OrderPlaced OrderConfirmed OrderCancelled": "cancelled",
}

// The topics of events, as the contract names them.
const (
	topicOrders    = "orders"
	topicInventory = "inventory"
	topicEmails    = "emails"
)

// Judge says what is wrong, a line each that begins with the invariant it breaks. No lines:
// every promise was kept.
func (f *Facts) Judge(expect Expect) []string {
	v := &verdict{Facts: f, expect: expect}
	c := v.read()
	v.judgeRequests(c)
	v.judgeLog(c)
	v.judgeConsumers(c)
	for _, id := range c.ids {
		v.judgeOrder(c, c.orders[id])
	}
	v.judgeMails(c)
	v.judgeStocks(c)
	v.judgeRest()
	for _, process := range slices.Sorted(maps.Keys(f.Memory)) {
		if used := f.Memory[process]; expect.MemoryCap > 0 && used > expect.MemoryCap {
			v.complain("I7: %s has had %d MiB of memory, its cap is %d MiB", process, used>>20, expect.MemoryCap>>20)
		}
	}
	return v.wrong
}

// life is all that is known of one order.
type life struct {
	id      string
	placed  *Request
	cancels []Request
	shown   *Order
	held    bool      // a dead letter holds it up
	events  []*Record // on orders, of the order service
	told    []*Record // on emails
	ledger  []Sent
	mails   []string // Message-IDs, each once, in the order of their first sight
}

// settling are the events that settled the order.
func (l *life) settling() (events []*Record) {
	for _, e := range l.events {
		if e.name() != "OrderPlaced" {
			events = append(events, e)
		}
	}
	return events
}

// lives are all orders that somebody asked for.
type lives struct {
	ids    []string // sorted
	orders map[string]*life
	first  []*Record
}

func (v *verdict) read() *lives {
	c := &lives{orders: map[string]*life{}, first: v.first()}
	of := func(id string) *life { return cmp.Or(c.orders[id], &life{}) } // a stranger's is dropped
	for i, r := range v.Requests {
		if !r.Cancel && c.orders[r.OrderID] == nil {
			c.orders[r.OrderID] = &life{id: r.OrderID, placed: &v.Requests[i]}
		}
	}
	for _, r := range v.Requests {
		if r.Cancel {
			l := of(r.OrderID)
			l.cancels = append(l.cancels, r)
		}
	}
	for i, o := range v.Orders {
		of(o.ID).shown = &v.Orders[i]
	}
	for _, w := range v.Waiting {
		l := of(w.Key)
		l.held = l.held || w.State == "dead" || w.State == "behind" || w.State == "set aside"
	}
	for _, r := range c.first {
		switch l := of(r.Key); r.Topic {
		case topicOrders:
			l.events = append(l.events, r)
		case topicEmails:
			l.told = append(l.told, r)
		}
	}
	for _, s := range v.Ledger {
		l := of(s.OrderID)
		l.ledger = append(l.ledger, s)
	}
	c.readMails(v.Mails)
	c.ids = slices.Sorted(maps.Keys(c.orders))
	return c
}

// readMails finds each mail's order by the event that its Message-ID names.
func (c *lives) readMails(mails []Mail) {
	orderOf := map[string]string{}
	for _, r := range c.first {
		if r.Topic == topicOrders {
			orderOf[r.ID] = r.Key
		}
	}
	seen := map[string]bool{}
	for _, m := range mails {
		id := bare(m.ID)
		event, _, _ := strings.Cut(id, "@")
		if l := c.orders[orderOf[event]]; l != nil && !seen[id] {
			l.mails = append(l.mails, id)
		}
		seen[id] = true
	}
}

// judgeRequests is the half of I1 that looks from the customers: one order for each key.
func (v *verdict) judgeRequests(c *lives) {
	byKey := map[string]string{}
	for _, r := range v.Requests {
		if r.Cancel || r.Key == "" {
			continue
		}
		if other := byKey[r.Key]; other != "" && other != r.OrderID {
			v.complain("I1: the requests of key %s were answered with the orders %s and %s", r.Key, other, r.OrderID)
		}
		byKey[r.Key] = r.OrderID
	}
	if v.expect.Foreign {
		return
	}
	for _, o := range v.Orders {
		if c.orders[o.ID] == nil {
			v.complain("I1: nobody has placed order %s, which is %s", o.ID, o.Status)
		}
	}
}

// judgeLog is I3 and I8 of the log, and the half of I4 that can be seen there.
func (v *verdict) judgeLog(c *lives) {
	last, effects := map[string]int64{}, map[string]string{}
	counts := map[string]Versions{} // events by source and key
	for _, r := range c.first {
		known := c.orders[r.Key] != nil
		if !known && v.expect.Foreign {
			continue
		}
		if !known {
			v.complain("I8: %s %s on %s is of %s, which nobody has placed", r.name(), r.ID, r.Topic, r.Key)
		}
		of := r.Topic + " " + r.Source + " " + r.Key
		if last[of]++; r.Version != last[of] {
			v.complain("I3: %s of order %s on %s/%d at %d has version %d, want %d", r.name(), r.Key, r.Topic, r.Partition, r.Offset, r.Version, last[of])
		}
		last[of] = max(last[of], r.Version)
		if counts[r.Source] == nil {
			counts[r.Source] = Versions{}
		}
		counts[r.Source][r.Key]++
		if r.Cause == "" {
			continue
		}
		effect := r.Source + " " + r.Cause
		if other := effects[effect]; other != "" {
			v.complain("I4: event %s has had two effects at %s: %s and %s", r.Cause, r.Source, other, r.ID)
		}
		effects[effect] = r.ID
	}
	for _, source := range slices.Sorted(maps.Keys(v.Rows)) {
		v.judgeRows(c, source, counts[source])
	}
}

// judgeConsumers is I3 at the consumers, as their own events tell: what a service has handled
// of an order, it has handled in the order of the versions, and inventory answers each event.
func (v *verdict) judgeConsumers(c *lives) {
	byID := map[string]*Record{}
	for _, r := range c.first {
		byID[r.Topic+" "+r.ID] = r
	}
	last, answered := map[string]*Record{}, map[*Record]bool{}
	for _, r := range c.first { // of one source and order in the order of their versions, says judgeLog
		cause := byID[causes[r.Topic]+" "+r.Cause]
		if cause == nil || c.orders[r.Key] == nil {
			continue
		}
		answered[cause] = true
		of := r.Source + " " + r.Key
		if l := last[of]; l != nil && l.Source == cause.Source && l.Version > cause.Version {
			v.complain("I3: %s has handled %s of order %s before %s", r.Source, l.name(), r.Key, cause.name())
		}
		last[of] = cause
	}
	if !slices.ContainsFunc(c.first, func(r *Record) bool { return r.Topic == topicInventory }) {
		return
	}
	for _, id := range c.ids {
		for _, e := range c.orders[id].events {
			if asks := e.name() == "OrderPlaced" || e.name() == "OrderCancelled"; asks && !answered[e] && !c.orders[id].held {
				v.complain("I3: inventory has not answered %s of order %s: it had another before it, or none", e.name(), id)
			}
		}
	}
}

// causes are the topics of the events that bring a topic's about, where a message does.
var causes = map[string]string{topicInventory: topicOrders, topicOrders: topicInventory, topicEmails: topicOrders}

// judgeRows compares the events of a source with its rows: I8 if there are more, I1 if there
// are fewer.
func (v *verdict) judgeRows(c *lives, source string, counts Versions) {
	rows := v.Rows[source]
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if counts[key] > rows[key] {
			v.complain("I8: %d events of %s about %s, but its row says %d", counts[key], source, key, rows[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		if known := c.orders[key] != nil; (known || !v.expect.Foreign) && counts[key] < rows[key] {
			v.complain("I1: %d events of %s about %s, but its row says %d: some are lost", counts[key], source, key, rows[key])
		}
	}
}

// judgeOrder is I1, I3, I4 and I5 of one order.
func (v *verdict) judgeOrder(c *lives, l *life) {
	var names []string
	for _, e := range l.events {
		names = append(names, e.name())
	}
	if v.Orders != nil {
		v.judgeEnd(l, names)
	}
	settling := l.settling()
	if len(l.told) > len(settling) || len(l.told) < len(settling) && !l.held {
		v.complain("I1: order %s has %d settling events, but %d EmailSent", l.id, len(settling), len(l.told))
	}
	if v.Ledger != nil && (len(l.ledger) > len(settling) || len(l.ledger) < len(settling) && !l.held) {
		v.complain("I4: order %s has %d settling events, but %d rows in the ledger of mails", l.id, len(settling), len(l.ledger))
	}
	for i, e := range settling {
		v.judgeTrace(l, e)
		if i >= len(l.told) {
			break
		}
		told := l.told[i]
		if told.text("event_id") != e.ID {
			v.complain("I3: EmailSent %d of order %s is about event %s, want %s %s", i+1, l.id, told.text("event_id"), e.name(), e.ID)
			continue
		}
		if told.TraceID != e.TraceID {
			v.complain("I5: %s of order %s is of trace %s, its mail of %s", e.name(), l.id, e.TraceID, told.TraceID)
		}
		v.judgeLedger(l, e, bare(told.text("message_id")))
	}
}

// judgeEnd wants one of the outcomes, and a history in which nothing is repeated.
func (v *verdict) judgeEnd(l *life, names []string) {
	if l.shown == nil {
		v.complain("I1: order %s was accepted and is not there; its events are %v", l.id, names)
		return
	}
	if want, ok := outcomes[strings.Join(names, " ")]; (!ok || l.shown.Status != want) && !l.held {
		v.complain("I1: order %s is %s, its events are %v", l.id, l.shown.Status, names)
	}
	seen := map[string]bool{}
	for _, step := range l.shown.Steps {
		if seen[step] {
			v.complain("I4: order %s went through %q twice: %q", l.id, step, l.shown.Steps)
		}
		seen[step] = true
	}
}

// judgeTrace is I5 of a settling event: a customer's cancellation belongs to the trace of
// that request, everything else to that of the order's.
func (v *verdict) judgeTrace(l *life, e *Record) {
	want := []string{l.placed.TraceID}
	if e.name() == "OrderCancelled" && e.text("reason") == "customer" {
		want = nil
		for _, r := range l.cancels {
			want = append(want, r.TraceID)
		}
	}
	if len(want) == 0 && v.expect.Foreign || slices.Contains(want, "") || slices.Contains(want, e.TraceID) {
		return
	}
	v.complain("I5: %s of order %s is of trace %s, want %v", e.name(), l.id, e.TraceID, want)
}

// judgeLedger wants the one row and the mail of a settling event.
func (v *verdict) judgeLedger(l *life, e *Record, messageID string) {
	if event, _, _ := strings.Cut(messageID, "@"); event != e.ID {
		v.complain("I1: the mail of %s %s of order %s has the Message-ID %s", e.name(), e.ID, l.id, messageID)
	}
	rows := 0
	for _, s := range l.ledger {
		if s.EventID != e.ID {
			continue
		}
		if rows++; !s.Done || bare(s.MessageID) != messageID {
			v.complain("I4: the row of %s of order %s in the ledger of mails is %+v, want it done with %s", e.name(), l.id, s, messageID)
		}
	}
	if rows != 1 && v.Ledger != nil {
		v.complain("I4: %s of order %s has %d rows in the ledger of mails", e.name(), l.id, rows)
	}
	if v.Mails != nil && !slices.Contains(l.mails, messageID) {
		v.complain("I1: %s of order %s has no mail; EmailSent says %s", e.name(), l.id, messageID)
	}
}
