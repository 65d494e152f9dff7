package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// filterFlags are those of all commands that select waiting events.
func filterFlags(set *flag.FlagSet, f *Filter) {
	set.StringVar(&f.Service, "service", "", "only those of the service `name`")
	set.Var(&choice{&f.State, states}, "state", "only those in the `state`: "+strings.Join(states, ", "))
	set.StringVar(&f.Topic, "topic", "", "only those of the `topic`")
	set.StringVar(&f.Key, "key", "", "only those of the `key`, such as an order's ID")
	set.Var((*typeName)(&f.Type), "type", "only those of the `type`: shop.order.OrderPlaced, or OrderPlaced")
	set.StringVar(&f.Error, "error", "", "only those whose error contains the `text`; … in it stands for anything")
}

// reasonFlag is the filter's of the reason, which drop has its own way with.
func reasonFlag(set *flag.FlagSet, f *Filter) {
	set.Var(&choice{&f.Reason, reasons}, "reason", "only those with the `reason`: "+strings.Join(reasons, ", "))
}

var waitingLs = &command{
	name: "waiting ls", short: "what waits, by service, state, topic, reason and error",
	long: `
Lists what waits, grouped by cause, with how many there are, since when the oldest waits, and the ID of one.
A state is: dead (needs you), unavailable (what it needs is down; it resumes by itself), retrying or running (it is
tried again by itself), behind (another event of its key comes first), set aside (dead, but holds nothing up).
Where nothing waits the exit code is 3.`,
	examples: []string{
		"console waiting ls",
		"console waiting ls --state dead --service email",
		"console waiting ls --each --key 01a20b59-bec0-759e-974f-f2b16b81d2aa",
		`console waiting ls --state dead --json | jq -r '.items[] | "\(.count) \(.example) \(.error)"'`,
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var f Filter
		filterFlags(set, &f)
		reasonFlag(set, &f)
		each := set.Bool("each", false, "list single events, oldest first")
		limit := set.Int("limit", 100, "with --each: at most `n` of each service")
		after := set.String("after", "", "with --each: those behind the `id`")
		return func(ctx context.Context, s *session, words []string) error {
			if len(words) > 0 {
				return wrong("waiting ls takes flags only; %q looks like more", safe(words[0], 60))
			}
			if *limit < 1 {
				return wrong("--limit must be 1 or more")
			}
			if *each || *after != "" {
				return s.listEach(ctx, f, *after, *limit)
			}
			if s.isSet("limit") {
				return wrong("--limit goes with --each").then("%s", s.again(nil, "each", "true"))
			}
			return s.listGroups(ctx, f)
		}
	},
}

// urgency is the order in which states need somebody.
var urgency = map[string]int{"dead": 1, "unavailable": 2, "retrying": 3, "running": 4, "set aside": 5, "behind": 6}

func (s *session) listGroups(ctx context.Context, f Filter) error {
	groups, err := s.Summary(ctx, f)
	if err == nil && len(groups) == 0 {
		err = nothingWaits(f)
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(urgency[a.State], urgency[b.State]), cmp.Compare(b.Count, a.Count))
	})
	if s.json {
		return s.answer(map[string]any{"items": list(groups)}, err)
	}
	if len(groups) == 0 {
		return err
	}
	t := newTable(s.out, "SERVICE", "STATE", "COUNT", "OLDEST", "TOPIC", "TYPE", "REASON", "EXAMPLE", "ERROR")
	for _, g := range groups {
		t.row(g.Service, safe(g.State, 20), strconv.FormatInt(g.Count, 10), since(g.Oldest), safe(g.Topic, 60), safe(g.Type, 60), safe(g.Reason, 30),
			g.Example.String(), s.text(cmp.Or(g.Error, g.Held), 100))
	}
	t.end()
	s.propose("\nread one", "console waiting show %s", groups[0].Example)
	return err
}

