package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"example.com/keyline/pkg/db"
)

// intake is orders on their way into a service, which runs in a process of its own with a database
// of its own. It relays what it takes, meanwhile.
type intake struct{ *rig }

func intakeWorks(_ context.Context, r *rig) ([]work, error) {
	if _, err := r.startBroker(); err != nil {
		return nil, err
	}
	in := &intake{r}
	return []work{{
		name: fmt.Sprintf("B7 intake, %d callers", callers), unit: unitRate, n: r.plan.orders, rounds: 3,
		sides: []side{
			{"keyline", ">= 10 k/s; moonshot 30 k/s at p99 <= 20 ms", in.side("orders")},
			{"tx per request", "", r.onPostgres(in.side("orders-plain"))},
		},
	}}, nil
}

// side gives every run a server and a database, and counts the orders in the latter afterwards.
func (in *intake) side(role string) runFunc {
	return func(ctx context.Context, n int, w *watch) error {
		return in.onDatabase(ctx, func(url string) error {
			prefix := in.newPrefix()
			tidy, err := in.broker.prepare(ctx, shopKinds[0], prefix)
			if err != nil {
				return errors.Join(err, tidy())
			}
			first, all := purchases(demands[0], "warm-", 10*callers), purchases(demands[0], "order-", n) // first connect everybody
			c, addr, err := spawnServer[string](role, ordersTold{url, in.broker.addr, prefix + "-order", in.registry})
			if err != nil {
				return errors.Join(err, tidy())
			}
			w.client = c.pid()
			err = in.place(ctx, addr, first, all, w)
			if err := errors.Join(c.explain(errors.Join(err, c.end())), tidy()); err != nil {
				return err
			}
			return counted(ctx, url, len(first)+len(all))
		})
	}
}

// place places the first few orders, and then watches how all others are placed.
func (in *intake) place(ctx context.Context, addr string, first, all []*purchase, w *watch) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := ready(ctx, addr); err != nil {
		return err
	}
	send := func(some []*purchase) error {
		work := make(chan *purchase, len(some))
		for _, p := range some {
			work <- p
		}
		close(work)
		return crowd(ctx, addr, work, func(ctx context.Context, c *caller, p *purchase) error { return p.place(ctx, c) })
	}
	if err := send(first); err != nil {
		return err
	}
	w.start()
	if err := send(all); err != nil {
		return err
	}
	w.stop()
	w.faults = faults{}
	for _, p := range all {
		w.latencies = append(w.latencies, p.took)
		w.faults[refused] += p.refused
	}
	return nil
}

// ready waits until the server takes orders.
func ready(ctx context.Context, addr string) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/readyz", nil)
		if err != nil {
			return err
		}
		answer, err := http.DefaultClient.Do(req)
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("the server is not ready: %w", ctx.Err())
		}
	}
}

// counted reports whether the database has n orders, each under a key of its own.
func counted(ctx context.Context, url string, n int) error {
	d, err := db.Open(db.Config{URL: url})
	if err != nil {
		return err
	}
	defer d.Close()
	for _, table := range []string{"orders", "idempotency"} {
		var got int
		if err := d.QueryRow(ctx, `select count(*) from `+table).Scan(&got); err != nil {
			return err
		}
		if got != n {
			return fmt.Errorf("%d rows of %s, not %d", got, table, n)
		}
	}
	return nil
}
