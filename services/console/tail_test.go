package console

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/schemas"
)

// provisioned is a broker with all topics, and how it is found, with an empty registry.
func provisioned(t *testing.T) (*embedded.Kafka, Config) {
	t.Helper()
	k, err := embedded.StartKafka(embedded.KafkaConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	registry, err := embedded.NewRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	there := httptest.NewServer(registry)
	t.Cleanup(func() { there.Close(); _ = registry.Close() })
	cfg := Config{Dir: t.TempDir(), Environ: map[string]string{"KAFKA_BROKERS": k.Addr(), "SCHEMA_REGISTRY_URL": there.URL}, timing: patience}
	var errs bytes.Buffer
	if code := Run(t.Context(), cfg, []string{"provision"}, io.Discard, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	return k, cfg
}

// publish writes a record whose schema has the ID.
func publish(t *testing.T, k *embedded.Kafka, id byte) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	typ := kgo.RecordHeader{Key: event.HeaderType, Value: fmt.Appendf(nil, "shop.Type%d", id)}
	r := &kgo.Record{Topic: schemas.TopicOrders, Key: []byte{'k'}, Value: []byte{0, 0, 0, 0, id, 1}, Headers: []kgo.RecordHeader{typ}}
	if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// In a cluster all start at once: a tail may wait for brokers, and then for topics.
func TestTail_waits(t *testing.T) {
	t.Parallel()
	addr, port := eventtest.FreeAddr(t)
	registry, err := embedded.NewRegistry("")
	if err != nil {
		t.Fatal(err)
	}
	there := httptest.NewServer(registry)
	t.Cleanup(func() { there.Close(); _ = registry.Close() })
	cfg := Config{Dir: t.TempDir(), Environ: map[string]string{"KAFKA_BROKERS": addr, "SCHEMA_REGISTRY_URL": there.URL}, timing: patience}
	said, w := io.Pipe()
	ended := make(chan string, 1)
	go func() {
		var out bytes.Buffer
		code := Run(t.Context(), cfg, []string{"tail", "orders", "--follow", "--from", "beginning", "--wait", "1m", "--limit", "1"}, &out, w)
		ended <- fmt.Sprint(code, " ", out.String())
	}()
	lines := bufio.NewScanner(said)
	next := func(want string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), want) {
				return
			}
		}
		t.Fatalf("it never says %q", want)
	}
	next("not yet, trying again: no broker answers")
	k, err := embedded.StartKafka(embedded.KafkaConfig{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	next("not yet, trying again: topic orders does not exist")
	go func() { _, _ = io.Copy(io.Discard, said) }()
	var errs bytes.Buffer
	if code := Run(t.Context(), cfg, []string{"provision"}, io.Discard, &errs); code != 0 {
		t.Fatal(errs.String())
	}
	publish(t, k, 1)
	if got := <-ended; !strings.Contains(got, "orders") {
		t.Errorf("got %s, want the record", got)
	}
}

// While the registry is away records are shown with what their headers say, each with the ID
// of its own schema, and the exit code is 1.
func TestRun_tailWithoutARegistry(t *testing.T) {
	t.Parallel()
	k, cfg := provisioned(t)
	cfg.Environ["SCHEMA_REGISTRY_URL"] = "http://127.0.0.1:1"
	typed := func(line string) (code int, out, errs string) {
		var o, e bytes.Buffer
		code = Run(t.Context(), cfg, strings.Fields(line), &o, &e)
		return code, o.String(), e.String()
	}
	publish(t, k, 7)
	publish(t, k, 9)
	code, out, errs := typed("tail")
	for _, id := range []int{7, 9} {
		if want := fmt.Sprintf("shop.Type%d  k  schema %d: schema registry unavailable\n", id, id); !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if want := "2 records were not decoded, since the registry (from the variable SCHEMA_REGISTRY_URL) does not answer"; code != 1 || !strings.Contains(errs, want) || !strings.Contains(errs, "next: start the registry") {
		t.Errorf("exit code %d, %s, want 1 and %q", code, errs, want)
	}
	if code, _, errs := typed("tail --limit 1 --type Type7"); code != 1 || !strings.Contains(errs, "1 record was not decoded") {
		t.Errorf("with a limit: exit code %d, %s", code, errs)
	}
}

// heard is an output that can be waited for.
type heard struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{}
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Write(p)
	close(h.more)
	h.more = make(chan struct{})
	return len(p), nil
}

func (h *heard) waitFor(t *testing.T, words string) string {
	t.Helper()
	late := time.After(30 * time.Second)
	for {
		h.mu.Lock()
		text, more := h.text.String(), h.more
		h.mu.Unlock()
		if strings.Contains(text, words) {
			return text
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%q does not come:\n%s", words, text)
		}
	}
}

// A tail that follows says once that no broker answers any more, and that one does again.
func TestRun_tailFollowsThroughAnOutage(t *testing.T) {
	t.Parallel()
	k, cfg := provisioned(t)
	cfg.timing.brokers = 200 * time.Millisecond
	addr := k.Addr()
	_, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, k, 7)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, errs := &heard{more: make(chan struct{})}, &heard{more: make(chan struct{})}
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, cfg, []string{"tail", "--follow", "--from", "beginning"}, out, errs) }()
	out.waitFor(t, "shop.Type7")
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	errs.waitFor(t, "no broker answers at "+addr+" (from the variable KAFKA_BROKERS), trying again\n")
	again, err := embedded.StartKafka(embedded.KafkaConfig{Port: n})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	text := errs.waitFor(t, "a broker answers again\n")
	cancel()
	if <-ended; strings.Count(text, "no broker answers") != 1 {
		t.Errorf("it is not told once:\n%s", text)
	}
}
