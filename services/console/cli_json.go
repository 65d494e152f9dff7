package console

import (
	"cmp"
	"encoding/json"
	"errors"
	"math"
)

// shapes is what --json prints: console help json.
const shapes = `With --json a command prints one object, tail one line for each record. Fields that are empty may be left out. What
could not be asked is in "errors": [{"text", "next"}], beside what is known; the exit code is the same as without. Where
there is no answer at all, as for a wrong use or an ID that is not there, the object is {"error", "next"}: what is wrong,
and what to type or to do next.

  waiting ls           {"items": [{"service", "group", "topic", "state", "type", "reason", "error", "held", "count", "oldest", "example"}]}
  waiting ls --each    {"items": [EVENT], "more": ["service", …]}
  waiting show         EVENT with "headers", "event" or "undecoded", "value_bytes", "value" (base64, with --unmask), "queue": [{"id", "state", "type"}], "queue_has_more"
  redrive              {"dry_run", "matched", "redriven", "refused": [REFUSAL], "items": [EVENT], "next"}; next is for --after
  drop                 {"dry_run", "matched", "dropped", "refused": [REFUSAL], "items": [EVENT]}
  lag                  {"items": [{"service", "group", "topic", "partition", "committed", "log_start", "log_end", "records", "seconds", "lost", "stopped", "error"}]};
                       seconds is null where it is not known, and "error" says why
  outbox               {"items": [{"service", "pending", "oldest_age_seconds", "held": [{"topic", "key", "error", "since"}]}]}
  skip                 {"dry_run", "items": [{"service", "group", "topic", "partition", "position", "committed", "log_start", "log_end", "stopped", "error", "skip_to"}]}
  replay               {"dry_run", "service", "topic", "scanned", "matched": {"type": n}, "refused": {"type": "why"}, "queued", "next": {"partition": offset}, "done",
                       "unreadable": [{"partition", "from", "to", "error"}]}; unreadable is left out, up to "to"
  provision            {"dry_run", "items": [{"kind", "name", "what", "have", "want", "action", "why"}]}
  acls                 {"items": [{"principal", "resource", "name", "operations": ["Read", …], "why"}]}
  tail                 {"topic", "partition", "offset", "time", "key", "type", "event_id", "trace_id", "source", "aggregate_version", "headers", "event" or "undecoded"}

EVENT is {"id", "group", "topic", "partition", "offset", "key", "type", "event_id", "trace_id", "state", "reason", "error", "held", "attempts",
"redrives", "needs_force", "taken_at", "first_failed_at", "failed_at", "due"}, and once it was redriven "was", its ID before, and "outcome":
done, failed or waits. REFUSAL is {"id", "why", "behind"}: behind is the event of its key that comes first. IDs are text
such as "email/17", times RFC 3339 in UTC. A key that is no UTF-8 is quoted, with its bytes as \xff.
`

// answer prints an answer as JSON, with the errors for which it is not whole, and keeps them.
func (s *session) answer(v any, err error) error {
	if lacks := s.failures(err); len(lacks) > 0 {
		text, failed := json.Marshal(v)
		whole := map[string]json.RawMessage{}
		errs, failed2 := json.Marshal(lacks)
		if failed = errors.Join(failed, failed2, json.Unmarshal(text, &whole)); failed != nil {
			return failed
		}
		whole["errors"] = errs
		v = whole
	}
	if failed := writeJSON(s.out, v, true); failed != nil {
		return failed
	}
	return err
}

// answerOnly prints an error where there is nothing else to print.
func (s *session) answerOnly(err error) error {
	var only struct {
		Error string `json:"error"`
		Next  string `json:"next,omitempty"`
	}
	for _, one := range flatten(err) {
		text, f := one.Error(), (*Failure)(nil)
		if errors.As(one, &f) {
			text, only.Next = f.Text, cmp.Or(only.Next, s.called(f.Next))
		}
		if only.Error != "" && text != "" {
			only.Error += "; "
		}
		only.Error += safe(text, math.MaxInt)
	}
	if only.Error == "" { // it is told already
		return nil
	}
	return writeJSON(s.out, only, s.command != tailCommand)
}

type failure struct {
	Text string `json:"text"`
	Next string `json:"next,omitempty"`
}

// failures are the errors as JSON tells them. That an answer is empty, or differs, is none.
func (s *session) failures(err error) (all []failure) {
	if err == nil {
		return nil
	}
	for _, one := range flatten(err) {
		var f *Failure
		switch {
		case !errors.As(one, &f):
			all = append(all, failure{Text: safe(one.Error(), math.MaxInt)})
		case f.of != "" || f.code != exitNone && f.code != exitDrift:
			all = append(all, failure{f.Text, s.called(f.Next)})
		}
	}
	return all
}
