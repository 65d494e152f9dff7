package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync/atomic"
	"time"
)

// Outbox is what a service has not published yet.
type Outbox struct {
	Service string  `json:"service"`
	Pending int64   `json:"pending"`
	Oldest  float64 `json:"oldest_age_seconds"`
	Held    []Held  `json:"held"`
}

// Held is a key whose next event the brokers have refused; its later ones stay behind it. An
// empty key stands for a whole topic.
type Held struct {
	Topic string    `json:"topic"`
	Key   string    `json:"key,omitempty"`
	Error string    `json:"error"`
	Since time.Time `json:"since"`
}

func (o Outbox) age() time.Duration { return time.Duration(o.Oldest * float64(time.Second)) }

// Outboxes tells what each service has not published yet; of all services if name is empty.
func (c *Console) Outboxes(ctx context.Context, name string) ([]Outbox, error) {
	services, err := c.chosen(ctx, name)
	if err != nil {
		return nil, err
	}
	return gather(ctx, services, func(ctx context.Context, s *Service) ([]Outbox, error) {
		o := Outbox{Service: s.Name}
		if err := s.get(ctx, "/admin/outbox", nil, &o); err != nil {
			return nil, err
		}
		return []Outbox{o}, nil
	})
}

// Partition is where a replica of a service stands in a partition that it has.
type Partition struct {
	Service   string `json:"service"`
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Position  int64  `json:"position"`
	Committed int64  `json:"committed"`
	LogStart  int64  `json:"log_start"`
	LogEnd    int64  `json:"log_end"`
	Stopped   string `json:"stopped,omitempty"`
	Error     string `json:"error,omitempty"`
	SkipTo    *int64 `json:"skip_to,omitempty"`

	owner   *Service
	replica *url.URL
}

// Name is how the partition is typed: "email/orders/3".
func (p *Partition) Name() string { return fmt.Sprintf("%s/%s/%d", p.Service, p.Topic, p.Partition) }

// Partitions are those of all replicas of all services.
func (c *Console) Partitions(ctx context.Context) ([]Partition, error) {
	services, err := c.Services(ctx)
	if err != nil {
		return nil, err
	}
	var replicas []*Service
	for _, s := range services {
		for _, at := range s.replicas {
			one := *s
			one.replicas, one.answered = []*url.URL{at}, new(atomic.Int32)
			replicas = append(replicas, &one)
		}
	}
	all, err := gather(ctx, replicas, func(ctx context.Context, s *Service) ([]Partition, error) {
		var list struct {
			Group string
			Items []Partition
		}
		err := s.get(ctx, "/admin/partitions", nil, &list)
		for i := range list.Items {
			p := &list.Items[i]
			p.Service, p.Group, p.owner, p.replica = s.Name, list.Group, s, s.replicas[0]
		}
		return list.Items, err
	})
	slices.SortFunc(all, func(a, b Partition) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return all, err
}

// topicRecreated is why partitions are stopped whose topic was deleted, and perhaps made
// again.
const topicRecreated = "topic_recreated"

// openTransaction is why partitions are stopped that another producer's transaction holds up.
const openTransaction = "open_transaction"

// missing reports whether the partition's topic does not exist.
func (p *Partition) missing() bool { return p.Stopped == topicRecreated && p.SkipTo == nil }

// Skip lets a stopped partition go on behind what cannot be read. It may go on already: then
// nothing is done.
func (c *Console) Skip(ctx context.Context, p *Partition) error {
	for try := 0; p.missing() && try < 4; try++ { // a topic that was just made is not known everywhere yet
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
		now, err := c.Partitions(ctx)
		i := slices.IndexFunc(now, func(n Partition) bool { return n.Name() == p.Name() && n.Stopped != "" })
		if err == nil && i < 0 {
			return nil
		}
		if err == nil {
			*p = now[i]
		}
	}
	switch {
	case p.missing():
		return fail("%s: topic %s does not exist", p.Name(), safe(p.Topic, 100)).then("console provision")
	case p.Stopped == openTransaction:
		return fail("%s: nothing is to be skipped, it goes on when the transaction ends: %s", p.Name(), safe(p.Error, 1000))
	case p.SkipTo == nil:
		return fail("%s: where it could go on cannot be told; %s", p.Name(), safe(p.Error, 200))
	}
	err := p.owner.post(ctx, "/admin/partitions/skip", map[string]any{
		"topic": p.Topic, "partition": p.Partition, "from": p.Position, "to": *p.SkipTo, "dry_run": false,
	}, nil) // its owner here is the one replica that has it
	if refused(err, http.StatusConflict) {
		if now, failed := c.Partitions(ctx); failed == nil && !slices.ContainsFunc(now, func(n Partition) bool {
			return n.Name() == p.Name() && n.Stopped != ""
		}) {
			return nil
		}
		return fail("%v", err).then("console skip")
	}
	return explain(err)
}
