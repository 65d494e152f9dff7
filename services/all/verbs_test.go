package all_test

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"example.com/keyline/pkg/embedded"
)

// line is one line of an order.
type line struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
	Cents    int64  `json:"unit_price_cents"`
}

type draft struct {
	CustomerID    string `json:"customer_id"`
	CustomerEmail string `json:"customer_email"`
	Lines         []line `json:"lines"`
	Currency      string `json:"currency,omitempty"`
}

func draftOf(lines ...line) draft {
	return draft{CustomerID: "ada", CustomerEmail: "ada@example.com", Lines: lines}
}

// accepted is the body of a 202.
type accepted struct {
	OrderID string `json:"order_id"`
	Status  string `json:"status"`
	TraceID string `json:"trace_id"`
}

// place places an order.
func (s *shop) place(lines ...line) accepted {
	s.Helper()
	return s.accept(s.send("POST", "/v1/orders", draftOf(lines...), "Idempotency-Key", newKey()))
}

// accept reads a 202, and from then on the order is this test's.
func (s *shop) accept(a answer) (got accepted) {
	s.Helper()
	a.want(s, http.StatusAccepted).into(s, &got)
	s.own(got.OrderID)
	return got
}

// own makes a key this test's.
func (s *shop) own(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mine[key] = true
}

// owns reports whether a record is of this test, by its key. A broker of one's own has no
// others.
func (s *shop) owns(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mine[key] || real["KAFKA_BROKERS"] == ""
}

func (s *shop) cancel(orderID string) answer {
	s.Helper()
	return s.send("POST", "/v1/orders/"+orderID+"/cancel", nil)
}

// order is an order as its customer sees it.
type order struct {
	OrderID    string `json:"order_id"`
	Status     string `json:"status"`
	Reason     string `json:"reason"`
	TotalCents int64  `json:"total_cents"`
	TraceID    string `json:"trace_id"`
	Lines      []line `json:"lines"`
	History    []struct {
		Step string    `json:"step"`
		At   time.Time `json:"at"`
	} `json:"history"`
}

// steps are the steps of an order's history.
func (o order) steps() string {
	var all []string
	for _, h := range o.History {
		all = append(all, h.Step)
	}
	return strings.Join(all, ", ")
}

func (s *shop) get(orderID string) (o order) {
	s.Helper()
	s.send("GET", "/v1/orders/"+orderID, nil).want(s, http.StatusOK).into(s, &o)
	return o
}

// await returns the order once its history ends with a step.
func (s *shop) await(orderID, step string) (o order) {
	s.Helper()
	eventually(s, "order "+orderID+" "+step, func() bool {
		o = s.get(orderID)
		return strings.HasSuffix(o.steps(), step)
	})
	return o
}

// receive takes goods in.
func (s *shop) receive(sku string, quantity int) {
	s.Helper()
	s.send("POST", "/v1/stock/"+sku+"/receipts", map[string]int{"quantity": quantity}, "Idempotency-Key", newKey()).want(s, http.StatusCreated)
}

// stock is an article's stock.
type stock struct {
	OnHand    int64 `json:"on_hand"`
	Reserved  int64 `json:"reserved"`
	Available int64 `json:"available"`
}

func (s *shop) stock(sku string) (got stock) {
	s.Helper()
	s.send("GET", "/v1/stock/"+sku, nil).want(s, http.StatusOK).into(s, &got)
	return got
}

// movement is an entry of an article's ledger.
type movement struct {
	Version  int64  `json:"version"`
	Kind     string `json:"kind"`
	Quantity int64  `json:"quantity"`
	OrderID  string `json:"order_id"`
	Cause    string `json:"cause"`
}

// movements reads the whole ledger of an article.
func (s *shop) movements(sku string) (all []movement) {
	s.Helper()
	for after := int64(0); ; {
		var page struct{ Items []movement }
		s.send("GET", "/v1/stock/"+sku+"/movements?limit=1000&after="+strconv.FormatInt(after, 10), nil).want(s, http.StatusOK).into(s, &page)
		all = append(all, page.Items...)
		if len(page.Items) < 1000 {
			return all
		}
		after = all[len(all)-1].Version
	}
}

// sent is an entry of the ledger of mails.
type sent struct {
	EventID   string     `json:"event_id"`
	Kind      string     `json:"kind"`
	MessageID string     `json:"message_id"`
	SentAt    *time.Time `json:"sent_at"`
}

func (s *shop) ledger(orderID string) []sent {
	s.Helper()
	var list struct{ Items []sent }
	s.send("GET", "/v1/emails?order_id="+orderID, nil).want(s, http.StatusOK).into(s, &list)
	return list.Items
}

// mails returns the mails about an order once there are n of them.
func (s *shop) mails(orderID string, n int) (mails []embedded.Mail) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	err := s.Mailbox().Wait(ctx, func(all []embedded.Mail) bool {
		mails = about(orderID, all)
		return len(mails) >= n
	})
	if err != nil || len(mails) != n {
		s.Fatalf("%d mails about order %s, want %d; %v", len(mails), orderID, n, err)
	}
	return mails
}

// about picks the mails about an order.
func about(orderID string, all []embedded.Mail) (mails []embedded.Mail) {
	for _, m := range all {
		if strings.Contains(m.Text, orderID) {
			mails = append(mails, m)
		}
	}
	return mails
}

func subjects(mails []embedded.Mail) (all []string) {
	for _, m := range mails {
		all = append(all, m.Subject)
	}
	return all
}

// waiting is a waiting event as the operator sees it.
type waiting struct {
	ID       int64             `json:"id"`
	Topic    string            `json:"topic"`
	Key      string            `json:"key"`
	Type     string            `json:"type"`
	EventID  string            `json:"event_id"`
	State    string            `json:"state"`
	Reason   string            `json:"reason"`
	Error    string            `json:"error"`
	Attempts int               `json:"attempts"`
	Redrives int               `json:"redrives"`
	Headers  map[string]string `json:"headers"`
	Event    map[string]any    `json:"event"`
}

// waits lists what waits in a service, of one key or, if that is empty, of all.
func (s *shop) waits(service, key string) []waiting {
	s.Helper()
	var list struct{ Items []waiting }
	s.sendTo(s.URLs.Admin, "GET", "/"+service+"/admin/waiting?limit=1000&key="+key, nil).want(s, http.StatusOK).into(s, &list)
	return list.Items
}

func (s *shop) operate(service string, id int64, verb string, body any) answer {
	s.Helper()
	return s.sendTo(s.URLs.Admin, "POST", fmt.Sprintf("/%s/admin/waiting/%d/%s", service, id, verb), body)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
