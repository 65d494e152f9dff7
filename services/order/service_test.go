package order_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

func TestService_Place(t *testing.T) {
	t.Parallel()
	t.Run("the order and its event are committed together", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ctx, span := r.Telemetry.Tracer.Start(t.Context(), "request")
		var placed *order.Order
		err := r.parts.DB.InTx(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
			placed, err = r.Place(ctx, tx, draft, "key")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r.get(placed.ID), placed); diff != "" {
			t.Error(diff)
		}
		if placed.Traceparent != string(event.Traceparent(span.SpanContext())) {
			t.Errorf("traceparent %s, want that of the request", placed.Traceparent)
		}
		events := r.published(placed.ID)
		if len(events) != 1 || events[0].Type != "shop.order.OrderPlaced" || events[0].Version != 1 || events[0].CausationID != "" {
			t.Fatalf("published %+v, want one OrderPlaced", events)
		}
		if got, want := events[0].ID, event.NewID("/order", event.Because(placed.ID, "key"), "shop.order.OrderPlaced", 0); got != want {
			t.Errorf("event ID %s, want %s, made of the order's ID and the key", got, want)
		}
		if got, want := events[0].Trace.TraceID(), span.SpanContext().TraceID(); got != want {
			t.Errorf("trace %s, want %s", got, want)
		}
	})
	t.Run("a transaction that fails leaves neither", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		oops := errors.New("oops")
		err := r.parts.DB.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
			if _, err := r.Place(ctx, tx, draft, "key"); err != nil {
				return err
			}
			return oops
		})
		if !errors.Is(err, oops) || r.Count(`select count(*) from orders`) != 0 || r.Count(`select count(*) from outbox`) != 0 {
			t.Errorf("InTx = %v, %d orders, %d events; want none", err, r.Count(`select count(*) from orders`), r.Count(`select count(*) from outbox`))
		}
	})
	t.Run("newer orders have higher IDs", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		var ids []string
		for range 10 {
			ids = append(ids, r.place("key").ID)
		}
		if !slices.IsSorted(ids) {
			t.Errorf("IDs %v are not sorted", ids)
		}
	})
}

func TestService_answers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer []func(id string) event.Payload
		status order.Status
		reason string
		events []string
	}{
		{"reserved stock confirms", []func(string) event.Payload{reserved}, order.Confirmed, "", []string{"OrderPlaced", "OrderConfirmed"}},
		{"missing stock rejects", []func(string) event.Payload{rejected}, order.Rejected, "out of stock: cup", []string{"OrderPlaced", "OrderRejected"}},
		{"the first answer stands", []func(string) event.Payload{rejected, reserved}, order.Rejected, "out of stock: cup", []string{"OrderPlaced", "OrderRejected"}},
		{"released stock changes nothing", []func(string) event.Payload{released}, order.Pending, "", []string{"OrderPlaced"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			o := r.place("key")
			for _, answer := range tt.answer {
				p := answer(o.ID)
				r.answer(p, "of "+p.Schema())
			}
			if got := r.get(o.ID); got.Status != tt.status || got.Reason != tt.reason {
				t.Errorf("the order is %s (%s), want %s (%s)", got.Status, got.Reason, tt.status, tt.reason)
			}
			if diff := cmp.Diff(r.types(o.ID), tt.events); diff != "" {
				t.Error(diff)
			}
		})
	}
	t.Run("an event says what caused it, and the same cause makes the same ID", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		r.answer(reserved(o.ID), "answer-1")
		cause := event.Meta{ID: "answer-1", Source: "/inventory"}
		got := r.published(o.ID)[1]
		want := event.NewID("/order", event.By(cause), "shop.order.OrderConfirmed", 0)
		if got.ID != want || got.CausationID != "answer-1" {
			t.Errorf("event %s caused by %s, want %s by answer-1", got.ID, got.CausationID, want)
		}
	})
	t.Run("a twin of an answer has no second effect", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		r.answer(reserved(o.ID), "answer-1")
		before := r.get(o.ID)
		r.answer(reserved(o.ID), "answer-1")
		if diff := cmp.Diff(r.get(o.ID), before); diff != "" || len(r.types(o.ID)) != 2 {
			t.Errorf("published %v, the order changed: %s", r.types(o.ID), diff)
		}
	})
	t.Run("an answer for an unknown order waits to be tried again", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.answer(reserved("nobody"), "answer-1")
		if n := r.Count(`select count(*) from waiting_key where state = 'retrying'`); n != 1 {
			t.Errorf("%d keys are retried, want 1", n)
		}
		if n := r.Count(`select count(*) from outbox`); n != 0 {
			t.Errorf("%d events, want none", n)
		}
	})
}

