package all_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/services/all/check"
)

// The fault tests of this folder are those that need the hooks of the embedded parts; those
// that kill and stop processes are in the folder faults. A test is named after its fault in
// the list of promises, and ends with one line of figures:
//
//	fault F12: seed=7 rounds=40 orders=60 wire="no duplicates" injected=40 lost=0

// full runs the long rounds.
var full = os.Getenv("KEYLINE_FAULTS") == "full"

// size chooses by the amount that is run.
func size[T any](few, all T) T {
	if full {
		return all
	}
	return few
}

// faultSeed decides what customers and faults do; it is random where nobody gives one.
var faultSeed = sync.OnceValue(func() uint64 {
	if n, err := strconv.ParseUint(cmp.Or(os.Getenv("KEYLINE_FAULTS_SEED"), os.Getenv("SEED")), 10, 64); err == nil {
		return n
	}
	return rand.Uint64N(1_000_000)
})

// trial is a fault test: a shop on a broker of its own, its customers, and what they were
// told.
type trial struct {
	*shop
	cluster  *kfake.Cluster
	chance   *rand.Rand // the test's; customers have their own
	articles []string

	before   []check.Record      // what the topics do not hold any more
	boxes    []*embedded.Mailbox // where mails arrived earlier
	rounds   int                 // of the fault
	injected int                 // faults that were seen to happen

	mu       sync.Mutex
	requests []check.Request
	received map[string]int64
	draws    uint64
}

// newTrial prepares a shop on three brokers in this process.
func newTrial(t testing.TB, vars map[string]string, opts ...kfake.Opt) *trial {
	t.Helper()
	f := &trial{received: map[string]int64{}}
	t.Logf("seed %d", faultSeed())
	f.chance = f.draw()
	opts = append([]kfake.Opt{kfake.NumBrokers(3), kfake.DataDir(t.TempDir()), kfake.GroupMinSessionTimeout(time.Second)}, opts...)
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f.cluster = cluster
	environ := map[string]string{
		"KAFKA_BROKERS": strings.Join(cluster.ListenAddrs(), ","), "RETRY_MAX_BACKOFF": "200ms", "RETRY_ATTEMPTS": "1000", "OVERLOAD_LAG": "1m", "ORDER_DEADLINE": "1m",
	}
	maps.Copy(environ, vars)
	box := mailbox(t, 0)
	environ["SMTP_ADDR"] = box.Addr()
	f.shop = prepare(t, environ)
	f.mailbox = box
	for i := range 6 {
		f.articles = append(f.articles, fmt.Sprint("sku-", i))
	}
	return f
}

// mailbox starts a mail server that keeps all mails, also over a stop of the shop.
func mailbox(t testing.TB, port int) *embedded.Mailbox {
	t.Helper()
	box, err := embedded.StartMailbox(embedded.MailboxConfig{Port: port, Keep: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = box.Close() })
	return box
}

// openTrial is a trial whose shop is open, with goods on its shelves.
func openTrial(t testing.TB, vars map[string]string, opts ...kfake.Opt) *trial {
	t.Helper()
	f := newTrial(t, vars, opts...)
	f.start()
	f.stockUp()
	return f
}

// openLasting is openTrial with state that outlasts a stop.
func openLasting(t testing.TB, vars map[string]string) *trial {
	t.Helper()
	f := newTrial(t, vars)
	f.cfg.Data = t.TempDir()
	f.start()
	f.stockUp()
	return f
}

// stockUp fills the shelves: one article soon runs out.
func (f *trial) stockUp() {
	f.Helper()
	for i, sku := range f.articles {
		n := 100_000
		if i == 0 {
			n = 10
		}
		f.receive(sku, n)
		f.received[sku] = int64(n)
	}
}

// draw is a source of chance of its own, which the seed decides.
func (f *trial) draw() *rand.Rand {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.draws++
	return rand.New(rand.NewPCG(faultSeed(), f.draws))
}

const shoppers = 4

// trade lets customers place n orders, and cancel some; it returns when all are answered.
func (f *trial) trade(n int) {
	f.Helper()
	var all sync.WaitGroup
	for i := range shoppers {
		chance := f.draw()
		all.Go(func() {
			for range (n + i) / shoppers {
				f.shopAround(chance)
			}
		})
	}
	all.Wait()
}

