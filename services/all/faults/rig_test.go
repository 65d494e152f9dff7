//go:build unix

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

// part is something that a rig stands on.
type part string

const (
	onEmbedded part = "K"       // the embedded Kafka, in this process: its hooks are at hand
	onApart    part = "K apart" // the embedded Kafka in a process of its own
	onReal     part = "R"       // a real Kafka broker, reached through the proxy r.wire
	onSQLite   part = "S"       // SQLite files
	onPostgres part = "P"       // a PostgreSQL of the rig's own, reached through the proxies r.cables
)

// rig is a shop under faults.
type rig struct {
	testing.TB
	ctx   context.Context
	rand  *rand.Rand // of the test's own goroutine
	seed  uint64
	dir   string
	parts []part
	begun time.Time

	brokers     string
	embedded    *embedded.Kafka // in this process, or nil
	broker      *server         // in one of its own, or nil
	wire        *proxy          // before a real broker
	postgres    *postgres
	cables      map[string]*proxy // before PostgreSQL, by service
	registry    *switchable
	registryURL string
	mail        *sink
	client      *http.Client
	processes   []*process
	received    map[string]int64
	drawn       uint64

	mu       sync.Mutex
	requests []check.Request
	strange  []string // answers that no fault excuses
	answers  map[int]int
	silent   int             // requests without an answer
	delays   []time.Duration // of the POSTs that were answered
	row      check.Row       // of the table
}

// services are in the order in which they start.
var services = []string{"order", "inventory", "email"}

// consumed is what each service's group takes.
var consumed = map[string]string{"order": schemas.TopicInventory, "inventory": schemas.TopicOrders, "email": schemas.TopicOrders}

// newRig starts the parts, with all topics and schemas. The test is skipped, saying how it
// would run, where one of them is not to be had.
func newRig(t *testing.T, parts ...part) *rig {
	t.Helper()
	r := &rig{
		TB: t, ctx: t.Context(), seed: seed(), parts: parts, begun: time.Now(), received: map[string]int64{}, answers: map[int]int{}, cables: map[string]*proxy{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Second}, Timeout: 15 * time.Second},
	}
	r.rand = r.draw()
	need(t, parts...)
	r.dir = r.folder()
	if !r.on(onReal) && !r.on(onPostgres) {
		t.Parallel() // a real broker or database is enough for the machine
	}
	t.Cleanup(r.complain)
	t.Cleanup(r.client.CloseIdleConnections)
	r.startRegistry()
	r.mail = newSink(t)
	switch {
	case r.on(onReal):
		r.startReal()
	case r.on(onApart):
		r.startApart()
	default:
		k, err := embedded.StartKafka(embedded.KafkaConfig{Topics: topicsOfEmbedded()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = k.Close() })
		r.embedded, r.brokers = k, k.Addr()
	}
	if r.on(onPostgres) {
		r.startPostgres()
	}
	t.Cleanup(r.end)
	return r
}

// folder is a temporary one, whose name any server can take: the test's own would hold commas.
func (r *rig) folder() string {
	r.Helper()
	dir, err := os.MkdirTemp("", "keyline-faults-")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// need skips a test where a part is missing.
func need(t *testing.T, parts ...part) {
	t.Helper()
	for _, p := range parts {
		if p != onReal && p != onPostgres {
			continue
		}
		if run == short {
			t.Skipf("skipped: it needs %s; %s=ci go test -v runs it where that is installed, make faults in full", p.what(), amountVar)
		}
		if err := p.missing(); err != nil {
			if run == full {
				t.Fatalf("%v: make faults needs it", err)
			}
			t.Skipf("skipped: %v", err)
		}
	}
}

func (p part) what() string {
	if p == onReal {
		return "a real Kafka broker (Java and Maven)"
	}
	return "PostgreSQL"
}

// missing says what is not installed.
func (p part) missing() error {
	if p == onReal {
		return missingKafka()
	}
	_, err := postgresBin()
	return err
}

func (r *rig) on(p part) bool {
	for _, have := range r.parts {
		if have == p {
			return true
		}
	}
	return false
}

// onEach runs a test once for each kind of rig, the simplest first.
func onEach(t *testing.T, do func(t *testing.T, parts ...part), rigs ...[]part) {
	t.Helper()
	if run == ci {
		rigs = rigs[len(rigs)-1:] // the most real one; the first is run without being asked for
	}
	for _, parts := range rigs {
		t.Run(fmt.Sprint("on ", parts), func(t *testing.T) { do(t, parts...) })
	}
}

// The usual rigs.
var (
	simple  = []part{onEmbedded, onSQLite}
	withDB  = []part{onEmbedded, onPostgres}
	allReal = []part{onReal, onPostgres}
)

// draw makes a source of chance for a goroutine, from the seed and the test's name.
func (r *rig) draw() *rand.Rand {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drawn++
	second := r.drawn
	for _, c := range r.Name() {
		second = second*131 + uint64(c)
	}
	return rand.New(rand.NewPCG(r.seed, second))
}

// complain names the seed of a run that failed, and what the processes wrote.
func (r *rig) complain() {
	if !r.Failed() {
		return
	}
	name, _, _ := strings.Cut(r.Name(), "/")
	r.Logf("again: %s=%s %s=%d go test -v -run '^%s$' ./services/all/faults", amountVar, run, seedVar, r.seed, name)
	if r.broker != nil {
		r.Logf("the end of the broker's log:\n%s", r.broker.tail())
	}
	if r.postgres != nil {
		r.Logf("the end of PostgreSQL's log:\n%s", r.postgres.tail())
	}
	for _, p := range r.processes {
		r.Logf("%s started %d times, ended %q; the end of its log:\n%s", p.name, p.starts, p.exits, p.tail())
	}
}

// end ends what still runs.
func (r *rig) end() {
	for _, p := range r.processes {
		if p.alive() {
			p.kill()
		}
	}
}

// databaseURL is the database of a service, through the proxy if there is one.
func (r *rig) databaseURL(service string) string {
	if r.postgres != nil {
		return r.postgres.url(r.cables[service].addr, service)
	}
	return "sqlite:" + filepath.Join(r.dir, service+".db")
}

// directURL is the same without the proxy.
func (r *rig) directURL(service string) string {
	if r.postgres != nil {
		return r.postgres.url(r.postgres.addr, service)
	}
	return r.databaseURL(service)
}

// switchable is the embedded registry, which can be made to fail.
type switchable struct {
	*embedded.Registry
	mu     sync.Mutex
	status int // in place of every answer; 0: none
}

func (s *switchable) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	s.Registry.ServeHTTP(w, req)
}

