package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/schemas"
	"example.com/keyline/services/inventory"
)

// times are of no interest to most tests.
var times = cmpopts.IgnoreTypes(time.Time{})

func reserved(id string, lines ...schemas.ReservedLine) event.Payload {
	return schemas.StockReserved{OrderID: id, Lines: lines}
}

func rejected(id string, lines ...schemas.MissingLine) event.Payload {
	return schemas.StockRejected{OrderID: id, Missing: lines}
}

func released(id string, lines ...schemas.ReleasedLine) event.Payload {
	return schemas.StockReleased{OrderID: id, Lines: lines}
}

func (r *rig) wantAnswers(id string, want ...event.Payload) {
	r.Helper()
	if diff := cmp.Diff(r.answers(id), want, times, cmpopts.EquateEmpty()); diff != "" {
		r.Errorf("the answers about %s: %s", id, diff)
	}
}

func TestService_Reserve(t *testing.T) {
	t.Parallel()
	t.Run("all lines of an order are reserved", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.receive("cup", 1)
		r.take(order("o-1", "3 tea", "cup"))
		r.wantAnswers("o-1", reserved("o-1", schemas.ReservedLine{SKU: "tea", Quantity: 3}, schemas.ReservedLine{SKU: "cup", Quantity: 1}))
		r.wantStock("tea", "10/3")
		r.wantStock("cup", "1/1")
	})
	t.Run("or none", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.receive("cup", 1)
		r.take(order("o-1", "3 tea", "2 cup", "moon"))
		r.wantAnswers("o-1", rejected("o-1", schemas.MissingLine{SKU: "cup", Requested: 2, Available: 1}, schemas.MissingLine{SKU: "moon", Requested: 1}))
		r.wantStock("tea", "10/0")
		r.wantStock("moon", "none")
		if n := len(r.ledger("tea")); n != 1 {
			t.Errorf("%d movements of tea, want the receipt", n)
		}
	})
	t.Run("orders of one batch share what there is, the first comes first", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 5)
		r.take(order("o-1", "2 tea"), order("o-2", "4 tea"), order("o-3", "3 tea"), order("o-4", "tea"))
		r.wantAnswers("o-1", reserved("o-1", schemas.ReservedLine{SKU: "tea", Quantity: 2}))
		r.wantAnswers("o-2", rejected("o-2", schemas.MissingLine{SKU: "tea", Requested: 4, Available: 3}))
		r.wantAnswers("o-3", reserved("o-3", schemas.ReservedLine{SKU: "tea", Quantity: 3}))
		r.wantAnswers("o-4", rejected("o-4", schemas.MissingLine{SKU: "tea", Requested: 1}))
		r.wantStock("tea", "5/5")
	})
	t.Run("an order placed twice is reserved once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.take(order("o-1", "3 tea"), order("o-1", "3 tea"))
		r.take(order("o-1", "4 tea"))
		r.wantAnswers("o-1", reserved("o-1", schemas.ReservedLine{SKU: "tea", Quantity: 3}))
		r.wantStock("tea", "10/3")
		if n := r.Count(`select count(*) from waiting_event`); n != 0 {
			t.Errorf("%d events wait, want none", n)
		}
	})
	t.Run("a redelivered event has no second effect", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		b := r.batch(order("o-1", "3 tea"), cancelled("o-1"), order("o-2", "1 tea"))
		for range 3 {
			if err := r.Inbox.Process(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		r.wantStock("tea", "10/1")
		if n := len(r.ledger("tea")); n != 4 {
			t.Errorf("%d movements, want 4", n)
		}
	})
	t.Run("the ledger and the answer say what caused them", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		b := r.batch(order("o-1", "3 tea"))
		if err := r.Inbox.Process(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		id := string(b.Records[0].Header(event.HeaderID))
		if m := r.ledger("tea")[1]; m.Cause != id || m.OrderID != "o-1" || m.Kind != inventory.Reserved {
			t.Errorf("movement %+v, want one caused by %s", m, id)
		}
	})
	t.Run("a malformed order is a dead letter, its neighbours are reserved", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.take(order("o-1", "3 tea"), order("o-2", "0 tea"), order("o-3", "tea", "tea"), order("o-4", "2 tea"))
		r.wantStock("tea", "10/5")
		if n := r.Count(`select count(*) from waiting_event where reason = 'permanent'`); n != 2 {
			t.Errorf("%d dead letters, want 2", n)
		}
	})
	t.Run("an order under another order's key is a dead letter", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		b := r.batch(order("o-1", "3 tea"))
		b.Records = append(b.Records, r.under("o-2", order("o-1", "3 tea")), r.under("o-3", cancelled("o-1")))
		if err := r.Inbox.Process(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		r.wantStock("tea", "10/3")
		if n := r.Count(`select count(*) from waiting_event where reason = 'permanent'`); n != 2 {
			t.Errorf("%d dead letters, want 2", n)
		}
	})
}

