package service_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/service"
	"github.com/google/go-cmp/cmp"
)

type line struct {
	SKU      string `json:"sku"`
	Quantity int32  `json:"quantity"`
}

type embedded struct {
	Note string `json:"note"`
}

type order struct {
	embedded
	CustomerID string            `json:"customer_id"`
	Lines      []*line           `json:"lines"`
	Currency   *string           `json:"currency,omitempty"`
	Paid       bool              `json:"paid"`
	Weight     float64           `json:"weight"`
	Labels     map[string]string `json:"labels"`
	Extra      json.RawMessage   `json:"extra"`
	Any        any               `json:"any"`
	At         time.Time         `json:"at"`
	Secret     string            `json:"-"`
	Plain      int
}

func decode(body io.Reader, contentType string, v any) error {
	r := httptest.NewRequest("POST", "/", body)
	r.Header.Set("Content-Type", contentType)
	return service.DecodeJSON(httptest.NewRecorder(), r, 1000, v)
}

func TestDecodeJSON_accepts(t *testing.T) {
	t.Parallel()
	var got order
	err := decode(strings.NewReader(` {"customer_id":"c\u00e9","lines":[{"sku":"a","quantity":1},{"sku":"b","quantity":2}],
		"currency":null,"paid":true,"weight":1.5e2,"labels":{"x":"y"},"extra":{"a":[1,{"a":2}]},"any":{"deep":[1]},
		"at":"2026-01-02T03:04:05Z","Plain":7,"note":"n"} `), "application/json; charset=utf-8", &got)
	if err != nil {
		t.Fatal(err)
	}
	want := order{
		embedded: embedded{"n"}, CustomerID: "cé", Lines: []*line{{"a", 1}, {"b", 2}}, Paid: true, Weight: 150,
		Labels: map[string]string{"x": "y"}, Extra: json.RawMessage(`{"a":[1,{"a":2}]}`),
		Any: map[string]any{"deep": []any{1.0}}, At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Plain: 7,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(order{})); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

// What looks like half a surrogate pair, and is none.
func TestDecodeJSON_acceptsText(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`"\ud83d\ude00"`: "\U0001F600", `"\ufffd"`: "\ufffd", `"\ufffd\uD83D\uDE00x"`: "\ufffd\U0001F600x", `"` + "\ufffd" + `\\ud800"`: "\ufffd\\ud800", `"\\\ufffd\n"`: "\\\ufffd\n",
	} {
		var got order
		if err := decode(strings.NewReader(`{"customer_id":`+body+`}`), "application/json", &got); err != nil || got.CustomerID != want {
			t.Errorf("%s: got %q, %v; want %q", body, got.CustomerID, err, want)
		}
	}
}

func TestDecodeJSON_wants_what_is_required(t *testing.T) {
	t.Parallel()
	type article struct {
		SKU   string `json:"sku"`
		Price int    `json:"price" required:"true"`
	}
	for body, field := range map[string]string{
		`{"all":[{"sku":"a","price":0},{"sku":"b"}]}`:     "all[1].price",
		`{"all":[{"sku":"a","price": null}]}`:             "all[0].price",
		`{"all":[{}]}`:                                    "all[0].price",
		`{"all":[{"price":0}], "more": {"k": {}}}`:        "more.k.price",
		`{"all":[{"price":0}], "more": {"k": null}}`:      "",
		`{"all":[], "more": {"k": {"price":-1}}}`:         "",
		`{"all":null}`:                                    "",
		`{"all":[{"sku":"a","sku":"b"}]}`:                 "all[0].sku", // what is there is told first
		`{"all":[{"price":"1"}]}`:                         "all[0].price",
		`{"all":[{"price":0},{"sku":1,"price":{"a":1}}]}`: "all[1].sku",
	} {
		var got struct {
			All  []article          `json:"all"`
			More map[string]article `json:"more"`
		}
		err := decode(strings.NewReader(body), "application/json", &got)
		var problem *service.Problem
		if field == "" && err != nil || field != "" && (!errors.As(err, &problem) || problem.Field != field || problem.Status != http.StatusBadRequest) {
			t.Errorf("%s: %v, want a 400 about %q", body, err, field)
		}
	}
}

