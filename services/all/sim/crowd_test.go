//go:build synctests

package sim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"example.com/keyline/services/all/check"
)

// crowd are the customers, and who brings goods. They insist: a request without a clear
// answer is sent again, with the same key, until it has one.
type crowd struct {
	w    *world
	host *host
	http *http.Client
	all  sync.WaitGroup
	skus []string

	mu       sync.Mutex
	serial   int
	accepted []check.Request
	received map[string]int64
}

func (w *world) newCrowd() *crowd {
	c := &crowd{w: w, host: &host{name: "customers"}, received: map[string]int64{}, skus: []string{"tea", "saffron", "salt"}}
	c.http = w.client(c.host)
	return c
}

// client speaks HTTP from a host.
func (w *world) client(from *host) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: w.dice.chance(0.5),
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return w.net.dial(ctx, from, addr) },
	}}
}

// answer is what a request was answered; status 0 is no answer.
type answer struct {
	status   int
	replayed bool
	body     []byte
}

func (w *world) ask(c *http.Client, method, url string, body any, header map[string]string) (answer, error) {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequest(method, url, in)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Idempotency-Replayed") == "true", text}, err
}

// insist sends a request until it has an answer that is no trouble of the service.
func (c *crowd) insist(what, method, path, service string, body any, header map[string]string) answer {
	for attempt := 1; ; attempt++ {
		replica := 0
		if c.w.living(service, 1) != nil && c.w.dice.chance(0.3) {
			replica = 1
		}
		a, err := c.w.ask(c.http, method, fmt.Sprintf("http://%s-%d%s", service, replica, path), body, header)
		if err != nil {
			c.w.log.line("customers", "%s: no answer", what)
		} else {
			c.w.log.line("customers", "%s: %d", what, a.status)
		}
		if err == nil && a.status < 500 && a.status != http.StatusConflict && a.status != http.StatusTooManyRequests && a.status != http.StatusRequestTimeout {
			return a
		}
		if a.status == http.StatusConflict && method == "POST" && header["Idempotency-Key"] == "" {
			return a // a cancellation that comes too late
		}
		if attempt > 500 {
			c.w.complain("I6: %s: no answer after %d attempts", what, attempt)
			return a
		}
		<-time.After(c.w.dice.between(20*time.Millisecond, 2*time.Second))
	}
}

// number is a new one for a key, an order or a trace.
func (c *crowd) number() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	return c.serial
}

// trace is the header of a new trace.
func (c *crowd) trace() (id string, header map[string]string) {
	id = fmt.Sprintf("%032x", 0xc0ffee0000+c.number())
	return id, map[string]string{"Traceparent": "00-" + id + "-00000000000000aa-01"}
}

func (c *crowd) fillShelves() {
	for _, sku := range c.skus {
		c.receive(sku, int64([]int{100000, 30, 100000}[len(c.received)]))
	}
}

