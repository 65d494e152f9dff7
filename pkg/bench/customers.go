package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

// callers is how many requests are under way at a time, each over a connection of its own.
const callers = 64

// articles is how many SKUs the shop has.
const articles = 1000

// demands are how customers choose: all articles alike, or some much more often than others.
var demands = []keys{
	{"uniform articles", func(r *rand.Rand) func() uint64 { return func() uint64 { return r.Uint64N(articles) } }},
	{"Zipf articles", func(r *rand.Rand) func() uint64 { return rand.NewZipf(r, 1.1, 1, articles-1).Uint64 }},
}

// purchase is a request for an order, and what became of it.
type purchase struct {
	key, body string
	due       time.Time     // when it has to be sent
	id        string        // the order's
	refused   int           // how often the shop was too busy
	took      time.Duration // from when it was sent to its answer
}

// purchases makes n of two or three lines each, the same ones in every run of the program. Their
// articles are drawn by k.
func purchases(k keys, prefix string, n int) []*purchase {
	random := rand.New(rand.NewPCG(1, 2))
	draw := k.draw(random)
	all := make([]*purchase, n)
	for i := range all {
		all[i] = &purchase{key: prefix + strconv.Itoa(i), body: newCart(random, draw)}
	}
	return all
}

func newCart(random *rand.Rand, draw func() uint64) string {
	type line struct {
		SKU            string `json:"sku"`
		Quantity       int    `json:"quantity"`
		UnitPriceCents int    `json:"unit_price_cents"`
	}
	customer := fmt.Sprintf("customer-%06d", random.IntN(1_000_000))
	cart := struct {
		CustomerID    string `json:"customer_id"`
		CustomerEmail string `json:"customer_email"`
		Currency      string `json:"currency"`
		Lines         []line `json:"lines"`
	}{customer, customer + "@example.org", "EUR", nil}
	taken := map[uint64]bool{}
	for want := 2 + random.IntN(2); len(cart.Lines) < want; {
		article := draw()
		if !taken[article] {
			taken[article] = true
			cart.Lines = append(cart.Lines, line{skuOf(article), 1 + random.IntN(9), 100 + random.IntN(100_000)})
		}
	}
	text, _ := json.Marshal(cart) // plain structs
	return string(text)
}

func skuOf(article uint64) string { return fmt.Sprintf("SKU-%04d", article) }

// crowd lets all callers work on what comes through the channel.
func crowd[T any](ctx context.Context, addr string, work <-chan T, do func(context.Context, *caller, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for range callers {
		group.Go(func() error {
			c, err := dial(ctx, addr)
			if err != nil {
				return err
			}
			defer c.conn.Close()
			defer context.AfterFunc(ctx, func() { c.conn.Close() })()
			for w := range work {
				if err := do(ctx, c, w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// fillShelves lets so many goods come in that no order is rejected.
func fillShelves(ctx context.Context, addr string) error {
	work := make(chan string, articles)
	for i := range uint64(articles) {
		work <- skuOf(i)
	}
	close(work)
	return crowd(ctx, addr, work, func(_ context.Context, c *caller, sku string) error {
		status, answer, err := c.post("/v1/stock/"+sku+"/receipts", "receipt-"+sku, `{"quantity":1000000}`)
		if err == nil && status != http.StatusCreated {
			err = fmt.Errorf("%d %s", status, answer)
		}
		if err != nil {
			return fmt.Errorf("fill the shelves: %w", err)
		}
		return nil
	})
}

// buy sends all purchases: one every pause, whatever the shop answers, or as fast as it takes
// them if pause is 0. It returns when all are accepted.
func (s *sink) buy(ctx context.Context, addr string, all []*purchase, pause time.Duration) error {
	work := make(chan *purchase, len(all)) // a busy shop must not hold up the clock
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(work)
		return schedule(ctx, all, pause, work)
	})
	group.Go(func() error {
		return crowd(ctx, addr, work, func(ctx context.Context, c *caller, p *purchase) error {
			err := p.place(ctx, c)
			if err == nil {
				s.expect(p.id)
			}
			return err
		})
	})
	return group.Wait()
}

func schedule(ctx context.Context, all []*purchase, pause time.Duration, work chan<- *purchase) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	began := time.Now()
	for i, p := range all {
		p.due = began.Add(time.Duration(i) * pause)
		if early := time.Until(p.due); early > 0 {
			timer.Reset(early)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		work <- p
	}
	return nil
}

// refusalPause is how long a customer waits who is told that the shop is too busy.
const refusalPause = 100 * time.Millisecond

// place sends it until it is accepted.
func (p *purchase) place(ctx context.Context, c *caller) error {
	began := time.Now()
	for {
		status, answer, err := c.post("/v1/orders", p.key, p.body)
		if err != nil {
			return fmt.Errorf("place an order: %w", err)
		}
		switch status {
		case http.StatusAccepted:
			var placed struct {
				OrderID string `json:"order_id"`
			}
			if json.Unmarshal(answer, &placed) != nil || placed.OrderID == "" {
				return fmt.Errorf("place an order: the answer is %q", answer)
			}
			p.id, p.took = placed.OrderID, time.Since(began)
			return nil
		case http.StatusServiceUnavailable:
			p.refused++
			select {
			case <-time.After(refusalPause):
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return fmt.Errorf("place an order: %d %s", status, answer)
		}
	}
}
