package console

import (
	"cmp"
	"context"
	"flag"
	"slices"
	"strings"
)

var dropCommand = &command{
	name: "drop", args: "[ID...] --why WORDS", short: "remove waiting events for good; their keys go on",
	long: `
Removes waiting events that can never work, for good: their effects will be missing. What is queued behind one runs then.
Only the first of a key's queue can be dropped. Without --yes it only shows which. With a key, a filter or --all it takes
dead letters, unless --state says otherwise; Ctrl-C stops it between two events, and the same command goes on.

Beware of a second time: once an event is dropped, the next one of its key runs, may die as well, and then matches the same
--key or filter. An ID means one event for ever, which is why IDs are proposed where there are few.

The service's log keeps --why. With IDs, --reason is the same as --why; with a filter it selects by the reason of the
failure, as in waiting ls. The bytes stay in the topic and in <topic>.<group>.dlt until those expire.`,
	examples: []string{
		`console drop email/17`,
		`console drop email/17 --why "address does not exist, customer was called" --yes`,
		`console drop --service email --reason undecodable --state "set aside" --why "test data" --yes`,
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var f Filter
		filterFlags(set, &f)
		reason := set.String("reason", "", "with IDs the same as --why; else only those with the `reason`: "+strings.Join(reasons, ", "))
		why := set.String("why", "", "`words` that the service's log keeps")
		all := set.Bool("all", false, "all dead letters")
		yes := set.Bool("yes", false, "do it")
		return func(ctx context.Context, s *session, words []string) error {
			ids, err := parseIDs(words)
			if err != nil {
				return err
			}
			if len(ids) > 0 {
				if *all || f != (Filter{}) {
					return wrong("either IDs or a filter, not both")
				}
				return s.drop(ctx, ids, f, cmp.Or(*why, *reason), *yes)
			}
			if f.Reason = *reason; f.Reason != "" && !slices.Contains(reasons, f.Reason) {
				return wrong("without an ID --reason is one of %s; say with --why why they are dropped", strings.Join(reasons, ", "))
			}
			if !*all && f == (Filter{}) {
				return wrong("say which: an ID, such as email/17, --key, another filter, or --all").then("console waiting ls --each")
			}
			return s.drop(ctx, nil, f, *why, *yes)
		}
	},
}

// whyHere stands for the words of --why in what is proposed, and is refused if it was left there.
const whyHere = "..."

// dropsNamed is up to how many events a proposal names each by its ID.
const dropsNamed = 20

// drop removes events by their IDs, or without IDs those that match.
func (s *session) drop(ctx context.Context, ids []ID, f Filter, why string, yes bool) error {
	switch why = strings.TrimSpace(why); {
	case why == whyHere:
		return wrong("--why is still %s: say in its place why it is dropped", quoted(whyHere)).then("%s", s.dropLine(ids, whyHere))
	case yes && why == "":
		return wrong("say why it is dropped").then("%s", s.dropLine(ids, whyHere))
	}
	var done Drops
	var err error
	if len(ids) > 0 {
		done, err = s.DropEach(ctx, ids, why, !yes)
	} else {
		dead := f
		dead.State = cmp.Or(f.State, "dead")
		done, err = s.DropAll(ctx, dead, why, !yes)
	}
	switch {
	case ctx.Err() != nil && !done.DryRun:
		err = fail("stopped after %d: interrupted", done.Dropped).then("%s", s.again(wordsOf(ids)))
	case err == nil && done.DryRun && len(done.Refused) > 0 && len(done.Refused) == done.Matched:
		err = inTheWay(done.Refused, "dropped")
	case err == nil && done.Matched == 0:
		err = noneMatches("drop", f)
	}
	if s.json {
		return s.answer(done, err)
	}
	s.told(done, ids, why)
	return err
}

// dropLine is the command that does what was only shown.
func (s *session) dropLine(ids []ID, why string) string {
	changed := []string{"why", why, "yes", "true"}
	if len(ids) > 0 {
		changed = append(changed, "reason", "") // there it is the same as why
	}
	return s.again(wordsOf(ids), changed...)
}

// told says what was dropped, or would be.
func (s *session) told(done Drops, ids []ID, why string) {
	switch {
	case done.Matched == 0:
	case done.DryRun:
		s.wouldDrop(done, ids, cmp.Or(why, whyHere))
	default:
		for i := range done.Items {
			s.say("dropped %s", dropped(&done.Items[i]))
		}
		if n := done.Dropped - len(done.Items); n > 0 {
			s.say("…and %d more, which the service's log names", n)
		}
		s.say("dropped: %d of %d", done.Dropped, done.Matched)
	}
}

func (s *session) wouldDrop(done Drops, ids []ID, why string) {
	printWaiting(s, done.Items[:min(len(done.Items), dropsNamed)])
	if done.Matched > dropsNamed {
		s.say("…and %d more", done.Matched-dropsNamed)
	}
	s.wouldRefuse(done.Refused)
	for _, w := range done.Items {
		if w.State == "unavailable" || w.State == "retrying" {
			s.warn("%s is %s, and may be done yet", w.ID, w.State)
		}
	}
	if len(done.Refused) == done.Matched {
		return
	}
	refused := func(id ID) bool {
		return slices.ContainsFunc(done.Refused, func(r Refusal) bool { return r.ID == id })
	}
	ids = slices.DeleteFunc(slices.Clone(ids), refused)
	line := s.dropLine(ids, why)
	if len(ids) == 0 && done.Matched <= dropsNamed {
		for _, w := range done.Items {
			if !refused(w.ID) {
				ids = append(ids, w.ID)
			}
		}
		line = "console drop " + strings.Join(wordsOf(ids), " ") + " --why " + quoted(why) + " --yes"
	}
	s.propose("\nnothing is done yet; remove "+counted(done.Matched-len(done.Refused), "event")+" for good", "%s", line)
}

// dropped names an event that does not wait any more.
func dropped(w *Waiting) string {
	of := ""
	if w.Key != "" {
		of = " of key " + safe(w.Key, 100)
	}
	return w.ID.String() + ": " + cmp.Or(safe(w.Type, 100), "(unreadable)") + of + " at " + safe(w.place(), 100) + ", event " + safe(w.EventID, 100)
}
