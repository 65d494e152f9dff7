package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// customers are those of B8 and B9: they place orders and wait for the mails that confirm them.
type customers struct {
	*rig
	sink *sink
}

// newCustomers starts a broker and the mail server.
func newCustomers(r *rig) (*customers, error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	s, err := startSink()
	if err != nil {
		return nil, err
	}
	r.closes = append(r.closes, s.close)
	return &customers{r, s}, nil
}

// sagaWorks are B8: how many orders a second get their mail, if 64 customers place them as fast
// as they are accepted.
func sagaWorks(_ context.Context, r *rig) (works []work, err error) {
	c, err := newCustomers(r)
	if err != nil {
		return nil, err
	}
	for _, k := range demands {
		works = append(works, work{
			name: "B8 sagas, " + k.name, unit: unitRate, n: r.plan.sagas, rounds: 3,
			sides: c.sides(k, 0, ">= 1,500/s; moonshot 5,000/s, >= 13 x watermill, <= 0.4 CPU s per 1,000"),
		})
	}
	return works, nil
}

// latencyWorks are B9: how long an order takes to its mail, at a fixed rate.
func latencyWorks(_ context.Context, r *rig) (works []work, err error) {
	c, err := newCustomers(r)
	if err != nil {
		return nil, err
	}
	for _, rate := range []int{50, 500} {
		works = append(works, work{
			name: fmt.Sprintf("B9 order to mail at %d/s", rate), unit: unitLate, rounds: 3, n: max(1, int(r.plan.open.Seconds()*float64(rate))),
			sides: c.sides(demands[0], time.Second/time.Duration(rate), "p99 <= 50 ms at 500/s; moonshot p50 <= 5, p99 <= 15, max <= 100"),
		})
	}
	return works, nil
}

// sides are all shops. Those of the others want PostgreSQL.
func (c *customers) sides(k keys, pause time.Duration, gate string) (sides []side) {
	for _, kind := range shopKinds {
		run := func(ctx context.Context, n int, w *watch) error {
			if pause == 0 {
				n = max(1, n/kind.fewer)
				w.did = n
			}
			return c.visit(ctx, kind, purchases(k, "warm-", c.plan.warm), purchases(k, "order-", n), pause, w)
		}
		if !kind.ours() {
			run = c.onPostgres(run)
		}
		sides = append(sides, side{kind.name, gate, run})
		gate = "" // it is ours alone
	}
	return sides
}

// visit opens a shop, has a first few orders settled, and then watches it settle all others. Of
// ours it wants each order to have exactly one mail.
func (c *customers) visit(ctx context.Context, kind shopKind, first, all []*purchase, pause time.Duration, w *watch) (err error) {
	s, err := c.startShop(ctx, kind, c.sink.addr())
	if err != nil {
		return err
	}
	defer func() { err = s.explain(errors.Join(err, s.stop())) }()
	if err := fillShelves(ctx, s.Stock); err != nil {
		return err
	}
	if err := c.settle(ctx, s.Orders, first, 0); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	w.client = s.pid()
	w.start()
	if err := c.settle(ctx, s.Orders, all, pause); err != nil {
		return err
	}
	w.stop()
	if kind.ours() {
		if err := c.broker.alone(ctx, s.prefix); err != nil {
			return err
		}
	}
	if err := s.stop(); err != nil { // it sends no mail any more
		return err
	}
	w.latencies, w.faults = c.judge(all)
	if len(w.latencies) == 0 {
		return errors.New("no order has a mail")
	}
	if n := w.faults[lost] + w.faults[doubled]; kind.ours() && n > 0 {
		return fmt.Errorf("of %d orders %d have no mail, %d more than one", len(all), w.faults[lost], w.faults[doubled])
	}
	return nil
}

// settle places orders and waits for their mails.
func (c *customers) settle(ctx context.Context, addr string, all []*purchase, pause time.Duration) error {
	if err := c.sink.buy(ctx, addr, all, pause); err != nil {
		return err
	}
	return c.sink.await(ctx)
}

// What can go wrong with an order.
const (
	lost    = "lost"    // it has no mail
	doubled = "doubled" // it has more than one
	refused = "refused" // the shop said that it was too busy; how often
)

// judge looks at the mail of every order: how long it took from when the order had to be placed, and
// what went wrong.
func (c *customers) judge(all []*purchase) (took []time.Duration, f faults) {
	f = faults{}
	for _, p := range all {
		f[refused] += p.refused
		mail := c.sink.of(p.id)
		switch {
		case mail.n == 0:
			f[lost]++
			continue
		case mail.n > 1:
			f[doubled]++
		}
		took = append(took, mail.at.Sub(p.due))
	}
	return took, f
}