func TestService_Release(t *testing.T) {
	t.Parallel()
	t.Run("what was reserved comes back", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.receive("cup", 1)
		r.take(order("o-1", "3 tea", "cup"))
		r.take(cancelled("o-1"))
		r.wantAnswers("o-1",
			reserved("o-1", schemas.ReservedLine{SKU: "tea", Quantity: 3}, schemas.ReservedLine{SKU: "cup", Quantity: 1}),
			released("o-1", schemas.ReleasedLine{SKU: "tea", Quantity: 3}, schemas.ReleasedLine{SKU: "cup", Quantity: 1}))
		r.wantStock("tea", "10/0")
		r.wantStock("cup", "1/0")
	})
	t.Run("once, however often the order is cancelled", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.take(order("o-1", "3 tea"), order("o-2", "1 tea"), cancelled("o-1"), cancelled("o-1"))
		r.take(cancelled("o-1"))
		r.wantStock("tea", "10/1")
		if n := len(r.answers("o-1")); n != 2 {
			t.Errorf("%d answers, want 2", n)
		}
	})
	t.Run("of a refused order nothing comes back", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 2)
		r.take(order("o-1", "3 tea"), cancelled("o-1"))
		r.wantAnswers("o-1", rejected("o-1", schemas.MissingLine{SKU: "tea", Requested: 3, Available: 2}), released("o-1"))
		r.wantStock("tea", "2/0")
	})
	t.Run("an order cancelled before it was placed reserves nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 10)
		r.take(cancelled("o-1"))
		r.take(order("o-1", "3 tea"))
		r.wantAnswers("o-1", released("o-1"))
		r.wantStock("tea", "10/0")
	})
}

func TestService_Receive(t *testing.T) {
	t.Parallel()
	t.Run("the first receipt introduces the article, others add up", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.wantStock("tea", "none")
		r.receive("tea", 3)
		r.receive("tea", 4)
		r.wantStock("tea", "7/0")
	})
	t.Run("more than can be counted is refused, and nothing is left of it", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", inventory.MaxOnHand)
		for _, sku := range []string{"tea", "cup"} {
			err := r.DB.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				_, err := r.Receive(ctx, tx, sku, inventory.MaxOnHand+1, "receipt")
				return err
			})
			if !errors.Is(err, inventory.ErrTooMuch) {
				t.Errorf("Receive = %v, want ErrTooMuch", err)
			}
		}
		r.wantStock("tea", fmt.Sprint(inventory.MaxOnHand, "/0"))
		r.wantStock("cup", "none")
	})
}

