package console

import (
	"context"
	"errors"
	"flag"
	"math"
	"slices"
	"strconv"
	"strings"
)

var skipCommand = &command{
	name: "skip", args: "[SERVICE/TOPIC/PARTITION...]", short: "partitions that are stopped, and how to go on behind what cannot be read",
	long: `
A partition stops where records are lost (retention has removed them before they were read, the topic was made anew) or
where a batch of records cannot be decompressed within the limit: nothing is ever skipped by itself. This shows the stopped
partitions of all services with the range in question. With --yes they go on behind it, those named or all that are
shown; the service's log keeps it. What is skipped is not handled. A partition may also be named as the services' logs do,
with its group in place of the service, or without either where only one is stopped. Where none is stopped the exit code
is 3.`,
	examples: []string{"console skip", "console skip email/orders/3 --yes"},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		yes := set.Bool("yes", false, "do it")
		return func(ctx context.Context, s *session, words []string) error {
			for _, w := range words {
				if _, _, _, ok := parsePartition(w); !ok {
					return wrong("%q is not a partition, such as email/orders/3", safe(w, 100)).then("console skip")
				}
			}
			all, err := s.Partitions(ctx)
			all = slices.DeleteFunc(all, func(p Partition) bool { return p.Stopped == "" })
			switch {
			case len(words) > 0:
				all, err = named(words, all, err)
			case err == nil && len(all) == 0:
				err = none("no partition is stopped")
			}
			if *yes && len(all) > 0 {
				return s.skip(ctx, all, err)
			}
			if s.json {
				return s.answer(map[string]any{"dry_run": !*yes, "items": list(all)}, err)
			}
			s.printStopped(all)
			return err
		}
	},
}

// parsePartition reads "email/orders/3" or "orders/3". The owner is a service or a group.
func parsePartition(text string) (owner, topic string, id int32, ok bool) {
	rest, number, ok := cutLast(text, "/")
	n, err := strconv.ParseInt(number, 10, 32)
	owner, topic, owned := cutLast(rest, "/")
	if !owned {
		owner, topic = "", rest
	}
	return owner, topic, int32(n), ok && err == nil && n >= 0 && topic != "" && owned == (owner != "")
}

// named picks of the stopped partitions those that are meant by words. partial is why there
// may be others. If a word may mean several, none is picked.
func named(words []string, stopped []Partition, partial error) (picked []Partition, err error) {
	var names []string
	for i := range stopped {
		names = append(names, stopped[i].Name())
	}
	errs := []error{partial}
	for _, w := range words {
		owner, topic, id, _ := parsePartition(w)
		var fit []Partition
		var which []string
		for _, p := range stopped {
			if p.Topic == topic && p.Partition == id && (owner == "" || owner == p.Service || owner == p.Group) {
				if fit = append(fit, p); !slices.Contains(which, p.Name()) {
					which = append(which, p.Name())
				}
			}
		}
		switch {
		case len(which) > 1:
			return nil, wrong("%s is stopped more than once: say which of %s", safe(w, 100), strings.Join(which, ", ")).then("console skip %s", which[0])
		case len(which) == 1 && owner == "" && partial != nil:
			errs = append(errs, wrong("whether %s alone is meant by %s cannot be told", which[0], safe(w, 100)).then("console skip %s", which[0]))
		case len(which) == 1 && !slices.ContainsFunc(picked, func(p Partition) bool { return p.Name() == which[0] }):
			picked = append(picked, fit...)
		case len(fit) == 0 && partial == nil:
			f := none("not stopped: %s; no partition is", safe(w, 100))
			if len(names) > 0 {
				f = none("not stopped: %s; stopped are %s", safe(w, 100), strings.Join(names, ", ")).then("console skip")
			}
			f.of = w
			errs = append(errs, f)
		}
	}
	return picked, errors.Join(errs...)
}

func (s *session) printStopped(all []Partition) {
	if len(all) == 0 {
		return
	}
	t := newTable(s.out, "PARTITION", "GROUP", "STOPPED", "AT", "GOES ON AT", "SKIPS", "LOG", "ERROR")
	var can, gone, held *Partition
	for i := range all {
		p := &all[i]
		to, skips, log := "?", "cannot be told", strconv.FormatInt(p.LogStart, 10)+" to "+strconv.FormatInt(p.LogEnd, 10)
		switch {
		case p.SkipTo != nil:
			to, skips, can = strconv.FormatInt(*p.SkipTo, 10), rangeOf(p), p
		case p.Stopped == openTransaction:
			to, skips, held = "", "", p
		case p.missing():
			to, skips, log, gone = "", "", "missing", p
		}
		t.row(p.Name(), safe(p.Group, 60), safe(p.Stopped, 40), strconv.FormatInt(p.Position, 10), to, skips, log, s.text(p.Error, 100))
	}
	t.end()
	if held != nil {
		s.say("\n%s: nothing is to be skipped, it goes on when the transaction ends: %s", held.Name(), s.text(held.Error, math.MaxInt))
	}
	if gone != nil {
		s.propose("\ntopic "+safe(gone.Topic, 100)+" does not exist; make it", "console provision")
	}
	if can != nil {
		s.propose("\nnothing is done yet; let one go on without what it skips", "console skip %s --yes", can.Name())
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

// skip lets partitions go on. With one of a topic that was made anew all go on that its
// replica has of it, since it joins its group again.
func (s *session) skip(ctx context.Context, all []Partition, err error) error {
	errs := []error{err}
	done := []Partition{}
	anew := map[string]bool{}
	for i := range all {
		p := &all[i]
		topic := p.replica.String() + " " + p.Topic
		if !anew[topic] {
			if err := s.Skip(ctx, p); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		done = append(done, *p)
		anew[topic] = p.Stopped == topicRecreated
		if p.SkipTo == nil {
			s.say("%s goes on already", p.Name())
			continue
		}
		s.say("%s goes on at %d; skipped: %s", p.Name(), *p.SkipTo, rangeOf(p))
	}
	for topic, whole := range anew {
		if whole {
			_, name, _ := strings.Cut(topic, " ")
			s.say("%s was made anew: with one partition of it all go on that are in the same process", safe(name, 100))
		}
	}
	if s.json {
		return s.answer(map[string]any{"dry_run": false, "items": done}, errors.Join(errs...))
	}
	if len(done) > 0 {
		s.propose("\nhow it goes", "console lag --behind")
	}
	return errors.Join(errs...)
}
