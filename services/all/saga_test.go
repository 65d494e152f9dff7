package all_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/schemas"
)

const (
	confirmedMail = "Your order is confirmed"
	rejectedMail  = "Your order cannot be fulfilled"
	cancelledMail = "Your order is cancelled"
)

func TestRejectedOrder(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	plenty, scarce := newSKU("tea"), newSKU("saffron")
	s.receive(plenty, 10)
	s.receive(scarce, 2)
	o := s.place(line{plenty, 1, 450}, line{scarce, 3, 990}, line{newSKU("nothing"), 1, 1})
	got := s.await(o.OrderID, "rejected")
	if got.Status != "rejected" || !strings.Contains(got.Reason, scarce) || strings.Contains(got.Reason, plenty) {
		t.Errorf("the order is %s because %q, want rejected for what was short, and only that", got.Status, got.Reason)
	}
	mails := s.mails(o.OrderID, 1)
	if mails[0].Subject != rejectedMail || !strings.Contains(mails[0].Text, scarce) {
		t.Errorf("the mail says %q: %s", mails[0].Subject, mails[0].Text)
	}
	s.wantStock(plenty, stock{10, 0, 10}) // all lines or none
	s.wantStock(scarce, stock{2, 0, 2})
	if a := s.cancel(o.OrderID); a.status != http.StatusConflict || !strings.Contains(a.body, "rejected") {
		t.Errorf("cancelling it answered %d %s, want 409", a.status, a.body)
	}
	s.quiet()
	s.check(o)
}

func TestCancelledOrder_confirmed(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku := newSKU("mug")
	s.receive(sku, 5)
	o := s.place(line{sku, 4, 1250})
	s.await(o.OrderID, "confirmed")
	s.wantStock(sku, stock{5, 4, 1})
	a := s.cancel(o.OrderID).want(t, http.StatusAccepted)
	if got := a.header.Get("Location"); got != "/v1/orders/"+o.OrderID {
		t.Errorf("the cancellation is at %q", got)
	}
	s.cancel(o.OrderID).want(t, http.StatusAccepted) // twice is the same as once
	s.await(o.OrderID, "stock released")
	s.wantStock(sku, stock{5, 0, 5})
	if got, want := subjects(s.mails(o.OrderID, 2)), []string{confirmedMail, cancelledMail}; !slices.Equal(got, want) {
		t.Errorf("mails %q, want %q", got, want)
	}
	s.quiet()
	s.check(o)
	if got, want := s.get(o.OrderID).steps(), "placed, stock reserved, confirmed, cancelled, stock released"; got != want {
		t.Errorf("history %q, want %q", got, want)
	}
}

// The customer is quicker than inventory: what comes late changes nothing in the order, and
// the stock comes back.
func TestCancelledOrder_pending(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku := newSKU("mug")
	s.receive(sku, 5)
	release := s.hold("inventory")
	o := s.place(line{sku, 4, 1250})
	s.cancel(o.OrderID).want(t, http.StatusAccepted)
	if mail := s.mails(o.OrderID, 1)[0]; mail.Subject != cancelledMail || !strings.Contains(mail.Text, "You cancelled it") {
		t.Errorf("the mail says %q: %s", mail.Subject, mail.Text)
	}
	if got := s.get(o.OrderID).steps(); got != "placed, cancelled" {
		t.Errorf("while inventory is silent the history is %q", got)
	}
	release()
	s.wantLateAnswer(o, sku)
}

func TestDeadline(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"ORDER_DEADLINE": "100ms"})
	sku := newSKU("mug")
	s.receive(sku, 5)
	release := s.hold("inventory")
	o := s.place(line{sku, 4, 1250})
	if got := s.await(o.OrderID, "cancelled"); got.Status != "cancelled" || got.Reason != "deadline" {
		t.Errorf("the order is %s because of %q, want cancelled by its deadline", got.Status, got.Reason)
	}
	if mail := s.mails(o.OrderID, 1)[0]; mail.Subject != cancelledMail || !strings.Contains(mail.Text, "did not answer in time") {
		t.Errorf("the mail says %q: %s", mail.Subject, mail.Text)
	}
	release()
	s.wantLateAnswer(o, sku)
	if diff := cmp.Diff(deadlineTrace, tree(s.trace(o.TraceID, len(deadlineTrace)))); diff != "" {
		t.Errorf("the deadline belongs to the trace of the request (-want +got):\n%s", diff)
	}
}

