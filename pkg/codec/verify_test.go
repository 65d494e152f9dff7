package codec_test

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"example.com/keyline/pkg/codec"
)

func TestCodec_Verify(t *testing.T) {
	t.Parallel()

	t.Run("it registers nothing and says what to do", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		err := verify(t, codec.Config{URL: r.URL()})
		if err == nil || class(err) != nil || !strings.Contains(err.Error(), "orders-test.Placed") || !strings.Contains(err.Error(), "provision") {
			t.Errorf("error %v, want one that names the subject and the next step", err)
		}
		if r.SubjectExists("orders-test.Placed") {
			t.Error("the subject was registered")
		}
	})
	t.Run("a version that the subject lacks is not there", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		provision(t, r.URL(), codec.Subject{Name: "orders-test.Placed", Versions: []string{placedV1}})
		if err := verify(t, codec.Config{URL: r.URL()}); err == nil || class(err) != nil {
			t.Errorf("error %v, want a plain one", err)
		}
	})
	t.Run("what was verified and fetched outlives the registry", func(t *testing.T) {
		t.Parallel()
		r, store := newRegistry(t), &memory{}
		c := newCodec(t, codec.Config{URL: r.URL(), Store: store}, placed{})
		v1 := encode(t, newCodec(t, codec.Config{URL: r.URL()}, placedThen{}), then())
		if _, err := c.Type(t.Context(), v1); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(store.schemas, map[int]string{idV1: placedV1, idV2: placedV2}); diff != "" {
			t.Fatal(diff)
		}

		c = newCodec(t, codec.Config{URL: deadURL(), Store: store}, placed{})
		if diff := cmp.Diff(encode(t, c, now())[:5], frame(idV2)); diff != "" {
			t.Error(diff)
		}
		if got, err := codec.Decode[placed](t.Context(), c, v1); err != nil || got.Currency != "EUR" {
			t.Errorf("got %v, error %v", got, err)
		}
		if _, err := c.Type(t.Context(), frame(idSettled)); !errors.Is(err, codec.ErrUnavailable) {
			t.Errorf("error %v for a schema never seen, want ErrUnavailable", err)
		}
	})
	t.Run("a first start needs the registry", func(t *testing.T) {
		t.Parallel()
		for _, store := range []codec.Store{nil, &memory{}, &memory{schemas: map[int]string{idV1: placedV1}}} {
			err := verify(t, codec.Config{URL: deadURL(), Store: store})
			if !errors.Is(err, codec.ErrUnavailable) || !strings.Contains(err.Error(), "orders-test.Placed") {
				t.Errorf("error %v, want ErrUnavailable with the subject", err)
			}
		}
	})
	t.Run("a database of another registry is refused", func(t *testing.T) {
		t.Parallel()
		for name, kept := range map[string]map[int]string{
			"test.Settled": {idV2: settled},
			"test.Placed":  {99: placedV2},
		} {
			err := verify(t, codec.Config{URL: newRegistry(t).URL(), Store: &memory{schemas: kept}})
			if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "another registry") {
				t.Errorf("error %v, want one that says so and names %s", err, name)
			}
		}
	})
	t.Run("a database of the same schema with other spaces is not", func(t *testing.T) {
		t.Parallel()
		store := &memory{schemas: map[int]string{idV2: strings.ReplaceAll(placedV2, "\t", "")}}
		if err := verify(t, codec.Config{URL: newRegistry(t).URL(), Store: store}); err != nil || store.schemas[idV2] != placedV2 {
			t.Errorf("error %v, kept %s", err, store.schemas[idV2])
		}
	})
	t.Run("a store that fails, fails it", func(t *testing.T) {
		t.Parallel()
		broken := errors.New("disk full")
		err := verify(t, codec.Config{URL: newRegistry(t).URL(), Store: &memory{err: broken}})
		if !errors.Is(err, broken) {
			t.Errorf("error %v, want the store's", err)
		}
	})
	t.Run("a store that fails does not keep a fetched schema from use", func(t *testing.T) {
		t.Parallel()
		store := &memory{}
		c := newCodec(t, codec.Config{URL: newRegistry(t).URL(), Store: store}, placed{})
		store.mu.Lock()
		store.err = errors.New("disk full")
		store.mu.Unlock()
		if typ, err := c.Type(t.Context(), frame(idSettled)); typ != "test.Settled" {
			t.Errorf("type %q, error %v", typ, err)
		}
	})
	t.Run("something else behind the URL is an outage", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(s.Close)
		if err := verify(t, codec.Config{URL: s.URL}); !errors.Is(err, codec.ErrUnavailable) {
			t.Errorf("error %v, want ErrUnavailable", err)
		}
		if err := verify(t, codec.Config{URL: s.URL, Store: &memory{schemas: map[int]string{idV2: placedV2}}}); err != nil {
			t.Errorf("error %v, although the ID was kept", err)
		}
	})
	t.Run("refused credentials are no outage", func(t *testing.T) {
		t.Parallel()
		r := srfake.New(srfake.WithAuth("Basic c2hvcDpzZWNyZXQ=")) // shop:secret
		t.Cleanup(r.Close)
		err := verify(t, codec.Config{URL: r.URL(), Username: "shop", Password: "guess"})
		if err == nil || class(err) != nil || strings.Contains(err.Error(), "guess") {
			t.Errorf("error %v, want a plain one without the password", err)
		}
	})
	t.Run("credentials and a private authority reach a registry behind TLS", func(t *testing.T) {
		t.Parallel()
		r := srfake.NewRegistry(srfake.WithAuth("Basic c2hvcDpzZWNyZXQ="))
		s := httptest.NewUnstartedServer(r.Handler())
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is refused once, on purpose
		s.StartTLS()
		t.Cleanup(s.Close)
		ca := filepath.Join(t.TempDir(), "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if err := os.WriteFile(ca, block, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := codec.Config{URL: strings.Replace(s.URL, "//", "//shop:secret@", 1), CAFile: ca}
		if err := codec.Provision(t.Context(), cfg, []codec.Subject{{Name: "orders-test.Placed", Versions: []string{placedV1, placedV2}}}); err != nil {
			t.Fatal(err)
		}
		if err := verify(t, cfg); err != nil {
			t.Error(err)
		}
		if err := verify(t, codec.Config{URL: s.URL, Username: "shop", Password: "secret"}); !errors.Is(err, codec.ErrUnavailable) {
			t.Errorf("error %v without the authority, want ErrUnavailable", err)
		}
	})
	t.Run("a password in the URL is in no error", func(t *testing.T) {
		t.Parallel()
		for _, url := range []string{strings.Replace(deadURL(), "//", "//shop:secret@", 1), "ftp://shop:secret@registry", "http://shop:secret@%zz"} {
			if err := verify(t, codec.Config{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v, want one without the password", err)
			}
		}
	})
}

// verify makes and verifies a codec for placed.
func verify(t *testing.T, cfg codec.Config) error {
	t.Helper()
	c, err := codec.New(cfg, placed{})
	if err != nil {
		return err
	}
	return c.Verify(t.Context())
}

func TestNew(t *testing.T) {
	t.Parallel()
	noCertificate := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noCertificate, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cfg  codec.Config
		want string
	}{
		{"no URL", codec.Config{}, "SCHEMA_REGISTRY_URL"},
		{"an address without a scheme", codec.Config{URL: "registry:8081"}, "SCHEMA_REGISTRY_URL"},
		{"a CA file that is not there", codec.Config{URL: "https://registry", CAFile: "missing.pem"}, "SCHEMA_REGISTRY_CA_FILE"},
		{"a CA file without a certificate", codec.Config{URL: "https://registry", CAFile: noCertificate}, "SCHEMA_REGISTRY_CA_FILE"},
	} {
		t.Run(tt.name+" is refused by its variable's name", func(t *testing.T) {
			t.Parallel()
			if _, err := codec.New(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %s", err, tt.want)
			}
		})
	}
	t.Run("two payloads of one event are refused", func(t *testing.T) {
		t.Parallel()
		if _, err := codec.New(codec.Config{URL: "http://registry"}, placed{}, placedThen{}); err == nil || !strings.Contains(err.Error(), "test.Placed") {
			t.Errorf("error %v, want one with the event's name", err)
		}
	})
}

