package order_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/services/order"
)

const body = `{"customer_id":"ada","customer_email":"ada@example.com","lines":[{"sku":"tea","quantity":2,"unit_price_cents":450}]}`

func hasLine(text string, parts ...string) bool {
	return slices.ContainsFunc(strings.Split(text, "\n"), func(line string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) })
	})
}

// post places an order by HTTP and returns its ID.
func (r *rig) post(body string) string {
	r.Helper()
	a := r.do("POST", "/v1/orders", body, "Idempotency-Key", uuid.NewString())
	if a.StatusCode != http.StatusAccepted {
		r.Fatalf("POST = %s", a)
	}
	return a.JSON["order_id"].(string)
}

func TestHTTP_place(t *testing.T) {
	t.Parallel()
	t.Run("an order is accepted, says where it is, and can be read there", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k", "traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		if a.StatusCode != http.StatusAccepted || a.JSON["status"] != "pending" || a.Header.Get("Idempotency-Replayed") != "" {
			t.Fatalf("POST = %s", a)
		}
		if got, want := a.JSON["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736"; got != want || !strings.Contains(a.Header.Get("Traceresponse"), want) {
			t.Errorf("trace %s, traceresponse %s, want both of the request", got, a.Header.Get("Traceresponse"))
		}
		o := r.do("GET", a.Header.Get("Location"), "")
		if o.StatusCode != http.StatusOK || o.JSON["order_id"] != a.JSON["order_id"] || o.JSON["trace_id"] != a.JSON["trace_id"] {
			t.Errorf("GET %s = %s", a.Header.Get("Location"), o)
		}
	})
	t.Run("the same key and body get the stored answer again", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		first := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k")
		second := r.do("POST", "/v1/orders", body, "Idempotency-Key", `"k"`)
		if second.String() != first.String() || second.Header.Get("Idempotency-Replayed") != "true" || second.Header.Get("Location") != first.Header.Get("Location") {
			t.Errorf("the repetition is answered %s %v, want %s", second, second.Header, first)
		}
		if n := r.Count(`select count(*) from orders`); n != 1 {
			t.Errorf("%d orders, want 1", n)
		}
	})
	t.Run("fifty at once with one key are one order", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		var mu sync.Mutex
		accepted := map[string]int{}
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k")
				mu.Lock()
				defer mu.Unlock()
				if a.StatusCode != http.StatusConflict { // it may have waited too long for the first
					accepted[a.String()]++
				}
			})
		}
		all.Wait()
		if n := r.Count(`select count(*) from orders`); n != 1 || len(accepted) != 1 {
			t.Errorf("%d orders, %d different answers, want 1 of each", n, len(accepted))
		}
	})
	t.Run("a refused order may be mended and sent again with its key", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		r.do("POST", "/v1/orders", strings.Replace(body, `"quantity":2`, `"quantity":0`, 1), "Idempotency-Key", "k")
		if a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k"); a.StatusCode != http.StatusAccepted {
			t.Errorf("POST = %s", a)
		}
	})
}

