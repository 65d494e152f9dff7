package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// rig is what the parts stand on: a registry, a codec that is verified with it, and a broker
// in a process of its own once somebody asks for it.
type rig struct {
	plan   plan
	codec  *codec.Codec
	broker *broker
	closes []func() error

	postgres  string // DATABASE_URL; empty if there is none
	databases int    // the number of the last one
	accounts  []account

	shops    int      // the number of the last one
	only     []string // the names of those that are asked for; empty for all
	profiles string   // the folder for profiles of the shops; empty for none
}

// account is a process beside this one that works for it.
type account struct {
	name string
	pid  int // 0 if it is not known
}

func newRig(ctx context.Context, p plan) (*rig, error) {
	r := &rig{plan: p}
	r.plan.rig = r
	if err := r.findDatabase(); err != nil {
		return nil, err
	}
	url, err := r.serveRegistry()
	if err != nil {
		return nil, err
	}
	cfg := codec.Config{URL: url}
	var subjects []codec.Subject
	for _, s := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(s))
	}
	if err := codec.Provision(ctx, cfg, subjects); err != nil {
		return nil, errors.Join(err, r.close())
	}
	if r.codec, err = codec.New(cfg, schemas.OrderPlaced{}); err == nil {
		err = r.codec.Verify(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *rig) serveRegistry() (url string, err error) {
	registry, err := embedded.NewRegistry("")
	if err != nil {
		return "", err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: registry, ReadHeaderTimeout: time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	r.closes = append(r.closes, func() error {
		err := server.Close()
		<-served
		return err
	})
	return "http://" + ln.Addr().String(), nil
}

func (r *rig) close() error {
	var errs []error
	for i := len(r.closes) - 1; i >= 0; i-- {
		errs = append(errs, r.closes[i]())
	}
	return errors.Join(errs...)
}

// ringSize is how many different messages a run goes round.
const ringSize = 10_000

// message is one order on its way: what our side is given, and the bytes that have to come of
// it, which the other sides are given.
type message struct {
	order  schemas.OrderPlaced
	meta   event.Meta
	parent trace.SpanContext // not sampled

	key, value []byte
	headers    []kgo.RecordHeader
}

// keys draws the keys of a ring: uniform, or as skewed as the keys of real topics are.
type keys struct {
	name string
	draw func(*rand.Rand) func() uint64
}

var distributions = []keys{
	{"uniform keys", func(r *rand.Rand) func() uint64 { return func() uint64 { return r.Uint64N(ringSize) } }},
	{"Zipf keys", func(r *rand.Rand) func() uint64 { return rand.NewZipf(r, 1.1, 1, ringSize-1).Uint64 }},
}

// ring makes messages, the same ones in every run of the program.
func (r *rig) ring(k keys) ([]message, error) {
	random := rand.New(rand.NewPCG(1, 2))
	draw := k.draw(random)
	ring := make([]message, ringSize)
	for i := range ring {
		m := &ring[i]
		m.order = newOrder(random, draw())
		m.meta = event.Meta{
			ID:   event.NewID("/order", event.Because("bench", strconv.Itoa(i)), orderPlaced, 0),
			Type: orderPlaced, Source: "/order", Subject: m.order.OrderID, Time: m.order.PlacedAt, Version: 1,
		}
		m.parent = newSpanContext(random, 0)
		var err error
		if m.value, err = r.codec.Encode(m.order); err != nil {
			return nil, err
		}
		m.key = []byte(m.order.Key())
		for _, h := range event.WithSpanContext(m.meta.Headers(), m.parent) {
			m.headers = append(m.headers, kgo.RecordHeader(h))
		}
	}
	return ring, nil
}

const orderPlaced = "shop.order.OrderPlaced"

func newOrder(random *rand.Rand, key uint64) schemas.OrderPlaced {
	o := schemas.OrderPlaced{
		OrderID:       event.NewID("/order", event.Because(strconv.FormatUint(key, 10)), "order", 0),
		CustomerID:    fmt.Sprintf("customer-%06d", random.IntN(1_000_000)),
		CustomerEmail: fmt.Sprintf("customer-%06d@example.org", random.IntN(1_000_000)),
		PlacedAt:      time.UnixMilli(1_790_000_000_000 + random.Int64N(1_000_000)).UTC(),
		Currency:      "EUR",
	}
	for range 3 {
		o.Lines = append(o.Lines, schemas.OrderLine{
			SKU:            fmt.Sprintf("SKU-%08d", random.IntN(100_000_000)),
			Quantity:       1 + random.IntN(9),
			UnitPriceCents: 100 + random.Int64N(100_000),
		})
	}
	return o
}

func newSpanContext(random *rand.Rand, flags trace.TraceFlags) trace.SpanContext {
	var cfg trace.SpanContextConfig
	for i := range cfg.TraceID {
		cfg.TraceID[i] = byte(random.Uint32())
	}
	for i := range cfg.SpanID {
		cfg.SpanID[i] = byte(random.Uint32())
	}
	cfg.TraceID[0], cfg.SpanID[0], cfg.TraceFlags = 1, 1, flags // never zero
	return trace.NewSpanContext(cfg)
}
