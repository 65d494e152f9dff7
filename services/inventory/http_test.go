package inventory_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/service/spectest"
	"example.com/keyline/services/inventory"
)

// segment is a SKU as a path has it.
func segment(sku string) string { return strings.ReplaceAll(url.PathEscape(sku), ".", "%2E") }

// receipt books goods by HTTP.
func (r *rig) receipt(sku string, quantity int64) {
	r.Helper()
	a := r.do("POST", "/v1/stock/"+segment(sku)+"/receipts", fmt.Sprintf(`{"quantity":%d}`, quantity), "Idempotency-Key", uuid.NewString())
	if a.StatusCode != http.StatusCreated {
		r.Fatalf("POST = %s", a)
	}
}

func TestHTTP_receipts(t *testing.T) {
	t.Parallel()
	t.Run("a receipt answers with the stock", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		a := r.do("POST", "/v1/stock/tea/receipts", `{"quantity":5}`, "Idempotency-Key", "k")
		if want := `{"sku":"tea","on_hand":5,"reserved":0,"available":5,"version":1}` + "\n"; a.StatusCode != 201 || a.Text != want {
			t.Errorf("POST = %s, want 201 %s", a, want)
		}
		if m := r.ledger("tea"); m[0].Cause != "receipt k" {
			t.Errorf("the movement's cause is %q, want the request's key", m[0].Cause)
		}
	})
	t.Run("the same key gets the stored answer, and books nothing", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		first := r.do("POST", "/v1/stock/tea/receipts", `{"quantity":5}`, "Idempotency-Key", "k")
		r.receipt("tea", 1)
		again := r.do("POST", "/v1/stock/tea/receipts", `{"quantity":5}`, "Idempotency-Key", `"k"`)
		if again.String() != first.String() || again.Header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("the repetition is answered %s %v, want %s", again, again.Header, first)
		}
		r.wantStock("tea", "6/0")
	})
	t.Run("a key of another receipt is refused", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		r.do("POST", "/v1/stock/tea/receipts", `{"quantity":5}`, "Idempotency-Key", "k")
		for _, other := range []struct{ sku, body string }{{"tea", `{"quantity":6}`}, {"cup", `{"quantity":5}`}} {
			a := r.do("POST", "/v1/stock/"+other.sku+"/receipts", other.body, "Idempotency-Key", "k")
			if a.StatusCode != http.StatusUnprocessableEntity || a.JSON["field"] != "Idempotency-Key" {
				t.Errorf("POST = %s, want 422", a)
			}
		}
		r.wantStock("tea", "5/0")
		r.wantStock("cup", "none")
	})
	t.Run("many at once with one key are one receipt", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				a := r.do("POST", "/v1/stock/tea/receipts", `{"quantity":5}`, "Idempotency-Key", "k")
				if a.StatusCode != http.StatusCreated && a.StatusCode != http.StatusConflict {
					t.Errorf("POST = %s", a)
				}
			})
		}
		all.Wait()
		r.wantStock("tea", "5/0")
	})
}

