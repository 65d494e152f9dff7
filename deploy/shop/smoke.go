package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// smoke tells whether the shop works.
func (r *run) smoke(ctx context.Context) error {
	begun := time.Now()
	if err := r.ready(ctx); err != nil {
		return err
	}
	r.open()
	if err := r.three(ctx); err != nil {
		return err
	}
	if r.orders < 0 {
		r.orders = 200
	}
	if r.orders > 0 {
		if err := r.many(ctx); err != nil {
			return err
		}
	}
	r.say("\nit works: all of that in %.0f s", time.Since(begun).Seconds())
	return nil
}

// ready waits for the pods.
func (r *run) ready(ctx context.Context) error {
	at := r.cluster.context
	if at == "" {
		text, err := r.cluster.kubectl(ctx, "config", "current-context")
		if err != nil {
			return err
		}
		at = strings.TrimSpace(text)
	}
	r.say("context %s, namespace %s", at, r.cluster.namespace)
	begun := time.Now()
	for _, one := range []string{"statefulset/order", "statefulset/inventory", "statefulset/email", "deployment/console", "deployment/jaeger", "deployment/mailpit"} {
		r.suspect = one
		if _, err := r.cluster.kubectl(ctx, "rollout", "status", one, "--timeout=5m"); err != nil {
			return err
		}
	}
	r.suspect = ""
	r.say("all pods are ready (waited %.0f s)", time.Since(begun).Seconds())
	return nil
}

// three places an order that is confirmed, one that is rejected and one that is cancelled.
func (r *run) three(ctx context.Context) error {
	sku := "mug-" + r.id
	if err := r.receive(ctx, sku, 10); err != nil {
		return err
	}
	r.say("\nthree orders, each with its mail and its trace, from the request to the mail:")
	for _, one := range []struct {
		name, status string
		quantity     int
		mails        []string
	}{
		{"confirmed", "confirmed", 2, []string{"confirmed"}},
		{"rejected", "rejected", 1000, []string{"cannot be fulfilled"}},
		{"cancelled", "confirmed", 3, []string{"confirmed", "cancelled"}},
	} {
		o, _, err := r.place(ctx, one.name, sku, one.quantity)
		if err == nil {
			err = r.settled(ctx, &o, one.status)
		}
		if err != nil {
			return err
		}
		t, err := r.trace(ctx, o.TraceID, wantPlaced)
		if err != nil {
			return err
		}
		if one.name == "cancelled" {
			if t, err = r.cancel(ctx, &o); err != nil {
				return err
			}
		}
		if err := r.told(ctx, o, one.mails); err != nil {
			return err
		}
		r.say("  %-9s %s  trace %s: %d spans, %.0f ms", o.Status, o.ID, t.ID, len(t.Spans), float64(t.took().Microseconds())/1000)
		for _, line := range t.tree() {
			r.say("      %s", line)
		}
	}
	var left stock
	if _, err := r.inventory.ask(ctx, "GET", "/v1/stock/"+sku, "", nil, http.StatusOK, &left); err != nil {
		return err
	}
	if want := (stock{10, 2, 8}); left != want {
		return fmt.Errorf("the stock of %s is %+v, want %+v: what was cancelled comes back", sku, left, want)
	}
	r.say("  stock: 10 received, 2 reserved, what was cancelled came back")
	return nil
}

// cancel cancels a confirmed order, and returns the trace of that request.
func (r *run) cancel(ctx context.Context, o *order) (jaegerTrace, error) {
	var answer order
	if _, err := r.intake.ask(ctx, "POST", "/v1/orders/"+o.ID+"/cancel", "", nil, http.StatusAccepted, &answer); err != nil {
		return jaegerTrace{}, err
	}
	if err := r.settled(ctx, o, "cancelled"); err != nil {
		return jaegerTrace{}, err
	}
	return r.trace(ctx, answer.TraceID, wantCancelled)
}

