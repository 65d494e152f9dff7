package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

var replayCommand = &command{
	name: "replay", args: "SERVICE TOPIC --from TIME | SERVICE TOPIC/PARTITION@OFFSET...", short: "let a service handle events again that it has had, from a time or an offset",
	long: `
Puts events that are still in a topic into the queue of a service's group again, in order: they run as if they came now,
in this group only. Without --yes it shows what would run. Only events whose handlers are declared repeatable are taken:
others would have their effect twice, and are refused by type. It goes up to the end of the topic as it is when it
begins, or up to --until. Ctrl-C stops it once the step in hand is done; it then says how to go on.`,
	examples: []string{
		"console replay email orders --from 2h",
		"console replay email orders --from 2026-03-01T08:00:00Z --until 2026-03-01T09:00:00Z --type OrderPlaced --yes",
		"console replay email orders/3@1200 orders/4@0 --yes",
		"console replay email orders --from beginning --key 01a20b59-bec0-759e-974f-f2b16b81d2aa --yes",
	},
	setup: func(set *flag.FlagSet) func(context.Context, *session, []string) error {
		var r Replay
		from := set.String("from", "", "begin at the `time`: 2h (ago), 2026-03-01T08:00:00Z, beginning")
		until := set.String("until", "", "end before the `time`")
		yes := set.Bool("yes", false, "do it")
		set.StringVar(&r.Key, "key", "", "only events of the `key`")
		set.Var((*typeName)(&r.Type), "type", "only events of the `type`: shop.order.OrderPlaced, or OrderPlaced")
		return func(ctx context.Context, s *session, words []string) error {
			if err := r.read(words, *from, *until); err != nil {
				return err
			}
			r.DryRun = !*yes
			return s.replay(ctx, r, words)
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
		if topic, partition, ok := cutLast(words[1], "/"); ok && from == "" {
			return wrong("say where in %s to begin: %s@1200, or --from 2h for all of %s", safe(words[1], 60), safe(words[1], 60), safe(topic, 60)).
				then("console replay %s %s@0", quoted(r.Service), quoted(topic+"/"+partition))
		}
		m, err := ParseMoment(from)
		if err != nil || m.End || from == "" || len(words) > 2 {
			return wrong("say where to begin: --from 2h, --from beginning, or a place such as %s/0@1200", safe(words[1], 60))
		}
		r.Since = m.Time
		if m.Time.IsZero() {
			r.Since = epoch
		}
		if !r.Until.IsZero() && !r.Until.After(r.Since) {
			return wrong("nothing lies between --from %s and --until %s", safe(from, 40), safe(until, 40))
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

func (s *session) replay(ctx context.Context, r Replay, words []string) error {
	r.Progress = func(so Replayed) {
		if !so.Done {
			s.warn("%d records read, %d events queued", so.Scanned, so.Queued)
		}
	}
	done, err := s.Replay(ctx, r)
	switch matched := sum(done.Matched); {
	case err != nil && !r.DryRun && (done.Scanned > 0 || ctx.Err() != nil):
		on := s.again(words)
		if done.Scanned > 0 {
			on = s.again(append([]string{r.Service}, places(done)...), "from", "", "until", r.until())
		}
		err = fail("stopped after %s: %s", counted(done.Queued, "event"), whyStopped(ctx, err)).then("%s", on)
	case err == nil && matched == 0:
		err = unknownType(none("no event there that matches; %s read", counted(done.Scanned, "record")), r.Type).then("console tail %s --from beginning", quoted(r.Topic))
	}
	for _, g := range done.Unreadable {
		err = errors.Join(err, leftOut(r.Topic, g.Partition, g.From, g.To, g.Error))
	}
	queued := 0
	for typ, n := range done.Matched {
		if _, no := done.Refused[typ]; !no {
			queued += n
		}
	}
	switch {
	case !done.Done || len(done.Matched) == 0:
	case queued == 0:
		err = errors.Join(err, fail("nothing of this can be replayed"))
	case !r.DryRun && done.Queued == 0:
		err = errors.Join(err, fail("nothing is queued: %s has not had these yet, and gets them by itself", r.Service).then("console lag %s", quoted(r.Service)))
	}
	if s.json {
		return s.answer(done, err)
	}
	s.replayed(done)
	switch {
	case !done.Done || queued == 0:
	case r.DryRun:
		s.propose(fmt.Sprintf("\nnothing is done yet; let %s handle %s again", r.Service, counted(queued, "event")), "%s", s.again(words, "yes", "true"))
	default:
		s.say("\nqueued: %d", done.Queued)
		s.propose("how it goes", "console waiting ls --service %s", r.Service)
	}
	return err
}

// leftOut says which records could not be read, and where reading went on. Whether a service
// stands there is another question.
func leftOut(topic string, partition int32, from, to int64, why string) *Failure {
	return fail("%s/%d cannot be read from %d to %d, and is read on from %s: %s", safe(topic, 100), partition, from, to-1,
		safe(position(topic, partition, to), 100), safe(why, 300)).then("console lag --behind")
}

// until is where a replay ends, as another one is told: "1h" is later by then.
func (r *Replay) until() string {
	if r.Until.IsZero() {
		return ""
	}
	return r.Until.UTC().Format(time.RFC3339Nano)
}

func sum(counts map[string]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

// replayed prints what a replay did, or would do, by type.
func (s *session) replayed(done Replayed) {
	if len(done.Matched) == 0 {
		return
	}
	t := newTable(s.out, "TYPE", "EVENTS", "REPLAY")
	for _, typ := range slices.Sorted(maps.Keys(done.Matched)) {
		what := "yes"
		if why, no := done.Refused[typ]; no {
			what = "no: " + s.text(why, 200)
		}
		t.row(safe(typ, 100), strconv.Itoa(done.Matched[typ]), what)
	}
	t.end()
}

// places are where a replay goes on, as they are typed.
func places(done Replayed) (words []string) {
	for _, id := range slices.Sorted(maps.Keys(done.Next)) {
		words = append(words, done.Topic+"/"+id+"@"+strconv.FormatInt(done.Next[id], 10))
	}
	return words
}
