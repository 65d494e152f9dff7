//go:build synctests

package sim_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/services/all/check"
)

// patience is how long, in virtual time, a healed shop may take to become quiet.
const patience = 90 * time.Second

// openKeepers opens a connection to each database that no fault touches: a database in memory
// ends with its last connection.
func (w *world) openKeepers() (done func()) {
	w.keepers = map[string]*sql.DB{}
	for _, s := range services {
		d, err := sql.Open("sqlite", "file:/"+s+"?vfs=memdb&_pragma=busy_timeout(60000)")
		if err == nil {
			d.SetMaxOpenConns(1)
			err = d.Ping()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		w.keepers[s] = d
	}
	return func() {
		for _, s := range services {
			w.keepers[s].Close()
		}
	}
}

// rows reads rows of a service's database.
func rows[T any](w *world, service, query string, scan func(*sql.Rows, *T) error) (all []T) {
	if err := w.databases[service].lockWithin(context.Background(), false, 5*time.Minute); err != nil {
		w.complain("SIM: %s: %v", query, err)
		return nil
	}
	defer w.databases[service].unlock(false)
	r, err := w.keepers[service].Query(query)
	if err != nil {
		w.complain("SIM: %s: %v", query, err)
		return nil
	}
	defer r.Close()
	for r.Next() {
		var one T
		if err := scan(r, &one); err != nil {
			w.complain("SIM: %s: %v", query, err)
			return all
		}
		all = append(all, one)
	}
	return all
}

func (w *world) count(service, from string) int64 {
	n := rows(w, service, "select count(*) from "+from, func(r *sql.Rows, n *int64) error { return r.Scan(n) })
	if len(n) != 1 {
		return -1
	}
	return n[0]
}

// drain waits until nothing is under way, while an operator redrives what died by accident.
func (w *world) drain() {
	begun, still := time.Now(), 0
	for still < 2 {
		if time.Since(begun) > patience {
			w.complain("I6: not quiet %v after the healing: %s", patience, w.unrest())
			for _, s := range services {
				w.log.line("sim", "group %s: %+v", s, w.kafka.GroupInfo(s))
			}
			return
		}
		why := w.unrest()
		if still++; why != "" {
			still = 0
			w.redriveAll()
		}
		<-time.After(500 * time.Millisecond)
	}
	w.log.line("sim", "quiet after %v", time.Since(begun))
}

// unrest is what is still under way; empty if nothing is.
func (w *world) unrest() string {
	// The order matters: what is taken either waits or is done, and what is done has left its
	// events in the outbox.
	for _, s := range services {
		if n := w.watch.lag()[s]; n > 0 {
			return fmt.Sprintf("%s is %d records behind", s, n)
		}
	}
	for _, s := range services {
		if n := w.count(s, "waiting_event where not set_aside"); n != 0 {
			return fmt.Sprintf("%d events wait in %s", n, s)
		}
	}
	for _, s := range services {
		if n := w.count(s, "outbox"); n != 0 {
			return fmt.Sprintf("%d events are left to publish in %s", n, s)
		}
	}
	if n := w.count("order", "orders where status = 'pending'"); n != 0 {
		return fmt.Sprintf("%d orders are pending", n)
	}
	for _, s := range services {
		if n := w.watch.lag()[s]; n > 0 {
			return fmt.Sprintf("%s is %d records behind", s, n)
		}
	}
	if w.watch.behind() {
		return "the bystander is behind"
	}
	return ""
}

// waiting is what waits in a service, as its operator sees it.
func (w *world) waiting(service string) (all []waitingItem, err error) {
	after := ""
	for {
		a, err := w.ask(w.operator, "GET", "http://"+service+"-0:81/admin/waiting?limit=100&after="+after, nil, nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Items []waitingItem `json:"items"`
			Next  string        `json:"next"`
		}
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != 200 {
			return nil, fmt.Errorf("answered %d %s", a.status, a.body)
		}
		all = append(all, page.Items...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

type waitingItem struct {
	ID       int64  `json:"id"`
	Group    string `json:"group"`
	Topic    string `json:"topic"`
	Key      string `json:"key"`
	Type     string `json:"type"`
	State    string `json:"state"`
	Reason   string `json:"reason"`
	Error    string `json:"error"`
	Redrives int    `json:"redrives"`
}

// redriveAll redrives each dead letter but those that are no events.
func (w *world) redriveAll() {
	for _, s := range services {
		if w.living(s, 0) == nil {
			continue
		}
		all, err := w.waiting(s)
		if err != nil {
			continue // it is asked again
		}
		for _, i := range all {
			if i.State == "dead" {
				w.log.line("operator", "redrives %s of %s in %s: %s", i.Type, i.Key, s, i.Error)
				w.log.count("redrive")
				w.mu.Lock()
				w.redriven[i.Key] = true
				w.mu.Unlock()
				_, _ = w.ask(w.operator, "POST", fmt.Sprintf("http://%s-0:81/admin/waiting/%d/redrive", s, i.ID), map[string]bool{"force": true}, nil)
			}
		}
	}
}

// judge asks the checker about everything that can be known.
func (w *world) judge() {
	f := &check.Facts{
		Requests: w.crowd.accepted, Orders: w.orders(), Records: w.records(), Mails: w.mail.taken(), Movements: map[string][]check.Movement{},
		Outbox: map[string]int64{}, Lag: w.watch.lag(), Rows: map[string]check.Versions{}, Waiting: []check.Waiting{},
	}
	type version struct {
		key string
		n   int64
	}
	for service, table := range map[string]string{"order": "orders", "inventory": "reservation", "email": "recipient"} {
		v := check.Versions{}
		for _, row := range rows(w, service, "select order_id, version from "+table, func(r *sql.Rows, v *version) error { return r.Scan(&v.key, &v.n) }) {
			v[row.key] = row.n
		}
		f.Rows["/"+service] = v
	}
	f.Ledger = rows(w, "email", "select order_id, event_id, message_id, sent_at > 0 from mail", func(r *sql.Rows, s *check.Sent) error {
		return r.Scan(&s.OrderID, &s.EventID, &s.MessageID, &s.Done)
	})
	f.Stock = rows(w, "inventory", "select sku, on_hand, reserved, on_hand - reserved from stock", func(r *sql.Rows, s *check.Stock) error {
		return r.Scan(&s.SKU, &s.OnHand, &s.Reserved, &s.Available)
	})
	type move struct {
		sku string
		check.Movement
	}
	for _, m := range rows(w, "inventory", "select sku, version, kind, quantity, order_id, cause from movement order by sku, version", func(r *sql.Rows, m *move) error {
		return r.Scan(&m.sku, &m.Version, &m.Kind, &m.Quantity, &m.OrderID, &m.Cause)
	}) {
		f.Movements[m.sku] = append(f.Movements[m.sku], m.Movement)
	}
	for _, s := range services {
		f.Outbox[s] = w.count(s, "outbox")
		all, err := w.waiting(s)
		if err != nil {
			w.complain("SIM: what waits in %s: %v", s, err)
		}
		for _, i := range all {
			f.Waiting = append(f.Waiting, check.Waiting{Group: i.Group, Topic: i.Topic, Key: i.Key, Type: i.Type, State: i.State, Reason: i.Reason, Error: i.Error})
		}
	}
	for _, wrong := range f.Judge(check.Expect{Dead: w.poisoned, MailRepeats: w.repeats, Received: w.crowd.received}) {
		if !w.ofRedriven(wrong) {
			w.complain("%s", wrong)
		}
	}
	w.judgeHandlers(f)
	for source, n := range f.Duplicates() {
		for range n {
			w.log.count("seen: duplicate of " + source)
		}
	}
	for range f.MailRepeats() {
		w.log.count("seen: repeated mail")
	}
}

// judgeHandlers is I3 where handlers forgive what comes in the wrong order: nothing can be seen
// of it but what is missing, or stands the wrong way round in a history.
func (w *world) judgeHandlers(f *check.Facts) {
	answered := map[string]bool{}
	for _, r := range f.Records {
		answered[r.Source+" "+r.Cause] = true
	}
	for _, r := range f.Records {
		if strings.HasSuffix(r.Type, ".OrderPlaced") && r.Source == "/order" && !answered["/inventory "+r.ID] {
			w.complain("I3: the cancellation of order %s has overtaken its OrderPlaced at inventory", r.Key)
		}
	}
	for _, o := range f.Orders {
		reserved, released := slices.Index(o.Steps, "stock reserved"), slices.Index(o.Steps, "stock released")
		if reserved > released && released >= 0 {
			w.complain("I3: StockReleased of order %s has overtaken StockReserved: %q", o.ID, o.Steps)
		}
	}
}

// ofRedriven is whether a complaint is about the trace of an order whose event was redriven:
// that begins a trace of its own, linked to the old one.
func (w *world) ofRedriven(complaint string) bool {
	if !strings.HasPrefix(complaint, "I5: ") {
		return false
	}
	for _, word := range strings.Fields(complaint) {
		if w.redriven[word] {
			return true
		}
	}
	return false
}

// orders are all orders as their customers see them.
func (w *world) orders() (all []check.Order) {
	after := ""
	for {
		a := w.crowd.insist("list", "GET", "/v1/orders?limit=100&after="+after, "order", nil, nil)
		var page struct {
			Items []struct {
				ID      string `json:"order_id"`
				Status  string `json:"status"`
				History []struct {
					Step string `json:"step"`
				} `json:"history"`
			} `json:"items"`
			Next string `json:"next"`
		}
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != 200 {
			w.complain("SIM: list of orders: %d %v", a.status, err)
			return all
		}
		for _, i := range page.Items {
			o := check.Order{ID: i.ID, Status: i.Status}
			for _, s := range i.History {
				o.Steps = append(o.Steps, s.Step)
			}
			all = append(all, o)
		}
		if after = page.Next; after == "" {
			return all
		}
	}
}

// records are what the bystander has read, decoded as any tool would.
func (w *world) records() (all []check.Record) {
	reader, err := codec.New(codec.Config{URL: "http://registry", Transport: registryTransport{&process{w: w, host: &host{name: "checker"}}}})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx := context.Background()
	for _, r := range w.watch.seen() {
		c := check.Record{
			Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: string(r.Key),
			ID: header(r, "ce_id"), Source: header(r, "ce_source"), Cause: header(r, "ce_causationid"),
		}
		c.Version, _ = strconv.ParseInt(header(r, "ce_aggregateversion"), 10, 64)
		if sc := event.SpanContext([]event.Header{{Key: event.HeaderTraceparent, Value: []byte(header(r, "traceparent"))}}); sc.IsValid() {
			c.TraceID = sc.TraceID().String()
		}
		if strings.HasPrefix(c.Key, poisonKey) {
			continue
		}
		if c.Type, err = reader.Type(ctx, r.Value); err == nil {
			var text []byte
			if text, err = reader.JSON(ctx, r.Value, false); err == nil {
				err = json.Unmarshal(text, &c.Data)
			}
		}
		if err != nil {
			w.complain("I8: a record of %s/%d at %d cannot be read: %v", r.Topic, r.Partition, r.Offset, err)
		}
		all = append(all, c)
	}
	return all
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}
