package embedded_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"example.com/keyline/pkg/embedded"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr"
)

const (
	subject = "orders-shop.order.OrderNoted"
	v1      = `{"type": "record", "name": "OrderNoted", "namespace": "shop.order",
		"fields": [{"name": "order_id", "type": "string"}]}`
	v1Reordered = `{"namespace": "shop.order", "name": "OrderNoted", "type": "record",
		"fields": [{"type": "string", "name": "order_id"}]}`
	v2 = `{"type": "record", "name": "OrderNoted", "namespace": "shop.order",
		"fields": [{"name": "order_id", "type": "string"}, {"name": "note", "type": "string", "default": ""}]}`
	v2NoDefault = `{"type": "record", "name": "OrderNoted", "namespace": "shop.order",
		"fields": [{"name": "order_id", "type": "string"}, {"name": "note", "type": "string"}]}`
)

func TestRegistry_register(t *testing.T) {
	t.Parallel()
	t.Run("the ID is the first 31 bits of the minified schema's SHA-256", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		// printf '%s' '{"type":"record",…}' | sha256sum | cut -c 1-8 gives 80604a3a.
		if got, want := mustRegister(t, cl, subject, v1), 0x80604a3a>>1; got != want {
			t.Errorf("ID of v1 is %d, want %d", got, want)
		}
	})
	t.Run("the same schema has the same ID, however it is written and wherever it stands", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		want := mustRegister(t, cl, subject, v1)
		for _, got := range []int{
			mustRegister(t, cl, subject, v1),
			mustRegister(t, cl, subject, v1Reordered),
			mustRegister(t, cl, "copies", strings.ReplaceAll(v1, " ", "\n")),
			mustRegister(t, cl, "more copies", v1Reordered),
		} {
			if got != want {
				t.Errorf("ID is %d, want %d", got, want)
			}
		}
		if got, _ := cl.SubjectVersions(t.Context(), subject); !cmp.Equal(got, []int{1}) {
			t.Errorf("versions are %v, want [1]", got)
		}
	})
	t.Run("fifty at once of one schema make one version", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, t.TempDir())
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { mustRegister(t, cl, subject, []string{v1, v2}[i%2]) })
		}
		wg.Wait()
		if got, _ := cl.SubjectVersions(t.Context(), subject); !cmp.Equal(got, []int{1, 2}) {
			t.Errorf("versions are %v, want [1 2]", got)
		}
	})
	t.Run("a version that breaks readers is a conflict that names the field", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		mustRegister(t, cl, subject, v1)
		_, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: v2NoDefault}, -1, -1)
		wantRefusal(t, err, http.StatusConflict, 409, "note")
		if got, _ := cl.SubjectVersions(t.Context(), subject); !cmp.Equal(got, []int{1}) {
			t.Errorf("versions are %v, want [1]", got)
		}
	})
	t.Run("two schemas never share an ID", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		// Found by trying: these two docs lead to the same 31 bits.
		documented := func(doc string) string {
			return strings.Replace(minified(t, v1), `"fields"`, `"doc":"`+doc+`","fields"`, 1)
		}
		first, second := documented("63776"), documented("95529")
		if got := mustRegister(t, cl, subject, first); got != 1429814727 {
			t.Fatalf("ID of the first is %d, want 1429814727", got)
		}
		_, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: second}, -1, -1)
		wantRefusal(t, err, http.StatusUnprocessableEntity, 42201, "1429814727, which is taken")
	})
	t.Run("what is no Avro schema is invalid", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		for _, s := range []sr.Schema{
			{Schema: ""}, {Schema: "{"}, {Schema: `{"type": "record"}`}, {Schema: `{"type": "nonsense"}`},
			{Schema: `{"type": "object"}`, Type: sr.TypeJSON},
			{Schema: v1, References: []sr.SchemaReference{{Name: "a", Subject: "b", Version: 1}}},
		} {
			_, err := cl.RegisterSchema(t.Context(), subject, s, -1, -1)
			wantRefusal(t, err, http.StatusUnprocessableEntity, 42201, "")
		}
		_, err := cl.RegisterSchema(t.Context(), strings.Repeat("x", 256), sr.Schema{Schema: v1}, -1, -1)
		wantRefusal(t, err, http.StatusUnprocessableEntity, 42208, "")
		if got, _ := cl.Subjects(t.Context()); len(got) != 0 {
			t.Errorf("subjects are %v, want none", got)
		}
	})
}