func TestService_Cancel(t *testing.T) {
	t.Parallel()
	t.Run("a pending order is cancelled once, however often it is asked", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		for range 3 {
			got, err := r.Cancel(t.Context(), o.ID)
			if err != nil || got.Status != order.Cancelled || got.Reason != "customer" {
				t.Fatalf("Cancel = %+v, %v", got, err)
			}
		}
		if diff := cmp.Diff(r.types(o.ID), []string{"OrderPlaced", "OrderCancelled"}); diff != "" {
			t.Error(diff)
		}
		want := event.NewID("/order", event.Because(o.ID, "customer"), "shop.order.OrderCancelled", 0)
		if got := r.published(o.ID)[1].ID; got != want {
			t.Errorf("event ID %s, want %s, made of the order's ID and the word", got, want)
		}
	})
	t.Run("a late answer changes nothing, and is noted", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		if _, err := r.Cancel(t.Context(), o.ID); err != nil {
			t.Fatal(err)
		}
		r.answer(reserved(o.ID), "answer-1")
		r.answer(released(o.ID), "answer-2")
		got := r.get(o.ID)
		var steps []string
		for _, s := range got.History {
			steps = append(steps, s.Step)
		}
		if diff := cmp.Diff(steps, []string{"placed", "cancelled", "stock reserved", "stock released"}); diff != "" || got.Status != order.Cancelled {
			t.Errorf("the order is %s: %s", got.Status, diff)
		}
		if diff := cmp.Diff(r.types(o.ID), []string{"OrderPlaced", "OrderCancelled"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a confirmed order can be cancelled", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		r.answer(reserved(o.ID), "answer-1")
		if got, err := r.Cancel(t.Context(), o.ID); err != nil || got.Status != order.Cancelled {
			t.Errorf("Cancel = %+v, %v", got, err)
		}
		if diff := cmp.Diff(r.types(o.ID), []string{"OrderPlaced", "OrderConfirmed", "OrderCancelled"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("a rejected order cannot", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		r.answer(rejected(o.ID), "answer-1")
		if _, err := r.Cancel(t.Context(), o.ID); !errors.Is(err, order.ErrRejected) {
			t.Errorf("Cancel = %v, want ErrRejected", err)
		}
	})
	t.Run("an order that is not there cannot", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		if _, err := r.Cancel(t.Context(), "nobody"); !errors.Is(err, order.ErrNotFound) {
			t.Errorf("Cancel = %v, want ErrNotFound", err)
		}
	})
}

// Customers cancel while the answers come in: each order ends cancelled, by way of a
// confirmation or not, and its events say so without gaps.
func TestService_Cancel_races(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const n = 30
	orders := make([]*order.Order, n)
	for i := range orders {
		orders[i] = r.place("key")
	}
	var all sync.WaitGroup
	for _, o := range orders {
		batch := r.Batch(r.record(reserved(o.ID), "answer "+o.ID))
		all.Go(func() {
			if err := r.Inbox.Process(t.Context(), batch); err != nil {
				t.Error(err)
			}
		})
		for range 2 {
			all.Go(func() {
				if _, err := r.Cancel(t.Context(), o.ID); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	for _, o := range orders {
		got, events := r.get(o.ID), r.types(o.ID)
		direct := slices.Equal(events, []string{"OrderPlaced", "OrderCancelled"})
		confirmed := slices.Equal(events, []string{"OrderPlaced", "OrderConfirmed", "OrderCancelled"})
		if got.Status != order.Cancelled || got.Version != int64(len(events)) || !direct && !confirmed {
			t.Errorf("the order is %s at version %d after %v", got.Status, got.Version, events)
		}
	}
	if n := r.Count(`select count(*) from waiting_key`); n != 0 {
		t.Errorf("%d keys wait, want none", n)
	}
}

func TestService_deadline(t *testing.T) {
	t.Parallel()
	impatient := func(p *order.Parts) { p.Patience = 0 }
	t.Run("an order without an answer is cancelled when its time is over, not before", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		if err := r.CancelAllOverdue(t.Context()); err != nil || r.get(o.ID).Status != order.Pending {
			t.Fatalf("CancelAllOverdue = %v, the order is %s before its hour is over", err, r.get(o.ID).Status)
		}
		if err := r.replica(impatient).CancelAllOverdue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.get(o.ID); got.Status != order.Cancelled || got.Reason != "deadline" {
			t.Errorf("the order is %s (%s), want cancelled (deadline)", got.Status, got.Reason)
		}
		want := event.NewID("/order", event.Because(o.ID, "deadline"), "shop.order.OrderCancelled", 0)
		if got := r.published(o.ID)[1].ID; got != want {
			t.Errorf("event ID %s, want %s, made of the order's ID and the word", got, want)
		}
	})
	t.Run("the cancellation belongs to the trace of the request", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		ctx, span := r.Telemetry.Tracer.Start(t.Context(), "request")
		var o *order.Order
		err := r.parts.DB.InTx(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
			o, err = r.Place(ctx, tx, draft, "key")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.replica(impatient).CancelAllOverdue(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended := r.spans.Ended()
		if len(ended) != 1 || ended[0].Name() != "order deadline" || ended[0].Parent().SpanID() != span.SpanContext().SpanID() {
			t.Fatalf("spans %v, want one of the deadline, a child of the request's", ended)
		}
		if got := r.published(o.ID)[1].Trace.SpanID(); got != ended[0].SpanContext().SpanID() {
			t.Errorf("the event's parent is %s, want the deadline's span", got)
		}
	})
	t.Run("settled orders have no deadline", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		confirmed, refused := r.place("a"), r.place("b")
		r.answer(reserved(confirmed.ID), "answer-1")
		r.answer(rejected(refused.ID), "answer-2")
		if err := r.replica(impatient).CancelAllOverdue(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := r.get(confirmed.ID).Status; got != order.Confirmed {
			t.Errorf("the confirmed order is %s", got)
		}
		if got := r.get(refused.ID).Status; got != order.Rejected {
			t.Errorf("the rejected order is %s", got)
		}
	})
	t.Run("replicas and answers at the same time settle every order once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		var orders []*order.Order
		for range 20 {
			orders = append(orders, r.place("key"))
		}
		var all sync.WaitGroup
		for range 3 {
			replica := r.replica(impatient)
			all.Go(func() {
				if err := replica.CancelAllOverdue(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		for _, o := range orders {
			batch := r.Batch(r.record(reserved(o.ID), "answer "+o.ID))
			all.Go(func() {
				if err := r.Inbox.Process(t.Context(), batch); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		for _, o := range orders {
			got, events := r.get(o.ID), r.types(o.ID)
			want := map[order.Status]string{order.Cancelled: "OrderCancelled", order.Confirmed: "OrderConfirmed"}[got.Status]
			if want == "" || !slices.Equal(events, []string{"OrderPlaced", want}) || len(got.History) < 3 {
				t.Errorf("the order is %s after %v, with the steps %v", got.Status, events, got.History)
			}
		}
	})
}

func TestService_Wait(t *testing.T) {
	t.Parallel()
	t.Run("a settled order is returned at once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		r.answer(reserved(o.ID), "answer-1")
		if got, err := r.Wait(t.Context(), o.ID, time.Hour); err != nil || got.Status != order.Confirmed {
			t.Errorf("Wait = %+v, %v", got, err)
		}
	})
	t.Run("a pending one is returned when the time is over", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		if got, err := r.Wait(t.Context(), o.ID, 10*time.Millisecond); err != nil || got.Status != order.Pending {
			t.Errorf("Wait = %+v, %v", got, err)
		}
	})
	t.Run("or when the request ends", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		o := r.place("key")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			_, err := r.Wait(ctx, o.ID, time.Hour)
			ended <- err
		}()
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Wait = %v", err)
		}
	})
	t.Run("an order that is not there is not waited for", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		if _, err := r.Wait(t.Context(), "nobody", time.Hour); !errors.Is(err, order.ErrNotFound) {
			t.Errorf("Wait = %v, want ErrNotFound", err)
		}
	})
	for _, tt := range []struct {
		name  string
		where func(*rig) *order.Service
	}{
		{"a change in this process ends the wait", func(r *rig) *order.Service { return r.Service }},
		{"a change in another replica ends it too", func(r *rig) *order.Service { return r.replica(func(*order.Parts) {}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			o := r.place("key")
			settled := make(chan *order.Order)
			for range 3 {
				go func() {
					got, err := r.Wait(context.WithoutCancel(t.Context()), o.ID, time.Minute)
					if err != nil {
						t.Error(err)
					}
					settled <- got
				}()
			}
			if _, err := tt.where(r).Cancel(t.Context(), o.ID); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if got := <-settled; got == nil || got.Status != order.Cancelled {
					t.Errorf("Wait = %+v, want the cancelled order", got)
				}
			}
		})
	}
}

// Who waits for an order is told of its change once that is committed, and never of one that
// is not.
func TestService_changes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var seen []string
	defer r.OnChange(func(id string) { seen = append(seen, id+" is "+string(r.get(id).Status)) })()
	confirmed, cancelled := r.place("a"), r.place("b")
	r.answer(reserved(confirmed.ID), "answer-1")
	r.answer(reserved("nobody"), "answer-2")
	for range 2 {
		if _, err := r.Cancel(t.Context(), cancelled.ID); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(seen, []string{confirmed.ID + " is confirmed", cancelled.ID + " is cancelled"}); diff != "" {
		t.Error(diff)
	}
}

func TestService_metrics(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	confirmed, refused := r.place("a"), r.place("b")
	r.answer(reserved(confirmed.ID), "answer-1")
	r.answer(reserved(confirmed.ID), "answer-1")
	r.answer(rejected(refused.ID), "answer-2")
	if _, err := r.Cancel(t.Context(), confirmed.ID); err != nil {
		t.Fatal(err)
	}
	metrics := r.do("GET", "/metrics", "").Text
	for _, status := range []string{"confirmed", "rejected", "cancelled"} {
		if !hasLine(metrics, "orders_settled_total{", `status="`+status+`"`, "} 1") {
			t.Errorf("no orders_settled_total of 1 with status %s in\n%s", status, metrics)
		}
	}
}

// What the service may do at the brokers is made of what the contract declares.
func TestService_topics(t *testing.T) {
	t.Parallel()
	declared := schemas.Services()["order"]
	newRig(t).WantTopics(declared.Publishes, declared.Consumes)
}