func (r *rig) startRegistry() {
	r.Helper()
	reg, err := embedded.NewRegistry("")
	if err != nil {
		r.Fatal(err)
	}
	r.registry = &switchable{Registry: reg}
	server := httptest.NewServer(r.registry)
	r.Cleanup(server.Close)
	r.registryURL = server.URL
	var subjects []codec.Subject
	for _, s := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(s))
	}
	if err := codec.Provision(r.ctx, codec.Config{URL: r.registryURL}, subjects); err != nil {
		r.Fatal(err)
	}
}

// provision creates the topics on a broker that has none.
func (r *rig) provision() {
	r.Helper()
	var topics []kafka.Topic
	for _, t := range schemas.Topics() {
		topics = append(topics, kafka.Topic(t))
	}
	var err error
	if !within(bootPatience, func() bool {
		ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
		defer cancel()
		err = kafka.Provision(ctx, kafka.Config{Brokers: strings.Split(r.brokers, ",")}, topics)
		return err == nil
	}) {
		r.Fatal(err)
	}
}

// startAll starts the three services, a process each, waits until they are ready, and fills
// the shelves.
func (r *rig) startAll(vars ...string) (order, inventory, email *process) {
	r.Helper()
	for _, s := range services {
		r.add(s, vars...).start()
	}
	for _, p := range r.processes {
		p.awaitReady()
	}
	r.fillShelves()
	return r.processes[0], r.processes[1], r.processes[2]
}

// static makes consumers static members: one that has died is replaced by its successor.
const static = "KAFKA_INSTANCE_ID=one"

// patientGroup is static on the embedded broker, and nothing on a real one. In the embedded
// broker a dynamic member that dies while it waits to join stays for ever: kfake (group.reply)
// starts no session for it, and its partitions wait for it until the next rebalance.
func (r *rig) patientGroup() string {
	if r.on(onReal) {
		return "KAFKA_INSTANCE_ID="
	}
	return static
}

// any is some process of a service, by chance: of those that have not been stopped, as a
// load balancer would choose, if there are such.
func (r *rig) any(chance *rand.Rand, service string) *process {
	all := r.replicas(service)
	here := slices.DeleteFunc(slices.Clone(all), func(p *process) bool { return p.away.Load() })
	if len(here) == 0 {
		here = all
	}
	return here[chance.IntN(len(here))]
}

// get asks any URL.
func (r *rig) get(url string) (status int, body string, err error) {
	return r.do(context.Background(), http.MethodGet, url, nil)
}

// do sends a request and reads the whole answer.
func (r *rig) do(ctx context.Context, method, url string, body any, header ...string) (status int, text string, err error) {
	status, _, text, err = r.ask(ctx, method, url, body, header...)
	return status, text, err
}

func (r *rig) ask(ctx context.Context, method, url string, body any, header ...string) (status int, head http.Header, text string, err error) {
	var reader io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, "", err
		}
		reader = strings.NewReader(string(b))
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return 0, nil, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(b), err
}

// getJSON asks until there is an answer, which must be a 200.
func (r *rig) getJSON(url string, into any) {
	r.Helper()
	var status int
	var text string
	var err error
	if !within(10*time.Second, func() bool {
		status, text, err = r.get(url)
		return err == nil && status == http.StatusOK
	}) {
		r.Fatalf("GET %s: %d %s %v", url, status, text, err)
	}
	if err := json.Unmarshal([]byte(text), into); err != nil {
		r.Fatalf("GET %s: %v in %s", url, err, text)
	}
}

// every lets do happen n times, with a pause before each of which the length is by chance
// about d.
func (r *rig) every(d time.Duration, n int, do func(round int)) {
	for round := range n {
		lasting(d/4 + time.Duration(r.rand.Int64N(int64(d)*3/2)))
		do(round)
	}
}

func atoi(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
