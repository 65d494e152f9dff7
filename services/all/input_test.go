package all_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

// refusal is a request that must be refused.
type refusal struct {
	name   string
	body   string
	status []int
	field  string // that the problem names; empty where the whole body is wrong
}

// good is a body that would be accepted; the bad ones differ from it in one thing.
const good = `{"customer_id":"ada","customer_email":"ada@example.com","lines":[{"sku":"tea","quantity":1,"unit_price_cents":450}]}`

// with replaces a part of the good body.
func with(part, by string) string {
	if !strings.Contains(good, part) {
		panic(part)
	}
	return strings.Replace(good, part, by, 1)
}

// lines is the good body with n lines.
func manyLines(n int, rest string) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`{"sku":"%d"%s}`, i, rest))
	}
	return with(`{"sku":"tea","quantity":1,"unit_price_cents":450}`, strings.Join(all, ","))
}

func badOrders() []refusal {
	malformed, unprocessable, tooLarge := []int{400}, []int{422}, []int{413}
	return []refusal{
		{"no body", ``, malformed, ""},
		{"no object", `[]`, malformed, ""},
		{"no JSON", `order=1`, malformed, ""},
		{"a body that breaks off", good[:50], malformed, ""},
		{"two objects", good + good, malformed, ""},
		{"an unknown field", with(`"lines"`, `"vip":true,"lines"`), malformed, "vip"},
		{"an unknown field of a line", with(`"quantity"`, `"colour":"red","quantity"`), malformed, "lines[0].colour"},
		{"a field in capitals", with(`"customer_id"`, `"Customer_ID"`), malformed, "Customer_ID"},
		{"a field twice", with(`"lines"`, `"customer_id":"eve","lines"`), malformed, "customer_id"},
		{"a field of a line twice", with(`"quantity":1`, `"quantity":1,"quantity":2`), malformed, "lines[0].quantity"},
		{"a number for a string", with(`"ada"`, `7`), malformed, "customer_id"},
		{"a string for a number", with(`"quantity":1`, `"quantity":"1"`), malformed, "lines[0].quantity"},
		{"a fraction for a whole number", with(`"quantity":1`, `"quantity":1.5`), malformed, "lines[0].quantity"},
		{"a number beyond 64 bits", with(`450`, `1e30`), malformed, "lines[0].unit_price_cents"},
		{"a quantity beyond 64 bits", with(`"quantity":1`, `"quantity":99999999999999999999`), malformed, "lines[0].quantity"},
		{"an object for an array", with(`[{"sku":"tea","quantity":1,"unit_price_cents":450}]`, `{}`), malformed, "lines"},
		{"bad UTF-8", with(`"ada"`, "\"a\xff\xfea\""), malformed, ""},
		{"a NUL character", with(`"ada"`, `"a\u0000a"`), malformed, "customer_id"},
		{"deep JSON", with(`"ada"`, strings.Repeat("[", 5000)+strings.Repeat("]", 5000)), malformed, "customer_id" + strings.Repeat("[0]", 31)},
		{"nothing in it", `{}`, unprocessable, "customer_id"},
		{"a null", with(`"ada"`, `null`), unprocessable, "customer_id"},
		{"an empty customer", with(`"ada"`, `""`), unprocessable, "customer_id"},
		{"an absurd customer", with(`"ada"`, `"`+strings.Repeat("a", 5000)+`"`), unprocessable, "customer_id"},
		{"a customer of control characters", with(`"ada"`, `"a\u0007\u001b[31m"`), unprocessable, "customer_id"},
		{"no mail address", with(`ada@example.com`, `ada`), unprocessable, "customer_email"},
		{"a mail address with a header in it", with(`ada@example.com`, `ada@example.com\r\nBcc: eve@example.com`), unprocessable, "customer_email"},
		{"two mail addresses", with(`ada@example.com`, `ada@example.com, eve@example.com`), unprocessable, "customer_email"},
		{"a currency that is none", with(`"lines"`, `"currency":"euro","lines"`), unprocessable, "currency"},
		{"no lines", with(`{"sku":"tea","quantity":1,"unit_price_cents":450}`, ``), unprocessable, "lines"},
		{"101 lines", manyLines(101, `,"quantity":1,"unit_price_cents":1`), unprocessable, "lines"},
		{"5,000 short lines", manyLines(5_000, `,"unit_price_cents":1`), unprocessable, "lines"},
		{"10,000 lines", manyLines(10_000, `,"quantity":1,"unit_price_cents":1`), tooLarge, ""},
		{"a huge body", with(`"ada"`, `"`+strings.Repeat("a", 1<<20)+`"`), tooLarge, ""},
		{"a SKU twice", with(`}]`, `},{"sku":"tea","quantity":1,"unit_price_cents":450}]`), unprocessable, "lines[1].sku"},
		{"an empty SKU", with(`"tea"`, `""`), unprocessable, "lines[0].sku"},
		{"an absurd SKU", with(`"tea"`, `"`+strings.Repeat("t", 101)+`"`), unprocessable, "lines[0].sku"},
		{"quantity zero", with(`"quantity":1`, `"quantity":0`), unprocessable, "lines[0].quantity"},
		{"no quantity", with(`"quantity":1,`, ``), unprocessable, "lines[0].quantity"},
		{"a negative quantity", with(`"quantity":1`, `"quantity":-1`), unprocessable, "lines[0].quantity"},
		{"a quantity beyond 32 bits", with(`"quantity":1`, `"quantity":4294967297`), unprocessable, "lines[0].quantity"},
		{"a negative price", with(`450`, `-1`), unprocessable, "lines[0].unit_price_cents"},
		{"a price that is no price", with(`450`, `9223372036854775807`), unprocessable, "lines[0].unit_price_cents"},
		{"a sum beyond 64 bits", manyLines(100, `,"quantity":1000000,"unit_price_cents":100000000000`), unprocessable, "lines"},
	}
}

