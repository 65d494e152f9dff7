package inbox

import (
	"cmp"
	"context"
	"database/sql"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.com/keyline/pkg/db"
)

// Group is what waits for one cause, as the operator sees it.
type Group struct {
	Group   string    `json:"group"`
	Topic   string    `json:"topic"`
	State   string    `json:"state"`
	Type    string    `json:"type"`
	Reason  string    `json:"reason,omitempty"`
	Error   string    `json:"error,omitempty"` // long numbers and IDs in it as …
	Held    string    `json:"held,omitempty"`  // why events of the type that they wait for are not tried now
	Count   int64     `json:"count"`
	Oldest  time.Time `json:"oldest"`  // when the first of them was taken
	Example int64     `json:"example"` // the ID of one of them
}

const (
	maxGroups = 200  // in an answer; what is left over is one more
	maxTexts  = 5000 // errors that are told apart while gathering
)

// changing is what differs between the errors of one cause: UUIDs, IDs in hexadecimal, long
// numbers. Short numbers, such as a mail server's answer, tell causes apart.
var changing = regexp.MustCompile(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\b[0-9a-fA-F]{8,}\b|[0-9]{5,}`)

// causeOf is an error without what differs.
func causeOf(text string) string {
	return changing.ReplaceAllStringFunc(text, func(part string) string {
		if !strings.ContainsAny(part, "0123456789") {
			return part // a word
		}
		return "…"
	})
}

// serveSummary tells what waits by its cause, the most first.
func (in *Inbox) serveSummary(w http.ResponseWriter, r *http.Request) {
	groups, err := in.summary(r.Context(), queryFilter(r.URL.Query()))
	if err != nil {
		in.problem(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"items": groups})
}

func (in *Inbox) summary(ctx context.Context, f filter) ([]Group, error) {
	where, args, err := in.conditions(f)
	if err != nil {
		return nil, err
	}
	held, err := in.held(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := in.db.Query(ctx, `select e.topic, `+stateOf+`, coalesce(k.state, ''), coalesce(k.type, ''), e.type, e.reason, substr(e.error, 1, 200), count(*), min(e.taken_at), min(e.seq)
		from waiting_event e left join waiting_key k on k.group_name = e.group_name and k.topic = e.topic and k.key = e.key
		where `+where+` group by 1, 2, 3, 4, 5, 6, 7`, args...)
	merged := map[Group]*Group{}
	_, err = db.Collect(rows, err, func(r *sql.Rows, _ *struct{}) error {
		var one Group
		var at place
		var oldest int64
		if err := r.Scan(&one.Topic, &at.state, &at.keyState, &at.keyType, &one.Type, &one.Reason, &one.Error, &one.Count, &oldest, &one.Example); err != nil {
			return err
		}
		one.Group, one.State, one.Held, one.Oldest = in.cfg.Group, at.state, held[at.waitsFor(one.Type)], db.Time(oldest)
		merge(merged, one)
		return nil
	})
	if err != nil {
		return nil, err
	}
	groups := []Group{}
	for _, g := range merged {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b Group) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Example, b.Example)) })
	return bounded(groups), nil
}

// merge adds what waits to those that wait for the same cause.
func merge(merged map[Group]*Group, one Group) {
	cause := Group{Group: one.Group, Topic: one.Topic, State: one.State, Type: one.Type, Reason: one.Reason, Error: causeOf(one.Error), Held: one.Held}
	if merged[cause] == nil && len(merged) >= maxTexts {
		cause.Error = "(other errors)"
	}
	all := merged[cause]
	if all == nil {
		all = new(cause)
		all.Oldest, all.Example = one.Oldest, one.Example
		merged[cause] = all
	}
	all.Count += one.Count
	if one.Oldest.Before(all.Oldest) {
		all.Oldest = one.Oldest
	}
	all.Example = min(all.Example, one.Example)
}

// bounded keeps the largest groups, and makes one of all others.
func bounded(groups []Group) []Group {
	if len(groups) <= maxGroups {
		return groups
	}
	rest := Group{Group: groups[0].Group, Error: "(all others)", Oldest: groups[maxGroups].Oldest, Example: groups[maxGroups].Example}
	for _, g := range groups[maxGroups:] {
		rest.Count += g.Count
		if g.Oldest.Before(rest.Oldest) {
			rest.Oldest = g.Oldest
		}
		rest.Example = min(rest.Example, g.Example)
	}
	return append(groups[:maxGroups:maxGroups], rest)
}
