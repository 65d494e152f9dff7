package console

import (
	"context"
	"errors"
	"flag"
	"slices"
	"strconv"
	"time"
)

var skipCommand = &command{
	name: "skip", args: "[SERVICE/TOPIC/PARTITION...]", short: "partitions that are stopped, and how to go on behind what cannot be read",
	long: `
A partition stops where records are lost (retention has removed them before they were read, the topic was made anew) or
where a batch of records cannot be decompressed within the limit: nothing is ever skipped by itself. This shows the stopped
partitions of all services with the range in question. With --yes they go on behind it, those named or all that are
shown; the service's log keeps it. What is skipped is not handled. Where none is stopped the exit code is 3.`,
	examples: []string{"console skip", "console skip email/orders/3 --yes"},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		yes := set.Bool("yes", false, "do it")
		return func(ctx context.Context, s *session, words []string) error {
			all, err := s.Partitions(ctx)
			all = slices.DeleteFunc(all, func(p Partition) bool {
				return p.Stopped == "" || len(words) > 0 && !slices.Contains(words, p.Name())
			})
			if len(all) == 0 {
				if err == nil && len(words) > 0 {
					err = none("not stopped: %s", safe(words[0], 100)).then("console skip")
				}
				if err == nil {
					err = none("no partition is stopped")
				}
			}
			if *yes && err == nil {
				return s.skip(ctx, all)
			}
			if s.json {
				return orJSON(err, s, map[string]any{"dry_run": true, "items": list(all)})
			}
			s.printStopped(all)
			return err
		}
	},
}

func (s *session) printStopped(all []Partition) {
	if len(all) == 0 {
		return
	}
	t := newTable(s.out, "PARTITION", "GROUP", "STOPPED", "AT", "GOES ON AT", "SKIPS", "LOG", "ERROR")
	can := false
	for i := range all {
		p := &all[i]
		to, skips := "?", "cannot be told"
		if p.SkipTo != nil {
			to, skips, can = strconv.FormatInt(*p.SkipTo, 10), rangeOf(p), true
		}
		t.row(p.Name(), safe(p.Group, 60), safe(p.Stopped, 40), strconv.FormatInt(p.Position, 10), to, skips,
			strconv.FormatInt(p.LogStart, 10)+" to "+strconv.FormatInt(p.LogEnd, 10), safe(p.Error, 100))
	}
	t.end()
	if can {
		s.say("\nnothing is done yet; let one go on without what it skips:  console skip %s --yes", all[0].Name())
	}
}

// rangeOf says which offsets are left out. Where reading goes on further in front, the log is
// another one than it was, and what it holds is read from there.
func rangeOf(p *Partition) string {
	n := *p.SkipTo - p.Position
	if n <= 0 {
		return "none, reads again from there"
	}
	return strconv.FormatInt(p.Position, 10) + " to " + strconv.FormatInt(*p.SkipTo-1, 10) + " (" + strconv.FormatInt(n, 10) + ")"
}

func (s *session) skip(ctx context.Context, all []Partition) error {
	var errs []error
	var done []Partition
	for i := range all {
		p := &all[i]
		if err := s.Skip(ctx, p); err != nil {
			errs = append(errs, err)
			continue
		}
		done = append(done, *p)
		s.say("%s goes on at %d; skipped: %s", p.Name(), *p.SkipTo, rangeOf(p))
	}
	if s.json {
		return orJSON(errors.Join(errs...), s, map[string]any{"dry_run": false, "items": list(done)})
	}
	if len(done) > 0 {
		s.say("\nhow it goes:  console lag --behind")
	}
	return errors.Join(errs...)
}

var provisionCommand = &command{
	name: "provision", short: "make the topics and register the schemas; --plan shows what differs",
	long: `
Brings brokers and registry to what the code declares: makes missing topics, corrects their retention and what else of
their settings would lose events (compaction, small limits in bytes), sets the compatibility level of every schema and
registers missing versions. It may run again and beside another, before any service. The partition count of a topic is
never changed, and what the registry would refuse is not tried: both are told, with exit code 1, and nothing else of
their kind is done. --plan changes nothing; its exit code is 4 if something differs. --wait tries again for a
while where brokers or registry do not answer yet.`,
	examples: []string{"console provision --plan", "console provision", "console provision --wait 60s"},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		plan := set.Bool("plan", false, "only show what would be done, and what differs")
		wait := set.Duration("wait", 0, "try again for this `long`, such as 60s")
		return func(ctx context.Context, s *session, words []string) error {
			if len(words) > 0 {
				return wrong("provision takes flags only")
			}
			p, err := s.Provisioning(ctx)
			if err != nil {
				return err
			}
			if *plan {
				return s.plan(ctx, p)
			}
			return s.provision(ctx, p, *wait)
		}
	},
}

func (s *session) plan(ctx context.Context, p Provisioning) error {
	drifts, err := p.Plan(ctx)
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
		return orJSON(err, s, map[string]any{"dry_run": true, "items": list(drifts)})
	}
	s.printDrifts(drifts)
	if err == nil && !differs {
		s.say("all %d topics and %d schemas are as declared", len(p.topics), len(p.subjects))
	}
	return err
}

func (s *session) printDrifts(drifts []Drift) {
	if len(drifts) == 0 {
		return
	}
	t := newTable(s.out, "KIND", "NAME", "WHAT", "HAVE", "WANT", "ACTION", "WHY")
	for _, d := range drifts {
		t.row(d.Kind, safe(d.Name, 100), safe(d.What, 40), safe(d.Have, 60), safe(d.Want, 60), d.Action, safe(d.Why, 300))
	}
	t.end()
}

func (s *session) provision(ctx context.Context, p Provisioning, wait time.Duration) error {
	drifts, err := p.Apply(ctx, wait, func(err error) { s.warn("not yet, trying again: %v", err) })
	if s.json {
		return orJSON(err, s, map[string]any{"dry_run": false, "items": list(drifts)})
	}
	s.printDrifts(drifts)
	if err == nil {
		s.say("all %d topics and %d schemas are as declared", len(p.topics), len(p.subjects))
	}
	return err
}
