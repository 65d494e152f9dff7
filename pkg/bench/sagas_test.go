package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/schemas"
)

// TestMain lets the test binary be another process, as the program itself does.
func TestMain(m *testing.M) {
	name, ok := childRole()
	if !ok {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := beChild(ctx, name)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Our shop as it is measured, on an embedded broker and SQLite.
func TestSagaWorks(t *testing.T) {
	t.Setenv("KAFKA_BROKERS", "")
	t.Setenv("DATABASE_URL", "")
	r, err := newRig(t.Context(), plan{rounds: 1, sagas: 20, warm: 5, open: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	}()
	sagas, err := sagaWorks(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	late, err := latencyWorks(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []work{sagas[0], late[0]} {
		w.sides = chosen(w.sides, "keyline")
		rows, err := r.plan.measure(t.Context(), w)
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		if got := rows[0].Ours; got.Latency.P50 <= 0 || got.Rate <= 0 || len(got.Faults) > 0 {
			t.Errorf("%s: %+v, %+v", w.name, got, got.Latency)
		}
	}

	if err := r.broker.alone(t.Context(), "mine"); err != nil {
		t.Errorf("a shop that has closed is in the way: %v", err)
	}
	joined := make(chan struct{}, 1)
	other, err := kgo.NewClient(kgo.SeedBrokers(r.broker.addr), kgo.ConsumerGroup("theirs-email"), kgo.ConsumeTopics(schemas.TopicOrders),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { joined <- struct{}{} }))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	select {
	case <-joined:
	case <-time.After(30 * time.Second):
		t.Fatal("the other shop does not open")
	}
	if err := r.broker.alone(t.Context(), "mine"); err == nil || !strings.Contains(err.Error(), "theirs-email") {
		t.Errorf("beside another shop: %v, want an error that names its group", err)
	}
	if err := r.broker.alone(t.Context(), "theirs"); err != nil {
		t.Errorf("the shop's own group is in its way: %v", err)
	}
}

func TestPurchases(t *testing.T) {
	t.Parallel()
	for _, k := range demands {
		all, again := purchases(k, "k-", 200), purchases(k, "k-", 200)
		bought := map[string]int{}
		for i, p := range all {
			if p.body != again[i].body || p.key != "k-"+strconv.Itoa(i) {
				t.Fatalf("%s: purchase %d is not the same in every run", k.name, i)
			}
			var cart struct {
				Lines []struct{ SKU string }
			}
			if err := json.Unmarshal([]byte(p.body), &cart); err != nil {
				t.Fatal(err)
			}
			own := map[string]bool{}
			for _, l := range cart.Lines {
				own[l.SKU] = true
				bought[l.SKU]++
			}
			if n := len(own); n != len(cart.Lines) || n < 2 || n > 3 {
				t.Errorf("%s: %d articles on %d lines", k.name, n, len(cart.Lines))
			}
		}
		if first, zipf := bought[skuOf(0)], strings.HasPrefix(k.name, "Zipf"); zipf != (first > 50) {
			t.Errorf("%s: the first article was bought %d times", k.name, first)
		}
	}
}

func TestSchedule(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := purchases(demands[0], "k-", 5)
		work := make(chan *purchase, len(all))
		began := time.Now()
		if err := schedule(t.Context(), all, 20*time.Millisecond, work); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(began); got != 80*time.Millisecond {
			t.Errorf("the last was sent after %v, want 80ms", got)
		}
		for i, p := range all {
			if got, want := p.due.Sub(began), time.Duration(i)*20*time.Millisecond; got != want || <-work != p {
				t.Errorf("purchase %d is due after %v, want %v", i, got, want)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := schedule(ctx, all, time.Second, work); err == nil {
			t.Error("schedule went on")
		}
	})
}

// A whole way: orders are placed, their mails sent as the others' shops do, and judged.
func TestCustomers_settle(t *testing.T) {
	t.Parallel()
	box, err := startSink()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := box.close(); err != nil {
			t.Error(err)
		}
	})
	box.patience = 100 * time.Millisecond
	mailer := newPeerMailer(box.addr())
	var asked atomic.Int64
	shop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			http.Error(w, "too busy", http.StatusServiceUnavailable)
			return
		}
		id := "id-" + r.Header.Get("Idempotency-Key")
		send := map[string]int{"id-k-3": 0, "id-k-4": 2}
		n, special := send[id]
		for range map[bool]int{true: n, false: 1}[special] {
			if err := mailer.send(confirmedEvent{id, "ada@customer.example", 1234, "EUR"}); err != nil {
				t.Error(err)
			}
		}
		answer(w, http.StatusAccepted, map[string]string{"order_id": id}, nil)
	}))
	t.Cleanup(shop.Close)

	c, all := &customers{sink: box}, purchases(demands[0], "k-", 100)
	addr := strings.TrimPrefix(shop.URL, "http://")
	if err := c.settle(t.Context(), addr, all, 0); err != nil {
		t.Fatal(err)
	}
	took, got := c.judge(all)
	if len(took) != 99 || percentiles(took).P50 <= 0 {
		t.Errorf("times %v", took)
	}
	if diff := cmp.Diff(faults{lost: 1, doubled: 1, refused: 1}, got); diff != "" {
		t.Errorf("judged (-want +got):\n%s", diff)
	}
	if got := box.of("id-k-5").n; got != 1 {
		t.Errorf("%d mails about an order, want 1", got)
	}
}

func TestServeShop(t *testing.T) {
	t.Parallel()
	if err := serveShop(t.Context(), shopConfig{Kind: "corner"}, nil); err == nil || !strings.Contains(err.Error(), "corner") {
		t.Errorf("an unknown shop: %v, want an error that names it", err)
	}
}
