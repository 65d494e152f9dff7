package all_test

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// Fifty customers' devices send one request at a time: it has one effect and one answer, also
// when they give up in the middle, ask again, and the shop is stopped meanwhile.
func TestF41_a_key_has_one_effect_and_one_answer(t *testing.T) {
	t.Parallel()
	f := openLasting(t, nil)
	for range size(2, 20) {
		f.sameKey(f.draw())
		f.rounds++
	}
	f.settle()
	f.judge(check.Expect{})
	if got := len(f.records(schemas.TopicOrders)); got != 2*len(f.orders()) {
		t.Errorf("%d events of %d orders, want two each", got, len(f.orders()))
	}
}

// sameKey sends one order from fifty devices, with a key of their own.
func (f *trial) sameKey(chance *rand.Rand) {
	f.Helper()
	key, body := newKey(), draftOf(line{f.articles[1], 2, 1250})
	const n = 50
	answers, gaveUp := make([]answer, n), make([]int, n)
	var all sync.WaitGroup
	for i := range n {
		patient := chance.IntN(2) == 0
		wait := time.Duration(chance.IntN(20_000)) * time.Microsecond
		all.Go(func() {
			for !patient && gaveUp[i] < 3 {
				if !f.impatient(wait, body, key) {
					break
				}
				gaveUp[i]++
			}
			eventually(f, "an answer that is not 409", func() bool {
				answers[i] = f.send("POST", "/v1/orders", body, "Idempotency-Key", key)
				return answers[i].status != http.StatusConflict && answers[i].header.Get("Retry-After") == ""
			})
		})
	}
	all.Wait()
	o := f.accept(answers[0])
	f.asked(check.Request{Key: key, OrderID: o.OrderID, TraceID: o.TraceID})
	same := func(a answer) {
		f.Helper()
		if a.want(f, http.StatusAccepted).body != answers[0].body || a.header.Get("Location") != answers[0].header.Get("Location") {
			f.Errorf("the answer is %s at %s, want %s as all others are", a.body, a.header.Get("Location"), answers[0].body)
		}
	}
	for _, a := range answers {
		same(a)
	}
	for _, times := range gaveUp {
		f.injected += times
	}

	f.stop()
	f.start()
	again := f.send("POST", "/v1/orders", body, "Idempotency-Key", key)
	if same(again); again.header.Get("Idempotency-Replayed") != "true" {
		f.Error("after a restart the answer is not marked as replayed")
	}
	body.Lines[0].Quantity++
	if a := f.send("POST", "/v1/orders", body, "Idempotency-Key", key); a.status != http.StatusUnprocessableEntity || problemOf(f, a).Field != "Idempotency-Key" {
		f.Errorf("another body was answered %d %s, want 422 that names the key", a.status, a.body)
	}
}

// impatient sends a request and cuts its connection after a while; it reports whether there
// was no answer by then.
func (f *trial) impatient(wait time.Duration, body draft, key string) (cut bool) {
	f.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(f.Context(), wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", f.URLs.HTTP+"/v1/orders", bytes.NewReader(text))
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	resp, err := f.client.Do(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return err != nil
}

// How keys are written, and what leaves one free.
func TestIdempotencyKey(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku, key := newSKU("mug"), newKey()
	s.receive(sku, 100)
	body := draftOf(line{sku, 2, 1250})
	first := s.send("POST", "/v1/orders", body, "Idempotency-Key", key)
	orders := []accepted{s.accept(first)}
	t.Run("quoted and bare are the same key", func(t *testing.T) {
		a := s.send("POST", "/v1/orders", body, "Idempotency-Key", strconv.Quote(key))
		if a.body != first.body || a.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("answered %d %s, want the stored answer", a.status, a.body)
		}
	})
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
	s.wantStock(sku, stock{100, 4, 96})
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
