package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// placeSome places orders, and tells where each can be seen.
func (r *run) placeSome(ctx context.Context) error {
	r.open()
	n := cmp.Or(max(r.orders, 0), 1)
	if err := r.receive(ctx, "tea-"+r.id, 3*n); err != nil {
		return err
	}
	begun := time.Now()
	errs := make([]error, n)
	var all sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			var o order
			if o, _, errs[i] = r.place(ctx, fmt.Sprintf("customer%d", i+1), "tea-"+r.id, 1); errs[i] != nil {
				return
			}
			if errs[i] = r.settled(ctx, &o, "confirmed"); errs[i] == nil && n <= 10 {
				r.say("%s %s  http://localhost:16686/trace/%s", o.Status, o.ID, o.TraceID)
			}
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.say("%d confirmed in %v", n, time.Since(begun).Round(time.Millisecond))
	return nil
}

// brokers reaches the cluster's broker, whose other listener says that it is here.
func (r *run) brokers(ctx context.Context) (kafka.Config, func(), error) {
	const port = 9094
	cfg := kafka.Config{Brokers: []string{fmt.Sprint("127.0.0.1:", port)}}
	if r, err := kafka.NewReader(ctx, cfg); err == nil { // Tilt has opened the way
		r.Close()
		return cfg, func() {}, nil
	}
	f := r.cluster.forwardTo("pod/kafka-0", port, port)
	_, err := f.at(ctx)
	return cfg, f.close, err
}