var deadlineTrace = []string{
	"order: POST /v1/orders (server)",
	"  order: order deadline (internal)",
	"    order: send orders (producer)",
	"      email: process orders (consumer)",
	"        email: send emails (producer)",
	"        email: smtp send (client)",
	"      inventory: process orders (consumer)",
	"        inventory: send inventory (producer)",
	"          order: process inventory (consumer)",
	"  order: send orders (producer)",
	"    email: process orders (consumer)",
	"    inventory: process orders (consumer)",
	"      inventory: send inventory (producer)",
	"        order: process inventory (consumer)",
}

// wantLateAnswer waits until inventory has reserved for a cancelled order and given back.
func (s *shop) wantLateAnswer(o accepted, sku string) {
	s.Helper()
	got := s.await(o.OrderID, "stock released")
	if want := "placed, cancelled, stock reserved, stock released"; got.Status != "cancelled" || got.steps() != want {
		s.Errorf("the order is %s with the history %q, want cancelled with %q", got.Status, got.steps(), want)
	}
	s.wantStock(sku, stock{5, 0, 5})
	var kinds []string
	for _, m := range s.movements(sku) {
		kinds = append(kinds, m.Kind)
	}
	if want := []string{"received", "reserved", "released"}; !slices.Equal(kinds, want) {
		s.Errorf("movements %q, want %q", kinds, want)
	}
	s.quiet()
	s.check(o)
	if n := len(s.mails(o.OrderID, 1)); n != 1 {
		s.Errorf("%d mails, want 1", n)
	}
}

// Inventory may hear of a cancellation without having heard of the order, when an operator
// has dropped that. It notes that nothing is reserved, and the saga ends.
func TestCancelledOrder_dropped(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_ATTEMPTS": "2"})
	sku := newSKU("mug")
	s.receive(sku, 5)
	o := s.forge(draftOf(line{sku, -1, 1})) // no order of ours has such a line
	eventually(t, "a dead letter", func() bool { return len(s.waits("inventory", o)) == 1 })
	dead := s.waits("inventory", o)[0]
	if dead.State != "dead" || dead.Reason != "permanent" || !strings.Contains(dead.Error, "lines[0].quantity") {
		t.Fatalf("it is %s, %s: %s", dead.State, dead.Reason, dead.Error)
	}
	shown := s.sendTo(s.URLs.Admin, "GET", "/inventory/admin/waiting/"+itoa(dead.ID), nil).body
	if !strings.Contains(shown, `"customer_email":"***"`) || strings.Contains(shown, "ada@example.com") {
		t.Errorf("the operator sees the recipient: %s", shown)
	}
	s.forgeCancellation(o)
	eventually(t, "the cancellation waits behind it", func() bool {
		w := s.waits("inventory", o)
		return len(w) == 2 && w[0].ID == dead.ID && w[1].State == "behind"
	})
	s.operate("inventory", dead.ID, "drop", nil).want(t, http.StatusBadRequest) // not without a reason
	s.operate("inventory", dead.ID, "drop", map[string]string{"reason": "made up"}).want(t, http.StatusOK)
	eventually(t, "StockReleased", func() bool {
		for _, f := range s.factsOf(schemas.TopicInventory, o) {
			if f.typ == "shop.inventory.StockReleased" {
				return len(f.data["lines"].([]any)) == 0
			}
		}
		return false
	})
	s.quiet()
	if left := s.waits("inventory", ""); len(left) > 0 {
		t.Errorf("%d events still wait: %+v", len(left), left)
	}
	s.wantStock(sku, stock{5, 0, 5})
}

func (s *shop) wantStock(sku string, want stock) {
	s.Helper()
	if got := s.stock(sku); got != want {
		s.Errorf("stock of %s is %+v, want %+v", sku, got, want)
	}
}
