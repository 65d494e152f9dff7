package console

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

var lagCommand = &command{
	name: "lag", args: "[GROUP...]", short: "how far each group is behind, in records and time, per partition",
	long: `
Shows for each partition how many records the group has still to read, and how old the first of them is by its
timestamp. What waits in a service's queues has been read: see waiting ls. A service's name stands for its
group; without names all services' groups are shown. LOST are records that were removed before they were read, STOPPED
is why a partition is not read any further; with --behind the exit code is 1 then.`,
	examples: []string{"console lag", "console lag email", "console lag --behind", "console lag --json | jq '[.items[].records] | add'"},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		behind := set.Bool("behind", false, "only partitions that lag or are stopped")
		return func(ctx context.Context, s *session, words []string) error {
			all, err := s.Lags(ctx, words...)
			switch {
			case err == nil && len(all) == 0 && len(words) > 0:
				err = none("no such group has read anything: %s", safe(strings.Join(words, ", "), 200)).then("console lag")
			case err == nil && len(all) == 0:
				err = none("no group has read anything yet")
			case *behind:
				all = slices.DeleteFunc(all, func(l Lag) bool { return l.Records == 0 && l.Lost == 0 && l.Stopped == "" })
				if err == nil && len(all) == 0 {
					s.say("no group is behind")
				}
				err = errors.Join(err, whatStopped(all))
			}
			if s.json {
				return s.answer(map[string]any{"items": list(all)}, err)
			}
			s.printLags(all)
			return err
		}
	},
}