func TestProvision(t *testing.T) {
	t.Parallel()
	subject := codec.Subject{Name: "orders-test.Placed", Versions: []string{placedV1, placedV2}}

	t.Run("it may run again and changes nothing", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		for range 2 {
			provision(t, r.URL(), subject)
			for i, want := range subject.Versions {
				if got, _ := r.GetSchema(subject.Name, i+1); got.Schema.Schema != want || got.ID != i+1 {
					t.Errorf("version %d: ID %d, schema %s", i+1, got.ID, got.Schema.Schema)
				}
			}
			if _, more := r.GetSchema(subject.Name, 3); more {
				t.Error("there is a third version")
			}
		}
		if err := verify(t, codec.Config{URL: r.URL()}); err != nil {
			t.Error(err)
		}
	})
	t.Run("the level is FULL_TRANSITIVE on the subject", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		provision(t, r.URL(), subject)
		resp, err := http.Get(r.URL() + "/config/" + subject.Name)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body [200]byte
		n, _ := resp.Body.Read(body[:])
		if !strings.Contains(string(body[:n]), `"FULL_TRANSITIVE"`) {
			t.Errorf("the registry says %s", body[:n])
		}
	})
	t.Run("a registry without the subject takes the level after the first version", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		var order []string
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			order = append(order, req.Method)
			if req.Method != http.MethodPut {
				return false
			}
			if !r.SubjectExists(subject.Name) {
				http.Error(w, `{"error_code": 404, "message": "No artifact"}`, http.StatusNotFound)
			} else {
				w.WriteHeader(http.StatusNoContent) // nor does it answer like the others
			}
			return true
		})
		provision(t, r.URL(), subject)
		if diff := cmp.Diff(order, []string{"PUT", "POST", "PUT", "POST"}); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("what the registry refuses names the subject, the version and its reason", func(t *testing.T) {
		t.Parallel()
		r := srfake.New()
		t.Cleanup(r.Close)
		r.Intercept(func(w http.ResponseWriter, req *http.Request) bool {
			_, first := r.GetSchema(subject.Name, 1)
			refused := req.Method == http.MethodPost && first
			if refused {
				http.Error(w, `{"error_code": 409, "message": "READER_FIELD_MISSING_DEFAULT_VALUE"}`, http.StatusConflict)
			}
			return refused
		})
		err := codec.Provision(t.Context(), codec.Config{URL: r.URL()}, []codec.Subject{subject})
		for _, want := range []string{subject.Name, "version 2", "READER_FIELD_MISSING_DEFAULT_VALUE"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want one with %s", err, want)
			}
		}
	})
}