func (r *run) publish(ctx context.Context, cfg kafka.Config, rec event.Record) error {
	p, err := kafka.NewProducer(cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	return errors.Join(p.Publish(ctx, []event.Record{rec})...)
}

// duplicate publishes the newest event of the orders once more.
func (r *run) duplicate(ctx context.Context) error {
	cfg, done, err := r.brokers(ctx)
	defer done()
	if err != nil {
		return err
	}
	reader, err := kafka.NewReader(ctx, cfg)
	if err != nil {
		return err
	}
	defer reader.Close()
	ends, err := reader.Ends(ctx, schemas.TopicOrders)
	if err != nil {
		return err
	}
	from := kafka.Positions{schemas.TopicOrders: maps.Clone(ends[schemas.TopicOrders])}
	for id, end := range from[schemas.TopicOrders] {
		from[schemas.TopicOrders][id] = max(end-100, 0)
	}
	var newest event.Record
	for rec, err := range reader.Records(ctx, from, ends) {
		if err != nil {
			return err
		}
		// What was published without an ID, such as poison, is a new event each time.
		if rec.Header("ce_id") != nil && !rec.Timestamp.Before(newest.Timestamp) {
			newest = rec
		}
	}
	if newest.Value == nil {
		return errors.New("there is no event yet; place an order first")
	}
	again := event.Record{Topic: newest.Topic, Key: newest.Key, Value: newest.Value, Headers: newest.Headers}
	if err := r.publish(ctx, cfg, again); err != nil {
		return err
	}
	r.say("event %s of order %s is published once more; inbox_duplicates_total counts it, and nothing else happens", newest.Header("ce_id"), newest.Key)
	return nil
}

// poison publishes bytes that are no event.
func (r *run) poison(ctx context.Context) error {
	cfg, done, err := r.brokers(ctx)
	defer done()
	if err != nil {
		return err
	}
	rec := event.Record{Topic: schemas.TopicOrders, Key: []byte("poison"), Value: []byte("these bytes are no event")}
	before, _, err := r.desk(ctx)
	if err != nil {
		return err
	}
	if err := r.publish(ctx, cfg, rec); err != nil {
		return err
	}
	r.say("published; each group that reads %s sets it aside as a dead letter:", rec.Topic)
	for {
		now, _, err := r.desk(ctx)
		if err != nil {
			return err
		}
		if now >= before+2 {
			return r.letters(ctx)
		}
		if err := wait(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// chaos lets the mail server answer senders with an error.
func (r *run) chaos(ctx context.Context, probability int) error {
	r.open()
	type trigger struct{ ErrorCode, Probability int }
	_, err := r.mailbox.ask(ctx, http.MethodPut, "/api/v1/chaos", "", map[string]trigger{
		"Sender": {451, probability}, "Recipient": {451, 0}, "Authentication": {535, 0},
	}, http.StatusOK, nil)
	return err
}

func (r *run) mailsDown(ctx context.Context) error {
	if err := r.chaos(ctx, 100); err != nil {
		return err
	}
	r.say("the mail server answers every sender with 451; place orders: they are confirmed, and their mails wait")
	return nil
}

func (r *run) mailsUp(ctx context.Context) error {
	if err := r.chaos(ctx, 0); err != nil {
		return err
	}
	r.say("the mail server takes mails again; those that waited leave within a minute")
	return nil
}

func (r *run) killOne(ctx context.Context) error {
	if !slices.Contains([]string{"order", "inventory", "email"}, r.service) {
		return fmt.Errorf("-service is %q, want order, inventory or email", r.service)
	}
	return r.kill(ctx, r.service)
}

// show runs the console in the cluster, and shows what it says.
func (r *run) show(ctx context.Context, words ...string) error {
	text, err := r.cluster.kubectl(ctx, append([]string{"exec", "deployment/console", "--", "/service"}, words...)...)
	fmt.Fprint(r.out, text)
	return err
}

func (r *run) letters(ctx context.Context) error {
	err := r.show(ctx, "waiting", "ls")
	if exitCode(err) == nothingFound {
		r.say("nothing waits")
		return nil
	}
	return err
}

func (r *run) redrive(ctx context.Context) error {
	err := r.show(ctx, "redrive", "--all", "--yes")
	if exitCode(err) == nothingFound {
		r.say("no dead letter holds a key; one that is set aside is redriven, or dropped, by its ID: console redrive --help")
		return nil
	}
	return err
}

// reset begins anew: data stores lose their volumes, and topics and schemas are made again.
func (r *run) reset(ctx context.Context) error {
	stores := []string{"statefulset/kafka", "statefulset/registry", "statefulset/postgres"}
	programs := []string{"statefulset/order", "statefulset/inventory", "statefulset/email", "deployment/console", "deployment/mailpit"}
	all := slices.Concat(programs, stores)
	// Nothing is stopped where one of them is missing: that would be another overlay.
	if _, err := r.cluster.kubectl(ctx, append([]string{"get", "-o", "name"}, all...)...); err != nil {
		return fmt.Errorf("this is not the local overlay, and nothing was done: %w", err)
	}
	job, err := r.job(ctx, "provision")
	if err != nil {
		return err
	}
	for _, s := range []struct {
		what string
		args []string
	}{
		{"stopping", append([]string{"scale", "--replicas=0"}, all...)},
		{"waiting for the end", []string{"wait", "--for=delete", "pod", "--timeout=2m", "-l", "app.kubernetes.io/name in (order,inventory,email,console,mailpit,kafka,registry,postgres)"}},
		{"deleting all data", []string{"delete", "pvc", "--timeout=2m", "-l", "app.kubernetes.io/name in (kafka,registry,postgres)"}},
		{"starting again", append([]string{"scale", "--replicas=1"}, all...)},
	} {
		r.say("%s", s.what)
		if _, err := r.cluster.kubectl(ctx, s.args...); err != nil {
			return err
		}
	}
	r.say("topics and schemas")
	if _, err := r.cluster.kubectlIn(ctx, job, "replace", "--force", "-f", "-"); err != nil {
		return err
	}
	if _, err := r.cluster.kubectl(ctx, "wait", "--for=condition=complete", "job/provision", "--timeout=5m"); err != nil {
		r.suspect = "job/provision"
		return err
	}
	return r.ready(ctx)
}

// job is the manifest of a job that has run, so that it can run again. What the cluster wrote
// into it is left out: it would be refused.
func (r *run) job(ctx context.Context, name string) (string, error) {
	text, err := r.cluster.kubectl(ctx, "get", "job", name, "-o", "json")
	if err != nil {
		return "", fmt.Errorf("%w; apply it first: kubectl apply -k deploy/overlays/local", err)
	}
	var job map[string]any
	if err := decode([]byte(text), &job); err != nil {
		return "", err
	}
	meta, _ := job["metadata"].(map[string]any)
	spec, _ := job["spec"].(map[string]any)
	template, _ := spec["template"].(map[string]any)
	podMeta, _ := template["metadata"].(map[string]any)
	delete(job, "status")
	delete(spec, "selector")
	maps.DeleteFunc(meta, func(name string, _ any) bool {
		return !slices.Contains([]string{"name", "namespace", "labels", "annotations"}, name)
	})
	for _, labels := range []any{meta["labels"], podMeta["labels"]} {
		if of, ok := labels.(map[string]any); ok {
			maps.DeleteFunc(of, func(name string, _ any) bool {
				return name == "controller-uid" || name == "job-name" || strings.HasPrefix(name, "batch.kubernetes.io/")
			})
		}
	}
	again, err := json.Marshal(job)
	return string(again), err
}
