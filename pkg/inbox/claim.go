package inbox

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// claim inserts the events' inbox rows. A row that was there already is a duplicate. Two
// owners of one partition meet here: the second waits for the first one's commit. The rows
// are inserted in the order of their identities, which is everybody's order of locks.
func (t *taking) claim(ctx context.Context, tx *db.Tx) error {
	sorted := slices.Clone(t.items)
	slices.SortStableFunc(sorted, func(a, b *item) int { return strings.Compare(string(a.identity[:]), string(b.identity[:])) })
	// The first sight of twins in one batch wins; the rows remember the last.
	first := slices.CompactFunc(slices.Clone(sorted), func(a, b *item) bool { return a.identity == b.identity })
	known, err := t.insert(ctx, tx, first, "on conflict do nothing returning identity")
	if err != nil {
		return err
	}
	marks, err := t.marks(ctx, tx, t.items)
	if err != nil {
		return err
	}
	var seen []*item // again, at positions that may be higher
	for _, it := range t.items {
		if known[it.identity] && it.Offset >= marks[it.Partition] {
			known[it.identity] = false
			t.fresh = append(t.fresh, it)
		} else {
			seen = append(seen, it)
		}
	}
	return t.raise(ctx, tx, seen)
}

// raise remembers the highest position at which an event was seen: its row must stay for as
// long as any of its records can be read.
func (t *taking) raise(ctx context.Context, tx *db.Tx, seen []*item) error {
	if len(seen) == 0 {
		return nil
	}
	t.metrics.duplicates.Add(ctx, int64(len(seen)))
	highest := map[event.Identity]*item{}
	for _, it := range seen {
		highest[it.identity] = it // in offset order
	}
	var sorted []*item
	for _, it := range highest {
		sorted = append(sorted, it)
	}
	slices.SortFunc(sorted, func(a, b *item) int { return strings.Compare(string(a.identity[:]), string(b.identity[:])) })
	_, err := t.insert(ctx, tx, sorted, `on conflict (group_name, identity) do update
		set topic_id = excluded.topic_id, part = excluded.part, position = excluded.position
		where inbox.topic_id <> excluded.topic_id or inbox.part <> excluded.part or inbox.position < excluded.position returning identity`)
	return err
}

func (t *taking) insert(ctx context.Context, tx *db.Tx, items []*item, tail string) (map[event.Identity]bool, error) {
	n := len(items)
	ref := topicRef(items[0].TopicID, items[0].Topic)
	group, identity, topicID := make([]string, n), make([][]byte, n), make([][]byte, n)
	part, position := make([]int64, n), make([]int64, n)
	for i, it := range items {
		group[i], identity[i], topicID[i] = t.cfg.Group, it.identity[:], ref
		part[i], position[i] = int64(it.Partition), it.Offset
	}
	set := make(map[event.Identity]bool, n)
	note := func(r *sql.Rows) error {
		var id []byte
		if err := r.Scan(&id); err != nil {
			return err
		}
		set[event.Identity(id)] = true
		return nil
	}
	err := tx.InsertReturning(ctx, "inbox", tail, note,
		db.Column{Name: "group_name", Values: group}, db.Column{Name: "identity", Values: identity}, db.Column{Name: "topic_id", Values: topicID},
		db.Column{Name: "part", Values: part}, db.Column{Name: "position", Values: position})
	if err != nil {
		return nil, fmt.Errorf("claim events: %w", err)
	}
	return set, nil
}

// lookUp finds which keys of the fresh events wait, and locks those: a worker cannot finish
// a key while a poll appends to it, nor the other way round. It must come after the inbox
// rows, and must not be remembered beyond the transaction.
func (t *taking) lookUp(ctx context.Context, tx *db.Tx) error {
	t.found = map[string]bool{}
	t.waiting = map[string]bool{}
	if len(t.fresh) == 0 {
		return nil
	}
	keys := make([][]byte, 0, len(t.fresh))
	for _, it := range t.fresh {
		keys = append(keys, it.keyBytes())
	}
	cond, arg := tx.In("key", 3, keys)
	rows, err := tx.Query(ctx, `select key from waiting_key where group_name = $1 and topic = $2 and `+cond+` order by key`+tx.ForUpdate(), t.cfg.Group, t.items[0].Topic, arg)
	found, err := db.Collect(rows, err, func(r *sql.Rows, k *[]byte) error { return r.Scan(k) })
	if err != nil {
		return fmt.Errorf("look up waiting keys: %w", err)
	}
	for _, k := range found {
		t.found[string(k)] = true
	}
	t.waiting = maps.Clone(t.found)
	return nil
}