// Whatever is wrong with a request, the answer says so, and nothing is left of it.
func TestHTTP_place_refused(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	r.do("POST", "/v1/orders", body, "Idempotency-Key", "used")
	line := func(change string) string {
		return `{"customer_id":"ada","customer_email":"ada@example.com","lines":[` + change + `]}`
	}
	many := strings.Repeat(`{"sku":"tea","quantity":1,"unit_price_cents":1},`, 9999) + `{"sku":"tea","quantity":1,"unit_price_cents":1}`
	for _, tt := range []struct {
		name, key, body string
		status          int
		field           string
	}{
		{"no key", "", body, 400, "Idempotency-Key"},
		{"a key too long", strings.Repeat("k", 256), body, 400, "Idempotency-Key"},
		{"a key cut open", `"k`, body, 400, "Idempotency-Key"},
		{"a key of another order", "used", strings.Replace(body, "450", "451", 1), 422, "Idempotency-Key"},
		{"no body", "k", ``, 400, ""},
		{"a list", "k", `[]`, 400, ""},
		{"half a body", "k", body[:40], 400, ""},
		{"two bodies", "k", body + body, 400, ""},
		{"bad UTF-8", "k", strings.Replace(body, "ada", "a\xff", 1), 400, ""},
		{"an unknown field", "k", strings.Replace(body, `"customer_id"`, `"colour":"red","customer_id"`, 1), 400, "colour"},
		{"a field twice", "k", strings.Replace(body, `"customer_id"`, `"customer_id":"eve","customer_id"`, 1), 400, "customer_id"},
		{"an unknown field in a line", "k", line(`{"sku":"tea","quantity":1,"unit_price_cents":1,"gift":true}`), 400, "lines[0].gift"},
		{"a quantity in quotes", "k", line(`{"sku":"tea","quantity":"1","unit_price_cents":1}`), 400, "lines[0].quantity"},
		{"half a piece", "k", line(`{"sku":"tea","quantity":0.5,"unit_price_cents":1}`), 400, "lines[0].quantity"},
		{"a quantity beyond 64 bits", "k", line(`{"sku":"tea","quantity":9223372036854775808,"unit_price_cents":1}`), 400, "lines[0].quantity"},
		{"lines that are none", "k", strings.Replace(body, `[{"sku":"tea","quantity":2,"unit_price_cents":450}]`, `"tea"`, 1), 400, "lines"},
		{"a NUL", "k", line(`{"sku":"t\u0000a","quantity":1,"unit_price_cents":1}`), 400, "lines[0].sku"},
		{"deep nesting", "k", line(strings.Repeat("[", 100) + strings.Repeat("]", 100)), 400, "lines[0]" + strings.Repeat("[0]", 30)},
		{"no price", "k", line(`{"sku":"tea","quantity":1}`), 400, "lines[0].unit_price_cents"},
		{"a price of null", "k", line(`{"sku":"tea","quantity":1,"unit_price_cents":null}`), 400, "lines[0].unit_price_cents"},
		{"ten thousand lines", "k", line(many), 413, ""},
		{"no lines", "k", line(``), 422, "lines"},
		{"quantity zero", "k", line(`{"sku":"tea","quantity":0,"unit_price_cents":1}`), 422, "lines[0].quantity"},
		{"a negative quantity", "k", line(`{"sku":"tea","quantity":-1,"unit_price_cents":1}`), 422, "lines[0].quantity"},
		{"no quantity", "k", line(`{"sku":"tea","unit_price_cents":1}`), 422, "lines[0].quantity"},
		{"a SKU twice", "k", line(`{"sku":"tea","quantity":1,"unit_price_cents":1},{"sku":"tea","quantity":1,"unit_price_cents":1}`), 422, "lines[1].sku"},
		{"no address", "k", strings.Replace(body, `"customer_email":"ada@example.com",`, ``, 1), 422, "customer_email"},
		{"an address that is none", "k", strings.Replace(body, "ada@example.com", "ada at example", 1), 422, "customer_email"},
		{"a currency that is none", "k", strings.Replace(body, `"lines"`, `"currency":"gold","lines"`, 1), 422, "currency"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := []string{"Idempotency-Key", tt.key}
			if tt.key == "" {
				header = nil
			}
			a := r.do("POST", "/v1/orders", tt.body, header...)
			field, _ := a.JSON["field"].(string)
			if a.StatusCode != tt.status || field != tt.field || a.JSON["trace_id"] == nil {
				t.Errorf("POST = %s, want %d for the field %q", a, tt.status, tt.field)
			}
		})
	}
	t.Run("another content type", func(t *testing.T) {
		a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k", "Content-Type", "text/plain")
		if a.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("POST = %s, want 415", a)
		}
	})
	for _, table := range []string{"orders", "outbox", "idempotency"} {
		if n := r.Count(`select count(*) from ` + table); n != 1 {
			t.Errorf("%d rows in %s, want that of the one order", n, table)
		}
	}
}

