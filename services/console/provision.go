package console

import (
	"context"
	"errors"
	"slices"
	"strconv"
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
	// Action is what provisioning does: create, change, nothing (it is harmless), confirm (only
	// when told to, since records may be removed), or refuse.
	Action string `json:"action"`
	Why    string `json:"why,omitempty"`
}

// The actions of a drift.
const (
	actCreate  = "create"
	actChange  = "change"
	actNothing = "nothing"
	actConfirm = "confirm"
	actRefuse  = "refuse"
)

// Provisioning is the topics and schemas of the system, with how to reach their keepers.
type Provisioning struct {
	kafka    kafka.Config
	registry codec.Config
	topics   []kafka.Topic
	subjects []codec.Subject

	retry     string // what to type where brokers or registry do not answer
	mayRemove bool   // changes are made, too, that may remove records
}

// Provisioning reads what is declared. The topics of dead letters are named after the groups
// of the services that answer; otherwise after the services, as on their own.
func (c *Console) Provisioning(ctx context.Context) (p Provisioning, err error) {
	p.retry = "console provision --wait 60s"
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
	topic, service, ok := schemas.DeadLetters(name)
	if !ok || groups[service] == "" {
		return name
	}
	return topic + "." + groups[service] + ".dlt"
}

// Plan tells what Apply would do, and what it would refuse, and changes nothing. Failures that
// pass are tried again, as in Apply.
func (p Provisioning) Plan(ctx context.Context, wait time.Duration, report func(error)) ([]Drift, error) {
	return p.both(ctx, wait, report, p.planTopics, p.planSubjects)
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
		case !p.mayRemove && removes(d):
			one.Action, one.Why = actConfirm, "records that are there may be removed"
		}
		all = append(all, one)
	}
	for i := range all {
		if d := &all[i]; d.Action == actChange && !slices.ContainsFunc(p.harmless(all), func(t kafka.Topic) bool { return t.Name == d.Name }) {
			d.Action, d.Why = actConfirm, "it is done with the topic's other changes"
		}
	}
	if err != nil {
		return nil, brokersFailed("topics: ", err, "start the brokers, or try for a while: "+p.retry)
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
		return nil, fail("schemas: %s", safe(err.Error(), 300)).then("start the registry, or try for a while: %s", p.retry)
	}
	return all, nil
}

// Apply makes what is missing and corrects what may be corrected, and returns what it has
// done. It may run again, and beside another. Failures that pass are tried again for as long
// as wait, and are reported; a refusal is final. Topics and schemas do not wait for each
// other.
func (p Provisioning) Apply(ctx context.Context, wait time.Duration, report func(error)) ([]Drift, error) {
	var topics, subjects []Drift
	return p.both(ctx, wait, report, func(ctx context.Context) ([]Drift, error) {
		planned, err := p.planTopics(ctx)
		topics = merged(topics, planned)
		return topics, p.apply(planned, err, func() error { return kafka.Provision(ctx, p.kafka, p.harmless(planned)) })
	}, func(ctx context.Context) ([]Drift, error) {
		planned, err := p.planSubjects(ctx)
		subjects = merged(subjects, planned)
		return subjects, p.apply(planned, err, func() error { return codec.Provision(ctx, p.registry, p.subjects) })
	})
}

// both works at topics and schemas at the same time, each until it succeeds, is refused, or
// wait is over.
func (p Provisioning) both(ctx context.Context, wait time.Duration, report func(error), topics, schemas func(context.Context) ([]Drift, error)) ([]Drift, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+4*pingTimeout)
	defer cancel()
	over := time.Now().Add(wait)
	var of [2][]Drift
	var errs [2]error
	var all sync.WaitGroup
	for i, do := range []func(context.Context) ([]Drift, error){topics, schemas} {
		all.Go(func() {
			errs[i] = persist(ctx, over, report, func() (err error) {
				of[i], err = do(ctx)
				return err
			})
		})
	}
	all.Wait()
	return append(of[0], of[1]...), errors.Join(errs[:]...)
}

// removes reports whether a change of a topic's settings may remove records that are there:
// they are kept for less long, or by another policy.
func removes(d kafka.Drift) bool {
	switch d.What {
	case "retention":
		have, err := time.ParseDuration(d.Have)
		want, err2 := time.ParseDuration(d.Want)
		return err2 == nil && (err != nil || have < 0 || want < have) // what is no duration is for ever
	case "retention.bytes":
		have, err := strconv.ParseInt(d.Have, 10, 64)
		want, err2 := strconv.ParseInt(d.Want, 10, 64)
		return err2 == nil && want >= 0 && (err != nil || have < 0 || want < have)
	case "cleanup.policy":
		return slices.ContainsFunc(strings.Split(d.Want, ","), func(policy string) bool { return !strings.Contains(d.Have, policy) })
	}
	return false
}

// harmless are the topics as far as nothing is planned for them that has to be confirmed.
func (p Provisioning) harmless(planned []Drift) (topics []kafka.Topic) {
	for _, t := range p.topics {
		whole := true
		for _, d := range planned {
			switch {
			case d.Name != t.Name || d.Action != actConfirm:
			case d.What == "retention":
				t.Retention = 0 // it is left as it is
			default:
				whole = false
			}
		}
		if whole {
			topics = append(topics, t)
		}
	}
	return topics
}

// keptBack counts the changes that have to be confirmed.
func keptBack(all []Drift) (n int) {
	for _, d := range all {
		if d.Action == actConfirm {
			n++
		}
	}
	return n
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
		return brokersFailed("", err, p.retry)
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