// Whatever is wrong with a receipt, the answer says so, and nothing is left of it.
func TestHTTP_receipts_refused(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	for _, tt := range []struct {
		name, sku, key, body string
		status               int
		field                string
	}{
		{"no key", "tea", "", `{"quantity":1}`, 400, "Idempotency-Key"},
		{"no body", "tea", "k", ``, 400, ""},
		{"no object", "tea", "k", `1`, 400, ""},
		{"an unknown field", "tea", "k", `{"quantity":1,"colour":"red"}`, 400, "colour"},
		{"a quantity in quotes", "tea", "k", `{"quantity":"1"}`, 400, "quantity"},
		{"half a piece", "tea", "k", `{"quantity":1.5}`, 400, "quantity"},
		{"more than 64 bits", "tea", "k", `{"quantity":1e30}`, 400, "quantity"},
		{"bad UTF-8", "tea", "k", "{\"quantity\":1\xff}", 400, ""},
		{"a long body", "tea", "k", `{"quantity":` + strings.Repeat(" ", 5000) + `1}`, 413, ""},
		{"no quantity", "tea", "k", `{}`, 422, "quantity"},
		{"quantity zero", "tea", "k", `{"quantity":0}`, 422, "quantity"},
		{"a negative quantity", "tea", "k", `{"quantity":-1}`, 422, "quantity"},
		{"a quantity too great", "tea", "k", `{"quantity":1000000001}`, 422, "quantity"},
		{"a SKU too long", strings.Repeat("x", 101), "k", `{"quantity":1}`, 400, "sku"},
		{"a NUL in the SKU", "t%00a", "k", `{"quantity":1}`, 400, "sku"},
		{"bad UTF-8 in the SKU", "t%FFa", "k", `{"quantity":1}`, 400, "sku"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			header := []string{"Idempotency-Key", tt.key}
			if tt.key == "" {
				header = nil
			}
			a := r.do("POST", "/v1/stock/"+tt.sku+"/receipts", tt.body, header...)
			field, _ := a.JSON["field"].(string)
			if a.StatusCode != tt.status || field != tt.field {
				t.Errorf("POST = %s, want %d for the field %q", a, tt.status, tt.field)
			}
		})
	}
	t.Run("more than can be counted", func(t *testing.T) {
		err := r.Append(t.Context(), "tea", func(s *inventory.Stock) []inventory.Movement {
			return []inventory.Movement{s.Move(inventory.Received, inventory.MaxOnHand, "", "receipt", noon)}
		})
		if err != nil {
			t.Fatal(err)
		}
		a := r.do("POST", "/v1/stock/tea/receipts", `{"quantity":1}`, "Idempotency-Key", "k")
		if a.StatusCode != 422 || a.JSON["field"] != "quantity" {
			t.Errorf("POST = %s, want 422", a)
		}
	})
	if m, i := r.Count(`select count(*) from movement`), r.Count(`select count(*) from idempotency`); m != 1 || i != 0 {
		t.Errorf("%d movements and %d keys, want that of the one receipt and none", m, i)
	}
}

// A SKU may hold whatever can be printed. (It cannot be a slash alone: for http.ServeMux that
// is the end of a path, however it is written.)
func TestHTTP_oddSKUs(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	for i, sku := range []string{
		"a/b", "//", "a/../b", "100%", "%2F", "a b", "a+b", "a?b=c", "a#b", "<b>&'\"", "茶 ½", "😀", ".", "..", "receipts", "movements",
		strings.Repeat("茶", 100), "a;b", "{sku}", `\`, "e\u0301",
	} {
		r.receipt(sku, int64(i+1))
		r.take(order("o-"+fmt.Sprint(i), sku))
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(sku)
		for _, query := range []string{"", "?at=9999-01-01T00:00:00Z"} {
			a := r.do("GET", "/v1/stock/"+segment(sku)+query, "")
			if a.JSON["sku"] != sku || fmt.Sprint(a.JSON["on_hand"]) != fmt.Sprint(i+1) || fmt.Sprint(a.JSON["reserved"]) != "1" {
				t.Errorf("GET %q = %s", sku, a)
			}
			if !strings.Contains(a.Text, quoted) {
				t.Errorf("GET %q = %s, want the SKU without escapes for HTML", sku, a)
			}
		}
		if a := r.do("GET", "/v1/stock/"+segment(sku)+"/movements", ""); len(a.JSON["items"].([]any)) != 2 {
			t.Errorf("GET movements of %q = %s, want two", sku, a)
		}
	}
}

func TestHTTP_receipts_notEscaped(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	a := r.do("POST", "/v1/stock/"+segment("<b>&")+"/receipts", `{"quantity":1}`, "Idempotency-Key", "k")
	if !strings.Contains(a.Text, `"<b>&"`) {
		t.Errorf("POST = %s, want the SKU without escapes for HTML", a)
	}
}

func TestHTTP_stock(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	r.receipt("tea", 5)
	first := r.ledger("tea")[0].At
	r.take(order("o-1", "2 tea"))
	for query, want := range map[string]string{
		"":                                `{"sku":"tea","on_hand":5,"reserved":2,"available":3,"version":2}`,
		"?at=":                            `{"sku":"tea","on_hand":5,"reserved":2,"available":3,"version":2}`,
		"?at=2001-01-01T02:00:00%2B02:00": `{"sku":"tea","on_hand":0,"reserved":0,"available":0,"version":0,"at":"2001-01-01T00:00:00Z"}`,
		"?at=9999-12-31T23:59:59Z":        `{"sku":"tea","on_hand":5,"reserved":2,"available":3,"version":2,"at":"9999-12-31T23:59:59Z"}`,
		"?at=" + first.Add(-time.Microsecond).Format(time.RFC3339Nano): `{"sku":"tea","on_hand":0,"reserved":0,"available":0,"version":0,"at":"` +
			first.Add(-time.Microsecond).Format(time.RFC3339Nano) + `"}`,
	} {
		if a := r.do("GET", "/v1/stock/tea"+query, ""); a.StatusCode != 200 || strings.TrimSpace(a.Text) != want {
			t.Errorf("GET %s = %s, want %s", query, a, want)
		}
	}
	for path, want := range map[string]int{
		"moon": 404, "moon?at=2026-01-31T12:00:00Z": 404, "moon/movements": 404, strings.Repeat("x", 101): 400, "%00": 400, "%FF/movements": 400,
		"tea?at=yesterday": 400, "tea?at=2026-01-31": 400, "tea?at=2026-13-31T12:00:00Z": 400, "tea?at=1769860800": 400, "tea?at=2026-01-31T12:00:00+02:00": 400,
	} {
		if a := r.do("GET", "/v1/stock/"+path, ""); a.StatusCode != want {
			t.Errorf("GET %s = %s, want %d", path, a, want)
		}
	}
}

func TestHTTP_movements(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	r.receipt("tea", 100)
	for i := range 6 {
		r.take(order(fmt.Sprint("o-", i), "tea"))
	}
	for _, tt := range []struct {
		query string
		pages []int
	}{
		{"", []int{7}}, {"limit=1000", []int{7}}, {"limit=3", []int{3, 3, 1}}, {"limit=7", []int{7, 0}}, {"limit=2&after=4", []int{2, 1}}, {"after=7", []int{0}},
	} {
		var sizes []int
		var seen []inventory.Movement
		query, more := tt.query, true
		for more {
			a := r.do("GET", "/v1/stock/tea/movements?"+query, "")
			var page struct {
				Items []inventory.Movement
				Next  string
			}
			if err := json.Unmarshal([]byte(a.Text), &page); err != nil {
				t.Fatalf("GET = %s, %v", a, err)
			}
			sizes, seen = append(sizes, len(page.Items)), append(seen, page.Items...)
			query, more = strings.Split(tt.query, "&after")[0]+"&after="+page.Next, page.Next != ""
		}
		whole := r.ledger("tea")
		if diff := cmp.Diff(sizes, tt.pages); diff != "" {
			t.Errorf("the pages of %q: %s", tt.query, diff)
		}
		if diff := cmp.Diff(seen, append([]inventory.Movement(nil), whole[len(whole)-len(seen):]...)); diff != "" {
			t.Errorf("the movements of %q: %s", tt.query, diff)
		}
	}
	for query, field := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "limit=x": "limit", "limit=99999999999999999999": "limit",
		"after=-1": "after", "after=x": "after", "after=1.5": "after", "after=%00": "after",
	} {
		if a := r.do("GET", "/v1/stock/tea/movements?"+query, ""); a.StatusCode != 400 || a.JSON["field"] != field {
			t.Errorf("GET ?%s = %s, want 400 for the field %s", query, a, field)
		}
	}
}

