//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"example.com/keyline/services/all/check"
)

// The shelves: many articles of which there is enough, and every fifth soon runs out.
const (
	articles = 40
	plenty   = 1_000_000
	few      = 30
)

func sku(i int) string { return fmt.Sprintf("sku-%02d", i) }

// fillShelves takes goods in, through the inventory service.
func (r *rig) fillShelves() {
	r.Helper()
	at := r.replicas("inventory")[0].public
	for i := range articles {
		quantity := int64(plenty)
		if i%5 == 1 {
			quantity = few
		}
		eventually(r, "goods are received", func() bool {
			status, _, err := r.do(r.ctx, http.MethodPost, "http://"+at+"/v1/stock/"+sku(i)+"/receipts", map[string]any{"quantity": quantity}, "Idempotency-Key", "shelf-"+sku(i))
			return err == nil && status == http.StatusCreated
		})
		r.received[sku(i)] = quantity
	}
}

// load is a crowd of customers.
type load struct {
	r      *rig
	ctx    context.Context // ends when no new request is to be begun
	cancel context.CancelFunc
	all    sync.WaitGroup
	placed atomic.Int64
}

// customers bounds how many orders wait for their answer.
const customers = 12

// load lets customers place that many orders a second, until stop: now and then one repeats
// a request that was answered, or cancels an order.
func (r *rig) load(perSecond float64) *load {
	ctx, cancel := context.WithCancel(r.ctx)
	l := &load{r: r, ctx: ctx, cancel: cancel}
	r.Cleanup(cancel)
	jobs := make(chan struct{})
	for i := range customers {
		chance := r.draw()
		zipf := rand.NewZipf(chance, 1.2, 2, articles-1)
		l.all.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-jobs:
				}
				l.shop(chance, zipf, fmt.Sprintf("%s-%d-%d", r.Name(), i, n))
			}
		})
	}
	l.all.Go(func() {
		tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-tick.C:
				select {
				case jobs <- struct{}{}:
				default: // all customers wait; a crowd does not queue for ever
				}
			}
		}
	})
	return l
}

// stop lets no new order be begun, and returns when each that was has its answer.
func (l *load) stop() {
	l.r.Helper()
	l.cancel()
	l.all.Wait()
}

// reach returns when so many more orders have been accepted.
func (l *load) reach(n int64) {
	l.r.Helper()
	want := l.placed.Load() + n
	eventually(l.r, fmt.Sprintf("%d more orders", n), func() bool { return l.placed.Load() >= want })
}

// shop is what one customer does: an order of one to three articles, and what comes of it.
func (l *load) shop(chance *rand.Rand, zipf *rand.Zipf, key string) {
	var lines []check.Line
	for n := 1 + chance.IntN(3); len(lines) < n; {
		s := sku(int(zipf.Uint64()))
		if !slices.ContainsFunc(lines, func(o check.Line) bool { return o.SKU == s }) {
			lines = append(lines, check.Line{SKU: s, Quantity: int64(1 + chance.IntN(4))})
		}
	}
	id := l.r.place(chance, key, lines)
	if id == "" {
		return
	}
	l.placed.Add(1)
	if chance.IntN(10) == 0 {
		l.r.place(chance, key, lines)
	}
	if chance.IntN(12) == 0 {
		lasting(time.Duration(chance.IntN(300)) * time.Millisecond)
		l.r.cancelOrder(chance, id)
	}
}

// place repeats a request until it is accepted, as a customer would whose answer was lost,
// and returns the order's ID.
func (r *rig) place(chance *rand.Rand, key string, lines []check.Line) (orderID string) {
	type line struct {
		SKU      string `json:"sku"`
		Quantity int64  `json:"quantity"`
		Cents    int64  `json:"unit_price_cents"`
	}
	body := struct {
		Customer string `json:"customer_id"`
		Email    string `json:"customer_email"`
		Lines    []line `json:"lines"`
	}{Customer: "ada", Email: "ada@example.com"}
	for _, l := range lines {
		body.Lines = append(body.Lines, line{l.SKU, l.Quantity, 450})
	}
	for begun := time.Now(); time.Since(begun) < patience; lasting(time.Duration(20+chance.IntN(80)) * time.Millisecond) {
		asked := time.Now()
		status, head, text, err := r.ask(context.Background(), http.MethodPost, "http://"+r.any(chance, "order").public+"/v1/orders", body, "Idempotency-Key", key)
		if err != nil {
			r.unanswered()
			continue // nobody there, or no answer: it may have been accepted
		}
		r.answered(http.MethodPost, status, head, text, time.Since(asked))
		if status != http.StatusAccepted {
			continue
		}
		var a struct {
			OrderID string `json:"order_id"`
			TraceID string `json:"trace_id"`
		}
		if err := json.Unmarshal([]byte(text), &a); err != nil || a.OrderID == "" {
			r.odd("a 202 with the body %q: %v", text, err)
			return ""
		}
		r.asked(check.Request{Key: key, OrderID: a.OrderID, TraceID: a.TraceID, Lines: lines})
		return a.OrderID
	}
	r.odd("the order of key %s was not accepted within %v", key, patience)
	return ""
}

// cancelOrder repeats a cancellation until it is answered. Its traces are the requests' own,
// so that they are known although an answer is lost.
func (r *rig) cancelOrder(chance *rand.Rand, id string) {
	for begun := time.Now(); time.Since(begun) < patience; lasting(time.Duration(20+chance.IntN(80)) * time.Millisecond) {
		trace := fmt.Sprintf("%016x%016x", chance.Uint64(), chance.Uint64()|1)
		r.asked(check.Request{OrderID: id, TraceID: trace, Cancel: true})
		status, head, text, err := r.ask(context.Background(), http.MethodPost, "http://"+r.any(chance, "order").public+"/v1/orders/"+id+"/cancel", nil,
			"traceparent", fmt.Sprintf("00-%s-%016x-01", trace, chance.Uint64()|1))
		if err != nil {
			continue
		}
		r.answered("cancel", status, head, text, 0)
		if status == http.StatusAccepted || status == http.StatusConflict {
			return // a conflict: it was rejected
		}
	}
	r.odd("the cancellation of %s was not answered within %v", id, patience)
}

func (r *rig) asked(q check.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, q)
}

func (r *rig) unanswered() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent++
}

// answered notes an answer, and what no fault excuses: anything but yes, not now, or in a
// moment, and a "not now" that does not say when.
func (r *rig) answered(what string, status int, head http.Header, text string, took time.Duration) {
	r.mu.Lock()
	r.answers[status]++
	if what == http.MethodPost {
		r.delays = append(r.delays, took)
	}
	r.mu.Unlock()
	switch status {
	case http.StatusAccepted, http.StatusConflict:
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if head.Get("Retry-After") == "" {
			r.odd("%s was answered %d without Retry-After: %s", what, status, text)
		}
	default:
		r.odd("%s was answered %d: %s", what, status, text)
	}
}

// odd notes what no fault excuses.
func (r *rig) odd(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.strange, text) {
		r.strange = append(r.strange, text)
	}
}

// percentile of how long the answered POSTs took, and forgets them.
func (r *rig) percentile(p float64) (d time.Duration, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.Sort(r.delays)
	if n = len(r.delays); n > 0 {
		d = r.delays[min(n-1, int(p*float64(n)))]
	}
	r.delays = nil
	return d, n
}
