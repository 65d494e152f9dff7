package console

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/schemas"
)

// Drift is a difference between what is declared in the code and what is there.
type Drift struct {
	Kind string `json:"kind"` // topic or schema
	Name string `json:"name"`
	What string `json:"what"`
	Have string `json:"have"`
	Want string `json:"want"`
	// Action is what provisioning does: create, change, nothing (it is harmless), or refuse.
	Action string `json:"action"`
	Why    string `json:"why,omitempty"`
}

// The actions of a drift.
const (
	actCreate  = "create"
	actChange  = "change"
	actNothing = "nothing"
	actRefuse  = "refuse"
)

// Provisioning is the topics and schemas of the system, with how to reach their keepers.
type Provisioning struct {
	kafka    kafka.Config
	registry codec.Config
	topics   []kafka.Topic
	subjects []codec.Subject
}

// Provisioning reads what is declared. The topics of dead letters are named after the groups
// of the services that answer; otherwise after the services, as on their own.
func (c *Console) Provisioning(ctx context.Context) (p Provisioning, err error) {
	if p.kafka, err = c.place.kafka(); err != nil {
		return p, err
	}
	if p.registry, err = c.place.registry(); err != nil {
		return p, err
	}
	groups := c.groups(ctx)
	for _, t := range schemas.Topics() {
		t.Name = deadLetterTopic(t.Name, groups)
		p.topics = append(p.topics, kafka.Topic(t))
	}
	for _, s := range schemas.Subjects() {
		p.subjects = append(p.subjects, codec.Subject(s))
	}
	return p, nil
}

// deadLetterTopic puts a service's group in place of its name in "<topic>.<service>.dlt";
// other names stay.
func deadLetterTopic(name string, groups map[string]string) string {
	source, dead := strings.CutSuffix(name, ".dlt")
	topic, service, ok := strings.Cut(source, ".")
	if !dead || !ok || groups[service] == "" {
		return name
	}
	return topic + "." + groups[service] + ".dlt"
}

// Plan tells what Apply would do, and what it would refuse, and changes nothing.
func (p Provisioning) Plan(ctx context.Context) ([]Drift, error) {
	topics, errTopics := p.planTopics(ctx)
	subjects, errSubjects := p.planSubjects(ctx)
	return append(topics, subjects...), errors.Join(errTopics, errSubjects)
}

func (p Provisioning) planTopics(ctx context.Context) (all []Drift, err error) {
	bounded, cancel := context.WithTimeout(ctx, 2*pingTimeout)
	defer cancel()
	drifts, err := kafka.Plan(bounded, p.kafka, p.topics)
	for _, d := range drifts {
		one := Drift{Kind: "topic", Name: d.Topic, What: d.What, Have: d.Have, Want: d.Want, Action: actChange, Why: d.Stuck}
		switch {
		case d.Stuck != "":
			one.Action = actRefuse
		case d.What == "topic":
			one.Action = actCreate
		}
		all = append(all, one)
	}
	if err != nil {
		return nil, fail("topics: %s", safe(err.Error(), 300)).then("start the brokers, or try for a while: console provision --wait 60s")
	}
	return all, nil
}

func (p Provisioning) planSubjects(ctx context.Context) (all []Drift, err error) {
	drifts, err := codec.Plan(ctx, p.registry, p.subjects)
	for _, d := range drifts {
		one := Drift{Kind: "schema", Name: d.Subject, What: d.What, Have: d.Have, Want: d.Want, Action: actChange, Why: d.Stuck}
		switch {
		case d.Stuck != "":
			one.Action = actRefuse
		case d.Harmless:
			one.Action, one.Why = actNothing, "somebody has registered a version that is not declared here"
		case strings.HasPrefix(d.What, "version "):
			one.Action = actCreate
		}
		all = append(all, one)
	}
	if err != nil {
		return nil, fail("schemas: %s", safe(err.Error(), 300)).then("start the registry, or try for a while: console provision --wait 60s")
	}
	return all, nil
}

// Apply makes what is missing and corrects what may be corrected, and returns what it has
// done. It may run again, and beside another. Failures that pass are tried again for as long
// as wait, and are reported; a refusal is final. Topics and schemas do not wait for each
// other.
func (p Provisioning) Apply(ctx context.Context, wait time.Duration, report func(error)) ([]Drift, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+4*pingTimeout)
	defer cancel()
	over := time.Now().Add(wait)
	var topics, subjects []Drift
	var errTopics, errSubjects error
	var both sync.WaitGroup
	both.Go(func() {
		errTopics = persist(ctx, over, report, func() error {
			planned, err := p.planTopics(ctx)
			topics = merged(topics, planned)
			return p.apply(planned, err, func() error { return kafka.Provision(ctx, p.kafka, p.topics) })
		})
	})
	both.Go(func() {
		errSubjects = persist(ctx, over, report, func() error {
			planned, err := p.planSubjects(ctx)
			subjects = merged(subjects, planned)
			return p.apply(planned, err, func() error { return codec.Provision(ctx, p.registry, p.subjects) })
		})
	})
	both.Wait()
	return append(topics, subjects...), errors.Join(errTopics, errSubjects)
}

// errRefused is final.
var errRefused = errors.New("refused")

func (p Provisioning) apply(planned []Drift, err error, do func() error) error {
	if err != nil {
		return err
	}
	for _, d := range planned {
		if d.Action == actRefuse {
			return &refusal{fail("nothing was done to any %s, because of %s: its %s is %s, declared is %s: %s", d.Kind, d.Name, d.What, d.Have, d.Want, d.Why).
				then("mend that first: what is refused is never changed in place")}
		}
	}
	if err := do(); err != nil {
		return fail("%s", safe(err.Error(), 400)).then("console provision --wait 60s")
	}
	return nil
}

// refusal is a failure that no other try would mend.
type refusal struct{ *Failure }

func (r *refusal) Unwrap() error        { return r.Failure }
func (r *refusal) Is(target error) bool { return target == errRefused }

// merged keeps what an earlier try had planned: it may have done that before it failed.
func merged(before, now []Drift) []Drift {
	for _, d := range now {
		known := false
		for _, b := range before {
			known = known || b.Kind == d.Kind && b.Name == d.Name && b.What == d.What
		}
		if !known {
			before = append(before, d)
		}
	}
	return before
}

// persist repeats do until it succeeds, is refused, or the time is over.
func persist(ctx context.Context, over time.Time, report func(error), do func() error) error {
	said := ""
	for pause := 200 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := do()
		if err == nil || errors.Is(err, errRefused) || ctx.Err() != nil || time.Now().Add(pause).After(over) {
			return err
		}
		if err.Error() != said && report != nil {
			said = err.Error()
			report(err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
