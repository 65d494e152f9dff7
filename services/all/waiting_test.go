package all_test

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
)

// What a mail server may answer.
var (
	tryLater = &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "mailbox busy"}
	closing  = &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "shutting down"}
	never    = &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
)

// refuse lets the mail server answer every mail about an order in that way, until it is told
// to stop. It counts the mails that it has refused.
func (s *shop) refuse(orderID string, with error) (refused func() int, stop func()) {
	var mu sync.Mutex
	count := 0
	s.Mailbox().Fail(func(_ context.Context, m embedded.Mail) error {
		if len(about(orderID, []embedded.Mail{m})) == 0 {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		count++
		return with
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return count
	}, func() { s.Mailbox().Fail(nil) }
}

// troubled is an order whose mail is refused, with others whose mails are not.
type troubled struct {
	accepted
	refused func() int
	mend    func()
}

// trouble places an order whose confirmation is refused, and cancels it, so that an event of
// its key waits behind another.
func (s *shop) trouble(sku string, with error) (o troubled) {
	s.Helper()
	s.receive(sku, 1000)
	release := s.hold("inventory") // until the mail server knows which order it is to refuse
	o.accepted = s.place(line{sku, 1, 450})
	o.refused, o.mend = s.refuse(o.OrderID, with)
	release()
	s.await(o.OrderID, "confirmed")
	eventually(s, "a refused mail", func() bool { return o.refused() > 0 })
	s.cancel(o.OrderID).want(s, http.StatusAccepted)
	s.await(o.OrderID, "stock released")
	eventually(s, "two events wait", func() bool { return len(s.waits("email", o.OrderID)) == 2 })
	return o
}

// neighbours places orders until one shares the partition of another order, and wants all of
// them to get their mail while that other one waits.
func (s *shop) neighbours(of troubled, sku string) (all []accepted) {
	s.Helper()
	partition := s.factsOf(schemas.TopicOrders, of.OrderID)[0].Partition
	for range 200 {
		o := s.place(line{sku, 1, 450})
		all = append(all, o)
		s.mails(o.OrderID, 1)
		if s.factsOf(schemas.TopicOrders, o.OrderID)[0].Partition == partition {
			if n := len(about(of.OrderID, s.Mailbox().Messages())); n > 0 {
				s.Errorf("%d mails have overtaken one that is refused", n)
			}
			return all
		}
	}
	s.Fatal("200 keys, and none in that partition")
	return nil
}

// TestOneKeyWaits is promise 6: a failing event and what comes behind it wait, in order, and
// nothing else does.
func TestOneKeyWaits_untilItRecovers(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_MAX_BACKOFF": "50ms", "RETRY_ATTEMPTS": "100000"})
	sku := newSKU("tea")
	o := s.trouble(sku, tryLater)
	first, second := s.waits("email", o.OrderID)[0], s.waits("email", o.OrderID)[1]
	if first.Type != "shop.order.OrderConfirmed" || first.State != "retrying" && first.State != "running" || first.Attempts < 1 {
		t.Errorf("first in the queue is %+v, want OrderConfirmed that is tried again", first)
	}
	if second.Type != "shop.order.OrderCancelled" || second.State != "behind" || second.Attempts != 0 {
		t.Errorf("second in the queue is %+v, want OrderCancelled that waits behind", second)
	}
	others := s.neighbours(o, sku)
	before := o.refused()
	eventually(t, "more attempts", func() bool { return o.refused() > before })
	o.mend()
	if got, want := subjects(s.mails(o.OrderID, 2)), []string{confirmedMail, cancelledMail}; !slices.Equal(got, want) {
		t.Errorf("mails %q, want %q", got, want)
	}
	s.quiet()
	s.check(append(others, o.accepted)...)
	if left := s.waits("email", ""); len(left) > 0 {
		t.Errorf("%d events still wait: %+v", len(left), left)
	}
}

// A dead letter holds its key until an operator redrives it: promise 8.
func TestOneKeyWaits_untilItIsRedriven(t *testing.T) {
	parallel(t)
	for _, tt := range []struct {
		name, reason string
		with         error
		attempts     int
	}{
		{"refused for good", "permanent", never, 1},
		{"refused until the attempts are used up", "exhausted", tryLater, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parallel(t)
			s := open(t, map[string]string{"RETRY_MAX_BACKOFF": "20ms", "RETRY_ATTEMPTS": "3"})
			sku := newSKU("tea")
			o := s.trouble(sku, tt.with)
			var head waiting
			eventually(t, "a dead letter", func() bool {
				head = s.waits("email", o.OrderID)[0]
				return head.State == "dead"
			})
			if head.Type != "shop.order.OrderConfirmed" || head.Reason != tt.reason || head.Attempts != tt.attempts || o.refused() != tt.attempts {
				t.Errorf("the dead letter is %+v after %d refused mails, want OrderConfirmed, %s after %d attempts", head, o.refused(), tt.reason, tt.attempts)
			}
			s.neighbours(o, sku)
			s.wantCopy(o, head, tt.reason)
			s.operatorSees(o, head)

			behind := s.waits("email", o.OrderID)[1]
			s.operate("email", behind.ID, "redrive", nil).want(t, http.StatusConflict) // only the head
			o.mend()
			s.operate("email", head.ID, "redrive", nil).want(t, http.StatusOK)
			if got, want := subjects(s.mails(o.OrderID, 2)), []string{confirmedMail, cancelledMail}; !slices.Equal(got, want) {
				t.Errorf("mails %q, want %q", got, want)
			}
			if got, want := s.mails(o.OrderID, 2)[0].ID, "<"+head.EventID+"@keyline.example>"; got != want {
				t.Errorf("the redriven event's mail has the ID %s, want %s", got, want)
			}
			s.quiet()
			s.wantNewTrace(o)
			if left := s.waits("email", o.OrderID); len(left) > 0 {
				t.Errorf("%d events still wait: %+v", len(left), left)
			}
		})
	}
}

// wantCopy wants the dead letter on its topic, bytes and headers untouched, with what is
// known of it beside.
func (s *shop) wantCopy(o troubled, w waiting, reason string) {
	s.Helper()
	var original, letter *kgo.Record
	eventually(s, "a copy of the dead letter", func() bool {
		for _, r := range s.deadLetters("email") {
			if string(r.Key) == o.OrderID {
				letter = r
			}
		}
		return letter != nil
	})
	for _, f := range s.factsOf(schemas.TopicOrders, o.OrderID) {
		if f.id == w.EventID {
			original = f.Record
		}
	}
	if !bytes.Equal(letter.Value, original.Value) || letter.Partition != original.Partition {
		s.Errorf("the copy has the value %x in partition %d, want %x in %d", letter.Value, letter.Partition, original.Value, original.Partition)
	}
	n := len(original.Headers)
	if diff := cmp.Diff(original.Headers, letter.Headers[:n]); diff != "" {
		s.Errorf("the copy's headers begin otherwise (-original +copy):\n%s", diff)
	}
	got := map[string]string{}
	for _, h := range letter.Headers[n:] {
		got[h.Key] = string(h.Value)
	}
	for _, at := range []string{"dlt-timestamp", "dlt-first-failed-at", "dlt-failed-at"} {
		if !strings.HasPrefix(got[at], "20") {
			s.Errorf("%s is %q", at, got[at])
		}
		delete(got, at)
	}
	want := map[string]string{
		"dlt-topic": "orders", "dlt-partition": itoa(int64(original.Partition)), "dlt-offset": itoa(original.Offset), "dlt-group": s.group("email"),
		"dlt-reason": reason, "dlt-error": w.Error, "dlt-attempts": itoa(int64(w.Attempts)), "dlt-redrives": "0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		s.Errorf("headers of the copy (-want +got):\n%s", diff)
	}
}

// operatorSees wants a letter to be shown decoded, with its trace.
func (s *shop) operatorSees(o troubled, w waiting) {
	s.Helper()
	shown := s.sendTo(s.URLs.Admin, "GET", "/email/admin/waiting/"+itoa(w.ID), nil).want(s, http.StatusOK)
	var got waiting
	shown.into(s, &got)
	if got.Event["order_id"] != o.OrderID || got.Headers["ce_id"] != w.EventID || !strings.Contains(got.Headers["traceparent"], o.TraceID) {
		s.Errorf("the operator sees %s", shown.body)
	}
}

// wantNewTrace wants the redriven attempt to be a trace of its own that is linked to the
// order's: hours may lie between them.
func (s *shop) wantNewTrace(o troubled) {
	s.Helper()
	told := s.factsOf(schemas.TopicEmails, o.OrderID)
	if len(told) != 2 || told[0].traceID == o.TraceID {
		s.Fatalf("EmailSent is of trace %s, want a new one", told[0].traceID)
	}
	for _, span := range s.trace(told[0].traceID, 3) {
		if span.SpanKind() != trace.SpanKindConsumer {
			continue
		}
		if links := span.Links(); len(links) != 1 || links[0].SpanContext.TraceID().String() != o.TraceID || span.Parent().IsValid() {
			s.Errorf("the redriven attempt has the links %v and the parent %v, want a root with a link to %s", links, span.Parent(), o.TraceID)
		}
	}
	page := s.send("GET", "/orders/"+o.OrderID, nil).want(s, http.StatusOK).body
	if !strings.Contains(page, "Redriven") || !strings.Contains(page, told[0].traceID) {
		s.Errorf("the order's page does not show trace %s", told[0].traceID)
	}
}

// A mail server that is away holds all mails, counts no attempts and makes no dead letters;
// when it is back all resume, in order.
func TestMailServerAway(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_ATTEMPTS": "2", "RETRY_MAX_BACKOFF": "20ms"})
	sku := newSKU("tea")
	s.receive(sku, 100)
	s.Mailbox().Fail(func(context.Context, embedded.Mail) error { return closing })
	var orders []accepted
	for range 8 {
		orders = append(orders, s.place(line{sku, 1, 450}))
	}
	for _, o := range orders {
		s.await(o.OrderID, "confirmed")
	}
	s.cancel(orders[0].OrderID).want(t, http.StatusAccepted)
	eventually(t, "all of them wait", func() bool {
		for _, o := range orders {
			if w := s.waits("email", o.OrderID); len(w) == 0 || w[0].State != "unavailable" {
				return false
			}
		}
		return true
	})
	for _, w := range s.waits("email", "") {
		if w.Attempts > 0 || w.Reason != "" {
			t.Errorf("%s %s counts %d attempts, reason %q", w.Type, w.State, w.Attempts, w.Reason)
		}
	}
	s.Mailbox().Fail(nil)
	s.settled(orders)
	s.quiet()
	s.check(orders...)
	if n := s.metric("email", "dead_letters_total"); n > 0 {
		t.Errorf("%v dead letters", n)
	}
}
