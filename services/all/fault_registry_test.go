package all_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// moody is a registry that fails as it is told to.
type moody struct {
	registry http.Handler
	mood     atomic.Pointer[string] // fine, 503, hang or 404
	refused  atomic.Int64
}

func (m *moody) be(mood string) { m.mood.Store(&mood) }

func (m *moody) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mood := *m.mood.Load()
	if mood != "fine" {
		m.refused.Add(1)
	}
	switch {
	case mood == "503":
		w.WriteHeader(http.StatusServiceUnavailable)
	case mood == "hang":
		_, _ = io.Copy(io.Discard, r.Body) // else the client's going is not noticed
		<-r.Context().Done()
	case mood == "404" && strings.HasPrefix(r.URL.Path, "/schemas/ids/"):
		w.Header().Set("Content-Type", "application/vnd.schemaregistry.v1+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"error_code":40403,"message":"Schema not found"}`))
	default:
		m.registry.ServeHTTP(w, r)
	}
}

// The registry is down when the shop starts, and later when records of schemas come that
// nobody has seen: those wait, what is known flows, and only a definite no makes dead letters.
func TestF36_a_registry_that_is_down_delays_new_schemas_only(t *testing.T) {
	t.Parallel()
	registry, err := embedded.NewRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	m := &moody{registry: registry}
	m.be("fine")
	front, behind := httptest.NewServer(m), httptest.NewServer(registry)
	t.Cleanup(behind.Close) // when the shop has stopped
	t.Cleanup(front.Close)
	f := openLasting(t, map[string]string{"SCHEMA_REGISTRY_URL": front.URL, "RETRY_ATTEMPTS": "3"})
	f.trade(size(8, 100))
	f.settle()
	f.quiet()
	f.stop()

	for _, mood := range size([]string{"503"}, []string{"503", "hang"}) {
		m.be(mood)
		f.start() // what was verified before is kept
		f.trade(size(8, 100))
		f.settle()
		f.stop()
	}
	m.be("fine")
	f.start()
	f.URLs.Registry = behind.URL // for this test's own eyes

	var dead []check.Waiting
	for i, mood := range []string{"503", "hang"} {
		m.be(mood)
		unseen := f.unseen(i)
		begun := time.Now()
		f.trade(size(8, 100))
		f.settle()
		t.Logf("registry %s: the others settled after %v", mood, time.Since(begun))
		for _, service := range []string{"inventory", "email"} {
			eventually(t, service+" waits for the registry", func() bool {
				w := f.waits(service, unseen)
				return len(w) == 1 && w[0].State == "unavailable" && w[0].Attempts == 0
			})
		}
		m.be("fine")
		// Inventory reserves for it, and the order service has no such order.
		eventually(t, "its effect", func() bool {
			w := f.waits("order", unseen)
			return len(f.waits("inventory", unseen)) == 0 && len(f.waits("email", unseen)) == 0 && len(w) == 1 && w[0].State == "dead"
		})
		dead = append(dead, check.Waiting{Group: "order", Key: unseen, Reason: "exhausted"})
	}
	f.quiet() // a cancellation that met the registry away may still wait, and "no" is a no for it too
	m.be("404")
	unknown := f.unseen(2)
	for _, service := range []string{"inventory", "email"} {
		eventually(t, "a dead letter of "+service, func() bool {
			w := f.waits(service, unknown)
			return len(w) == 1 && w[0].State == "dead" && w[0].Reason == "unknown-schema"
		})
		dead = append(dead, check.Waiting{Group: service, Key: unknown, Reason: "unknown-schema"})
	}
	f.injected = int(m.refused.Load())
	f.rounds = size(4, 5)
	f.judge(check.Expect{Dead: dead, Foreign: true})
}

// unseen writes an OrderPlaced in a version that the shop has never seen, and returns its
// order's ID.
func (f *trial) unseen(n int) (orderID string) {
	f.Helper()
	const subject = "orders-shop.order.OrderPlaced"
	newest, err := f.registry().SchemaByVersion(f.Context(), subject, -1)
	if err != nil {
		f.Fatal(err)
	}
	note := fmt.Sprint("note_", n)
	text := strings.Replace(newest.Schema.Schema, `"fields":[`, `"fields":[{"name":"`+note+`","type":"string","default":""},`, 1)
	next, err := f.registry().CreateSchema(f.Context(), subject, sr.Schema{Schema: text})
	if err != nil {
		f.Fatal(err)
	}
	orderID = uuid.NewString()
	native := map[string]any{
		"order_id": orderID, "customer_id": "c", "customer_email": "ada@example.com", "placed_at": time.Now(), "currency": "EUR",
		"lines": []any{map[string]any{"sku": f.articles[1], "quantity": 1, "unit_price_cents": 1}},
	}
	for i := range n + 1 {
		native[fmt.Sprint("note_", i)] = "new"
	}
	f.write(&kgo.Record{Topic: schemas.TopicOrders, Key: []byte(orderID), Value: f.encode(next, native)})
	return orderID
}
