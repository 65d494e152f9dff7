package inbox

import (
	"context"
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
	Queued  int
}

// Replay lets the events of a batch, which the group has had before, run again: they go to
// the ends of their keys' queues, in offset order, and run like any event that waits. Only
// types whose handlers are declared [Repeatable] are queued; all others are refused by name,
// since their effects would happen twice. With dry it only tells what it would do; typ, if not empty, is the only type it looks at. One that
// the group has not had yet is taken for good: its delivery will be a duplicate. After an
// error the first Queued of them are queued, up to 500 at a time.
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
		err := in.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error { return in.requeueAll(ctx, tx, &b, chunk) })
		if err != nil {
			return r, fmt.Errorf("replay: %w", err)
		}
		r.Queued += len(chunk)
	}
	return r, nil
}

// requeueAll takes its locks in everybody's order: inbox rows, then keys.
func (in *Inbox) requeueAll(ctx context.Context, tx *db.Tx, b *event.Batch, items []*item) error {
	t := &taking{Inbox: in, items: items}
	if err := t.claim(ctx, tx, b); err != nil {
		return err
	}
	t.fresh = items // those that were known before are what this is about
	if err := t.lookUp(ctx, tx, b.Topic); err != nil {
		return err
	}
	for _, it := range items {
		it.letter = letter{redrives: 1} // a trace of its own, linked to the old one
		t.park(queued{item: it, state: retrying})
	}
	return in.enqueue(ctx, tx, t.queue)
}