// told waits until an order's customer has been told what happened, in that order.
func (r *run) told(ctx context.Context, o order, want []string) error {
	over := time.Now().Add(30 * time.Second)
	for {
		by, again, err := r.mails(ctx)
		if err != nil {
			return err
		}
		if again > 0 { // nothing was killed
			return fmt.Errorf("%d mails were sent twice, though nothing failed", again)
		}
		var got []string
		for _, m := range slices.Backward(by[o.address]) {
			got = append(got, m.Subject)
		}
		if slices.EqualFunc(got, want, strings.Contains) {
			return nil
		}
		if time.Now().After(over) {
			return fmt.Errorf("order %s has the mails %q, want %q", o.ID, got, want)
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// inHand is how many mails a pod may have in hand when it is killed: each may be sent again.
const inHand = 16

// many places orders while a pod of each service is killed, and counts when all is over.
func (r *run) many(ctx context.Context) error {
	const fewest, most = 4, 4000 // one before each kill; fewer than Mailpit keeps
	if r.orders < fewest || r.orders > most {
		return fmt.Errorf("-orders is %d, want 0, or %d to %d", r.orders, fewest, most)
	}
	waiting, _, err := r.desk(ctx)
	if err != nil {
		return err
	}
	sku := "tea-" + r.id
	if err := r.receive(ctx, sku, 3*r.orders); err != nil {
		return err
	}
	r.say("\n%d orders, while a pod of each service is killed:", r.orders)
	begun := time.Now()
	orders, repeats, err := r.placeAndKill(ctx, sku)
	if err != nil {
		return err
	}
	r.say("  %d accepted in %.0f s; %d requests were repeated, under their Idempotency-Key", len(orders), time.Since(begun).Seconds(), repeats)
	for i := range orders {
		if err := r.settled(ctx, &orders[i], "confirmed"); err != nil {
			return err
		}
	}
	if err := r.allTold(ctx, orders); err != nil {
		return err
	}
	r.say("  all are confirmed, and have their mails, %.0f s after the first", time.Since(begun).Seconds())
	if err := r.quiet(ctx, waiting); err != nil {
		return err
	}
	return r.count(ctx, orders, sku)
}

// count looks once more when nothing is under way: nothing may have happened twice.
func (r *run) count(ctx context.Context, orders []order, sku string) error {
	for _, o := range orders {
		if _, err := r.intake.ask(ctx, "GET", "/v1/orders/"+o.ID, "", nil, http.StatusOK, &o); err != nil {
			return err
		}
		if n := settlements(o); n != 1 || o.Status != "confirmed" {
			return fmt.Errorf("order %s is %s and has settled %d times: %+v", o.ID, o.Status, n, o.History)
		}
	}
	r.say("  %d orders settled, each once", len(orders))
	by, again, err := r.mails(ctx)
	if err != nil {
		return err
	}
	for _, o := range orders {
		if mails := by[o.address]; len(mails) != 1 || !strings.Contains(mails[0].Subject, "confirmed") {
			return fmt.Errorf("order %s has the mails %+v, want one that it is confirmed", o.ID, mails)
		}
	}
	if again > inHand {
		return fmt.Errorf("%d mails came again, want at most %d, as many as the killed pod may have had in hand", again, inHand)
	}
	r.say("  %d customers have one mail each; %d mails came again, under their Message-ID", len(orders), again)
	var left stock
	if _, err := r.inventory.ask(ctx, "GET", "/v1/stock/"+sku, "", nil, http.StatusOK, &left); err != nil {
		return err
	}
	if want := (stock{3 * len(orders), len(orders), 2 * len(orders)}); left != want {
		return fmt.Errorf("the stock of %s is %+v, want %+v", sku, left, want)
	}
	r.say("  stock: %d received, %d reserved, each once", left.OnHand, left.Reserved)
	return nil
}

// placeAndKill kills a pod of each service in turn, the first when a quarter of the orders is
// accepted. Each order has one piece.
func (r *run) placeAndKill(ctx context.Context, sku string) (orders []order, repeats int, err error) {
	const customers = 8
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var mu sync.Mutex
	var next atomic.Int64
	var all sync.WaitGroup
	killAt := map[int]string{r.orders / 4: "order", r.orders / 2: "inventory", 3 * r.orders / 4: "email"}
	for range customers {
		all.Go(func() {
			for n := next.Add(1); n <= int64(r.orders); n = next.Add(1) {
				o, again, err := r.place(ctx, fmt.Sprintf("customer%d", n), sku, 1)
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				orders, repeats = append(orders, o), repeats+again
				service := killAt[len(orders)]
				mu.Unlock()
				if service != "" {
					if err := r.kill(ctx, service); err != nil {
						stop(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return nil, 0, context.Cause(ctx)
	}
	return orders, repeats, nil
}

// kill removes a pod without giving it time to finish.
func (r *run) kill(ctx context.Context, service string) error {
	pod := service + "-0"
	if _, err := r.cluster.kubectl(ctx, "delete", "pod", pod, "--grace-period=0", "--force", "--wait=false", "--ignore-not-found"); err != nil {
		return err
	}
	r.say("  %s killed", pod)
	return nil
}

// settlements counts how often an order was settled.
func settlements(o order) (n int) {
	for _, h := range o.History {
		if h.Step == "confirmed" || h.Step == "rejected" || h.Step == "cancelled" {
			n++
		}
	}
	return n
}

// allTold waits until every customer has a mail.
func (r *run) allTold(ctx context.Context, orders []order) error {
	for {
		by, _, err := r.mails(ctx)
		if err != nil {
			return err
		}
		missing := 0
		for _, o := range orders {
			if len(by[o.address]) == 0 {
				missing++
			}
		}
		if missing == 0 {
			return nil
		}
		if err := wait(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("%d orders have no mail: %w", missing, err)
		}
	}
}

func decode(text []byte, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%w in %.200s", err, text)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