// Transactions on the same articles at the same time, in orders that cross each other: no
// more is reserved than there is, and every piece is accounted for.
func TestService_concurrently(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	skus := []string{"cup", "kettle", "tea"}
	const each, batches, perBatch = 40, 12, 10
	for _, sku := range skus {
		r.receive(sku, each)
	}
	var all sync.WaitGroup
	for b := range batches {
		rnd := rand.New(rand.NewPCG(uint64(b), 2))
		var events []event.Payload
		for i := range perBatch {
			id := fmt.Sprintf("o-%d-%d", b, i)
			var lines []string
			for _, s := range rnd.Perm(len(skus))[:1+rnd.IntN(len(skus))] {
				lines = append(lines, fmt.Sprint(1+rnd.IntN(3), " ", skus[s]))
			}
			events = append(events, order(id, lines...))
			if i%4 == 3 {
				events = append(events, cancelled(id))
			}
		}
		batch := r.batch(events...)
		all.Go(func() {
			if err := r.Inbox.Process(t.Context(), batch); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			err := r.DB.InTx(t.Context(), func(ctx context.Context, tx *db.Tx) error {
				_, err := r.Receive(ctx, tx, skus[b%len(skus)], 1, "receipt")
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	held := map[string]int64{} // by the answers
	for b := range batches {
		for i := range perBatch {
			for _, p := range r.answers(fmt.Sprintf("o-%d-%d", b, i)) {
				switch e := p.(type) {
				case schemas.StockReserved:
					for _, l := range e.Lines {
						held[l.SKU] += int64(l.Quantity)
					}
				case schemas.StockReleased:
					for _, l := range e.Lines {
						held[l.SKU] -= int64(l.Quantity)
					}
				}
			}
		}
	}
	for _, sku := range skus {
		fold := inventory.Stock{SKU: sku}
		for i, m := range r.ledger(sku) {
			fold.Apply(m)
			if m.Version != int64(i+1) || fold.Reserved < 0 || fold.Available() < 0 {
				t.Fatalf("after movement %d of %s: %+v", i+1, sku, fold)
			}
		}
		if fold.OnHand != each+batches/int64(len(skus)) || fold.Reserved != held[sku] {
			t.Errorf("%s: the ledger ends with %d/%d, the answers hold %d", sku, fold.OnHand, fold.Reserved, held[sku])
		}
		r.wantStock(sku, fmt.Sprintf("%d/%d", fold.OnHand, fold.Reserved))
	}
	if n := r.Count(`select count(*) from waiting_event`); n != 0 {
		t.Errorf("%d events wait, want none", n)
	}
}

// together hands over batches that all need the article's row, each to a replica of its own: one
// inbox would make one transaction of them. On PostgreSQL the row is locked until each batch waits,
// for it or for another one, so that none has seen another's end.
func (r *rig) together(sku string, batches ...event.Batch) {
	r.Helper()
	var all sync.WaitGroup
	err := r.DB.Once(r.Context(), func(ctx context.Context, tx *db.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, `select version from stock where sku = $1`+tx.ForUpdate(), sku).Scan(&n); err != nil {
			return err
		}
		for _, b := range batches {
			replica, err := inbox.New(r.DB, r.Codec, r.Outbox, inbox.Config{Group: "inventory"})
			if err != nil {
				return err
			}
			r.Register(replica)
			all.Go(func() {
				if err := replica.Process(r.Context(), b); err != nil {
					r.Error(err)
				}
			})
		}
		if dbtest.Postgres() {
			eventtest.Until(r, "all batches wait", func() bool {
				return r.Count(`select count(distinct pid) from pg_locks where not granted
					and pid in (select pid from pg_locks where relation = 'reservation'::regclass)`) == len(batches)
			})
		}
		return nil
	})
	if err != nil {
		r.Error(err)
	}
	all.Wait()
	if n := r.Count(`select count(*) from waiting_event`); n != 0 {
		r.Errorf("%d events wait, want none", n)
	}
}

// Even if a producer with another partitioner brings events of one order into several
// partitions, and so into transactions at the same time, the order is reserved once, and
// given back once.
func TestService_sameOrderAtOnce(t *testing.T) {
	t.Parallel()
	eight := func(r *rig, e event.Payload) (batches []event.Batch) {
		for range 8 {
			batches = append(batches, r.batch(e))
		}
		return batches
	}
	t.Run("eight times placed, it is reserved once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 100)
		r.together("tea", eight(r, order("o-1", "3 tea"))...)
		r.wantStock("tea", "100/3")
		if moved := r.ledger("tea"); len(moved) != 2 {
			t.Errorf("the ledger is %v, want one receipt and one reservation", moved)
		}
	})
	t.Run("eight times cancelled, it is given back once", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		r.receive("tea", 100)
		r.take(order("o-1", "3 tea"), order("o-2", "50 tea"))
		r.together("tea", eight(r, cancelled("o-1"))...)
		r.wantStock("tea", "100/50")
		if n := len(r.answers("o-1")); n != 2 {
			t.Errorf("%d answers, want that it was reserved and that it was released", n)
		}
	})
}

func TestPersonalData(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.receive("tea", 1)
	r.take(order("o-1", "tea"), order("o-2", "2 tea"), order("o-3", "0 tea"), cancelled("o-1"))
	if r.Logs.String() == "" {
		t.Fatal("there is no log to look at")
	}
	seen := r.Logs.String()
	for _, s := range r.spans.Ended() {
		seen += fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status())
	}
	for _, p := range append(r.answers("o-1"), r.answers("o-2")...) {
		seen += fmt.Sprint(p)
	}
	if strings.Contains(seen, "ada@") || strings.Contains(seen, "example.com") {
		t.Errorf("an address is in\n%s", seen)
	}
}

// What the service may do at the brokers is made of what the contract declares.
func TestService_topics(t *testing.T) {
	t.Parallel()
	declared := schemas.Services()["inventory"]
	newRig(t).WantTopics(declared.Publishes, declared.Consumes)
}