// Of the database's failure the client learns nothing but to try again.
func TestHTTP_databaseAway(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	r.receipt("tea", 1)
	if _, err := r.DB.Exec(t.Context(), `alter table stock rename to elsewhere`); err != nil {
		t.Fatal(err)
	}
	for _, a := range []eventtest.Answer{
		r.do("POST", "/v1/stock/tea/receipts", `{"quantity":1}`, "Idempotency-Key", "k"), r.do("GET", "/v1/stock/tea", ""),
		r.do("GET", "/v1/stock/tea?at=2026-01-31T12:00:00Z", ""), r.do("GET", "/v1/stock/tea/movements", ""),
	} {
		if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || strings.Contains(a.Text, "table") {
			t.Errorf("%s %s = %s, want 503 without the database's words", a.Request.Method, a.Request.URL.Path, a)
		}
	}
}

// That answers are as the file promises is checked with every request of the tests, in
// rig.do.

func TestOpenAPI_routes(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	file := spectest.Read(inventory.OpenAPI)
	if diff := cmp.Diff(file.Routes(), slices.Sorted(maps.Keys(r.Routes(r.keys)))); diff != "" {
		t.Errorf("openapi.yaml and the routes differ: %s", diff)
	}
	for _, probe := range []string{"/livez", "/readyz", "/readyz?verbose", "/metrics", "/version", "/openapi.yaml"} {
		r.do("GET", probe, "")
	}
}

func TestOpenAPI_examples(t *testing.T) {
	t.Parallel()
	n, errs := spectest.Read(inventory.OpenAPI).Examples()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n < 15 {
		t.Errorf("only %d examples were found", n)
	}
}
