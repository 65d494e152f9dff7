package console

import (
	"context"
	"errors"
	"flag"
	"slices"
	"time"
)

var provisionCommand = &command{
	name: "provision", short: "make the topics and register the schemas; --plan shows what differs",
	long: `
Brings brokers and registry to what the code declares: makes missing topics, corrects their retention and what else of
their settings would lose events (compaction, small limits in bytes), sets the compatibility level of every schema and
registers missing versions. It may run again and beside another, before any service. The partition count of a topic is
never changed, and what the registry would refuse is not tried: both are told, with exit code 1, and nothing else of
their kind is done. What may remove records that are there, such as a shorter retention, wants --yes: without it the
rest is done, and the exit code is 1. --plan changes nothing; its exit code is 4 if something differs. --wait tries again
for a while where brokers or registry do not answer yet.`,
	examples: []string{"console provision --plan", "console provision", "console provision --wait 60s"},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		plan := set.Bool("plan", false, "only show what would be done, and what differs")
		wait := set.Duration("wait", 0, "try again for this `long`, such as 60s")
		yes := set.Bool("yes", false, "make changes, too, that may remove records that are there")
		return func(ctx context.Context, s *session, words []string) error {
			switch {
			case len(words) > 0:
				return wrong("provision takes flags only")
			case *wait < 0:
				return wrong("--wait must be 0 or more")
			case *plan && *yes:
				return wrong("either --plan, which changes nothing, or --yes")
			}
			p, err := s.Provisioning(ctx)
			if err != nil {
				return err
			}
			p.retry, p.mayRemove = s.again(nil, "wait", "60s"), *yes
			if *plan {
				return s.plan(ctx, p, *wait)
			}
			return s.provision(ctx, p, *wait)
		}
	},
}

func (s *session) plan(ctx context.Context, p Provisioning, wait time.Duration) error {
	drifts, err := p.Plan(ctx, wait, s.notYet)
	differs := slices.ContainsFunc(drifts, func(d Drift) bool { return d.Action != actNothing })
	stuck := slices.ContainsFunc(drifts, func(d Drift) bool { return d.Action == actRefuse })
	if err == nil && differs {
		f := &Failure{Text: "what is there is not what is declared", Next: "console provision", code: exitDrift}
		if stuck {
			f.Next = "change the declaration, or move to another name: what is refused is never changed in place"
		}
		err = f
	}
	if s.json {
		return s.answer(map[string]any{"dry_run": true, "items": list(drifts)}, err)
	}
	s.printDrifts(drifts)
	if err == nil && !differs {
		s.say("all %d topics and %d schemas are as declared", len(p.topics), len(p.subjects))
	}
	return err
}

func (s *session) notYet(err error) { s.warn("not yet, trying again: %v", err) }

func (s *session) printDrifts(drifts []Drift) {
	if len(drifts) == 0 {
		return
	}
	t := newTable(s.out, "KIND", "NAME", "WHAT", "HAVE", "WANT", "ACTION", "WHY")
	for _, d := range drifts {
		t.row(d.Kind, safe(d.Name, 100), safe(d.What, 40), safe(d.Have, 60), safe(d.Want, 60), d.Action, s.text(d.Why, 300))
	}
	t.end()
}

func (s *session) provision(ctx context.Context, p Provisioning, wait time.Duration) error {
	drifts, err := p.Apply(ctx, wait, s.notYet)
	if kept := keptBack(drifts); kept > 0 {
		err = errors.Join(err, fail("%s not made: records that are there may be removed", were(kept, "change")).then("%s", s.again(nil, "yes", "true")))
	}
	if s.json {
		return s.answer(map[string]any{"dry_run": false, "items": list(drifts)}, err)
	}
	s.printDrifts(drifts)
	if err == nil {
		s.say("all %d topics and %d schemas are as declared", len(p.topics), len(p.subjects))
	}
	return err
}
