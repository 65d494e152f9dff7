package codec

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/sr"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"example.com/keyline/pkg/event"
)

const (
	fetchedSchema = `{"type": "record", "name": "Fetched", "namespace": "test", "fields": [{"name": "id", "type": "string"}]}`
	notThere      = `{"error_code": 40403, "message": "Schema not found"}`
)

type fetched struct {
	ID string `avro:"id"`
}

func (fetched) Schema() string { return fetchedSchema }
func (fetched) Topic() string  { return "orders" }
func (f fetched) Key() string  { return f.ID }

var _ event.Payload = fetched{}

// transport answers requests without a network, so that a test's clock can be virtual.
type transport struct {
	requests atomic.Int32
	answer   func(w http.ResponseWriter, r *http.Request)
}

func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.requests.Add(1)
	w := httptest.NewRecorder()
	t.answer(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// answers returns a codec whose registry answers by fn.
func answers(t *testing.T, fn func(http.ResponseWriter, *http.Request)) (*Codec, *transport) {
	t.Helper()
	c, err := New(Config{URL: "http://registry.invalid"}, fetched{})
	if err != nil {
		t.Fatal(err)
	}
	tr := &transport{answer: fn}
	client, err := sr.NewClient(sr.URLs("http://registry.invalid"), sr.HTTPClient(&http.Client{Transport: tr}))
	if err != nil {
		t.Fatal(err)
	}
	c.registry = &registry{client}
	return c, tr
}

func found(w http.ResponseWriter) { fmt.Fprintf(w, `{"schema": %q}`, fetchedSchema) }

func status(code int, body string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// hang answers only when the asker has given up.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

func value(id byte) []byte { return []byte{0, 0, 0, 0, id, 2, 'x'} }

func TestFetch(t *testing.T) {
	t.Parallel()

	t.Run("concurrent askers share one request", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			release := make(chan struct{})
			c, tr := answers(t, func(w http.ResponseWriter, _ *http.Request) { <-release; found(w) })
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					got, err := Decode[fetched](t.Context(), c, value(1))
					if err != nil || got.ID != "x" {
						t.Errorf("got %v, error %v", got, err)
					}
				})
			}
			synctest.Wait()
			close(release)
			wg.Wait()
			if n := tr.requests.Load(); n != 1 {
				t.Errorf("%d requests, want 1", n)
			}
		})
	})
	t.Run("an asker waits no longer than its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := answers(t, hang)
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = c.Type(t.Context(), value(1)) })
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			if _, err := c.Type(ctx, value(1)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want the context's", err)
			}
			wg.Wait()
		})
	})
	t.Run("an asker who gives up does not spoil it for the others", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var first atomic.Bool
			c, _ := answers(t, func(w http.ResponseWriter, r *http.Request) {
				if first.CompareAndSwap(false, true) {
					hang(w, r)
				}
				found(w)
			})
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.Type(ctx, value(1)); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v, want that of the context", err)
				}
			})
			synctest.Wait()
			wg.Go(func() {
				if typ, err := c.Type(t.Context(), value(1)); typ != "test.Fetched" {
					t.Errorf("type %q, error %v", typ, err)
				}
			})
			synctest.Wait()
			cancel()
			wg.Wait()
		})
	})
	t.Run("a registry that hangs is given two seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, _ := answers(t, hang)
			start := time.Now()
			_, err := c.Type(t.Context(), value(1))
			if took := time.Since(start); !errors.Is(err, ErrUnavailable) || took != 2*time.Second {
				t.Errorf("error %v after %v, want ErrUnavailable after 2s", err, took)
			}
		})
	})
	t.Run("a schema that does not exist is asked for again after 30 seconds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, tr := answers(t, status(404, notThere))
			asked(t, c, tr, ErrUnknownSchema, 1)
			<-time.After(29 * time.Second)
			asked(t, c, tr, ErrUnknownSchema, 1)
			<-time.After(2 * time.Second)
			asked(t, c, tr, ErrUnknownSchema, 2)
			tr.answer = func(w http.ResponseWriter, _ *http.Request) { found(w) }
			<-time.After(31 * time.Second)
			asked(t, c, tr, nil, 3)
			asked(t, c, tr, nil, 3)
		})
	})
	t.Run("a registry that is down is asked again after a second, whatever the schema", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, tr := answers(t, status(503, "down"))
			asked(t, c, tr, ErrUnavailable, 1)
			_, err := c.Type(t.Context(), value(2))
			if !errors.Is(err, ErrUnavailable) || tr.requests.Load() != 1 || !strings.HasPrefix(err.Error(), "schema 2: schema registry") {
				t.Errorf("error %v after %d requests", err, tr.requests.Load())
			}
			tr.answer = func(w http.ResponseWriter, _ *http.Request) { found(w) }
			<-time.After(time.Second + time.Millisecond)
			asked(t, c, tr, nil, 2)
		})
	})
	t.Run("memory of refused and fetched schemas is bounded", func(t *testing.T) {
		t.Parallel()
		c, tr := answers(t, status(404, notThere))
		for id := range 3 * maxRefused {
			if _, err := c.writer(t.Context(), id); !errors.Is(err, ErrUnknownSchema) {
				t.Fatal(err)
			}
		}
		if n := len(c.refused); n > maxRefused {
			t.Errorf("%d refused IDs are remembered", n)
		}
		big := strings.Replace(fetchedSchema, `"type"`, `"doc": "`+strings.Repeat("x", maxSchema-1000)+`", "type"`, 1)
		tr.answer = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"schema": %q}`, big) }
		c.verified(1<<20, c.order[0])
		for id := range 3 * maxInUse / maxSchema {
			if _, err := c.writer(t.Context(), 1<<21+id); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(*c.writers.Load()); n > maxInUse/maxSchema+2 {
			t.Errorf("%d schemas are in use", n)
		}
		if (*c.writers.Load())[1<<20] == nil {
			t.Error("the service's own schema was forgotten")
		}
	})
}

// asked asks for schema 1 and compares the outcome and the number of requests so far.
func asked(t *testing.T, c *Codec, tr *transport, want error, requests int32) {
	t.Helper()
	if _, err := c.Type(t.Context(), value(1)); !errors.Is(err, want) || tr.requests.Load() != requests {
		t.Errorf("error %v after %d requests, want %v after %d", err, tr.requests.Load(), want, requests)
	}
}

func TestFetch_counts(t *testing.T) {
	t.Parallel()
	measured := metric.NewManualReader()
	c, tr := answers(t, status(404, notThere))
	var err error
	c.fetches, err = metric.NewMeterProvider(metric.WithReader(measured)).Meter("test").Int64Counter("schema_fetches_total")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.writer(t.Context(), 1)
	tr.answer = status(200, `{"schema": "", "schemaType": "JSON"}`)
	_, _ = c.writer(t.Context(), 2)
	tr.answer = func(w http.ResponseWriter, _ *http.Request) { found(w) }
	_, _ = c.writer(t.Context(), 3)
	tr.answer = status(500, "")
	_, _ = c.writer(t.Context(), 4)

	var data metricdata.ResourceMetrics
	if err := measured.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int64)
	for _, point := range data.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64]).DataPoints {
		outcome, _ := point.Attributes.Value("outcome")
		got[outcome.AsString()] = point.Value
	}
	if diff := cmp.Diff(got, map[string]int64{"ok": 1, "unknown": 1, "unavailable": 1, "incompatible": 1}); diff != "" {
		t.Error(diff)
	}
}

func TestFetch_answers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		want   error
	}{
		{"the registry's own 404 is definite", status(404, notThere), ErrUnknownSchema},
		{"a 404 of something else behind the URL is not", status(404, "<html>not found</html>"), ErrUnavailable},
		{"a 404 of a registry that does not know the route is not", status(404, `{"error_code": 404, "message": "HTTP 404 Not Found"}`), ErrUnavailable},
		{"wrong credentials may be put right", status(401, `{"error_code": 40101}`), ErrUnavailable},
		{"a page instead of JSON is no answer", status(200, "<html>welcome</html>"), ErrUnavailable},
		{"an error as long as a book is still an error", status(502, strings.Repeat("x", 2*maxResponse)), ErrUnavailable},
		{"a schema as long as a book is refused", status(200, `{"schema": "`+strings.Repeat("x", 2*maxResponse)+`"}`), ErrIncompatible},
		{"a schema above the limit is refused", status(200, `{"schema": "`+strings.Repeat("x", maxSchema+1)+`"}`), ErrIncompatible},
		{"a schema of another kind is refused", status(200, `{"schema": "syntax", "schemaType": "PROTOBUF"}`), ErrIncompatible},
		{"what is no schema is refused", status(200, `{"schema": "{}"}`), ErrIncompatible},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, tr := answers(t, tt.answer)
			client, err := sr.NewClient(sr.URLs("http://registry.invalid"), sr.HTTPClient(&http.Client{Transport: bounded{tr}}))
			if err != nil {
				t.Fatal(err)
			}
			c.registry = &registry{client}
			_, err = c.Type(t.Context(), value(1))
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if len(err.Error()) > 500 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}
