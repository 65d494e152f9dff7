package all_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"example.com/keyline/schemas"
)

// Fifty customers' devices send one request at a time: it has one effect and one answer.
func TestIdempotencyKey_parallel(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku, key := newSKU("mug"), newKey()
	s.receive(sku, 100)
	body := draftOf(line{sku, 2, 1250})
	body.CustomerID = "grace-" + key

	const n = 50
	answers := make([]answer, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			eventually(t, "an answer that is not 409", func() bool {
				answers[i] = s.send("POST", "/v1/orders", body, "Idempotency-Key", key)
				return answers[i].status != http.StatusConflict
			})
		})
	}
	all.Wait()
	first, replayed := s.accept(answers[0]), 0
	for i, a := range answers {
		if a.want(t, http.StatusAccepted).body != answers[0].body || a.header.Get("Location") != answers[0].header.Get("Location") {
			t.Errorf("answer %d is %s at %s, want %s as all others have", i, a.body, a.header.Get("Location"), answers[0].body)
		}
		if a.header.Get("Idempotency-Replayed") == "true" {
			replayed++
		}
	}
	if replayed != n-1 {
		t.Errorf("%d answers are marked as replayed, want %d", replayed, n-1)
	}

	t.Run("quoted and bare are the same key", func(t *testing.T) {
		a := s.send("POST", "/v1/orders", body, "Idempotency-Key", strconv.Quote(key))
		if a.body != answers[0].body || a.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("answered %d %s, want the stored answer", a.status, a.body)
		}
	})
	t.Run("another body under the key is refused with 422", func(t *testing.T) {
		other := body
		other.Lines = []line{{sku, 3, 1250}}
		a := s.send("POST", "/v1/orders", other, "Idempotency-Key", key)
		if a.status != http.StatusUnprocessableEntity || problemOf(t, a).Field != "Idempotency-Key" {
			t.Errorf("answered %d %s, want 422 that names the key", a.status, a.body)
		}
	})
	orders := []accepted{first}
	t.Run("a refused request leaves its key free", func(t *testing.T) {
		key, empty := newKey(), body
		empty.Lines = nil
		if a := s.send("POST", "/v1/orders", empty, "Idempotency-Key", key); a.status != http.StatusUnprocessableEntity {
			t.Errorf("answered %d %s, want 422", a.status, a.body)
		}
		a := s.send("POST", "/v1/orders", body, "Idempotency-Key", key)
		if a.status != http.StatusAccepted || a.header.Get("Idempotency-Replayed") != "" {
			t.Fatalf("answered %d %s, want a new order", a.status, a.body)
		}
		orders = append(orders, s.accept(a))
	})
	t.Run("a missing or broken key is refused with 400", func(t *testing.T) {
		for _, bad := range []string{"", `"open`, strings.Repeat("k", 256), "schlüssel", `"a" b`} {
			a := s.send("POST", "/v1/orders", body, "Idempotency-Key", bad)
			if a.status != http.StatusBadRequest || problemOf(t, a).Field != "Idempotency-Key" {
				t.Errorf("the key %.20q was answered %d %s, want 400 that names it", bad, a.status, a.body)
			}
		}
	})

	s.settled(orders)
	s.quiet()
	s.check(orders...)
	s.mails(first.OrderID, 1)
	var list struct{ Items []order }
	s.send("GET", "/v1/orders?customer_id="+body.CustomerID, nil).into(t, &list)
	if len(list.Items) != 2 { // the fifty, and the one of the key that stayed free
		t.Errorf("%d orders, want 2", len(list.Items))
	}
	s.wantStock(sku, stock{100, 4, 96})
	placed := 0
	for _, f := range s.facts(schemas.TopicOrders) {
		if f.typ == "shop.order.OrderPlaced" {
			placed++
		}
	}
	if placed != 2 {
		t.Errorf("%d OrderPlaced on the topic, want 2", placed)
	}
}

// A receipt of goods is repeated likewise.
func TestIdempotencyKey_receipts(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku, key := newSKU("mug"), newKey()
	receive := func(quantity int) answer {
		return s.send("POST", "/v1/stock/"+sku+"/receipts", map[string]int{"quantity": quantity}, "Idempotency-Key", key)
	}
	first := receive(7).want(t, http.StatusCreated)
	if again := receive(7); again.body != first.body || again.status != http.StatusCreated || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("the repeated receipt was answered %d %s, want %s", again.status, again.body, first.body)
	}
	receive(8).want(t, http.StatusUnprocessableEntity)
	s.wantStock(sku, stock{7, 0, 7})
}

// problem is an error as RFC 9457 has it.
type problem struct {
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail"`
	Field   string `json:"field"`
	TraceID string `json:"trace_id"`
}

// problemOf reads an answer that must be a problem.
func problemOf(t testing.TB, a answer) (p problem) {
	t.Helper()
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("answered %d %s as %s, want a problem", a.status, a.body, got)
	}
	a.into(t, &p)
	if p.Status != a.status || p.Title == "" || p.TraceID == "" {
		t.Errorf("answered %d with the problem %s", a.status, a.body)
	}
	return p
}
