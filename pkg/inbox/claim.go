package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// claim inserts the events' inbox rows. A row that was there already is a duplicate. Two
// owners of one partition meet here: the second waits for the first one's commit. The rows
// are inserted in the order of their identities, which is everybody's order of locks. What is read
// after that must be read after that, and not be remembered beyond the transaction.
func (t *taking) claim(ctx context.Context, tx *db.Tx) error {
	sorted := slices.Clone(t.items)
	slices.SortStableFunc(sorted, func(a, b *item) int { return bytes.Compare(a.identity[:], b.identity[:]) })
	// The first sight of twins in one batch wins; the rows remember the last.
	first := slices.CompactFunc(slices.Clone(sorted), func(a, b *item) bool { return a.identity == b.identity })
	known, err := t.insert(ctx, tx, first, "on conflict do nothing returning identity")
	if err != nil {
		return err
	}
	marks, waiting, err := t.lookUp(ctx, tx, t.items)
	if err != nil {
		return err
	}
	t.waiting = waiting
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
	slices.SortFunc(sorted, func(a, b *item) int { return bytes.Compare(a.identity[:], b.identity[:]) })
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
	note := func(r db.Scanner) error {
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

// lookUp reads, of items of one topic, the marks of their partitions, below which records are old;
// and which of their keys wait, and locks those: a worker cannot finish a key while a poll appends
// to it, nor the other way round. It must come after the inbox rows.
func (in *Inbox) lookUp(ctx context.Context, tx *db.Tx, items []*item) (marks map[int32]int64, waiting map[string]bool, err error) {
	var parts []int64
	keys := make([][]byte, len(items))
	for i, it := range items {
		keys[i] = it.keyBytes()
		if part := int64(it.Partition); !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	type row struct {
		mark           bool
		part, position int64
		key            []byte
	}
	cond, partArg := tx.In("part", 4, parts)
	locked, keyArg := tx.LockEach("waiting_key", "key", "group_name = $1 and topic = $3", "key", 5, keys)
	rows, err := tx.Query(ctx, `select true, part, position, null from inbox_mark where group_name = $1 and topic_id = $2 and `+cond+`
		union all select false, 0, 0, key from (`+locked+`) as locked`, in.cfg.Group, topicRef(items[0].TopicID, items[0].Topic), items[0].Topic, partArg, keyArg)
	found, err := db.Collect(rows, err, func(r *sql.Rows, f *row) error { return r.Scan(&f.mark, &f.part, &f.position, &f.key) })
	if err != nil {
		return nil, nil, fmt.Errorf("claim events, or look up marks and waiting keys: %w", err)
	}
	marks, waiting = map[int32]int64{}, map[string]bool{}
	for _, f := range found {
		if f.mark {
			marks[int32(f.part)] = f.position
		} else {
			waiting[string(f.key)] = true
		}
	}
	return marks, waiting, nil
}
