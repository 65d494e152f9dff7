package email_test

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/service/spectest"
	"example.com/keyline/services/email"
)

func TestHTTP_list(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve().work()
	odd := `<o> & "1"/½`
	r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"), cancelled("o-1"), placed(odd, "bob@customer.example"), rejected(odd))
	r.mails(3)
	t.Run("the mails of an order, the oldest first", func(t *testing.T) {
		var got []string
		for _, m := range r.ledger("o-1") {
			if m.SentAt == nil {
				t.Errorf("%+v is not sent", m)
			}
			got = append(got, m.OrderID+" "+m.Kind+" "+m.MessageID)
		}
		want := []string{"o-1 confirmation <" + eventtest.ID(2) + "@keyline.example>", "o-1 cancellation <" + eventtest.ID(3) + "@keyline.example>"}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("no address is among what is told", func(t *testing.T) {
		if a := r.do("GET", "/v1/emails?order_id=o-1"); strings.Contains(a.Text, "customer.example") {
			t.Errorf("GET = %s", a)
		}
	})
	t.Run("text is not escaped for HTML", func(t *testing.T) {
		a := r.do("GET", "/v1/emails?order_id="+url.QueryEscape(odd))
		if !strings.Contains(a.Text, `<o> & \"1\"/½`) || !strings.Contains(a.Text, `"<`+eventtest.ID(5)+`@`) {
			t.Errorf("GET = %s, want < and & as they are", a)
		}
	})
	t.Run("an order that nobody wrote about has none", func(t *testing.T) {
		if a := r.do("GET", "/v1/emails?order_id=o-2"); a.StatusCode != http.StatusOK || strings.TrimSpace(a.Text) != `{"items":[]}` {
			t.Errorf("GET = %s, want an empty list", a)
		}
	})
	for name, query := range map[string]string{
		"no order": "", "an empty one": "?order_id=", "a NUL": "?order_id=%00", "bad UTF-8": "?order_id=%FF", "a line break": "?order_id=a%0Ab",
		"one too long": "?order_id=" + strings.Repeat("x", 101), "a broken query": "?order_id=%zz",
	} {
		t.Run(name+" is refused", func(t *testing.T) {
			if a := r.do("GET", "/v1/emails"+query); a.StatusCode != http.StatusBadRequest || a.JSON["field"] != "order_id" {
				t.Errorf("GET = %s, want 400 for the field order_id", a)
			}
		})
	}
}

// Of the database's failure the client learns nothing but to try again.
func TestHTTP_databaseAway(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	if _, err := r.DB.Exec(t.Context(), `alter table mail rename to elsewhere`); err != nil {
		t.Fatal(err)
	}
	a := r.do("GET", "/v1/emails?order_id=o-1")
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" || strings.Contains(a.Text, "table") {
		t.Errorf("GET = %s, want 503 without the database's words", a)
	}
}

// That answers are as the file promises is checked with every request of the tests, in
// rig.do.

func TestOpenAPI_routes(t *testing.T) {
	t.Parallel()
	r := newRig(t).serve()
	file := spectest.Read(email.OpenAPI)
	if diff := cmp.Diff(file.Routes(), slices.Sorted(maps.Keys(r.Routes()))); diff != "" {
		t.Errorf("openapi.yaml and the routes differ: %s", diff)
	}
	for _, probe := range []string{"/livez", "/readyz", "/readyz?verbose", "/metrics", "/version", "/openapi.yaml"} {
		r.do("GET", probe)
	}
}

func TestOpenAPI_examples(t *testing.T) {
	t.Parallel()
	n, errs := spectest.Read(email.OpenAPI).Examples()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n < 8 {
		t.Errorf("only %d examples were found", n)
	}
}
