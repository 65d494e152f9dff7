package all_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

const outerTrace, outerSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

// hostileHeaders are trace headers as nobody should send them, with whether the trace in them
// is to be continued.
func hostileHeaders() map[string]struct {
	headers   map[string]string
	continued bool
} {
	good := "00-" + outerTrace + "-" + outerSpan + "-01"
	type hostile = struct {
		headers   map[string]string
		continued bool
	}
	var baggage, state []string
	for i := range 1000 {
		baggage = append(baggage, fmt.Sprintf("k%d=v", i))
	}
	for i := range 400 {
		state = append(state, fmt.Sprintf("v%d=x", i))
	}
	return map[string]hostile{
		"forced sampled":         {map[string]string{"traceparent": good}, true},
		"a long tracestate":      {map[string]string{"traceparent": good, "tracestate": "v=" + strings.Repeat("x", 5000)}, true},
		"many states":            {map[string]string{"traceparent": good, "tracestate": strings.Join(state, ",")}, true},
		"a long baggage":         {map[string]string{"traceparent": good, "baggage": "k=" + strings.Repeat("v", 9000)}, true},
		"much baggage":           {map[string]string{"traceparent": good, "baggage": strings.Join(baggage, ",")}, true},
		"a traceparent of 10 kB": {map[string]string{"traceparent": good + strings.Repeat("-00", 3300)}, false},
		"zeroes":                 {map[string]string{"traceparent": "00-00000000000000000000000000000000-0000000000000000-01"}, false},
		"capitals":               {map[string]string{"traceparent": strings.ToUpper(good)}, false},
		"no hexadecimal":         {map[string]string{"traceparent": strings.Replace(good, "0af", "xyz", 1)}, false},
		"empty":                  {map[string]string{"traceparent": "", "tracestate": "", "baggage": ""}, false},
		"a lonely tracestate":    {map[string]string{"tracestate": "v=1"}, false},
	}
}

// Hostile trace headers, by HTTP and by topic, break nothing, are carried on within bounds, and
// do not decide what is sampled.
func TestF38_hostile_trace_headers_are_bounded(t *testing.T) {
	t.Parallel()
	f := openTrial(t, map[string]string{"OTEL_TRACES_SAMPLER": "always_off", "RETRY_ATTEMPTS": "2"})
	continued := map[string]bool{}
	for name, h := range hostileHeaders() {
		f.injected++
		var pairs []string
		for k, v := range h.headers {
			pairs = append(pairs, k, v)
		}
		key := newKey()
		a := f.send("POST", "/v1/orders", draftOf(line{f.articles[1], 1, 450}), append(pairs, "Idempotency-Key", key)...)
		o := f.accept(a)
		f.asked(check.Request{Key: key, OrderID: o.OrderID, TraceID: o.TraceID})
		if continued[o.OrderID] = h.continued; h.continued != (o.TraceID == outerTrace) {
			t.Errorf("%s: the order's trace is %s, continued should be %v", name, o.TraceID, h.continued)
		}
	}
	dead := []check.Waiting{}
	byTopic := map[string]bool{}
	placed := f.registered("orders-shop.order.OrderPlaced", 1)
	for _, h := range hostileHeaders() {
		f.injected++
		id := uuid.NewString()
		r := &kgo.Record{Topic: schemas.TopicOrders, Key: []byte(id), Value: f.encode(placed, map[string]any{
			"order_id": id, "customer_id": "c", "customer_email": "ada@example.com", "placed_at": time.Now(),
			"lines": []any{map[string]any{"sku": f.articles[2], "quantity": 1, "unit_price_cents": 1}},
		})}
		for k, v := range h.headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
		}
		f.write(r)
		byTopic[id] = h.continued
		dead = append(dead, check.Waiting{Group: "order", Key: id, Reason: "exhausted"}) // it has no such order
	}
	for id := range byTopic {
		eventually(t, "inventory's answer is looked at", func() bool {
			w := f.waits("order", id)
			return len(w) == 1 && w[0].State == "dead"
		})
	}
	f.settle()
	for _, topic := range topics {
		for _, r := range f.dump(topic) {
			if header(r, "ce_source") == "" {
				continue
			}
			state, bag := header(r, "tracestate"), header(r, "baggage")
			parent := header(r, "traceparent")
			if len(state) > 512 || bag != "" || len(parent) != 55 {
				t.Errorf("%s on %s carries a traceparent of %d bytes, a tracestate of %d and a baggage of %d", header(r, "ce_type"), topic, len(parent), len(state), len(bag))
			}
			if want, ok := byTopic[string(r.Key)]; ok && want != strings.Contains(parent, outerTrace) {
				t.Errorf("%s of a forged order is of trace %s, continued should be %v", header(r, "ce_type"), parent, want)
			}
			if strings.HasSuffix(parent, "-01") {
				t.Errorf("%s on %s says that it is sampled, and the sampler is off", header(r, "ce_type"), topic)
			}
		}
	}
	outer, err := trace.TraceIDFromHex(outerTrace)
	if err != nil {
		t.Fatal(err)
	}
	if spans := f.Trace(outer); len(spans) > 0 {
		t.Errorf("%d spans were recorded because somebody outside asked for it", len(spans))
	}
	f.judge(check.Expect{Dead: dead, Foreign: true})
}

