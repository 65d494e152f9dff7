package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
)

var redriveCommand = &command{
	name: "redrive", args: "[ID...]", short: "run waiting events again, in their place: by ID, --key, a filter, or --all",
	long: `
Gives events that wait their attempts back and lets them run now, in their place: only in the group that failed, with
their IDs, before what is queued behind them; one that was set aside goes to the end of its key's queue, under a new ID.
Without --yes it only shows which. With a key, a filter or --all it takes dead letters, unless --state says otherwise,
oldest first, so many per second as --rate says, and those that wait when it begins. Ctrl-C stops it between two steps;
it then says how to go on. An event that was redriven ten times is refused, so that nothing runs in circles; when the
cause is mended, --force takes it too. With IDs or a key it waits a little for what becomes of each, and tells it; the
exit code is 0 if all are done by then. Where events were refused, failed again or still wait it is 1.`,
	examples: []string{
		"console redrive email/17",
		"console redrive email/17 --yes",
		"console redrive --key 01a20b59-bec0-759e-974f-f2b16b81d2aa --yes --wait 30s",
		"console redrive --service email --error 'connection refused' --rate 20 --yes",
		"console redrive --all --yes",
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var p Pass
		filterFlags(set, &p.Filter)
		reasonFlag(set, &p.Filter)
		all := set.Bool("all", false, "all dead letters")
		yes := set.Bool("yes", false, "do it")
		after := set.String("after", "", "go on behind the `id`")
		set.BoolVar(&p.Force, "force", false, "those too that were redriven ten times")
		set.Float64Var(&p.Rate, "rate", 100, "`n` events per second; 0: as fast as it goes")
		wait := set.Duration("wait", 5*time.Second, "with IDs or --key: so `long` for what becomes of them; 0: not at all")
		return func(ctx context.Context, s *session, words []string) error {
			ids, err := parseIDs(words)
			filtered, waits := *all || p.Filter != Filter{}, false
			set.Visit(func(f *flag.Flag) { waits = waits || f.Name == "wait" })
			switch {
			case err != nil:
				return err
			case len(ids) > 0 && (filtered || *after != ""):
				return wrong("either IDs or a filter, not both")
			case len(ids) == 0 && !filtered:
				return wrong("say which: an ID, --key, another filter, or --all").then("console waiting ls")
			case !(p.Rate >= 0):
				return wrong("--rate must be 0 or more")
			case *wait < 0:
				return wrong("--wait must be 0 or more")
			case waits && len(ids) == 0 && p.Filter.Key == "":
				return wrong("--wait goes with IDs or --key").then("console waiting ls")
			}
			if *after != "" {
				if p.After, err = ParseID(*after); err != nil {
					return err
				}
			}
			if p.DryRun = !*yes; len(ids) > 0 {
				return s.redriveIDs(ctx, ids, p, *wait)
			}
			return s.redriveAll(ctx, p, *wait)
		}
	},
}

func (s *session) redriveIDs(ctx context.Context, ids []ID, p Pass, wait time.Duration) error {
	done, err := s.RedriveEach(ctx, ids, p.Force, p.DryRun)
	s.caution(done)
	switch {
	case len(done.Items) == 0:
	case p.DryRun:
		err = errors.Join(err, s.wouldRedrive(done, wordsOf(ids)))
	default:
		s.say("redriven: %d of %d", done.Redriven, len(ids))
		err = errors.Join(err, s.await(ctx, &done, wait))
	}
	if s.json {
		return s.answer(done, err)
	}
	return err
}

func wordsOf(ids []ID) (words []string) {
	for _, id := range ids {
		words = append(words, id.String())
	}
	return words
}