// Bad input is refused with a problem that names what is wrong, and leaves nothing behind.
func TestBadOrder(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	before := s.written()
	for _, tt := range badOrders() {
		t.Run(tt.name, func(t *testing.T) {
			a := s.send("POST", "/v1/orders", tt.body, "Idempotency-Key", newKey())
			tt.judge(t, a)
		})
	}
	t.Run("no content type", func(t *testing.T) {
		for _, contentType := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"} {
			a := s.send("POST", "/v1/orders", good, "Idempotency-Key", newKey(), "Content-Type", contentType)
			refusal{status: []int{http.StatusUnsupportedMediaType}}.judge(t, a)
		}
	})
	if diff := cmp.Diff(before, s.written()); diff != "" {
		t.Errorf("refused requests have left something (-before +after):\n%s", diff)
	}
	s.accept(s.send("POST", "/v1/orders", good, "Idempotency-Key", newKey())) // it is good indeed
}

func (r refusal) judge(t *testing.T, a answer) {
	t.Helper()
	p := problemOf(t, a)
	if !slices.Contains(r.status, a.status) {
		t.Errorf("answered %d %s, want %v", a.status, a.body, r.status)
	}
	if p.Field != r.field && a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("the problem %s names the field %q, want %q", a.body, p.Field, r.field)
	}
	if p.Detail == "" || len(a.body) > 1000 {
		t.Errorf("the problem says %s", a.body)
	}
}

// written counts what requests leave behind.
func (s *shop) written() map[string]int {
	s.Helper()
	rows := map[string]int{}
	for _, table := range []string{"orders", "idempotency", "outbox"} {
		rows["order "+table] = s.count("order", table)
	}
	for _, table := range []string{"stock", "movement", "idempotency", "outbox"} {
		rows["inventory "+table] = s.count("inventory", table)
	}
	rows["events"] = len(s.dump("orders"))
	return rows
}