// during runs a fault again and again, with pauses, while customers place n orders, or more
// until it has been done often enough.
func (f *trial) during(n, least int, pause time.Duration, fault func(round int)) {
	f.Helper()
	done := make(chan struct{})
	var rounds atomic.Int64
	var all sync.WaitGroup
	all.Go(func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			fault(int(rounds.Load()))
			rounds.Add(1)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	f.trade(n)
	for rounds.Load() < int64(least) {
		f.trade(shoppers)
	}
	f.settle()
	close(done)
	all.Wait()
	f.rounds += int(rounds.Load())
}

// shopAround is what one customer does.
func (f *trial) shopAround(chance *rand.Rand) {
	f.Helper()
	var lines []line
	for _, i := range chance.Perm(len(f.articles))[:1+chance.IntN(3)] {
		lines = append(lines, line{f.articles[i], 1 + chance.IntN(3), 450})
	}
	o := f.order(lines...)
	if chance.IntN(6) != 0 {
		return
	}
	if chance.IntN(2) == 0 {
		f.send("GET", "/v1/orders/"+o.OrderID+"?wait="+fmt.Sprintf("%dms", chance.IntN(50)), nil)
	}
	f.cancelOrder(o.OrderID)
}

// order places an order, with the same key until it is accepted.
func (f *trial) order(lines ...line) accepted {
	f.Helper()
	return f.orderOf(draftOf(lines...))
}

func (f *trial) orderOf(d draft) accepted {
	f.Helper()
	key := newKey()
	var a answer
	eventually(f, "an order is accepted", func() bool {
		a = f.send("POST", "/v1/orders", d, "Idempotency-Key", key)
		return a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests
	})
	o := f.accept(a)
	request := check.Request{Key: key, OrderID: o.OrderID, TraceID: o.TraceID}
	for _, l := range d.Lines {
		request.Lines = append(request.Lines, check.Line{SKU: l.SKU, Quantity: int64(l.Quantity)})
	}
	f.asked(request)
	return o
}

func (f *trial) asked(r check.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, r)
}

// cancelOrder cancels an order that may have been rejected.
func (f *trial) cancelOrder(orderID string) {
	f.Helper()
	a := f.cancel(orderID)
	var got accepted
	if a.status == http.StatusConflict {
		return
	}
	a.want(f, http.StatusAccepted).into(f, &got)
	f.asked(check.Request{OrderID: orderID, TraceID: got.TraceID, Cancel: true})
}

// orders are the IDs of all orders.
func (f *trial) orders() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if !r.Cancel {
			ids = append(ids, r.OrderID)
		}
	}
	return ids
}

// settle waits until all orders but those have ended.
func (f *trial) settle(but ...string) {
	f.Helper()
	var orders []accepted
	for _, id := range f.orders() {
		if !slices.Contains(but, id) {
			orders = append(orders, accepted{OrderID: id})
		}
	}
	f.settled(orders)
}

// judge waits until the shop is quiet, looks at all it has left, and prints the figures.
func (f *trial) judge(expect check.Expect) *check.Facts {
	f.Helper()
	f.quiet()
	facts := f.look()
	if expect.Received == nil {
		expect.Received = f.received
	}
	wrong := facts.Judge(expect)
	for _, w := range wrong {
		f.Error(w)
	}
	row := check.Row{Rounds: max(1, f.rounds), Orders: len(f.orders())}
	row.Fault, _, _ = strings.Cut(strings.TrimPrefix(f.Name(), "Test"), "_")
	if f.injected == 0 {
		f.Errorf("%s has not happened: the test has no teeth", row.Fault)
	}
	f.Logf("fault %s: seed=%d rounds=%d orders=%d wire=%q injected=%d lost=%d",
		row.Fault, faultSeed(), row.Rounds, row.Orders, facts.Wire(), f.injected, len(wrong))
	row.Seen = fmt.Sprintf("%s; seen to happen %d times", facts.Wire(), f.injected)
	tell(f, row)
	return facts
}

// tell makes a run a row of the table, if one is wanted.
func tell(t testing.TB, row check.Row) {
	t.Helper()
	if row.Parts = "K S"; dbtest.Postgres() {
		row.Parts = "K P"
	}
	if row.Lost = "nothing"; t.Failed() {
		row.Lost = "**failed**"
	}
	if file := os.Getenv("KEYLINE_FAULTS_TABLE"); file != "" {
		if err := check.WriteRow(file, faultSeed(), row); err != nil {
			t.Error(err)
		}
	}
}