func provision(t *testing.T, url string, subjects ...codec.Subject) {
	t.Helper()
	if err := codec.Provision(t.Context(), codec.Config{URL: url}, subjects); err != nil {
		t.Fatal(err)
	}
}

// Both go over what the store has had.
func TestCodec_Verify_beside_Recheck(t *testing.T) {
	t.Parallel()
	r, store := newRegistry(t), &memory{schemas: map[int]string{idV2: placedV2}}
	const n = 100
	for id := 100; id < 100+n; id++ { // what the store has of these IDs is another registry's
		name := fmt.Sprintf("N%d", id)
		schema := func(of string) string {
			return fmt.Sprintf(`{"type": "record", "name": %q, "namespace": "test", "fields": [{"name": "id", "type": "string"}]}`, of)
		}
		store.schemas[id] = schema("Old" + name)
		r.SeedSchema("s"+name, 1, id, sr.Schema{Schema: schema(name)})
	}
	c := newCodec(t, codec.Config{URL: r.URL(), Store: store}, placed{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for range 50 {
			if err := c.Verify(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for id := 100; id < 100+n; id++ {
			name := fmt.Sprintf("test.N%d", id)
			if got, err := c.Recheck(t.Context(), frame(id, 2, 'a'), name); got != name || err != nil {
				t.Error(got, err)
			}
		}
	})
	wg.Wait()
}
