package console

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

var redriveCommand = &command{
	name: "redrive", args: "[ID...]", short: "run waiting events again, in their place: by ID, --key, a filter, or --all",
	long: `
Gives events that wait their attempts back and lets them run now, in their place: only in the group that failed, with
their IDs, before what is queued behind them. Without --yes it only shows which. With a key, a filter or --all it
takes dead letters, unless --state says otherwise, oldest first, so many per second as --rate says, and those that
wait when it begins. Ctrl-C stops it between two steps; it then says how to go on. An event that was redriven ten times
is refused, so that nothing runs in circles; when the cause is mended, --force takes it too. Where events were refused
the exit code is 1.`,
	examples: []string{
		"console redrive email/17",
		"console redrive email/17 --yes",
		"console redrive --key 01a20b59-bec0-759e-974f-f2b16b81d2aa --yes",
		"console redrive --service email --error 'connection refused' --rate 20 --yes",
		"console redrive --all --yes",
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var p Pass
		filterFlags(set, &p.Filter)
		all := set.Bool("all", false, "all dead letters")
		yes := set.Bool("yes", false, "do it")
		after := set.String("after", "", "go on behind the `id`")
		set.BoolVar(&p.Force, "force", false, "those too that were redriven ten times")
		set.Float64Var(&p.Rate, "rate", 100, "`n` events per second; 0: as fast as it goes")
		return func(ctx context.Context, s *session, words []string) error {
			ids, err := parseIDs(words)
			switch {
			case err != nil:
				return err
			case len(ids) > 0 && (*all || p.Filter != Filter{} || *after != ""):
				return wrong("either IDs or a filter, not both")
			case len(ids) == 0 && !*all && p.Filter == Filter{} && *after == "":
				return wrong("say which: an ID, --key, another filter, or --all").then("console waiting ls")
			case p.Rate < 0:
				return wrong("--rate must be 0 or more")
			}
			if *after != "" {
				if p.After, err = ParseID(*after); err != nil {
					return err
				}
			}
			if p.DryRun = !*yes; len(ids) > 0 {
				return s.redriveIDs(ctx, ids, p)
			}
			return s.redriveAll(ctx, p)
		}
	},
}

func (s *session) redriveIDs(ctx context.Context, ids []ID, p Pass) error {
	done, err := s.RedriveEach(ctx, ids, p.Force, p.DryRun)
	if s.json {
		return orJSON(err, s, done)
	}
	if len(done.Items) > 0 && p.DryRun {
		printWaiting(s, done.Items)
	}
	if err != nil {
		return err
	}
	var words []string
	for _, id := range ids {
		words = append(words, id.String())
	}
	if p.DryRun {
		s.say("\nnothing is done yet; run them again:  console redrive %s --yes", strings.Join(words, " "))
		return nil
	}
	s.say("redriven: %d; how it went:  console waiting show %s", done.Redriven, words[0])
	return nil
}

func (s *session) redriveAll(ctx context.Context, p Pass) error {
	var last ID
	p.Progress = func(so Redrives, at ID) {
		if last = at; !p.DryRun && so.Matched > 100 {
			s.warn("%d redriven, %d refused, at %s", so.Redriven, len(so.Refused), at)
		}
	}
	done, err := s.RedriveAll(ctx, p)
	command := "console redrive" + serviceWord(p.Filter.Service) + filterWords(p.Filter)
	if p.Filter == (Filter{}) {
		command += " --all"
	}
	switch {
	case err != nil && !p.DryRun && last.N > 0:
		err = fail("stopped after %d: %s", done.Redriven, whyStopped(ctx, err)).then("%s --after %s --yes", command, last)
	case err == nil && done.Matched == 0:
		err = none("nothing to redrive: no %s event waits that matches", cmp.Or(p.Filter.State, "dead")).then("console waiting ls")
	case err == nil && len(done.Refused) > 0:
		err = fail("%d of %d were refused", len(done.Refused), done.Matched)
		if slices.ContainsFunc(done.Refused, func(r Refusal) bool { return strings.Contains(r.Why, "force") }) {
			err = fail("%d of %d were refused", len(done.Refused), done.Matched).then("if the cause is mended: %s --force --yes", command)
		}
	}
	if s.json {
		return orJSON(err, s, done)
	}
	s.redriven(done, command)
	return err
}

