package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// requestTime bounds one attempt; GET /v1/orders/{id}?wait=5s takes the longest.
const requestTime = 8 * time.Second

var client = &http.Client{}

// ask sends a request until it is answered, over connections that break and pods that go: a
// repeated POST has the same Idempotency-Key. Another answer than want is an error, unless it asks
// to come again. into, if not nil, takes the JSON of the answer.
func (f *forward) ask(ctx context.Context, method, path, key string, body any, want int, into any) (repeats int, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	for ; ; repeats++ {
		var answer []byte
		status := 0
		status, answer, err = f.once(ctx, method, path, key, text)
		again := status >= 500 || status == http.StatusTooManyRequests || status == http.StatusConflict && key != "" // its twin still runs
		if err == nil && !again {
			if status != want {
				return repeats, fmt.Errorf("%s %s answers %d, want %d: %.300s", method, path, status, want, answer)
			}
			if into != nil {
				if err := json.Unmarshal(answer, into); err != nil {
					return repeats, fmt.Errorf("%s %s: %w in %.200s", method, path, err, answer)
				}
			}
			return repeats, nil
		}
		if err == nil {
			err = fmt.Errorf("%s %s answers %d: %.300s", method, path, status, answer)
		}
		select {
		case <-ctx.Done():
			return repeats, errors.Join(ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (f *forward) once(ctx context.Context, method, path, key string, body []byte) (status int, answer []byte, err error) {
	base, err := f.at(ctx)
	if err != nil {
		return 0, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	res, err := client.Do(req)
	if err != nil {
		f.renew(base)
		return 0, nil, err
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(io.LimitReader(res.Body, 16<<20)); err != nil {
		f.renew(base)
	}
	return res.StatusCode, answer, err
}

// order is what the order service says of one.
type order struct {
	ID      string `json:"order_id"`
	Status  string `json:"status"`
	TraceID string `json:"trace_id"`
	History []struct {
		Step string `json:"step"`
	} `json:"history"`
	address string // where its mails go; no other order's do
}

type orderLine struct {
	SKU       string `json:"sku"`
	Quantity  int    `json:"quantity"`
	UnitPrice int    `json:"unit_price_cents"`
}

func (r *run) place(ctx context.Context, name, sku string, quantity int) (o order, repeats int, err error) {
	address := fmt.Sprintf("%s-%s@customer.example", name, r.id)
	repeats, err = r.intake.ask(ctx, "POST", "/v1/orders", r.id+"-"+name, map[string]any{
		"customer_id": "smoke", "customer_email": address, "lines": []orderLine{{sku, quantity, 450}},
	}, http.StatusAccepted, &o)
	o.address = address
	return o, repeats, err
}

// settled waits for an order to have a status.
func (r *run) settled(ctx context.Context, o *order, status string) error {
	for {
		if _, err := r.intake.ask(ctx, "GET", "/v1/orders/"+o.ID+"?wait=5s", "", nil, http.StatusOK, o); err != nil {
			return err
		}
		if o.Status == status {
			return nil
		}
		if o.Status != "pending" {
			return fmt.Errorf("order %s is %s, want %s", o.ID, o.Status, status)
		}
	}
}

// stock is what inventory says of an article.
type stock struct {
	OnHand    int `json:"on_hand"`
	Reserved  int `json:"reserved"`
	Available int `json:"available"`
}

func (r *run) receive(ctx context.Context, sku string, quantity int) error {
	_, err := r.inventory.ask(ctx, "POST", "/v1/stock/"+sku+"/receipts", r.id+"-"+sku, map[string]int{"quantity": quantity}, http.StatusCreated, nil)
	return err
}

// mail is a mail in Mailpit, which lists the newest first.
type mail struct {
	MessageID string
	Subject   string
	To        []struct{ Address string }
}

// mails are all mails of this run, by address, each with the same Message-ID once, and how many
// were there again.
func (r *run) mails(ctx context.Context) (by map[string][]mail, again int, err error) {
	const page = 500
	by = map[string][]mail{}
	seen := map[string]bool{}
	for start := 0; ; start += page {
		var list struct {
			Messages []mail `json:"messages"`
		}
		query := url.Values{"query": {"to:" + r.id}, "limit": {fmt.Sprint(page)}, "start": {fmt.Sprint(start)}}
		if _, err := r.mailbox.ask(ctx, "GET", "/api/v1/search?"+query.Encode(), "", nil, http.StatusOK, &list); err != nil {
			return nil, 0, err
		}
		for _, m := range list.Messages {
			switch {
			case len(m.To) != 1:
				return nil, 0, fmt.Errorf("mail %s has %d recipients, want 1", m.MessageID, len(m.To))
			case seen[m.MessageID]:
				again++
			default:
				seen[m.MessageID] = true
				by[m.To[0].Address] = append(by[m.To[0].Address], m)
			}
		}
		if len(list.Messages) < page {
			return by, again, nil
		}
	}
}
