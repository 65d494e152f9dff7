package email_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/schemas"
)

func TestService_tells(t *testing.T) {
	t.Parallel()
	t.Run("the ledger has a row before the mail goes out, and its end after", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		var during []string
		r.box.Fail(func(context.Context, embedded.Mail) error {
			for _, m := range r.ledger("o-1") {
				during = append(during, fmt.Sprint(m.EventID, " ", m.Kind, " ", m.SentAt))
			}
			return nil
		})
		r.work()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		sent := r.mails(1)[0]
		if diff := cmp.Diff(during, []string{eventtest.ID(2) + " confirmation <nil>"}); diff != "" {
			t.Errorf("while it was sent: %s", diff)
		}
		after := r.ledger("o-1")
		if len(after) != 1 || after[0].EventID != eventtest.ID(2) || after[0].OrderID != "o-1" || after[0].MessageID != sent.ID || after[0].SentAt == nil {
			t.Errorf("the ledger is %+v, want the mail as sent", after)
		}
	})
	t.Run("EmailSent tells of it, with its cause and in the trace", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		sent := r.mails(1)[0]
		all := r.published()
		if len(all) != 1 {
			t.Fatalf("published %+v, want one event", all)
		}
		e := all[0]
		want := schemas.EmailSent{OrderID: "o-1", EventID: eventtest.ID(2), MessageID: sent.ID, Kind: schemas.EmailKindConfirmation, SentAt: e.SentAt}
		if diff := cmp.Diff(e.EmailSent, want); diff != "" {
			t.Error(diff)
		}
		wantID := event.NewID("/email", event.By(event.Meta{ID: eventtest.ID(2), Source: "/order"}), "shop.email.EmailSent", 0)
		if m := e.meta; m.ID != wantID || m.CausationID != eventtest.ID(2) || m.Version != 1 || m.Source != "/email" || m.Trace.TraceID() != sampled.TraceID() {
			t.Errorf("headers %+v", m)
		}
	})
	t.Run("the mail is a client span below the event's", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.mails(1)
		byName := map[string]string{}
		for _, s := range r.spans.Ended() {
			byName[s.Name()+" "+s.SpanKind().String()] = s.Parent().SpanID().String() + " " + s.SpanContext().TraceID().String()
		}
		smtp := byName["smtp send client"]
		if !strings.HasSuffix(smtp, sampled.TraceID().String()) || byName["process orders consumer"] == "" {
			t.Errorf("spans %v, want smtp send in the trace of the event", byName)
		}
	})
	t.Run("all that settles an order is told, in order", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"), cancelled("o-1"), placed("o-2", "bob@customer.example"), rejected("o-2"))
		r.mails(3)
		var subjects []string
		for _, m := range r.box.Messages() {
			if m.To[0] == "ada@customer.example" {
				subjects = append(subjects, m.Subject)
			}
		}
		if diff := cmp.Diff(subjects, []string{"Your order is confirmed", "Your order is cancelled"}); diff != "" {
			t.Error(diff)
		}
		versions := map[string][]int64{}
		for _, e := range r.published() {
			versions[e.OrderID] = append(versions[e.OrderID], e.meta.Version)
		}
		if diff := cmp.Diff(versions, map[string][]int64{"o-1": {1, 2}, "o-2": {1}}); diff != "" {
			t.Errorf("the versions have gaps: %s", diff)
		}
	})
	t.Run("a redelivered event writes no second mail", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		records := []event.Record{r.record(placed("o-1", "ada@customer.example"), "a", "/order"), r.record(confirmed("o-1"), "b", "/order")}
		for range 3 {
			r.Take(records...)
		}
		r.mails(1)
		if n := len(r.published()); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
	t.Run("nor does one that the inbox has forgotten, and the ledger has not", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		records := []event.Record{r.record(placed("o-1", "ada@customer.example"), "a", "/order"), r.record(confirmed("o-1"), "b", "/order")}
		r.Take(records...)
		r.mails(1)
		if _, err := r.DB.Exec(t.Context(), `delete from inbox`); err != nil {
			t.Fatal(err)
		}
		r.Take(records...)
		r.mails(1)
		if n := len(r.published()); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
	t.Run("the first address of an order stays", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(placed("o-1", "ada@customer.example"), placed("o-1", "eve@customer.example"), confirmed("o-1"))
		if m := r.mails(1)[0]; m.To[0] != "ada@customer.example" {
			t.Errorf("the mail goes to %v", m.To)
		}
	})
	t.Run("without an OrderPlaced the recipient is unknown, and the event a dead letter", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		r.take(confirmed("o-1"))
		r.untilWaits("o-1", "dead after 1")
		if n := r.Count(`select count(*) from waiting_event where reason = 'permanent' and error = 'recipient unknown'`); n != 1 {
			t.Errorf("%d dead letters of an unknown recipient, want 1", n)
		}
		if n := r.Count(`select count(*) from mail`); n != 0 {
			t.Errorf("%d rows in the ledger, want none", n)
		}
	})
	t.Run("what is no address is a dead letter that does not quote it", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		for i, bad := range []string{"", "ada@customer.example, eve@customer.example", "Ada <ada@customer.example>", "ada@customer.example\r\nBcc: eve@customer.example", "ada@"} {
			r.take(placed(fmt.Sprint("o-", i), bad))
			r.untilWaits(fmt.Sprint("o-", i), "dead after 1")
		}
		r.noAddress()
	})
}

// Another producer may give its events any ID, and two producers may count alike.
func TestService_foreignIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t).work()
	evil := "1@x>\r\nBcc: eve@customer.example\r\nX: <"
	r.Take(r.record(placed("o-1", "ada@customer.example"), "", "/order"),
		r.record(confirmed("o-1"), "1", "/a"), r.record(confirmed("o-1"), "1", "/b"),
		r.record(confirmed("o-1"), evil, "/a"), r.record(confirmed("o-1"), "", ""))
	ids := map[string]bool{}
	for _, m := range r.mails(4) {
		ids[m.ID] = true
		if len(m.ID) != len("<00000000-0000-5000-8000-000000000001@keyline.example>") || m.Headers.Get("Bcc") != "" || len(m.To) != 1 {
			t.Errorf("Message-ID %q, Bcc %q, to %v", m.ID, m.Headers.Get("Bcc"), m.To)
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d different Message-IDs %v, want 4", len(ids), ids)
	}
}

// What the service may do at the brokers is made of what the contract declares.
func TestService_topics(t *testing.T) {
	t.Parallel()
	declared := schemas.Services()["email"]
	newRig(t).WantTopics(declared.Publishes, declared.Consumes)
}