func TestHTTP_overload(t *testing.T) {
	t.Parallel()
	const published = `delete from outbox`
	for _, tt := range []struct {
		name   string
		limits order.Limits
		before string // what happened to the order that was accepted
		detail string // of the refusal; empty: there is none
		relief string // what ends the overload
	}{
		{"events wait too long to be published", order.Limits{OutboxAge: 1, Lag: time.Hour}, ``, "wait to be published", published},
		{"inventory is too far behind", order.Limits{OutboxAge: time.Hour, Lag: 1}, published, "inventory is", `update orders set status = 'confirmed'`},
		{"inventory cannot answer what it was not told", order.Limits{OutboxAge: time.Hour, Lag: 1}, `update outbox set created_at = created_at - 5000000`, "", published},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.Service = r.replica(func(p *order.Parts) { p.Limits = tt.limits })
			r.serve()
			r.measure()
			first := r.do("POST", "/v1/orders", body, "Idempotency-Key", "first")
			accepted, _ := first.JSON["order_id"].(string)
			if tt.before != "" {
				r.exec(tt.before)
			}
			r.measure()
			a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k")
			if tt.detail == "" {
				if a.StatusCode != http.StatusAccepted {
					t.Errorf("POST = %s, want it accepted", a)
				}
				return
			}
			if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || !strings.Contains(a.Text, tt.detail) {
				t.Errorf("POST under pressure = %s, Retry-After %q", a, a.Header.Get("Retry-After"))
			}
			if a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "first"); a.String() != first.String() {
				t.Errorf("a repetition under pressure = %s, want the stored answer %s", a, first)
			}
			if a := r.do("GET", "/v1/orders/"+accepted, ""); a.StatusCode != http.StatusOK {
				t.Errorf("GET under pressure = %s", a)
			}
			if a := r.do("POST", "/v1/orders/"+accepted+"/cancel", ""); a.StatusCode != http.StatusAccepted {
				t.Errorf("cancel under pressure = %s", a)
			}
			r.exec(tt.relief)
			r.measure()
			if a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k"); a.StatusCode != http.StatusAccepted {
				t.Errorf("POST after it = %s", a)
			}
		})
	}
	for name, answered := range map[string]func(id string) event.Payload{"confirmed": reserved, "rejected": rejected} {
		t.Run("an order that is stuck while another is "+name+" is no sign of overload", func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.Service = r.replica(func(p *order.Parts) { p.Limits = order.Limits{OutboxAge: time.Hour, Lag: 1} })
			r.serve()
			r.post(body)
			r.answer(answered(r.post(body)), "answer-1")
			r.exec(published)
			r.measure()
			r.post(body)
			r.exec(published)
			r.measure()
			if a := r.do("POST", "/v1/orders", body, "Idempotency-Key", "k"); a.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("POST = %s, want 503: the newest order waits too", a)
			}
		})
	}
}

// An hour is the limit, and the order has waited for less, half an hour, and more.
func TestHTTP_overload_is_told_by_how_long_an_order_has_waited(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Service = r.replica(func(p *order.Parts) { p.Limits = order.Limits{OutboxAge: time.Hour, Lag: time.Hour} })
	r.serve()
	r.post(body)
	for i, want := range []int{http.StatusAccepted, http.StatusAccepted, http.StatusServiceUnavailable} {
		r.exec(`delete from outbox`)
		r.measure()
		if a := r.do("POST", "/v1/orders", body, "Idempotency-Key", strconv.Itoa(i)); a.StatusCode != want {
			t.Errorf("after %d half hours POST = %s, want %d", i, a, want)
		}
		r.exec(`update orders set pending_since = pending_since - 1800000000`)
	}
}

