package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// Replayed says what [Inbox.Replay] made of a batch.
type Replayed struct {
	Matched map[string]int    // events by type
	Refused map[string]string // why those of a type cannot be replayed
	Queued  int               // events that run again
}

// Replay lets the events of a batch, which the group has had before, run again: they go to
// the ends of their keys' queues, in offset order, and run like any event that waits. Only
// types whose handlers are declared [Repeatable] are queued; all others are refused by name,
// since their effects would happen twice. What the group has not had yet is left to its
// delivery, which others of its key may have to come before. With dry it only tells what it
// would do; typ, if not empty, is the only type it looks at. After an error the first Queued
// of them are queued, and the same call again queues them twice.
func (in *Inbox) Replay(ctx context.Context, b event.Batch, typ string, dry bool) (Replayed, error) {
	r := Replayed{Matched: map[string]int{}, Refused: map[string]string{}}
	var items []*item
	for i := range b.Records {
		it := in.open(ctx, &b.Records[i])
		if errors.Is(it.err, codec.ErrUnavailable) || ctx.Err() != nil {
			return r, fmt.Errorf("replay: %w", errors.Join(it.err, ctx.Err()))
		}
		name := it.meta.Type
		if typ != "" && name != typ {
			continue
		}
		switch {
		case it.err != nil:
			name = "(unreadable)"
			r.Refused[name] = errorText(it.err)
		case it.handler == nil:
			r.Refused[name] = "group " + in.cfg.Group + " does not handle it"
		case !it.handler.repeatable:
			r.Refused[name] = "its handler is not declared Repeatable: its effect would happen twice"
		default:
			items = append(items, it)
		}
		r.Matched[name]++
	}
	if dry || len(items) == 0 {
		return r, nil
	}
	for chunk := range slices.Chunk(items, maxTake) {
		queued := 0
		err := in.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) (err error) {
			queued, err = in.requeueAll(ctx, tx, chunk)
			return err
		})
		if err != nil {
			return r, fmt.Errorf("replay: %w", err)
		}
		r.Queued += queued
	}
	return r, nil
}

// requeueAll takes its locks in everybody's order: inbox rows, then keys.
func (in *Inbox) requeueAll(ctx context.Context, tx *db.Tx, items []*item) (n int, err error) {
	had, err := in.had(ctx, tx, items)
	if err != nil || len(had) == 0 {
		return 0, err
	}
	t := &taking{Inbox: in, items: had}
	if err := t.claim(ctx, tx); err != nil {
		return 0, err
	}
	for _, it := range had {
		it.letter = letter{redrives: 1} // a trace of its own, linked to the old one
		t.park(queued{item: it, state: retrying})
	}
	return len(had), in.enqueue(ctx, tx, t.queue)
}

// had are the events that the group has had: they have a row, or lie below the mark.
func (in *Inbox) had(ctx context.Context, tx *db.Tx, items []*item) (had []*item, err error) {
	marks, err := in.marks(ctx, tx, items)
	if err != nil {
		return nil, err
	}
	ids := make([][]byte, len(items))
	for i, it := range items {
		ids[i] = it.identity[:]
	}
	cond, arg := tx.In("identity", 2, ids)
	rows, err := tx.Query(ctx, `select identity from inbox where group_name = $1 and `+cond, in.cfg.Group, arg)
	known, err := db.Collect(rows, err, func(r *sql.Rows, id *[]byte) error { return r.Scan(id) })
	if err != nil {
		return nil, fmt.Errorf("look events up: %w", err)
	}
	seen := map[event.Identity]bool{}
	for _, id := range known {
		seen[event.Identity(id)] = true
	}
	for _, it := range items {
		if seen[it.identity] || it.Offset < marks[it.Partition] {
			had = append(had, it)
		}
	}
	return had, nil
}

// marks are the offsets below which records are old, by partition.
func (in *Inbox) marks(ctx context.Context, tx *db.Tx, items []*item) (map[int32]int64, error) {
	type mark struct {
		part     int32
		position int64
	}
	rows, err := tx.Query(ctx, `select part, position from inbox_mark where group_name = $1 and topic_id = $2`, in.cfg.Group, topicRef(items[0].TopicID, items[0].Topic))
	found, err := db.Collect(rows, err, func(r *sql.Rows, m *mark) error { return r.Scan(&m.part, &m.position) })
	if err != nil {
		return nil, fmt.Errorf("read the marks: %w", err)
	}
	marks := map[int32]int64{}
	for _, m := range found {
		marks[m.part] = m.position
	}
	return marks, nil
}
