package console

import (
	"cmp"
	"context"
	"flag"
	"slices"
	"strings"
)

var dropCommand = &command{
	name: "drop", args: "[ID] --why WORDS", short: "remove waiting events for good; their keys go on",
	long: `
Removes a waiting event that can never work, for good: its effect will be missing. What is queued behind it runs then.
Only the first of a key's queue can be dropped. A dead letter that is named by its ID is dropped at once; an event that
may recover by itself wants --yes. With a key, a filter or --all it takes dead letters, unless --state says otherwise,
and without --yes it only shows which. Ctrl-C stops it between two events; the same command goes on.

The service's log keeps --why. With an ID, --reason is the same as --why; with a filter it selects by the reason of the
failure, as in waiting ls. The bytes stay in the topic and in <topic>.<group>.dlt until those expire.`,
	examples: []string{
		`console drop email/17 --why "address does not exist, customer was called"`,
		`console drop --service email --reason undecodable --state "set aside" --why "test data" --yes`,
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var f Filter
		filterFlags(set, &f)
		reason := set.String("reason", "", "with an ID the same as --why; else only those with the `reason`: "+strings.Join(reasons, ", "))
		why := set.String("why", "", "`words` that the service's log keeps")
		all := set.Bool("all", false, "all dead letters")
		yes := set.Bool("yes", false, "do it")
		return func(ctx context.Context, s *session, words []string) error {
			ids, err := parseIDs(words)
			if err != nil {
				return err
			}
			if len(ids) > 0 {
				if *all || f != (Filter{}) || len(ids) > 1 {
					return wrong("either one ID or a filter")
				}
				return s.dropOne(ctx, ids[0], cmp.Or(*why, *reason), *yes)
			}
			if f.Reason = *reason; f.Reason != "" && !slices.Contains(reasons, f.Reason) {
				return wrong("without an ID --reason is one of %s; say with --why why they are dropped", strings.Join(reasons, ", "))
			}
			if !*all && f == (Filter{}) {
				return wrong("say which: one ID, such as email/17, --key, another filter, or --all").then("console waiting ls --each")
			}
			return s.dropAll(ctx, f, *why, *yes)
		}
	},
}

func (s *session) dropOne(ctx context.Context, id ID, why string, yes bool) error {
	if strings.TrimSpace(why) == "" {
		return wrong("say why it is dropped").then(`console drop %s --why "why"`, id)
	}
	w, err := s.Show(ctx, id, false)
	if err != nil {
		return err
	}
	done := Drops{Matched: 1, Items: []Waiting{w.brief()}}
	switch refused := w.refused(true); {
	case refused != "":
		err = fail("%s is not dropped: %s", id, refused).then("console waiting show %s", id)
	case !yes && w.State != "dead" && w.State != "set aside":
		done.DryRun = true
		err = fail("%s is not dropped: it is %s, and may be done yet", id, safe(w.State, 20)).then("%s", s.again([]string{id.String()}, "yes", "true"))
	default:
		if err = s.Drop(ctx, id, why); err == nil {
			done.Dropped = 1
		}
	}
	if s.json {
		return s.answer(done, err)
	}
	if done.Dropped == 1 {
		of := ""
		if w.Key != "" {
			of = " of key " + safe(w.Key, 100)
		}
		s.say("dropped %s: %s%s at %s, event %s", w.ID, cmp.Or(safe(w.Type, 100), "(unreadable)"), of, safe(w.place(), 100), safe(w.EventID, 100))
	}
	return err
}

func (s *session) dropAll(ctx context.Context, f Filter, why string, yes bool) error {
	if yes && strings.TrimSpace(why) == "" {
		return wrong("say why they are dropped").then("%s", s.again(nil, "why", "why"))
	}
	f.State = cmp.Or(f.State, "dead")
	done, err := s.DropAll(ctx, f, why, !yes)
	switch {
	case err == nil && done.Matched == 0:
		err = unknownType(none("nothing to drop: no %s event waits that matches", f.State), f.Type).then("console waiting ls")
	case ctx.Err() != nil:
		err = fail("stopped after %d: interrupted", done.Dropped).then("%s", s.again(nil))
	}
	if s.json {
		return s.answer(done, err)
	}
	switch {
	case done.Matched == 0:
	case done.DryRun:
		const shown = 20
		printWaiting(s, done.Items[:min(len(done.Items), shown)])
		if done.Matched > shown {
			s.say("…and %d more", done.Matched-shown)
		}
		s.propose("\nnothing is done yet; remove "+counted(done.Matched, "event")+" for good", "%s", s.again(nil, "why", cmp.Or(why, "why"), "yes", "true"))
	default:
		s.say("dropped: %d of %d", done.Dropped, done.Matched)
	}
	return err
}