// whatStopped is an error if some partition is stopped.
func whatStopped(all []Lag) error {
	n := 0
	for _, l := range all {
		if l.Stopped != "" {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return fail("1 partition is stopped").then("console skip")
	}
	return fail("%d partitions are stopped", n).then("console skip")
}

func (s *session) printLags(all []Lag) {
	if len(all) == 0 {
		return
	}
	t := newTable(s.out, "GROUP", "TOPIC", "PARTITION", "RECORDS", "BEHIND", "COMMITTED", "END", "LOST", "STOPPED", "ERROR")
	stopped := false
	for _, l := range all {
		behind, lost, committed := "", "", strconv.FormatInt(l.Committed, 10)
		switch {
		case l.Seconds == nil:
			behind = "?"
		case l.Records > 0:
			behind = age(time.Duration(*l.Seconds * float64(time.Second)))
		}
		if l.Lost > 0 {
			lost = strconv.FormatInt(l.Lost, 10)
		}
		if l.Committed < 0 {
			committed = ""
		}
		stopped = stopped || l.Stopped != ""
		t.row(safe(l.Group, 60), safe(l.Topic, 60), strconv.Itoa(int(l.Partition)), strconv.FormatInt(l.Records, 10), behind, committed,
			strconv.FormatInt(l.LogEnd, 10), lost, safe(l.Stopped, 40), s.text(l.Error, 60))
	}
	t.end()
	if stopped {
		s.propose("\nstopped partitions, and how to go on", "console skip")
	}
}

var outboxCommand = &command{
	name: "outbox", args: "[SERVICE]", short: "what each service has not published yet",
	long: `
Shows how many events of each service are not published yet and how old the oldest is; that is near zero unless the
brokers are away or refuse something. HELD are keys, or whole topics, whose next event the brokers have refused, with
the reason below: it is tried again by itself, and what comes behind it waits.`,
	examples: []string{"console outbox", "console outbox order --json"},
	setup: func(*flag.FlagSet) func(context.Context, *session, []string) error {
		return func(ctx context.Context, s *session, words []string) error {
			if len(words) > 1 {
				return wrong("one service, or none for all")
			}
			all, err := s.Outboxes(ctx, strings.Join(words, ""))
			err = errors.Join(err, topicsRefused(all))
			if s.json {
				return s.answer(map[string]any{"items": list(all)}, err)
			}
			if len(all) == 0 {
				return err
			}
			t := newTable(s.out, "SERVICE", "PENDING", "OLDEST", "HELD")
			for _, o := range all {
				oldest := ""
				if o.Pending > 0 {
					oldest = age(o.age())
				}
				t.row(o.Service, strconv.FormatInt(o.Pending, 10), oldest, heldWords(o.Held))
			}
			t.end()
			for _, o := range all {
				s.tellHeld(o)
			}
			return err
		}
	},
}

// topicsRefused is an error if the brokers take nothing at all for a topic, which they do not
// have.
func topicsRefused(all []Outbox) error {
	for _, o := range all {
		for _, h := range o.Held {
			if h.Key == "" && strings.Contains(h.Error, "UNKNOWN_TOPIC") {
				return fail("nothing is published to %s, which the brokers do not have", safe(h.Topic, 100)).then("console provision")
			}
		}
	}
	return nil
}

// heldShown is how many of the keys are named on the line.
const heldShown = 5

// tellHeld says why a service's events are held back, each reason once.
func (s *session) tellHeld(o Outbox) {
	told := map[string]bool{}
	for _, h := range o.Held {
		if told[h.Error] {
			continue
		}
		told[h.Error] = true
		s.warn("%s cannot publish to %s, since %s: %s", o.Service, safe(h.Topic, 60), age(time.Since(h.Since)), s.text(h.Error, 300))
	}
}

func heldWords(held []Held) string {
	var words []string
	for _, h := range held[:min(len(held), heldShown)] {
		if h.Key == "" {
			words = append(words, "all of "+safe(h.Topic, 60))
			continue
		}
		words = append(words, safe(h.Topic, 60)+" "+safe(h.Key, 60))
	}
	if len(held) > heldShown {
		words = append(words, fmt.Sprintf("and %d more (--json has all)", len(held)-heldShown))
	}
	return strings.Join(words, ", ")
}

var tailCommand = &command{
	name: "tail", args: "[TOPIC...]", short: "records of the topics, decoded",
	long: `
Shows records of all event topics, or of those named, dead letters' too (orders.email.dlt), each with its place, type,
key and decoded payload. Without --follow it ends at the topics' end, and records come in the order of their timestamps;
with it new ones are shown as they come, and --wait waits for what is not there yet. Personal data are masked unless --unmask. With --json: a line of JSON for each.
Where nothing is found the exit code is 3.`,
	examples: []string{
		"console tail --follow",
		"console tail --key 01a20b59-bec0-759e-974f-f2b16b81d2aa --from beginning",
		"console tail orders --type OrderCancelled --from 24h --limit 10",
		"console tail orders.email.dlt --from beginning --json | jq '.headers.\"dlt-error\"'",
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var t Tail
		from := set.String("from", "", "begin at the `time`: 10m (ago), 2026-03-01T08:00:00Z, beginning or end; 1h, with --follow end, unless told otherwise")
		limit := set.Int("limit", 0, "end after `n` records")
		set.BoolVar(&t.Follow, "follow", false, "go on with new records")
		set.StringVar(&t.Key, "key", "", "only records of the `key`")
		set.Var((*typeName)(&t.Type), "type", "only events of the `type`: shop.order.OrderPlaced, or OrderPlaced")
		set.BoolVar(&t.Unmask, "unmask", false, "show personal data")
		set.DurationVar(&t.Wait, "wait", 0, "wait for brokers and topics so `long`, such as 60s")
		return func(ctx context.Context, s *session, words []string) (err error) {
			t.Topics, t.NotYet = words, s.notYet
			if t.Wait < 0 {
				return wrong("--wait must be 0 or more")
			}
			if s.isSet("limit") && *limit < 1 {
				return wrong("--limit must be 1 or more")
			}
			if *from == "" {
				*from = "1h"
				if t.Follow {
					*from = "end"
				}
			}
			if t.From, err = ParseMoment(*from); err != nil {
				return err
			}
			return s.tail(ctx, t, *from, *limit)
		}
	},
}

func (s *session) tail(ctx context.Context, t Tail, from string, limit int) error {
	shown, undecoded := 0, 0
	var lacks error // of the first that is undecoded
	var errs []error
	if t.Follow && t.Type != "" && !slices.Contains(types(), t.Type) {
		s.warn("%s", unknownType(none("no event of that type is known"), t.Type).Text)
	}
	tell := func(err error) { // a tail that follows may go on for long
		if !t.Follow {
			errs = append(errs, err)
			return
		}
		for _, one := range flatten(err) {
			errs = append(errs, &Failure{code: s.tell(ctx, one)})
		}
	}
	t.Away = func(err error) {
		if err != nil {
			s.warn("%v", err)
			return
		}
		s.warn("a broker answers again")
	}
	for r, err := range s.Tail(ctx, t) {
		switch {
		case err != nil && ctx.Err() != nil:
			continue
		case err != nil:
			tell(err)
			continue
		}
		if s.json {
			err = writeJSON(s.out, r, false)
		} else {
			_, err = fmt.Fprintln(s.out, line(&r))
		}
		if err != nil {
			return err
		}
		if r.lacks != nil {
			if undecoded++; undecoded == 1 {
				lacks = r.lacks
				if t.Follow {
					tell(s.registryAway(1, lacks))
				}
			}
		}
		if shown++; shown == limit {
			break
		}
	}
	if undecoded > 0 && !t.Follow { // else it is told
		tell(s.registryAway(undecoded, lacks))
	}
	switch {
	case len(errs) > 0:
		return errors.Join(errs...)
	case ctx.Err() != nil && !t.Follow:
		return ctx.Err()
	case shown == 0 && !t.Follow && from == "beginning":
		return unknownType(none("no record that matches"), t.Type).then("console tail --from beginning --limit 10")
	case shown == 0 && !t.Follow:
		return unknownType(none("no record since %s that matches", safe(from, 40)), t.Type).then("%s", s.again(t.Topics, "from", "beginning"))
	}
	return nil
}

// registryAway says of records that were shown why they are not decoded.
func (s *session) registryAway(n int, err error) *Failure {
	return fail("%s not decoded, since the registry (from %s) does not answer: %s", were(n, "record"), s.place.from["SCHEMA_REGISTRY_URL"], safe(err.Error(), 300)).
		then("%s", s.place.mend("the registry", "SCHEMA_REGISTRY_URL"))
}

// line is a record on one line.
func line(r *Record) string {
	text := r.Time.UTC().Format("2006-01-02T15:04:05.000Z") + "  " + safe(position(r.Topic, r.Partition, r.Offset), 100) + "  "
	text += safe(cmp.Or(r.Type, "(unreadable)"), 100) + "  " + safe(r.Key, 100) + "  "
	if r.TraceID != "" {
		text += "trace " + r.TraceID + "  "
	}
	if r.Undecoded != "" {
		return text + safe(r.Undecoded, 300)
	}
	return text + string(safeJSON(r.Event))
}

var epoch = time.Unix(0, 0).UTC()

// ParseMoment reads a time as it is typed: how long ago (90s, 2h, 3d), a time of RFC 3339, or
// beginning or end.
func ParseMoment(text string) (Moment, error) {
	switch text {
	case "beginning":
		return Moment{}, nil
	case "end":
		return Moment{End: true}, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return Moment{Time: time.Now().AddDate(0, 0, -n)}, nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return Moment{Time: time.Now().Add(-d)}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return Moment{Time: t}, nil
		}
	}
	return Moment{}, wrong("%q is no time: say how long ago (10m, 2h, 3d), a time in UTC (2026-03-01T08:00:00Z), beginning or end", safe(text, 60))
}