// Slow, huge, deep and broken requests, many at a time: each is refused, memory stays within
// bounds, and good customers hardly notice. Not parallel: it measures.
func TestF42_bad_clients_do_not_hurt_good_ones(t *testing.T) {
	f := newTrial(t, nil)
	base := f.tuneAddresses()
	f.start()
	f.stockUp()
	before, quiet := f.footprint(), f.delays(size(40, 500))

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var all sync.WaitGroup
	var slow, bad atomic.Int64
	// Attackers and customers share this machine's processors; half a second is the least that
	// tells being held up from being one of many.
	limit := func(quiet time.Duration) time.Duration { return max(2*quiet, 500*time.Millisecond) }
	for range size(200, 1500) {
		all.Go(func() { f.drip(ctx, strings.TrimPrefix(base("order"), "http://"), &slow) })
	}
	refusals := append(badOrders(),
		refusal{"10 MB", strings.Repeat("x", 10<<20), []int{413}, ""},
		refusal{"deeper than any stack", `{"customer_id":` + strings.Repeat("[", 1<<16), []int{400, 413}, ""})
	for range 2 {
		chance := f.draw()
		all.Go(func() {
			pause := time.NewTicker(20 * time.Millisecond)
			defer pause.Stop()
			for ctx.Err() == nil {
				f.bad(ctx, chance, refusals, &bad)
				<-pause.C
			}
		})
	}
	eventually(t, "the bad ones are at it", func() bool { return slow.Load() >= int64(size(200, 1500)) && bad.Load() > 20 })
	busy := f.delays(size(40, 2000))
	for i := 0; i < 2 && busy > limit(quiet); i++ { // others may use this machine's processors: the best of three counts
		busy = f.delays(size(40, 2000))
	}
	peak := f.footprint()
	stop()
	all.Wait()
	if busy > limit(quiet) { // others may have come meanwhile: without attackers they hold up just as much
		quiet = max(quiet, f.delays(size(40, 500)))
	}
	f.injected = int(slow.Load() + bad.Load())
	t.Logf("p99 of good requests %v, %v beside %d slow connections and %d bad requests; memory %d MiB, then %d MiB",
		quiet, busy, slow.Load(), bad.Load(), before>>20, peak>>20)
	if busy > limit(quiet) {
		t.Errorf("good requests take %v, want %v at most", busy, limit(quiet))
	}
	if peak > before+96<<20 {
		t.Errorf("memory has grown by %d MiB", (peak-before)>>20)
	}
	f.settle()
	f.judge(check.Expect{})
}

// footprint is the memory in use.
func (f *trial) footprint() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// delays places orders and returns the 99th percentile of how long they took.
func (f *trial) delays(n int) time.Duration {
	f.Helper()
	var all []time.Duration
	for range n {
		begun := time.Now()
		f.order(line{f.articles[1], 1, 450})
		all = append(all, time.Since(begun))
	}
	slices.Sort(all)
	return all[(len(all)*99-1)/100]
}

// drip sends a request as slowly as it can, until it is cut off or ctx ends.
func (f *trial) drip(ctx context.Context, addr string, started *atomic.Int64) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		f.Error(err)
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("POST /v1/orders HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"))
	started.Add(1)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := fmt.Fprintf(conn, "X-%d: x\r\n", i); err != nil {
				return
			}
		}
	}
}

// bad sends a request over a connection of its own that must be refused as it says.
func (f *trial) bad(ctx context.Context, chance *rand.Rand, all []refusal, sent *atomic.Int64) {
	r := all[chance.IntN(len(all))]
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.URLs.HTTP, "http://"))
	if err != nil {
		f.Error(err)
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	go fmt.Fprintf(conn, "POST /v1/orders HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", newKey(), len(r.body), r.body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return // ctx has ended, or the server had enough before all was sent
	}
	_ = resp.Body.Close()
	sent.Add(1)
	if !slices.Contains(r.status, resp.StatusCode) {
		f.Errorf("%s: answered %d, want %v", r.name, resp.StatusCode, r.status)
	}
}