func TestRegistry_read(t *testing.T) {
	t.Parallel()
	cl, url := startRegistry(t, "")
	id1, id2 := mustRegister(t, cl, subject, v1), mustRegister(t, cl, subject, v2)
	ctx := t.Context()

	t.Run("a schema is found by its ID, whatever subject the client names", func(t *testing.T) {
		t.Parallel()
		for _, query := range []string{"", "?subject=orders-value", "?subject=" + subject} {
			status, body := do(t, http.MethodGet, fmt.Sprintf("%s/schemas/ids/%d%s", url, id1, query), "")
			if want := minified(t, v1); status != http.StatusOK || body["schema"] != want {
				t.Errorf("GET with %q is %d %v, want 200 with %s", query, status, body, want)
			}
		}
		if got, err := cl.SchemaTextByID(ctx, id2); err != nil || strings.TrimSpace(got) != minified(t, v2) {
			t.Errorf("text of %d is %s, %v", id2, got, err)
		}
	})
	t.Run("an unknown ID is 40403", func(t *testing.T) {
		t.Parallel()
		_, err := cl.SchemaByID(ctx, 12345)
		wantRefusal(t, err, http.StatusNotFound, 40403, "12345")
	})
	t.Run("a look-up finds ID and version, and registers nothing", func(t *testing.T) {
		t.Parallel()
		got, err := cl.LookupSchema(ctx, subject, sr.Schema{Schema: v2})
		if err != nil || got.ID != id2 || got.Version != 2 || got.Subject != subject {
			t.Errorf("look-up of v2: %+v, %v", got, err)
		}
		_, err = cl.LookupSchema(ctx, subject, sr.Schema{Schema: v2NoDefault})
		wantRefusal(t, err, http.StatusNotFound, 40403, "")
		_, err = cl.LookupSchema(ctx, "nobody", sr.Schema{Schema: v1})
		wantRefusal(t, err, http.StatusNotFound, 40401, "nobody")
	})
	t.Run("subjects, versions and schemas are listed", func(t *testing.T) {
		t.Parallel()
		got, err := cl.SchemaByVersion(ctx, subject, -1)
		if err != nil || got.ID != id2 || got.Version != 2 {
			t.Errorf("latest version: %+v, %v", got, err)
		}
		subjects, err := cl.Subjects(ctx)
		if err != nil || !cmp.Equal(subjects, []string{subject}) {
			t.Errorf("subjects: %v, %v", subjects, err)
		}
	})
	t.Run("compatibility is judged against all versions", func(t *testing.T) {
		t.Parallel()
		for schema, want := range map[string]bool{v1: true, v2: true, v2NoDefault: false} {
			got, err := cl.CheckCompatibility(ctx, subject, -1, sr.Schema{Schema: schema})
			if err != nil || got.Is != want {
				t.Errorf("compatible: %+v, %v, want %t for %s", got, err, want, schema)
			}
		}
		_, err := cl.CheckCompatibility(ctx, subject, 7, sr.Schema{Schema: v1})
		wantRefusal(t, err, http.StatusNotFound, 40402, "7")
	})
}

