package schemas_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// events are all events, with a key.
var events = []event.Payload{
	schemas.OrderPlaced{OrderID: "o-1"}, schemas.OrderConfirmed{OrderID: "o-1"},
	schemas.OrderRejected{OrderID: "o-1"}, schemas.OrderCancelled{OrderID: "o-1"},
	schemas.StockReserved{OrderID: "o-1"}, schemas.StockRejected{OrderID: "o-1"},
	schemas.StockReleased{OrderID: "o-1"},
	schemas.EmailSent{OrderID: "o-1"},
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	subjects := schemas.Subjects()
	var names []string
	versions := 0
	if len(subjects) != len(events) {
		t.Fatalf("%d events, %d in this test's list: add the new one to events above, in the order of events.go", len(subjects), len(events))
	}
	for i, s := range subjects {
		names = append(names, s.Name)
		versions += len(s.Versions)
		if len(s.Versions) == 0 {
			t.Fatalf("%s has no version", s.Name)
		}
		if got, want := s.Name, codec.SubjectName(events[i]); got != want {
			t.Errorf("subject %s, want %s", got, want)
		}
		if got, want := s.Versions[len(s.Versions)-1], events[i].Schema(); got != want {
			t.Errorf("%s: the embedded schema is not the newest version", s.Name)
		}
		if got := events[i].Key(); got != "o-1" {
			t.Errorf("%s: the key is %q, want the order's ID", s.Name, got)
		}
	}
	if diff := cmp.Diff(names, []string{
		"orders-shop.order.OrderPlaced", "orders-shop.order.OrderConfirmed",
		"orders-shop.order.OrderRejected", "orders-shop.order.OrderCancelled",
		"inventory-shop.inventory.StockReserved", "inventory-shop.inventory.StockRejected",
		"inventory-shop.inventory.StockReleased",
		"emails-shop.email.EmailSent",
	}); diff != "" {
		t.Errorf("subjects, which consumers and the registry know by these names (-have +want in this test):\n%s", diff)
	}
	files, err := filepath.Glob("*/*.avsc")
	if err != nil || len(files) != versions {
		t.Errorf("%d .avsc files, error %v, but %d versions in Subjects: embed each file in events.go, and name it in its line of events", len(files), err, versions)
	}
}

func TestTopics(t *testing.T) {
	t.Parallel()
	var names []string
	partitions := make(map[string]int32)
	for _, topic := range schemas.Topics() {
		names = append(names, topic.Name)
		partitions[topic.Name] = topic.Partitions
		if topic.Retention < 72*time.Hour {
			t.Errorf("%s keeps records for %v only", topic.Name, topic.Retention)
		}
	}
	slices.Sort(names)
	if diff := cmp.Diff(names, []string{
		"emails", "inventory", "inventory.order.dlt", "orders", "orders.email.dlt", "orders.inventory.dlt",
	}); diff != "" {
		t.Error(diff)
	}
	for _, name := range names {
		if source, _, dead := schemas.DeadLetters(name); dead && partitions[name] != partitions[source] {
			t.Errorf("%s has %d partitions, its source %d", name, partitions[name], partitions[source])
		}
	}
	for _, e := range events {
		if !slices.Contains(names, e.Topic()) {
			t.Errorf("%T goes to %s, which is not declared", e, e.Topic())
		}
	}
}

func TestDeadLetters(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]string{
		"orders.email.dlt": {"orders", "email"}, "orders.v2.email.dlt": {"orders.v2", "email"},
		"orders": {}, "orders.v2": {}, "x.dlt": {},
	} {
		topic, service, ok := schemas.DeadLetters(name)
		if topic != want[0] || service != want[1] || ok != (want[0] != "") {
			t.Errorf("%s: got topic %q, service %q, %v, want %q", name, topic, service, ok, want)
		}
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	want := map[string]schemas.Service{
		"order":     {Publishes: []string{"orders"}, Consumes: []string{"inventory"}, DeadLetters: []string{"inventory.order.dlt"}},
		"inventory": {Publishes: []string{"inventory"}, Consumes: []string{"orders"}, DeadLetters: []string{"orders.inventory.dlt"}},
		"email":     {Publishes: []string{"emails"}, Consumes: []string{"orders"}, DeadLetters: []string{"orders.email.dlt"}},
	}
	if diff := cmp.Diff(want, schemas.Services()); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
}

// TestStyle checks what is asked of every schema: docs, and no address but the customer's.
func TestStyle(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*/*.avsc")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var schema any
		if err := json.Unmarshal(text, &schema); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		style(t, file, schema)
	}
}

func style(t *testing.T, where string, schema any) {
	t.Helper()
	switch s := schema.(type) {
	case []any:
		for _, part := range s {
			style(t, where, part)
		}
	case map[string]any:
		if name, ok := s["name"].(string); ok {
			where += " " + name
			if doc, _ := s["doc"].(string); doc == "" {
				t.Errorf("%s has no doc", where)
			}
			if strings.Contains(name, "email") && s["pii"] != true {
				t.Errorf("%s is not tagged as personal data", where)
			}
			if strings.HasSuffix(name, "_at") && !strings.Contains(toJSON(t, s["type"]), "timestamp-millis") {
				t.Errorf("%s is not in timestamp-millis", where)
			}
		}
		for _, part := range s {
			style(t, where, part)
		}
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