func nothingWaits(f Filter) error {
	if f == (Filter{}) {
		return none("nothing waits")
	}
	return unknownType(none("nothing waits that matches"), f.Type).then("console waiting ls")
}

// list makes an empty list of none, for JSON.
func list[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func (s *session) listEach(ctx context.Context, f Filter, after string, limit int) error {
	var from ID
	var err error
	if after != "" {
		if from, err = ParseID(after); err != nil {
			return err
		}
	}
	all, more, err := s.List(ctx, f, from, limit)
	if err == nil && len(all) == 0 {
		err = nothingWaits(f)
	}
	if s.json {
		return s.answer(map[string]any{"items": list(all), "more": list(more)}, err)
	}
	if len(all) == 0 {
		return err
	}
	printWaiting(s, all)
	for _, service := range more {
		last := ID{}
		for _, w := range all {
			if w.ID.Service == service {
				last = w.ID
			}
		}
		s.propose("\nmore of "+service, "%s", s.again(nil, "service", service, "after", last.String()))
	}
	return err
}

func printWaiting(s *session, all []Waiting) {
	t := newTable(s.out, "ID", "STATE", "WAITS", "KEY", "TYPE", "REASON", "ATTEMPTS", "REDRIVES", "ERROR")
	for i := range all {
		w := &all[i]
		t.row(w.ID.String(), safe(w.State, 20), since(w.TakenAt), safe(w.Key, 60), safe(w.Type, 60), safe(w.Reason, 30),
			strconv.Itoa(w.Attempts), strconv.Itoa(w.Redrives), s.text(cmp.Or(w.Error, w.Held), 100))
	}
	t.end()
}

var waitingShow = &command{
	name: "waiting show", args: "ID", short: "one waiting event: decoded, its error, its trace, what is queued behind it",
	long: `
Shows a waiting event whole: why it waits, its place in its topic, its trace, its payload decoded by its schema, its
headers, and the queue of its key. Personal data are masked; --unmask shows them, and the service logs that. It shows
the first bytes, too, of what cannot be decoded; with --json all of them, in base64.`,
	examples: []string{"console waiting show email/17", "console waiting show email/17 --unmask", "console waiting show email/17 --json | jq .event"},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		unmask := set.Bool("unmask", false, "show personal data; the service logs it")
		return func(ctx context.Context, s *session, words []string) error {
			ids, err := parseIDs(words)
			if err != nil {
				return err
			}
			if len(ids) != 1 {
				return wrong("say which: one ID, such as email/17").then("console waiting ls")
			}
			return s.show(ctx, ids[0], *unmask)
		}
	},
}

