package check

import (
	"maps"
	"slices"
	"strings"
)

// judgeMails is what can be said of mails without EmailSent: none comes from nowhere, first
// sights come in the order of the events, and repetitions are as few as expected.
func (v *verdict) judgeMails(c *lives) {
	settled := map[string]bool{}
	for _, r := range c.first {
		if r.Topic == topicOrders && r.name() != "OrderPlaced" {
			settled[r.ID] = true
		}
	}
	for _, m := range v.Mails {
		if event, _, _ := strings.Cut(bare(m.ID), "@"); !settled[event] && !v.expect.Foreign {
			v.complain("I8: the mail %s is about no settling event", m.ID)
		}
	}
	for _, id := range c.ids {
		l := c.orders[id]
		var want, got []string
		for _, e := range l.settling() {
			want = append(want, e.ID)
		}
		for _, m := range l.mails {
			event, _, _ := strings.Cut(m, "@")
			got = append(got, event)
		}
		if len(got) <= len(want) && !slices.Equal(got, want[:len(got)]) {
			v.complain("I3: the mails of order %s came as %v, its events as %v", id, got, want)
		}
	}
	if n := v.MailRepeats(); n > v.expect.MailRepeats {
		v.complain("I1: %d mails came again, at most %d may", n, v.expect.MailRepeats)
	}
}

// judgeStocks is I2, and I4 and I8 of the ledger of stock.
func (v *verdict) judgeStocks(c *lives) {
	hold := map[string]int64{} // by SKU, what live orders hold
	for _, id := range c.ids {
		l := c.orders[id]
		if l.shown == nil || l.held || l.shown.Status != "confirmed" && l.shown.Status != "pending" {
			continue
		}
		lines := l.placed.Lines
		if lines == nil {
			lines = l.shown.Lines
		}
		for _, line := range lines {
			hold[line.SKU] += line.Quantity
		}
	}
	shown := map[string]Stock{}
	for _, s := range v.Stock {
		shown[s.SKU] = s
	}
	for _, sku := range slices.Sorted(maps.Keys(v.Movements)) {
		now, others := v.fold(c, sku, v.Movements[sku])
		if told, ok := shown[sku]; v.Stock != nil && (!ok || told != now) {
			v.complain("I2: stock is shown as %+v, its ledger says %+v", told, now)
		}
		if v.Orders != nil && now.Reserved-others != hold[sku] {
			v.complain("I2: %d of %s are reserved, live orders hold %d", now.Reserved-others, sku, hold[sku])
		}
		if want, ok := v.expect.Received[sku]; ok && now.OnHand != want {
			v.complain("I2: %d of %s on hand, %d were received", now.OnHand, sku, want)
		}
		delete(hold, sku)
	}
	for _, sku := range slices.Sorted(maps.Keys(hold)) {
		if v.Movements != nil && hold[sku] != 0 {
			v.complain("I2: live orders hold %d of %s, which has no ledger", hold[sku], sku)
		}
	}
}

// fold adds up a ledger. others is what orders hold that are not judged: those of other
// programs, and those that a dead letter holds up.
func (v *verdict) fold(c *lives, sku string, moved []Movement) (now Stock, others int64) {
	now.SKU = sku
	done := map[string]bool{}
	for i, m := range moved {
		sign := int64(0)
		switch m.Kind {
		case "received":
			now.OnHand += m.Quantity
		case "reserved":
			sign = 1
		case "released":
			sign = -1
		default:
			v.complain("I2: movement %d of %s is %q", i+1, sku, m.Kind)
		}
		now.Reserved += sign * m.Quantity
		l := c.orders[m.OrderID]
		if l == nil || l.held {
			others += sign * m.Quantity
		}
		if l == nil && m.OrderID != "" && !v.expect.Foreign {
			v.complain("I8: movement %d of %s is of order %s, which nobody has placed", i+1, sku, m.OrderID)
		}
		if m.Version != int64(i+1) || now.Reserved < 0 || now.Reserved > now.OnHand {
			v.complain("I2: movement %d of %s, version %d, leaves %d reserved of %d", i+1, sku, m.Version, now.Reserved, now.OnHand)
		}
		effect := m.Kind + " " + m.OrderID
		if m.OrderID != "" && done[effect] || done["cause "+m.Cause] {
			v.complain("I4: %s of %s %s a second time, by %s", sku, m.Kind, m.OrderID, m.Cause)
		}
		done[effect], done["cause "+m.Cause] = true, true
	}
	now.Available = now.OnHand - now.Reserved
	return now, others
}

// judgeRest is I6.
func (v *verdict) judgeRest() {
	for _, service := range slices.Sorted(maps.Keys(v.Outbox)) {
		if n := v.Outbox[service]; n != 0 {
			v.complain("I6: %d events are left to publish in %s", n, service)
		}
	}
	for _, group := range slices.Sorted(maps.Keys(v.Lag)) {
		if n := v.Lag[group]; n != 0 {
			v.complain("I6: group %s is %d records behind", group, n)
		}
	}
	missing := slices.Clone(v.expect.Dead)
	holding := map[string]bool{}
	for _, w := range v.Waiting {
		if w.State != "dead" && w.State != "set aside" {
			continue
		}
		i := slices.IndexFunc(missing, func(want Waiting) bool { return want.matches(w) })
		if i < 0 {
			v.complain("I6: an unexpected dead letter in %s: %s of %s, %s: %s", w.Group, w.Type, w.Key, w.Reason, w.Error)
			continue
		}
		missing = slices.Delete(missing, i, i+1)
		holding[w.Group+" "+w.Topic+" "+w.Key] = w.State == "dead"
	}
	for _, w := range v.Waiting {
		switch {
		case w.State == "dead", w.State == "set aside":
		case w.State == "behind" && holding[w.Group+" "+w.Topic+" "+w.Key]:
		default:
			v.complain("I6: %s of %s still waits in %s (%s): %s", w.Type, w.Key, w.Group, w.State, w.Error)
		}
	}
	for _, want := range missing {
		v.complain("I6: a dead letter is missing: %+v", want)
	}
}

// matches reports whether w is what is expected; an empty field matches anything.
func (want Waiting) matches(w Waiting) bool {
	for _, pair := range [][2]string{
		{want.Group, w.Group}, {want.Topic, w.Topic}, {want.Key, w.Key}, {want.Type, w.Type}, {want.State, w.State}, {want.Reason, w.Reason}, {want.Error, w.Error},
	} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return true
}
