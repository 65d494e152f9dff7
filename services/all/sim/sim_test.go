//go:build synctests

//go:debug randseednop=0

package sim_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
	"example.com/keyline/services/all/check"
)

var (
	seedFlag   = flag.Uint64("seed", 1, "what decides the run")
	reportFlag = flag.String("report", "", "file for the run's figures, as JSON")
	logFlag    = flag.String("events", "", "file for the log of events, written also when nothing is wrong")
	liveFlag   = flag.Bool("live", false, "write the log of events to standard error as it goes on")
	onlyFlag   = flag.String("only", "", "kinds of faults, with commas; empty leaves it to the seed")
)

// report is what a run tells the driver.
type report struct {
	Seed       uint64         `json:"seed"`
	Hash       string         `json:"hash"`    // of the log of events
	Virtual    float64        `json:"virtual"` // seconds
	Orders     int            `json:"orders"`
	Faults     map[string]int `json:"faults"`
	Complaints []string       `json:"complaints"`
}

// world is everything there is in a run.
type world struct {
	t    *testing.T
	dice *dice
	log  *journal
	net  *network
	all  sync.WaitGroup // processes
	// parts are what stands around the processes.
	parts    sync.WaitGroup
	kafka    *cluster
	mail     *mailServer
	registry *registry
	crowd    *crowd
	watch    *watch

	faults    sync.WaitGroup
	keepers   map[string]*sql.DB
	databases map[string]*database
	operator  *http.Client

	quietTelemetry bool
	cleanEvery     time.Duration
	claim          time.Duration

	mu       sync.Mutex
	alive    map[string]*process
	joining  map[string]bool // services that have a second replica
	poisoned []check.Waiting
	redriven map[string]bool // keys of events that have begun a new trace
	// duplicating is how many are writing records again at this moment.
	duplicating int
	complaints  []string
	repeats     int // mails that may come again
}

// TestSimulation runs the seed that -seed names.
func TestSimulation(t *testing.T) {
	//lint:ignore SA1019 the brokers choose leaders with the package's own source
	rand.Seed(int64(*seedFlag))
	cryptotest.SetGlobalRandom(t, *seedFlag)
	r := report{Seed: *seedFlag}
	var text string
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, *seedFlag)
		w.run()
		r.Hash, r.Virtual, r.Faults = w.log.hash(), time.Since(w.log.begun).Seconds(), w.log.kinds
		r.Complaints, r.Orders = w.complaints, len(w.crowd.accepted)
		text = w.log.text.String()
	})
	for _, c := range r.Complaints {
		t.Error(c)
	}
	if *logFlag != "" {
		if err := os.WriteFile(*logFlag, []byte(text), 0o644); err != nil {
			t.Error(err)
		}
	}
	if *reportFlag != "" {
		out, err := json.Marshal(r)
		if err == nil {
			err = os.WriteFile(*reportFlag, out, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, dice: newDice(seed), log: &journal{begun: time.Now(), kinds: map[string]int{}},
		databases: map[string]*database{}, alive: map[string]*process{}, joining: map[string]bool{}, redriven: map[string]bool{},
	}
	if *liveFlag {
		w.log.live = os.Stderr
	}
	w.net = &network{w: w, listeners: map[string]*listener{}}
	w.quietTelemetry = w.dice.chance(0.7)
	w.cleanEvery = []time.Duration{time.Second, 10 * time.Second, time.Minute}[w.dice.n(3)]
	w.claim = []time.Duration{6 * time.Second, time.Minute}[w.dice.n(2)]
	if w.claim < time.Minute {
		w.repeats = 1000 // its lease is no longer than a slow transaction
	}
	for _, s := range services {
		w.databases[s] = &database{}
	}
	return w
}

func (w *world) complain(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.log.line("COMPLAINT", "%s", text)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.complaints, text) && len(w.complaints) < 50 {
		w.complaints = append(w.complaints, text)
	}
}

// run is a whole run: open, trade under faults, heal, drain, judge, close.
func (w *world) run() {
	closeKeepers := w.openKeepers()
	defer closeKeepers()
	w.kafka = w.startKafka()
	w.mail = w.startMail()
	reg, err := embedded.NewRegistry("")
	if err != nil {
		w.t.Fatal(err)
	}
	w.operator = w.client(&host{name: "operator"})
	w.registry = &registry{Registry: reg}
	w.provision()
	w.watch = w.startWatch()
	for _, s := range services {
		w.start(s, 0)
	}
	w.crowd = w.newCrowd()
	w.crowd.fillShelves()
	w.log.line("sim", "open")

	trading, over := context.WithTimeout(context.Background(), w.dice.between(3*time.Second, 20*time.Second))
	w.crowd.trade(trading)
	w.breakThings(trading)
	<-trading.Done()
	over()
	w.heal()
	w.crowd.all.Wait()
	w.drain()
	w.judge()
	w.close()
}

func (w *world) provision() {
	ctx := context.Background()
	var topics []kafka.Topic
	for _, t := range schemas.Topics() {
		topics = append(topics, kafka.Topic(t))
	}
	if err := kafka.Provision(ctx, w.kafka.config(&host{name: "operator"}), topics); err != nil {
		w.t.Fatal(err)
	}
	var subjects []codec.Subject
	for _, s := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(s))
	}
	operator := &process{w: w, name: "operator", host: &host{name: "operator"}}
	if err := codec.Provision(ctx, codec.Config{URL: "http://registry", Transport: registryTransport{operator}}, subjects); err != nil {
		w.t.Fatal(err)
	}
}

// heal ends all faults: every service has one process, which runs.
func (w *world) heal() {
	w.log.line("sim", "heals")
	w.dice.heal()
	w.repair()
	for _, s := range services {
		if w.living(s, 0) == nil {
			w.start(s, 0)
		}
	}
	w.log.line("sim", "healed")
}

// close stops everything, which must be clean.
func (w *world) close() {
	for _, name := range w.names() {
		p := w.alive[name]
		late := time.AfterFunc(20*time.Second, func() {
			stacks := make([]byte, 8<<20)
			w.log.line("sim", "%s does not stop:\n%s", name, stacks[:runtime.Stack(stacks, true)])
		})
		err := p.stop()
		late.Stop()
		if err != nil {
			w.complain("STOP: %s: %v", name, err)
		}
	}
	w.all.Wait()
	w.watch.close()
	w.operator.CloseIdleConnections()
	w.crowd.http.CloseIdleConnections()
	w.mail.l.Close()
	w.parts.Wait()
	w.kafka.Close()
	// What has crashed or was stopped in trouble may still have goroutines, which end within
	// this time. One that does not is a leak, and fails the test.
	<-time.After(5 * time.Minute)
}

// names are the processes alive, sorted.
func (w *world) names() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.alive {
		names = append(names, name)
	}
	slices.SortFunc(names, strings.Compare)
	return names
}