func (r *rig) measure() {
	r.Helper()
	if err := r.MeasurePressure(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) exec(query string) {
	r.Helper()
	if _, err := r.parts.DB.Exec(r.Context(), query); err != nil {
		r.Fatal(err)
	}
}

func TestHTTP_get(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	id := r.post(body)
	for _, tt := range []struct {
		path   string
		status int
		field  string
	}{
		{id, 200, ""},
		{strings.ToUpper(id), 200, ""},
		{id + "?wait=0s", 200, ""},
		{id + "?wait=1ms", 200, ""},
		{id + "?wait=", 200, ""},
		{id + "?wait=5", 400, "wait"},
		{id + "?wait=-1s", 400, "wait"},
		{id + "?wait=31s", 400, "wait"},
		{id + "?wait=1000000h", 400, "wait"},
		{uuid.NewString(), 404, ""},
		{"1", 400, "id"},
		{"{" + id[1:], 400, "id"},
		{"urn:uuid:" + id, 400, "id"},
		{"%7B" + id + "%7D", 400, "id"},
		{strings.ReplaceAll(id, "-", ""), 400, "id"},
		{id + "0", 400, "id"},
		{"%00", 400, "id"},
		{"a%2Fb", 400, "id"},
		{"%F0%9F%92%A9", 400, "id"},
		{strings.Repeat("9", 5000), 400, "id"},
	} {
		a := r.do("GET", "/v1/orders/"+tt.path, "")
		field, _ := a.JSON["field"].(string)
		if a.StatusCode != tt.status || field != tt.field {
			t.Errorf("GET %.60s = %s, want %d for the field %q", tt.path, a, tt.status, tt.field)
		}
	}
	t.Run("a wait ends when the order settles", func(t *testing.T) {
		settled := make(chan eventtest.Answer)
		go func() { settled <- r.do("GET", "/v1/orders/"+id+"?wait=30s", "") }()
		r.answer(reserved(id), "answer-1")
		if a := <-settled; a.JSON["status"] != "confirmed" {
			t.Errorf("GET = %s, want a confirmed order", a)
		}
	})
	t.Run("text is not escaped for HTML", func(t *testing.T) {
		id := r.post(strings.Replace(body, `"tea"`, `"<tea> & 'cup'"`, 1))
		if a := r.do("GET", "/v1/orders/"+id, ""); !strings.Contains(a.Text, `"<tea> & 'cup'"`) {
			t.Errorf("GET = %s, want the SKU as it was sent", a)
		}
	})
}

func TestHTTP_list(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	var newest []string
	for i := range 7 {
		id := r.post(strings.Replace(body, `"ada"`, fmt.Sprintf(`"%s"`, []string{"ada", "grace"}[i%2]), 1))
		newest = append([]string{id}, newest...)
	}
	pages := func(query string) (pages [][]string) {
		for after := ""; ; {
			a := r.do("GET", "/v1/orders?"+query+after, "")
			var page struct {
				Items []struct {
					OrderID string `json:"order_id"`
				}
				Next string
			}
			if err := json.Unmarshal([]byte(a.Text), &page); err != nil || a.StatusCode != http.StatusOK {
				t.Fatalf("GET = %s, %v", a, err)
			}
			var ids []string
			for _, o := range page.Items {
				ids = append(ids, o.OrderID)
			}
			pages = append(pages, ids)
			if page.Next == "" {
				return pages
			}
			after = "&after=" + page.Next
		}
	}
	of := func(start int) (ids []string) { // every second one
		for i := start; i < len(newest); i += 2 {
			ids = append(ids, newest[i])
		}
		return ids
	}
	for _, tt := range []struct {
		query string
		want  []string
		pages int
	}{
		{"", newest, 1},
		{"limit=100", newest, 1},
		{"limit=3", newest, 3},
		{"limit=7", newest, 2}, // the second is empty
		{"customer_id=ada&limit=1", of(0), 5},
		{"customer_id=grace", of(1), 1},
		{"customer_id=nobody", nil, 1},
		{"customer_id=%27%20or%201%3D1", nil, 1},
	} {
		if got := pages(tt.query); len(got) != tt.pages || !slices.Equal(slices.Concat(got...), tt.want) {
			t.Errorf("the pages of %q are %v, want %d of %v", tt.query, got, tt.pages, tt.want)
		}
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=-1": "limit", "limit=101": "limit", "limit=ten": "limit", "limit=99999999999999999999": "limit",
		"after=x": "after", "after=%00": "after", "after=" + newest[0] + "0": "after",
		"customer_id=%00": "customer_id", "customer_id=%FF": "customer_id", "customer_id=" + strings.Repeat("x", 101): "customer_id",
	} {
		if a := r.do("GET", "/v1/orders?"+query, ""); a.StatusCode != http.StatusBadRequest || a.JSON["field"] != field {
			t.Errorf("GET ?%.40s = %s, want 400 for the field %s", query, a, field)
		}
	}
}

func TestHTTP_cancel(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	id, refused := r.post(body), r.post(body)
	r.answer(rejected(refused), "answer-1")
	for range 2 {
		a := r.do("POST", "/v1/orders/"+id+"/cancel", "")
		if a.StatusCode != http.StatusAccepted || a.JSON["status"] != "cancelled" || a.Header.Get("Location") != "/v1/orders/"+id {
			t.Errorf("cancel = %s", a)
		}
	}
	if a := r.do("POST", "/v1/orders/"+refused+"/cancel", ""); a.StatusCode != http.StatusConflict {
		t.Errorf("cancel of a rejected order = %s, want 409", a)
	}
	if a := r.do("POST", "/v1/orders/"+uuid.NewString()+"/cancel", ""); a.StatusCode != http.StatusNotFound {
		t.Errorf("cancel of no order = %s, want 404", a)
	}
	if a := r.do("POST", "/v1/orders/1/cancel", ""); a.StatusCode != http.StatusBadRequest {
		t.Errorf("cancel of an absurd ID = %s, want 400", a)
	}
}

// Of the database's failure the client learns nothing but to try again.
func TestHTTP_databaseAway(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	id := r.post(body)
	if _, err := r.parts.DB.Exec(t.Context(), `alter table orders rename to elsewhere`); err != nil {
		t.Fatal(err)
	}
	for _, a := range []eventtest.Answer{
		r.do("POST", "/v1/orders", body, "Idempotency-Key", "k"), r.do("GET", "/v1/orders", ""),
		r.do("GET", "/v1/orders/"+id, ""), r.do("POST", "/v1/orders/"+id+"/cancel", ""),
	} {
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || strings.Contains(a.Text, "table") {
			t.Errorf("%s %s = %s, want 503 without the database's words", a.Request.Method, a.Request.URL.Path, a)
		}
	}
	noAddress(t, r)
}

// A customer's address is in no log line and no span, whatever happens to the order.
func TestPersonalData(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	id := r.post(body)
	for _, bad := range []string{
		strings.Replace(body, `ada@example.com"`, `ada@example.com\u0000"`, 1), strings.Replace(body, "ada@example.com", "<ada@example.com", 1),
		strings.Replace(body, `"customer_email":"ada@example.com"`, `"customer_email":["ada@example.com"]`, 1),
		strings.Replace(body, `"quantity":2`, `"quantity":0`, 1), body[:60], body + `"ada@example.com"`,
		strings.Replace(body, `"lines"`, `"ada@example.com":1,"lines"`, 1),
	} {
		if a := r.do("POST", "/v1/orders", bad, "Idempotency-Key", uuid.NewString()); a.StatusCode < 400 {
			t.Errorf("POST %s = %s", bad, a)
		}
	}
	r.do("GET", "/v1/orders/"+id, "")
	r.do("GET", "/v1/orders?customer_id=ada", "")
	r.answer(reserved(id), "answer-1")
	r.do("POST", "/v1/orders/"+id+"/cancel", "")
	r.answer(reserved("nobody"), "answer-2")
	second := r.post(body)
	if err := r.replica(func(p *order.Parts) { p.Patience = 0 }).CancelAllOverdue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := r.do("GET", "/v1/orders/"+second, ""); a.JSON["reason"] != "deadline" {
		t.Fatalf("GET = %s, want an order that the deadline cancelled", a)
	}
	noAddress(t, r)
}

func noAddress(t *testing.T, r *rig) {
	t.Helper()
	spans := r.spans.Ended()
	if r.Logs.String() == "" {
		t.Fatal("there is no log to look at")
	}
	for _, s := range spans {
		text := fmt.Sprint(s.Name(), s.Attributes(), s.Events(), s.Status())
		if strings.Contains(text, "ada@") || strings.Contains(text, "example.com") {
			t.Errorf("span %s holds the address: %s", s.Name(), text)
		}
	}
	if logs := r.Logs.String(); strings.Contains(logs, "ada@") || strings.Contains(logs, "example.com") {
		t.Errorf("the log holds the address:\n%s", logs)
	}
}