func TestRegistry_limits(t *testing.T) {
	t.Parallel()
	t.Run("the level is FULL_TRANSITIVE and stays so", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		for _, got := range cl.Compatibility(t.Context(), "", subject) {
			if got.Err != nil || got.Level != sr.CompatFullTransitive {
				t.Errorf("level of %q is %v, %v", got.Subject, got.Level, got.Err)
			}
		}
		full := cl.SetCompatibility(t.Context(), sr.SetCompatibility{Level: sr.CompatFullTransitive}, "", subject)
		for _, got := range full {
			if got.Err != nil || got.Level != sr.CompatFullTransitive {
				t.Errorf("setting FULL_TRANSITIVE on %q: %v, %v", got.Subject, got.Level, got.Err)
			}
		}
		none := cl.SetCompatibility(t.Context(), sr.SetCompatibility{Level: sr.CompatNone}, subject)
		wantRefusal(t, none[0].Err, http.StatusUnprocessableEntity, 42203, "FULL_TRANSITIVE")
	})
	t.Run("nothing can be deleted, and no context goes round the gate", func(t *testing.T) {
		t.Parallel()
		cl, url := startRegistry(t, "")
		mustRegister(t, cl, subject, v1)
		for _, target := range []string{
			"DELETE /subjects/" + subject, "DELETE /config", "PUT /mode",
			"POST /contexts/x/subjects/" + subject + "/versions",
		} {
			method, path, _ := strings.Cut(target, " ")
			status, body := do(t, method, url+path, `{"schema": "\"string\""}`)
			if status != http.StatusMethodNotAllowed || body["error_code"] != 405.0 {
				t.Errorf("%s is %d %v, want 405", target, status, body)
			}
		}
		if got, _ := cl.Subjects(t.Context()); !cmp.Equal(got, []string{subject}) {
			t.Errorf("subjects are %v", got)
		}
	})
	t.Run("a body over 1 MiB is refused", func(t *testing.T) {
		t.Parallel()
		cl, _ := startRegistry(t, "")
		_, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: strings.Repeat(" ", 1<<20) + v1}, -1, -1)
		wantRefusal(t, err, http.StatusRequestEntityTooLarge, 413, "")
	})
	t.Run("a body that is no JSON is refused", func(t *testing.T) {
		t.Parallel()
		_, url := startRegistry(t, "")
		if status, body := do(t, http.MethodPost, url+"/subjects/a/versions", "schema=1"); status != http.StatusBadRequest {
			t.Errorf("status %d %v, want 400", status, body)
		}
	})
}

func openRegistry(t *testing.T, dir string) *embedded.Registry {
	t.Helper()
	r, err := embedded.NewRegistry(dir)
	if err != nil {
		t.Fatalf("NewRegistry: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func serve(t *testing.T, r *embedded.Registry) *sr.Client {
	t.Helper()
	cl, _ := serveURL(t, r)
	return cl
}

func serveURL(t *testing.T, r *embedded.Registry) (*sr.Client, string) {
	t.Helper()
	server := httptest.NewServer(http.StripPrefix("/registry", r))
	t.Cleanup(server.Close)
	cl, err := sr.NewClient(sr.URLs(server.URL + "/registry"))
	if err != nil {
		t.Fatalf("registry client: %v", err)
	}
	return cl, server.URL + "/registry"
}

func startRegistry(t *testing.T, dir string) (*sr.Client, string) {
	t.Helper()
	return serveURL(t, openRegistry(t, dir))
}

func mustRegister(t *testing.T, cl *sr.Client, subject, schema string) int {
	t.Helper()
	id, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: schema}, -1, -1)
	if err != nil {
		t.Errorf("register %s: %v", schema, err)
	}
	return id
}

func wantRefusal(t *testing.T, err error, status, code int, part string) {
	t.Helper()
	var got *sr.ResponseError
	if !errors.As(err, &got) {
		t.Fatalf("error is %v, want an answer %d", err, status)
	}
	if got.StatusCode != status || got.ErrorCode != code || !strings.Contains(got.Message, part) {
		t.Errorf("answer is %d, error code %d, %q, want %d, %d, %q", got.StatusCode, got.ErrorCode, got.Message, status, code, part)
	}
}

func do(t *testing.T, method, url, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Logf("%s %s answered %q", method, url, text)
	}
	return resp.StatusCode, answer
}

func minified(t *testing.T, schema string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(schema)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