func (c *crowd) receive(sku string, quantity int64) {
	_, header := c.trace()
	header["Idempotency-Key"] = fmt.Sprintf("receipt-%d", c.number())
	a := c.insist("receipt of "+sku, "POST", "/v1/stock/"+sku+"/receipts", "inventory", map[string]any{"quantity": quantity}, header)
	if a.status != http.StatusCreated && a.status != http.StatusOK && a.status != http.StatusAccepted {
		c.w.complain("I1: a receipt was answered %d %s", a.status, a.body)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received[sku] += quantity
}

// trade lets customers order until ctx ends.
func (c *crowd) trade(ctx context.Context) {
	customers, pace := 1+c.w.dice.n(6), c.w.dice.between(20*time.Millisecond, time.Second)
	for i := range customers {
		c.all.Go(func() {
			for c.w.pause(ctx, c.w.dice.between(0, pace)) == nil {
				c.buy(fmt.Sprintf("customer-%d", i))
			}
		})
	}
	c.all.Go(func() {
		for c.w.pause(ctx, c.w.dice.between(time.Second, 10*time.Second)) == nil {
			c.receive(c.skus[c.w.dice.n(len(c.skus))], int64(1+c.w.dice.n(20)))
		}
	})
}

// buy places an order and may repeat it, wait for it and cancel it.
func (c *crowd) buy(customer string) {
	n, d := c.number(), c.w.dice
	key := fmt.Sprintf("key-%d", n)
	type line struct {
		SKU       string `json:"sku"`
		Quantity  int    `json:"quantity"`
		UnitPrice int64  `json:"unit_price_cents"`
	}
	draft := struct {
		Customer string `json:"customer_id"`
		Email    string `json:"customer_email"`
		Lines    []line `json:"lines"`
	}{customer, customer + "@example.com", nil}
	var lines []check.Line
	for i, sku := range c.skus {
		if i == 0 || d.chance(0.3) {
			l := line{sku, 1 + d.n(5), 450}
			draft.Lines = append(draft.Lines, l)
			lines = append(lines, check.Line{SKU: sku, Quantity: int64(l.Quantity)})
		}
	}
	trace, header := c.trace()
	header["Idempotency-Key"] = key
	place := func(what string) (id string) {
		a := c.insist(what, "POST", "/v1/orders", "order", draft, header)
		var placed struct {
			OrderID string `json:"order_id"`
			TraceID string `json:"trace_id"`
		}
		if a.status != http.StatusAccepted || json.Unmarshal(a.body, &placed) != nil {
			c.w.complain("I1: %s was answered %d %s", what, a.status, a.body)
			return ""
		}
		if placed.TraceID != trace {
			c.w.complain("I5: %s of trace %s was answered with the trace %s", what, trace, placed.TraceID)
		}
		c.note(check.Request{Key: key, OrderID: placed.OrderID, TraceID: trace, Lines: lines})
		return placed.OrderID
	}
	if d.chance(0.1) { // a twin at the same time
		c.all.Go(func() { place("order " + key + " (twin)") })
	}
	id := place("order " + key)
	if id == "" {
		return
	}
	if d.chance(0.1) {
		place("order " + key + " (again)")
	}
	if d.chance(0.05) {
		c.misuse(draft, key)
	}
	if d.chance(0.2) {
		c.look(id)
	}
	if d.chance(0.3) {
		<-time.After(d.between(0, 3*time.Second))
		c.cancel(id)
	}
}

func (c *crowd) note(r check.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.accepted = append(c.accepted, r)
}

// misuse sends another order under a key that was used.
func (c *crowd) misuse(draft any, key string) {
	_, header := c.trace()
	header["Idempotency-Key"] = key
	other := map[string]any{"customer_id": "somebody", "customer_email": "else@example.com", "lines": []any{map[string]any{"sku": "tea", "quantity": 1, "unit_price_cents": 1}}}
	if a := c.insist("misuse of "+key, "POST", "/v1/orders", "order", other, header); a.status != http.StatusUnprocessableEntity {
		c.w.complain("I1: another order under %s was answered %d %s", key, a.status, a.body)
	}
}

// look waits for an order to settle; what it is told does not matter, but the order is there.
func (c *crowd) look(id string) {
	a := c.insist("look at "+id, "GET", "/v1/orders/"+id+"?wait=2s", "order", nil, nil)
	if a.status != http.StatusOK {
		c.w.complain("I1: order %s was accepted, and is answered %d", id, a.status)
	}
}

func (c *crowd) cancel(id string) {
	trace, header := c.trace()
	switch a := c.insist("cancel "+id, "POST", "/v1/orders/"+id+"/cancel", "order", nil, header); a.status {
	case http.StatusAccepted:
		c.note(check.Request{OrderID: id, TraceID: trace, Cancel: true})
	case http.StatusConflict:
	default:
		c.w.complain("I1: a cancellation of %s was answered %d %s", id, a.status, a.body)
	}
}