func (s *session) redriveAll(ctx context.Context, p Pass, wait time.Duration) error {
	p.Progress = func(so Redrives, at ID) {
		if !p.DryRun && so.Matched > 100 {
			s.warn("%d of %d redriven, %d refused, at %s", so.Redriven, so.Matched, len(so.Refused), at)
		}
	}
	done, err := s.RedriveAll(ctx, p)
	err = s.verdict(ctx, p, done, err)
	s.caution(done)
	switch {
	case done.Matched == 0:
	case p.DryRun:
		err = errors.Join(err, s.wouldRedrive(done, nil))
	default:
		s.refusals(done.Refused)
		s.say("redriven: %d of %d", done.Redriven, done.Matched)
		if p.Filter.Key == "" {
			s.moved(done.Items)
			s.propose("what waits now", "console waiting ls")
		} else if ctx.Err() == nil {
			err = errors.Join(err, s.await(ctx, &done, wait))
		}
	}
	if s.json {
		return s.answer(done, err)
	}
	return err
}

// verdict says what a pass has not done, and how to go on.
func (s *session) verdict(ctx context.Context, p Pass, done Redrives, err error) error {
	switch {
	case err != nil && !p.DryRun && (done.Redriven > 0 || ctx.Err() != nil):
		on := s.again(nil)
		if done.Next != nil {
			on = s.again(nil, "after", done.Next.String())
		}
		return fail("stopped after %d: %s", done.Redriven, whyStopped(ctx, err)).then("%s", on)
	case err == nil && done.Matched == 0:
		return noneMatches("redrive", p.Filter)
	case err == nil && !p.DryRun && len(done.Refused) > 0:
		return stillRefused(done)
	}
	return err
}

// noneMatches says that a command which takes dead letters, unless told otherwise, finds none.
func noneMatches(verb string, f Filter) *Failure {
	hint := ""
	if f.State == "" {
		f.State, hint = "dead", "; --state takes others"
	}
	n := none("nothing to %s: no %s event waits that matches%s", verb, f.State, hint)
	if f.State = ""; f.Key != "" {
		n.then("console waiting ls --each --key %s", quoted(f.Key))
	} else {
		n.then("console waiting ls")
	}
	return unknownType(n, f.Type)
}

// refusedNamed is how many of the refused are named in an error.
const refusedNamed = 5

// stillRefused names what a pass has not redriven. Force is proposed for these only: the next
// event of a key that has died meanwhile is not meant.
func stillRefused(done Redrives) *Failure {
	var ids, force []string
	for _, r := range done.Refused {
		if ids = append(ids, r.ID.String()); strings.Contains(r.Why, "--force") {
			force = append(force, r.ID.String())
		}
	}
	f := fail("%d of %s refused: %s", len(ids), were(done.Matched, "event"), few(ids))
	for _, r := range slices.Backward(done.Refused) {
		if f.then("console waiting show %s", r.ID); r.Behind != nil {
			f.then("console waiting show %s", *r.Behind)
		}
	}
	if len(force) > 0 {
		f.Text += "; if the cause is mended, use --force"
		f.then("%s", forced(force))
	}
	return f
}

// few joins the first of some words.
func few(words []string) string {
	if len(words) > refusedNamed {
		return strings.Join(words[:refusedNamed], ", ") + fmt.Sprintf(" and %d more", len(words)-refusedNamed)
	}
	return strings.Join(words, ", ")
}

func forced(ids []string) string {
	return "console redrive " + strings.Join(ids[:min(len(ids), refusedNamed)], " ") + " --force --yes"
}

// moved names those that have another ID since they were redriven.
func (s *session) moved(all []Waiting) {
	for _, w := range all {
		if w.Was != nil {
			s.say("%s is %s now", *w.Was, w.ID)
		}
	}
}

// caution warns of what a redrive of these will not mend.
func (s *session) caution(done Redrives) {
	unreadable := 0
	var held []string
	for _, w := range done.Items {
		if w.Reason == "undecodable" {
			unreadable++
		}
		if w.Held != "" && !slices.Contains(held, w.Held) {
			held = append(held, w.Held)
		}
	}
	if unreadable > 0 {
		s.warn("%s cannot be decoded: another run does not make bytes readable", counted(unreadable, "event"))
	}
	for _, h := range held {
		s.warn("%s; what is redriven is tried next, and the others go on once it works", safe(h, 300))
	}
}

