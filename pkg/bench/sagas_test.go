package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/schemas"
)

// TestMain lets the test binary be a broker or a shop, as the program itself does.
func TestMain(m *testing.M) {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "-broker":
		err = serveBroker(context.Background())
	case len(args) == 2 && args[0] == "-shop":
		err = serveShop(context.Background(), args[1])
	default:
		os.Exit(m.Run())
	}
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
	r.only = []string{"keyline"}
	sagas, err := sagaWorks(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	late, err := latencyWorks(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []work{sagas[0], late[0]} {
		rows, err := r.plan.measure(t.Context(), w)
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		if got := rows[0].Ours; got.Sagas.P50 <= 0 || got.Rate <= 0 || got.Sagas.Lost > 0 {
			t.Errorf("%s: %+v, %+v", w.name, got, got.Sagas)
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

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // 100 to 1
	}
	for _, tt := range []struct {
		name    string
		of      []float64
		p, want float64
	}{
		{"the middle", hundred, 50, 50},
		{"all but one", hundred, 99, 99},
		{"the largest", hundred, 100, 100},
		{"the smallest", hundred, 0, 1},
		{"of one value it is that one", []float64{7}, 99, 7},
		{"of few values it is the largest", []float64{1, 2, 3}, 99, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := percentile(tt.of, tt.p); got != tt.want {
				t.Errorf("percentile(%v) = %v, want %v", tt.p, got, tt.want)
			}
		})
	}
	t.Run("nothing has none", func(t *testing.T) {
		t.Parallel()
		if got := percentile(nil, 50); !math.IsNaN(got) {
			t.Errorf("percentile of nothing = %v, want NaN", got)
		}
	})
}

func TestAllSagas(t *testing.T) {
	t.Parallel()
	round := func(p50, p99, most float64, lost int) sample {
		return sample{sagas: sagas{P50: p50, P99: p99, Max: most, Lost: lost}}
	}
	t.Run("medians of the times, all that was lost", func(t *testing.T) {
		t.Parallel()
		want := &sagas{P50: 2, P99: 20, Max: 300, Lost: 3}
		if diff := cmp.Diff(want, allSagas([]sample{round(1, 30, 300, 1), round(2, 10, 20, 0), round(3, 20, 50, 2)})); diff != "" {
			t.Errorf("allSagas (-want +got):\n%s", diff)
		}
	})
	t.Run("a work without orders has none", func(t *testing.T) {
		t.Parallel()
		if got := allSagas([]sample{{wall: 1}}); got != nil {
			t.Errorf("allSagas = %v, want nil", got)
		}
	})
}

func TestWork_rows_sagas(t *testing.T) {
	t.Parallel()
	of := func(p99 float64) []sample {
		return []sample{{wall: 1e6, cpu: 4e5, driver: 1e5, sagas: sagas{P50: 1, P99: p99, Max: 2 * p99}}}
	}
	w := work{name: "work", unit: unitLate, sides: []side{{name: "ours"}, {name: "theirs"}}}
	t.Run("latencies are compared by the 99th percentile", func(t *testing.T) {
		t.Parallel()
		rows := w.rows([][]sample{of(10), of(25)}, nil)
		if len(rows) != 1 || rows[0].Ratio != 2.5 || rows[0].Peer != "theirs" {
			t.Fatalf("rows = %+v, want a ratio of 2.5 to theirs", rows)
		}
		if got, want := rows[0].told(rows[0].Theirs), "1.0 / 25.0 / 50 ms"; got != want {
			t.Errorf("told = %q, want %q", got, want)
		}
		if got := rows[0].Ours.Others[driver]; got != 1e5 {
			t.Errorf("the driver took %v, want 1e5", got)
		}
	})
	t.Run("ours alone is compared with itself", func(t *testing.T) {
		t.Parallel()
		w := w
		w.unit, w.sides = unitSagas, w.sides[:1]
		rows := w.rows([][]sample{of(10)}, nil)
		if len(rows) != 1 || rows[0].Ratio != 1 || rows[0].Peer != "ours" {
			t.Fatalf("rows = %+v, want a ratio of 1 to ours", rows)
		}
		rows[0].Ours.Sagas.Lost = 3
		if got, want := rows[0].told(rows[0].Ours), "1000/s, 0.40 CPU s per 1,000 (shop 0.40, driver 0.10), 3 lost"; got != want {
			t.Errorf("told = %q, want %q", got, want)
		}
	})
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
	got := c.judge(all)
	if got.P50 <= 0 || got.P99 < got.P50 || got.Max < got.P99 {
		t.Errorf("times %+v", got)
	}
	got.P50, got.P99, got.Max = 0, 0, 0
	if want := (sagas{Lost: 1, Doubled: 1, Refused: 1}); got != want {
		t.Errorf("judged %+v, want %+v", got, want)
	}
	if got := box.of("id-k-5").n; got != 1 {
		t.Errorf("%d mails about an order, want 1", got)
	}
}

func TestShopNames(t *testing.T) {
	t.Parallel()
	if got, err := shopNames("keyline,watermill"); err != nil || len(got) != 2 {
		t.Errorf("shopNames = %q, %v, want both", got, err)
	}
	if got, err := shopNames(""); err != nil || len(got) != 0 {
		t.Errorf("shopNames of nothing = %q, %v, want none", got, err)
	}
	if _, err := shopNames("corner"); err == nil || !strings.Contains(err.Error(), "corner") {
		t.Errorf("shopNames of an unknown one: %v, want an error that names it", err)
	}
	if err := serveShop(t.Context(), "corner"); err == nil {
		t.Error("an unknown shop opened")
	}
}

func TestTail(t *testing.T) {
	t.Parallel()
	var got tail
	for i := range 10_000 {
		if _, err := got.Write([]byte(strconv.Itoa(i) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != tailBytes || !strings.HasSuffix(string(got), "9998\n9999\n") {
		t.Errorf("%d bytes to %q, want the last %d", len(got), got[len(got)-10:], tailBytes)
	}
}
