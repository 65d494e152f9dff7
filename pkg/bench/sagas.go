package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// customers are those of B8 and B9: they place orders and wait for the mails that confirm them.
type customers struct {
	*rig
	sink  *sink
	kinds []shopKind // that can run
}

// newCustomers starts a broker and the mail server; nil if no shop can run.
func newCustomers(r *rig, part string) (*customers, error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	c := &customers{rig: r}
	for _, kind := range shopKinds {
		switch {
		case len(r.only) > 0 && !slices.Contains(r.only, kind.name):
		case r.postgres == "" && !kind.ours():
			fmt.Fprintf(os.Stderr, "%s: without %s, which needs a PostgreSQL: set DATABASE_URL\n", part, kind.name)
		default:
			c.kinds = append(c.kinds, kind)
		}
	}
	if len(c.kinds) == 0 {
		return nil, nil
	}
	var err error
	if c.sink, err = startSink(); err != nil {
		return nil, err
	}
	r.closes = append(r.closes, c.sink.close)
	return c, nil
}

// sagaWorks are B8: how many orders a second get their mail, if 64 customers place them as fast
// as they are accepted.
func sagaWorks(_ context.Context, r *rig) (works []work, err error) {
	c, err := newCustomers(r, "B8")
	if err != nil || c == nil {
		return nil, err
	}
	for _, k := range demands {
		works = append(works, work{
			name: "B8 sagas, " + k.name, unit: unitSagas, n: r.plan.sagas,
			sides: c.sides(k, 0, ">= 1,500/s; moonshot 5,000/s, >= 13 x watermill, <= 0.4 CPU s per 1,000"),
		})
	}
	return works, nil
}

// latencyWorks are B9: how long an order takes to its mail, at a fixed rate.
func latencyWorks(_ context.Context, r *rig) (works []work, err error) {
	c, err := newCustomers(r, "B9")
	if err != nil || c == nil {
		return nil, err
	}
	for _, rate := range []int{50, 500} {
		works = append(works, work{
			name: fmt.Sprintf("B9 order to mail at %d/s", rate), unit: unitLate, rounds: 1, n: max(1, int(r.plan.open.Seconds()*float64(rate))),
			sides: c.sides(demands[0], time.Second/time.Duration(rate), "p99 <= 50 ms at 500/s; moonshot p50 <= 5, p99 <= 15, max <= 100"),
		})
	}
	return works, nil
}

// sides are all shops that can run.
func (c *customers) sides(k keys, pause time.Duration, gate string) (sides []side) {
	for _, kind := range c.kinds {
		sides = append(sides, side{kind.name, gate, func(ctx context.Context, n int, w *watch) error {
			return c.visit(ctx, kind, purchases(k, "warm-", c.plan.warm), purchases(k, "order-", n), pause, w)
		}})
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
	w.client = s.pid
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
	w.sagas = c.judge(all)
	if w.sagas.Lost == len(all) {
		return errors.New("no order has a mail")
	}
	if kind.ours() && w.sagas.Lost+w.sagas.Doubled > 0 {
		return fmt.Errorf("%d of %d orders have no mail, %d have more than one", w.sagas.Lost, len(all), w.sagas.Doubled)
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

// judge looks at the mail of every order.
func (c *customers) judge(all []*purchase) (s sagas) {
	var took []float64
	for _, p := range all {
		mail := c.sink.of(p.id)
		switch {
		case mail.n == 0:
			s.Lost++
			continue
		case mail.n > 1:
			s.Doubled++
		}
		s.Refused += p.refused
		took = append(took, float64(mail.at.Sub(p.due))/1e6)
	}
	s.P50, s.P99, s.Max = percentile(took, 50), percentile(took, 99), percentile(took, 100)
	return s
}

// sagas is what became of orders. Times are in ms, from when each had to be placed until its mail
// had arrived.
type sagas struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	// Lost and Doubled are orders with no mail, and with more than one. Refused is how often
	// the shop said that it was too busy.
	Lost    int `json:"lost"`
	Doubled int `json:"doubled"`
	Refused int `json:"refused"`
}

// and is two runs of one round.
func (s sagas) and(b sagas) sagas {
	return sagas{(s.P50 + b.P50) / 2, (s.P99 + b.P99) / 2, max(s.Max, b.Max), s.Lost + b.Lost, s.Doubled + b.Doubled, s.Refused + b.Refused}
}

// allSagas is the medians of all rounds, the longest time of any, and all that went wrong; nil if
// no orders were placed.
func allSagas(samples []sample) *sagas {
	var all sagas
	var p50, p99 []float64
	for _, s := range samples {
		all = all.and(s.sagas)
		p50, p99 = append(p50, s.sagas.P50), append(p99, s.sagas.P99)
	}
	if all == (sagas{}) {
		return nil
	}
	all.P50, all.P99 = median(p50), median(p99)
	return &all
}
