package all

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/google/uuid"
)

// load is the shop's sample customers.
type load struct {
	orders, stock *url.URL
	client        *http.Client
	log           *slog.Logger
}

// articles are what the sample customers buy. Of the last there is never enough.
var articles = []struct {
	sku   string
	cents int64
	stock int64
}{{"tea", 450, 1_000_000}, {"coffee", 690, 1_000_000}, {"cup", 1200, 1_000_000}, {"kettle", 4900, 1_000_000}, {"moon-rock", 99_900, 1}}

// fillShelves receives goods for articles that are not there yet.
func (l *load) fillShelves(ctx context.Context) error {
	for _, a := range articles {
		at := l.stock.JoinPath("v1", "stock", a.sku)
		status, err := l.do(ctx, http.MethodGet, at.String(), nil)
		if err == nil && status == http.StatusNotFound {
			status, err = l.do(ctx, http.MethodPost, at.JoinPath("receipts").String(), map[string]any{"quantity": a.stock})
		}
		if err != nil {
			return err
		}
		if status >= 300 {
			return fmt.Errorf("%s: %s", a.sku, http.StatusText(status))
		}
	}
	return nil
}

// run places orders at a rate per second until ctx ends. A few ask for more than there is,
// a few are cancelled.
func (l *load) run(ctx context.Context, perSecond float64) {
	if perSecond <= 0 {
		return
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	for {
		if err := l.placeOrder(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("sample order failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *load) placeOrder(ctx context.Context) error {
	customer := []string{"ada", "grace", "edsger", "barbara"}[rand.IntN(4)]
	var lines []map[string]any
	for _, i := range rand.Perm(len(articles) - 1)[:1+rand.IntN(3)] {
		lines = append(lines, map[string]any{"sku": articles[i].sku, "quantity": 1 + rand.IntN(3), "unit_price_cents": articles[i].cents})
	}
	if rand.IntN(10) == 0 {
		lines = append(lines, map[string]any{"sku": "moon-rock", "quantity": 2, "unit_price_cents": 99_900})
	}
	order := map[string]any{"customer_id": customer, "customer_email": customer + "@example.com", "lines": lines}
	var placed struct {
		OrderID string `json:"order_id"`
	}
	if _, err := l.doInto(ctx, http.MethodPost, l.orders.JoinPath("v1", "orders").String(), order, &placed); err != nil {
		return err
	}
	if rand.IntN(15) == 0 && placed.OrderID != "" {
		_, err := l.do(ctx, http.MethodPost, l.orders.JoinPath("v1", "orders", placed.OrderID, "cancel").String(), nil)
		return err
	}
	return nil
}

func (l *load) do(ctx context.Context, method, to string, body any) (status int, err error) {
	return l.doInto(ctx, method, to, body, nil)
}

func (l *load) doInto(ctx context.Context, method, to string, body, answer any) (status int, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", uuid.NewString())
	resp, err := l.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if answer != nil && resp.StatusCode < 300 {
		return resp.StatusCode, json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(answer)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, err
}