func (s *session) redriven(done Redrives, command string) {
	if len(done.Refused) > 0 {
		t := newTable(s.out, "REFUSED", "WHY")
		for _, r := range done.Refused {
			t.row(r.ID.String(), safe(r.Why, 200))
		}
		t.end()
	}
	switch {
	case done.Matched == 0:
	case done.DryRun:
		const shown = 20
		printWaiting(s, done.Items[:min(len(done.Items), shown)])
		if done.Matched > shown {
			s.say("…and %d more", done.Matched-shown)
		}
		s.say("\nnothing is done yet; run these %d again:  %s --yes", done.Matched, command)
	default:
		s.say("redriven: %d of %d; what waits now:  console waiting ls", done.Redriven, done.Matched)
	}
}

func whyStopped(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "interrupted"
	}
	return safe(err.Error(), 300)
}

func serviceWord(name string) string {
	if name == "" {
		return ""
	}
	return " --service " + quoted(name)
}

var dropCommand = &command{
	name: "drop", args: "ID --reason WHY", short: "remove a waiting event for good; its key goes on",
	long: `
Removes a waiting event that can never work, at once and for good: its effect will be missing. What is queued behind it
runs then. Only the first of a key's queue can be dropped. The service's log keeps who it was and the reason; the bytes
stay in the topic and in <topic>.<group>.dlt until those expire.`,
	examples: []string{`console drop email/17 --reason "address does not exist, customer was called"`},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		reason := set.String("reason", "", "`why`; the service's log keeps it")
		return func(ctx context.Context, s *session, words []string) error {
			ids, err := parseIDs(words)
			switch {
			case err != nil:
				return err
			case len(ids) != 1:
				return wrong("say which: one ID, such as email/17").then("console waiting ls --each")
			case strings.TrimSpace(*reason) == "":
				return wrong("say why it is dropped").then(`console drop %s --reason "why"`, ids[0])
			}
			w, err := s.Drop(ctx, ids[0], *reason)
			if err != nil {
				return err
			}
			if s.json {
				return orJSON(nil, s, map[string]any{"dropped": w})
			}
			s.say("dropped %s: %s of key %s at %s, event %s", w.ID, safe(w.Type, 100), safe(w.Key, 100), safe(w.place(), 100), safe(w.EventID, 100))
			return nil
		}
	},
}

var replayCommand = &command{
	name: "replay", args: "SERVICE TOPIC --from TIME | SERVICE TOPIC/PARTITION@OFFSET...", short: "let a service handle events again that it has had, from a time or an offset",
	long: `
Puts events that are still in a topic into the queue of a service's group again, in order: they run as if they came now,
in this group only. Without --yes it shows what would run. Only events whose handlers are declared repeatable are taken:
others would have their effect twice, and are refused by type. It goes up to the end of the topic as it is when it
begins, or up to --until. Ctrl-C stops it between two steps; it then says how to go on.`,
	examples: []string{
		"console replay email orders --from 2h",
		"console replay email orders --from 2026-03-01T08:00:00Z --until 2026-03-01T09:00:00Z --type shop.order.OrderConfirmed --yes",
		"console replay email orders/3@1200 orders/4@0 --yes",
		"console replay email orders --from beginning --key 01a20b59-bec0-759e-974f-f2b16b81d2aa --yes",
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var r Replay
		from := set.String("from", "", "begin at the `time`: 2h (ago), 2026-03-01T08:00:00Z, beginning")
		until := set.String("until", "", "end before the `time`")
		yes := set.Bool("yes", false, "do it")
		set.StringVar(&r.Key, "key", "", "only events of the `key`")
		set.StringVar(&r.Type, "type", "", "only events of the `type`")
		return func(ctx context.Context, s *session, words []string) error {
			if err := r.read(words, *from, *until); err != nil {
				return err
			}
			r.DryRun = !*yes
			return s.replay(ctx, r)
		}
	},
}

