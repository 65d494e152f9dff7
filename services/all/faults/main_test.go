//go:build unix

package faults_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/email"
	"example.com/keyline/services/inventory"
	"example.com/keyline/services/order"
)

// The variables that make the test binary something else, and those that size the suite.
const (
	childVar  = "KEYLINE_FAULT_CHILD"  // order, inventory, email or broker
	dirVar    = "KEYLINE_FAULT_DIR"    // of the broker
	portVar   = "KEYLINE_FAULT_PORT"   // of the broker
	amountVar = "KEYLINE_FAULTS"       // empty, ci or full
	seedVar   = "KEYLINE_FAULTS_SEED"  // a number
	tableVar  = "KEYLINE_FAULTS_TABLE" // the file whose table is written
)

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "order":
		dieWithParent()
		service.Main("order", order.Run)
	case "inventory":
		dieWithParent()
		service.Main("inventory", inventory.Run)
	case "email":
		dieWithParent()
		service.Main("email", email.Run)
	case "broker":
		dieWithParent()
		os.Exit(brokerMain())
	}
	if run == short && os.Getenv("KAFKA_BROKERS") != "" {
		fmt.Println("not run on the parts of make test-real: these tests start parts of their own, as make test has them do")
		return
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		_ = f.Value.Set("4") // the tests wait for others most of the time
	}
	os.Exit(m.Run())
}

// dieWithParent ends this process when the one that has started it is gone: the other end of
// standard input closes then, however that one ends.
func dieWithParent() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
}

// brokerMain is the embedded broker in a process of its own, until it is told to stop.
func brokerMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	port, err := strconv.Atoi(os.Getenv(portVar))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	k, err := embedded.StartKafka(embedded.KafkaConfig{Dir: os.Getenv(dirVar), Port: port, Topics: topicsOfEmbedded()})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	<-ctx.Done()
	if err := k.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func topicsOfEmbedded() (all []embedded.Topic) {
	for _, t := range schemas.Topics() {
		all = append(all, embedded.Topic(t))
	}
	return all
}

// amount is how much is run.
type amount string

const (
	short amount = ""     // what needs nothing installed, a few rounds
	ci    amount = "ci"   // all that can run here, a few rounds
	full  amount = "full" // all that can run here, all rounds
)

var run = amount(os.Getenv(amountVar))

// seed decides what happens in all tests; it is random where nobody gives one.
var seed = sync.OnceValue(func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv(seedVar), 10, 64); err == nil {
		return n
	}
	return rand.Uint64N(1_000_000)
})

// size chooses by the amount that is run.
func size[T any](few, all T) T {
	if run == full {
		return all
	}
	return few
}

// bootPatience bounds the start of a part, patience any other single wait.
const (
	bootPatience = 60 * time.Second
	patience     = 120 * time.Second
)

// eventually returns once ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !within(patience, ok) {
		t.Fatalf("not within %v: %s", patience, what)
	}
}

// within reports whether ok came to hold in time.
func within(d time.Duration, ok func() bool) bool {
	look := time.NewTicker(15 * time.Millisecond)
	defer look.Stop()
	over := time.After(d)
	for !ok() {
		select {
		case <-look.C:
		case <-over:
			return false
		}
	}
	return true
}

// lasting lets a fault last.
func lasting(d time.Duration) { <-time.After(d) }