func TestDecodeJSON_refuses(t *testing.T) {
	t.Parallel()
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, tt := range []struct {
		name, body string
		status     int
		field      string
		detail     string // a part of it
	}{
		{"an empty body", ``, 400, "", "must be a JSON object"},
		{"an array", `[]`, 400, "", "must be a JSON object"},
		{"null", `null`, 400, "", "must be a JSON object"},
		{"a body cut short", `{"lines":[{"sku":"a"`, 400, "", "ends in the middle"},
		{"a missing comma", `{"paid":true "weight":1}`, 400, "", "malformed JSON at byte"},
		{"a trailing comma", `{"lines":[{"sku":"a"},]}`, 400, "", "malformed JSON"},
		{"a name that is no string", `{1:2}`, 400, "", "malformed JSON"},
		{"data after the object", `{} {}`, 400, "", "data after"},
		{"garbage after the object", `{} x`, 400, "", "data after"},
		{"an unknown field", `{"colour":1}`, 400, "colour", "unknown field"},
		{"an unknown field deep inside", `{"lines":[{"sku":"a"},{"price":1}]}`, 400, "lines[1].price", "unknown field"},
		{"another spelling of a field", `{"PAID":true}`, 400, "PAID", "unknown field"},
		{"a hidden field", `{"Secret":"x"}`, 400, "Secret", "unknown field"},
		{"a field that is there twice", `{"lines":[{"sku":"a","quantity":1,"sku":"b"}]}`, 400, "lines[0].sku", "twice"},
		{"a field that is there twice in a free object", `{"extra":{"k":{"a":1,"a":2}}}`, 400, "extra.k.a", "twice"},
		{"a key that is there twice in a map", `{"labels":{"a":"1","a":"2"}}`, 400, "labels.a", "twice"},
		{"a string for a number", `{"lines":[{"quantity":1},{"quantity":"2"}]}`, 400, "lines[1].quantity", "whole number of at most 32 bits"},
		{"a fraction for a whole number", `{"lines":[{"quantity":1.5}]}`, 400, "lines[0].quantity", "whole number"},
		{"a whole number that is too large", `{"lines":[{"quantity":3000000000}]}`, 400, "lines[0].quantity", "at most 32 bits"},
		{"an absurd number", `{"weight":1e999}`, 400, "weight", "a number"},
		{"a number for a string", `{"customer_id":5}`, 400, "customer_id", "a string"},
		{"an object for an array", `{"paid":true,"lines":{"sku":"a"}}`, 400, "lines", "an array"},
		{"an array for an object", `{"lines":[[]]}`, 400, "lines[0]", "an object"},
		{"a string for an object", `{"lines":["a"]}`, 400, "lines[0]", "an object"},
		{"a string for a bool", `{"paid":"true"}`, 400, "paid", "true or false"},
		{"a wrong type behind a right one", `{"labels":{"a":"1","b":2}}`, 400, "labels.b", "a string"},
		{"a time that is none", `{"at":"yesterday"}`, 400, "", "yesterday"},
		{"invalid UTF-8", "{\"customer_id\":\"\xff\"}", 400, "", "UTF-8"},
		{"a NUL character", `{"lines":[{"sku":"a\u0000b"}]}`, 400, "lines[0].sku", "NUL"},
		{"half a surrogate pair", `{"paid":true,"customer_id":"\ud800"}`, 400, "customer_id", "surrogate"},
		{"the second half alone", `{"lines":[{"sku":"a"},{"sku":"b\udc00c"}]}`, 400, "lines[1].sku", "surrogate"},
		{"two first halves", `{"note":"\ud83d\ud83d\ude00"}`, 400, "note", "surrogate"},
		{"a half behind a whole one", `{"note":"\ud83d\ude00\ude00"}`, 400, "note", "surrogate"},
		{"half a pair behind a backslash", `{"note":"\\\ud800"}`, 400, "note", "surrogate"},
		{"half a pair in the name of a map's key", `{"labels":{"\ud800":"x"}}`, 400, "labels.\ufffd", "surrogate"},
		{"33 levels", `{"any":` + nested(32) + `}`, 400, "any" + strings.Repeat("[0]", 31), "levels deep"},
		{"a million levels", `{"any":` + nested(450) + `}`, 400, "any" + strings.Repeat("[0]", 31), "levels deep"},
		{"a long body", `{"note":"` + strings.Repeat("x", 1000) + `"}`, 413, "", "longer than 1000 bytes"},
		{"an unknown field behind one of the wrong type", `{"paid":1,"colour":1}`, 400, "colour", "unknown field"},
		{"a long name, cut short", `{"` + strings.Repeat("é", 400) + `":1}`, 400, strings.Repeat("é", 64) + "…", "unknown field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var v order
			err := decode(strings.NewReader(tt.body), "application/json", &v)
			var got *service.Problem
			if !errors.As(err, &got) {
				t.Fatalf("error: got %v, want a Problem", err)
			}
			if got.Status != tt.status || got.Field != tt.field || !strings.Contains(got.Detail, tt.detail) {
				t.Errorf("got %d %q %q, want %d %q and a detail with %q", got.Status, got.Field, got.Detail, tt.status, tt.field, tt.detail)
			}
			if len(got.Detail) > 300 {
				t.Errorf("detail has %d bytes", len(got.Detail))
			}
		})
	}
	t.Run("32 levels are accepted", func(t *testing.T) {
		t.Parallel()
		var v order
		if err := decode(strings.NewReader(`{"any":`+nested(31)+`}`), "application/json", &v); err != nil {
			t.Error(err)
		}
	})
	t.Run("another media type is 415", func(t *testing.T) {
		t.Parallel()
		for _, media := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/json-seq", ";"} {
			var got *service.Problem
			if err := decode(strings.NewReader(`{}`), media, &order{}); !errors.As(err, &got) || got.Status != http.StatusUnsupportedMediaType {
				t.Errorf("%q: got %v, want 415", media, err)
			}
		}
	})
	t.Run("a body that breaks off is 400", func(t *testing.T) {
		t.Parallel()
		var got *service.Problem
		err := decode(io.MultiReader(strings.NewReader(`{`), failing{}), "application/json", &order{})
		if !errors.As(err, &got) || got.Status != http.StatusBadRequest {
			t.Errorf("got %v, want 400", err)
		}
	})
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// Whatever is refused or accepted, nothing panics; what is accepted, encoding/json accepts.
func FuzzDecodeJSON(f *testing.F) {
	for _, seed := range []string{`{}`, `{"lines":[{"sku":"a"}]}`, `{"at":1}`, `{"a":[[[`, `{"any":{"a":1,"a":2}}`, "{\"\xff\":1}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var v, w order
		if err := decode(strings.NewReader(string(body)), "application/json", &v); err != nil {
			return
		}
		if err := json.Unmarshal(body, &w); err != nil {
			t.Errorf("accepted %q, which encoding/json refuses: %v", body, err)
		}
	})
}

func TestWriteProblem(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	service.WriteProblem(w, httptest.NewRequest("GET", "/", nil), 422, "must be positive", "lines[0].quantity")
	want := `{"title":"Unprocessable Entity","status":422,"detail":"must be positive","field":"lines[0].quantity"}`
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("body: got %s, want %s", got, want)
	}
	if got := w.Header().Get("Content-Type"); w.Code != 422 || got != "application/problem+json" {
		t.Errorf("got %d %s", w.Code, got)
	}
}

func ExampleProblem() {
	var err error = &service.Problem{Status: 422, Field: "lines[2].quantity", Detail: "must be at least 1"}
	fmt.Println(err)
	// Output: lines[2].quantity: must be at least 1
}