func TestBadReceipt(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	before := s.written()
	malformed, unprocessable := []int{400}, []int{422}
	for _, tt := range []struct {
		path string
		refusal
	}{
		{"tea", refusal{"no body", ``, malformed, ""}},
		{"tea", refusal{"an unknown field", `{"quantity":1,"price":1}`, malformed, "price"}},
		{"tea", refusal{"a field twice", `{"quantity":1,"quantity":1}`, malformed, "quantity"}},
		{"tea", refusal{"a string for a number", `{"quantity":"1"}`, malformed, "quantity"}},
		{"tea", refusal{"a number beyond 64 bits", `{"quantity":1e300}`, malformed, "quantity"}},
		{"tea", refusal{"nothing in it", `{}`, unprocessable, "quantity"}},
		{"tea", refusal{"quantity zero", `{"quantity":0}`, unprocessable, "quantity"}},
		{"tea", refusal{"a negative quantity", `{"quantity":-5}`, unprocessable, "quantity"}},
		{"tea", refusal{"a quantity that nobody can count", `{"quantity":9223372036854775807}`, unprocessable, "quantity"}},
		{"tea", refusal{"a huge body", `{"quantity":1` + strings.Repeat(" ", 1<<20) + `}`, []int{413}, ""}},
		{strings.Repeat("t", 101), refusal{"an absurd SKU", `{"quantity":1}`, malformed, "sku"}},
		{"%00", refusal{"a SKU of a control character", `{"quantity":1}`, malformed, "sku"}},
		{"%ff%fe", refusal{"a SKU of bad UTF-8", `{"quantity":1}`, malformed, "sku"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := s.send("POST", "/v1/stock/"+tt.path+"/receipts", tt.body, "Idempotency-Key", newKey())
			tt.judge(t, a)
		})
	}
	t.Run("no key", func(t *testing.T) {
		a := s.send("POST", "/v1/stock/tea/receipts", `{"quantity":1}`)
		refusal{status: malformed, field: "Idempotency-Key"}.judge(t, a)
	})
	if diff := cmp.Diff(before, s.written()); diff != "" {
		t.Errorf("refused requests have left something (-before +after):\n%s", diff)
	}
}

// Whatever is asked for, the answer is a problem that says what is wrong with it.
func TestBadQuestion(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	nobody := uuid.NewString()
	for _, tt := range []struct {
		name, method, path string
		status             int
		field              string
	}{
		{"an order's ID that is none", "GET", "/v1/orders/42", 400, "id"},
		{"an order's ID that is SQL", "GET", "/v1/orders/'%20or%201=1", 400, "id"},
		{"an absurd order's ID", "GET", "/v1/orders/" + strings.Repeat("0", 4000), 400, "id"},
		{"an order's ID of bad UTF-8", "GET", "/v1/orders/%ff%00", 400, "id"},
		{"an order that is not there", "GET", "/v1/orders/" + nobody, 404, ""},
		{"an endless wait", "GET", "/v1/orders/" + nobody + "?wait=1h", 400, "wait"},
		{"a wait that is no time", "GET", "/v1/orders/" + nobody + "?wait=soon", 400, "wait"},
		{"cancelling what is no order", "POST", "/v1/orders/42/cancel", 400, "id"},
		{"cancelling an order that is not there", "POST", "/v1/orders/" + nobody + "/cancel", 404, ""},
		{"a page without end", "GET", "/v1/orders?limit=1000000", 400, "limit"},
		{"a page of nothing", "GET", "/v1/orders?limit=0", 400, "limit"},
		{"a page behind what is no order", "GET", "/v1/orders?after=x", 400, "after"},
		{"orders of an absurd customer", "GET", "/v1/orders?customer_id=%00", 400, "customer_id"},
		{"stock of what was never received", "GET", "/v1/stock/nothing", 404, ""},
		{"stock at no time", "GET", "/v1/stock/tea?at=yesterday", 400, "at"},
		{"movements from no version", "GET", "/v1/stock/tea/movements?after=-1", 400, "after"},
		{"movements without end", "GET", "/v1/stock/tea/movements?limit=100000000", 400, "limit"},
		{"mails of no order", "GET", "/v1/emails", 400, "order_id"},
		{"mails of an absurd order", "GET", "/v1/emails?order_id=" + strings.Repeat("x", 4000), 400, "order_id"},
		{"mails of bad UTF-8", "GET", "/v1/emails?order_id=%ff", 400, "order_id"},
		{"a route that is not there", "GET", "/v1/orders/" + nobody + "/pay", 404, ""},
		{"a method that is not there", "DELETE", "/v1/orders/" + nobody, 405, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := s.send(tt.method, tt.path, nil)
			p := problemOf(t, a)
			if a.status != tt.status || p.Field != tt.field {
				t.Errorf("answered %d %s, want %d and the field %q", a.status, a.body, tt.status, tt.field)
			}
		})
	}
}