// wouldRedrive shows what a dry run has found, and how to do it.
func (s *session) wouldRedrive(done Redrives, words []string) error {
	const shown = 20
	var force []string
	for _, r := range done.Refused {
		if strings.Contains(r.Why, "--force") {
			force = append(force, r.ID.String())
		}
	}
	n := done.Matched - len(done.Refused)
	if !s.json {
		printWaiting(s, done.Items[:min(len(done.Items), shown)])
		if done.Matched > shown {
			s.say("…and %d more", done.Matched-shown)
		}
		s.wouldRefuse(done.Refused)
	}
	switch {
	case n > 0:
		s.propose("\nnothing is done yet; run "+counted(n, "event")+" again", "%s", s.again(words, "yes", "true"))
	case len(force) > 0:
		s.propose("\nnothing is done yet; if the cause is mended", "%s", forced(force))
	default:
		return inTheWay(done.Refused, "redriven")
	}
	return nil
}

func (s *session) refusals(all []Refusal) {
	if len(all) == 0 || s.json {
		return
	}
	t := newTable(s.out, "REFUSED", "WHY")
	for _, r := range all {
		t.row(r.ID.String(), s.text(r.Why, 200))
	}
	t.end()
}

// wouldRefuse is refusals below what was shown.
func (s *session) wouldRefuse(all []Refusal) {
	if len(all) > 0 {
		s.say("")
		s.refusals(all)
	}
}

// inTheWay is the error of events that are all refused: what comes first of a key is to be
// looked at next.
func inTheWay(refused []Refusal, done string) *Failure {
	f := fail("nothing of this can be %s now: %s: %s", done, refused[0].ID, safe(refused[0].Why, 200)).then("console waiting show %s", refused[0].ID)
	for _, r := range slices.Backward(refused) {
		if r.Behind != nil {
			f.then("console waiting show %s", *r.Behind)
		}
	}
	return f
}

// await tells what becomes of events that were redriven, and is an error unless all are done.
func (s *session) await(ctx context.Context, done *Redrives, wait time.Duration) error {
	done.Items = slices.DeleteFunc(done.Items, func(w Waiting) bool {
		return slices.ContainsFunc(done.Refused, func(r Refusal) bool { return r.ID == w.ID })
	})
	if len(done.Items) == 0 {
		return nil
	}
	if wait == 0 {
		s.propose("how it went", "console waiting show %s", done.Items[0].ID)
		return nil
	}
	items, err := s.Await(ctx, done.Items, wait)
	done.Items = items
	for i := range items {
		s.say("%s", s.became(&items[i]))
	}
	of := func(o Outcome) (ids []string) {
		for _, w := range items {
			if w.Outcome == o {
				ids = append(ids, w.ID.String())
			}
		}
		return ids
	}
	var failures []error
	if ids := of(Failed); len(ids) > 0 {
		failures = append(failures, fail("%d of %d failed again: %s", len(ids), len(items), few(ids)).then("console waiting show %s", ids[0]))
	}
	if ids := of(Waits); len(ids) > 0 {
		verb := "wait"
		if len(ids) == 1 {
			verb = "waits"
		}
		failures = append(failures, fail("%d of %d still %s: %s", len(ids), len(items), verb, few(ids)).then("console waiting show %s", ids[0]))
	}
	return errors.Join(append(failures, err)...)
}

// became says what has become of an event that was redriven.
func (s *session) became(w *Waiting) string {
	name := w.ID.String()
	if w.Was != nil {
		name += " (was " + w.Was.String() + ")"
	}
	switch {
	case w.Outcome == Done:
		return name + " is done"
	case w.Outcome == Failed:
		return name + " failed again: " + s.text(w.Error, 300)
	case w.Held != "":
		return name + " still waits: " + s.text(w.Held, 300)
	case w.Attempts == 0: // the error is that of before
		return name + " still waits: " + safe(w.State, 20)
	}
	return fmt.Sprintf("%s still waits: %s after %s: %s", name, safe(w.State, 20), counted(w.Attempts, "attempt"), s.text(w.Error, 300))
}

func whyStopped(ctx context.Context, err error) string {
	switch {
	case ctx.Err() == nil:
		return safe(err.Error(), 300)
	case strings.Contains(err.Error(), perhapsDone):
		return "interrupted; the last step was not answered, " + perhapsDone
	}
	return "interrupted"
}