func parseIDs(words []string) (ids []ID, err error) {
	for _, w := range words {
		id, err := ParseID(w)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// place in a key's queue.
type queued struct {
	ID    ID     `json:"id"`
	State string `json:"state"`
	Type  string `json:"type"`
}

func (s *session) show(ctx context.Context, id ID, unmask bool) error {
	w, err := s.Show(ctx, id, unmask)
	if err != nil {
		return err
	}
	waits, more, err := s.Queue(ctx, &w)
	if err != nil {
		return err
	}
	var queue []queued
	for _, q := range waits {
		queue = append(queue, queued{q.ID, q.State, q.Type})
	}
	if s.json {
		return s.answer(struct {
			Waiting
			Queue []queued `json:"queue"`
			More  bool     `json:"queue_has_more,omitempty"`
		}{w, list(queue), more}, nil)
	}
	s.say("%s is %s", id, describe(&w))
	s.facts(&w)
	s.payload(&w, unmask)
	s.headers(&w)
	s.queue(&w, queue, more)
	s.advise(&w, queue)
	return nil
}

func describe(w *Waiting) string {
	text := safe(w.State, 20)
	if w.Reason != "" {
		text += " (" + safe(w.Reason, 30) + ")"
	}
	text += ", waits for " + since(w.TakenAt) + ", attempts " + strconv.Itoa(w.Attempts)
	if w.Redrives > 0 {
		text += ", redriven " + counted(w.Redrives, "time")
	}
	return text
}

func (s *session) facts(w *Waiting) {
	s.say("")
	t := newTable(s.out)
	t.row("  error", s.text(w.Error, 1000))
	if w.Held != "" {
		t.row("  held", s.text(w.Held, 1000))
	}
	t.row("  type", safe(w.Type, 200))
	t.row("  key", safe(w.Key, 1100))
	t.row("  place", safe(w.place(), 200)+"  (topic/partition@offset)")
	t.row("  event", safe(w.EventID, 200))
	t.row("  trace", safe(w.TraceID, 64))
	t.row("  group", safe(w.Group, 200))
	t.row("  taken", moment(&w.TakenAt))
	t.row("  first failed", moment(w.FirstFailedAt))
	t.row("  last failed", moment(w.FailedAt))
	if w.Due != nil {
		t.row("  tried again", moment(w.Due))
	}
	t.end()
}

func (s *session) payload(w *Waiting, unmask bool) {
	if w.Undecoded != "" {
		s.say("\nthe value, %s, cannot be decoded: %s", counted(w.Size, "byte"), s.text(w.Undecoded, 500))
		s.dump(w, unmask)
		return
	}
	note := "personal data masked, --unmask shows them"
	if unmask {
		note = "with personal data"
	}
	var b bytes.Buffer
	if json.Indent(&b, w.Event, "  ", "  ") != nil {
		return
	}
	s.say("\nevent (%s)\n  %s", note, safeJSON(b.Bytes()))
}

// dumped is how much of a value that cannot be decoded is shown, in bytes.
const dumped = 256

func (s *session) dump(w *Waiting, unmask bool) {
	if !unmask {
		s.propose("its bytes", "console waiting show %s --unmask", w.ID)
		return
	}
	s.say("%s", strings.TrimRight(hex.Dump(w.Value[:min(len(w.Value), dumped)]), "\n"))
	if len(w.Value) > dumped {
		s.propose("…and "+counted(len(w.Value)-dumped, "byte")+" more", "console waiting show %s --unmask --json | jq -r .value | base64 -d", w.ID)
	}
}

func (s *session) headers(w *Waiting) {
	if len(w.Headers) == 0 {
		return
	}
	s.say("\nheaders")
	t := newTable(s.out)
	for _, name := range slices.Sorted(maps.Keys(w.Headers)) {
		t.row("  "+safe(name, 60), s.text(w.Headers[name], 300))
	}
	t.end()
}

func (s *session) queue(w *Waiting, queue []queued, more bool) {
	if len(queue) < 2 {
		return
	}
	s.say("\nqueue of its key, in order")
	t := newTable(s.out)
	for _, q := range queue {
		mark := "  "
		if q.ID == w.ID {
			mark = "> "
		}
		t.row(mark+q.ID.String(), safe(q.State, 20), safe(q.Type, 60))
	}
	t.end()
	if more {
		s.propose("  …and more", "console waiting ls --each --service %s --key %s", w.ID.Service, quoted(w.Key))
	}
}

// advise says what to type next.
func (s *session) advise(w *Waiting, queue []queued) {
	s.say("")
	switch w.State {
	case "behind":
		head := ""
		if len(queue) > 0 {
			head = queue[0].ID.String()
		}
		s.propose("it waits for another event of its key", "console waiting show %s", head)
	case "dead", "set aside":
		if strings.HasPrefix(w.Reason, "undecodable") {
			s.propose("no new attempt will read these bytes; remove it", "console drop %s --why '"+whyHere+"' --yes", w.ID)
			return
		}
		force := ""
		if w.NeedsForce {
			force = "--force "
		}
		s.propose("mend what the error names, then run it again", "console redrive %s %s--yes", w.ID, force)
		s.propose("or, if it can never work, remove it for good", "console drop %s --why '"+whyHere+"' --yes", w.ID)
	default:
		s.propose("it is tried again by itself; at once", "console redrive %s --yes", w.ID)
	}
}