// read reads what to replay as it is typed.
func (r *Replay) read(words []string, from, until string) error {
	if len(words) < 2 {
		return wrong("say which service is to have events again, and of which topic")
	}
	r.Service, r.Topic = words[0], words[1]
	if until != "" {
		m, err := ParseMoment(until)
		if err != nil || m.Time.IsZero() && !m.End {
			return wrong("--until must be a time, such as 1h (ago) or 2026-03-01T08:00:00Z")
		}
		r.Until = m.Time
	}
	if !strings.Contains(words[1], "@") {
		m, err := ParseMoment(from)
		if err != nil || m.End || from == "" || len(words) > 2 {
			return wrong("say where to begin: --from 2h, --from beginning, or a place such as %s/0@1200", safe(words[1], 60))
		}
		r.Since = m.Time
		if m.Time.IsZero() {
			r.Since = epoch
		}
		return nil
	}
	if from != "" {
		return wrong("either places or --from, not both")
	}
	r.From = map[int32]int64{}
	for _, w := range words[1:] {
		topic, id, at, ok := parsePlace(w)
		if !ok || len(r.From) > 0 && topic != r.Topic {
			return wrong("%q is not a place such as orders/3@1200, all of one topic", safe(w, 60))
		}
		r.Topic, r.From[id] = topic, at
	}
	return nil
}

// parsePlace reads "orders/3@1200".
func parsePlace(text string) (topic string, id int32, at int64, ok bool) {
	rest, offset, ok := cutLast(text, "@")
	topic, partition, ok2 := cutLast(rest, "/")
	p, err := strconv.ParseInt(partition, 10, 32)
	at, err2 := strconv.ParseInt(offset, 10, 64)
	return topic, int32(p), at, ok && ok2 && err == nil && err2 == nil && p >= 0 && at >= 0 && topic != ""
}

func cutLast(text, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

func (s *session) replay(ctx context.Context, r Replay) error {
	command := fmt.Sprintf("console replay %s", quoted(r.Service))
	options := ""
	for name, value := range map[string]string{"key": r.Key, "type": r.Type} {
		if value != "" {
			options += " --" + name + " " + quoted(value)
		}
	}
	r.Progress = func(so Replayed) {
		if !so.Done {
			s.warn("%d records read, %d events queued", so.Scanned, so.Queued)
		}
	}
	done, err := s.Replay(ctx, r)
	if err != nil && !r.DryRun && done.Scanned > 0 {
		err = fail("stopped after %d events: %s", done.Queued, whyStopped(ctx, err)).then("%s%s%s --yes", command, places(done), options)
	}
	matched := 0
	for _, n := range done.Matched {
		matched += n
	}
	if err == nil && matched == 0 {
		err = none("no event there that matches; %d records were read", done.Scanned).then("console tail %s --from beginning", quoted(r.Topic))
	}
	if s.json {
		return orJSON(err, s, done)
	}
	queued := s.replayed(done)
	switch {
	case err != nil:
		return err
	case r.DryRun && queued == 0:
		return fail("nothing of this can be replayed")
	case r.DryRun:
		s.say("\nnothing is done yet; type it again with --yes to let %s handle these %d again", r.Service, queued)
	default:
		s.say("\nqueued: %d; how it goes:  console waiting ls --service %s", done.Queued, r.Service)
	}
	return nil
}

// replayed prints what a replay did, or would do, by type.
func (s *session) replayed(done Replayed) (queued int) {
	if len(done.Matched) == 0 {
		return 0
	}
	t := newTable(s.out, "TYPE", "EVENTS", "REPLAY")
	for _, typ := range slices.Sorted(maps.Keys(done.Matched)) {
		what := "yes"
		if why, no := done.Refused[typ]; no {
			what = "no: " + safe(why, 200)
		} else {
			queued += done.Matched[typ]
		}
		t.row(safe(typ, 100), strconv.Itoa(done.Matched[typ]), what)
	}
	t.end()
	return queued
}

// places are where a replay goes on, as they are typed.
func places(done Replayed) (words string) {
	for _, id := range slices.Sorted(maps.Keys(done.Next)) {
		words += " " + quoted(done.Topic) + "/" + id + "@" + strconv.FormatInt(done.Next[id], 10)
	}
	return words
}