// events are how many events each aggregate has caused, as its row says.
var events = map[string]struct{ service, query string }{
	"/order":     {"order", "select order_id, version from orders"},
	"/inventory": {"inventory", "select order_id, version from reservation"},
	"/email":     {"email", "select order_id, version from recipient"},
}

// look collects what the shop has left.
func (f *trial) look() *check.Facts {
	f.Helper()
	facts := &check.Facts{
		Requests: f.requests, Orders: []check.Order{}, Ledger: []check.Sent{}, Mails: []check.Mail{}, Waiting: []check.Waiting{},
		Rows: map[string]check.Versions{}, Movements: map[string][]check.Movement{}, Outbox: map[string]int64{},
	}
	facts.Records = slices.Clone(f.before)
	for _, topic := range topics {
		facts.Records = append(facts.Records, f.records(topic)...)
	}
	for source, e := range events {
		facts.Rows[source] = f.versions(e.service, e.query)
	}
	for _, box := range append(f.boxes, f.Mailbox()) {
		for _, m := range box.Messages() {
			facts.Mails = append(facts.Mails, check.Mail{ID: m.ID})
		}
	}
	for _, id := range f.orders() {
		facts.Orders = append(facts.Orders, f.shown(id))
		for _, m := range f.ledger(id) {
			facts.Ledger = append(facts.Ledger, check.Sent{OrderID: id, EventID: m.EventID, MessageID: m.MessageID, Done: m.SentAt != nil})
		}
	}
	for _, sku := range f.articles {
		s := f.stock(sku)
		facts.Stock = append(facts.Stock, check.Stock{SKU: sku, OnHand: s.OnHand, Reserved: s.Reserved, Available: s.Available})
		for _, m := range f.movements(sku) {
			facts.Movements[sku] = append(facts.Movements[sku], check.Movement{Version: m.Version, Kind: m.Kind, Quantity: m.Quantity, OrderID: m.OrderID, Cause: m.Cause})
		}
	}
	for _, service := range services {
		facts.Outbox[service] = int64(f.count(service, "outbox"))
		for _, w := range f.waits(service, "") {
			facts.Waiting = append(facts.Waiting, check.Waiting{Group: service, Topic: w.Topic, Key: w.Key, Type: w.Type, State: w.State, Reason: w.Reason, Error: w.Error})
		}
	}
	return facts
}

func (f *trial) shown(id string) check.Order {
	f.Helper()
	got := f.get(id)
	o := check.Order{ID: id, Status: got.Status}
	for _, l := range got.Lines {
		o.Lines = append(o.Lines, check.Line{SKU: l.SKU, Quantity: int64(l.Quantity)})
	}
	for _, h := range got.History {
		o.Steps = append(o.Steps, h.Step)
	}
	return o
}

// records reads a topic; what is not of our services is not decoded.
func (f *trial) records(topic string) (all []check.Record) {
	f.Helper()
	reader, err := codec.New(codec.Config{URL: f.URLs.Registry})
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range f.dump(topic) {
		one := check.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: string(r.Key)}
		if header(r, "ce_source") != "" {
			fact := f.read(reader, r)
			one.ID, one.Type, one.Source, one.Cause = fact.id, fact.typ, fact.source, fact.causation
			one.TraceID, one.Version, one.Data = fact.traceID, fact.version, fact.data
		}
		all = append(all, one)
	}
	return all
}

// versions reads an ID and a number from a service's table.
func (f *trial) versions(service, query string) check.Versions {
	f.Helper()
	d, err := db.Open(db.Config{URL: f.databaseURL(service)})
	if err != nil {
		f.Fatal(err)
	}
	defer d.Close()
	rows, err := d.Query(f.Context(), query)
	if err != nil {
		f.Fatal(err)
	}
	defer rows.Close()
	versions := check.Versions{}
	for rows.Next() {
		var id string
		var n int64
		if err := rows.Scan(&id, &n); err != nil {
			f.Fatal(err)
		}
		versions[id] = n
	}
	if err := rows.Err(); err != nil {
		f.Fatal(err)
	}
	return versions
}

// logged reports whether a line of the log holds all of the words.
func (s *shop) logged(words ...string) bool {
	return slices.ContainsFunc(s.log.lines(), func(line string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) })
	})
}
