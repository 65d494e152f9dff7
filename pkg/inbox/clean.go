package inbox

import (
	"context"
	"fmt"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// source is a partition of a topic as the inbox knows it.
type source struct {
	topicID [16]byte
	part    int32
}

// progress is how far a partition has come: all below next has been taken, which the database
// knows up to kept, and all below logStart can no longer be read.
type progress struct{ logStart, next, cleaned, kept int64 }

// cleanChunk bounds how many offsets one clean-up transaction covers.
const cleanChunk = 10_000

// note remembers a partition's progress for the clean-up.
func (in *Inbox) note(b *event.Batch) {
	if len(b.Records) == 0 {
		return
	}
	s := source{[16]byte(topicRef(b.TopicID, b.Topic)), b.Partition}
	in.mu.Lock()
	defer in.mu.Unlock()
	p := in.progress[s]
	p.logStart, p.next = b.LogStart, b.Records[len(b.Records)-1].Offset+1
	in.progress[s] = p
}

// beginCleaning waits until nobody else cleans up.
func (in *Inbox) beginCleaning(ctx context.Context) error {
	select {
	case in.cleaning <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (in *Inbox) endCleaning() { <-in.cleaning }

// clean removes the inbox rows of records that can no longer be read and have been taken,
// and raises the partition's mark in the same transaction: without the mark, a stopped
// consumer that wakes up with an old batch would do everything again.
func (in *Inbox) clean(ctx context.Context) error {
	if err := in.beginCleaning(ctx); err != nil {
		return err
	}
	defer in.endCleaning()
	if err := in.keepTaken(ctx); err != nil {
		return err
	}
	in.mu.Lock()
	todo := map[source]progress{}
	for s, p := range in.progress {
		if min(p.logStart, p.next) > p.cleaned {
			todo[s] = p
		}
	}
	in.mu.Unlock()
	for s, p := range todo {
		to := min(p.logStart, p.next)
		if err := in.cleanTo(ctx, s, to); err != nil {
			return fmt.Errorf("clean the inbox: %w", err)
		}
		in.mu.Lock()
		p = in.progress[s]
		p.cleaned = to
		in.progress[s] = p
		in.mu.Unlock()
	}
	return nil
}

func (in *Inbox) cleanTo(ctx context.Context, s source, to int64) error {
	for {
		var lowest *int64
		err := in.db.QueryRow(ctx, `select min(position) from inbox where group_name = $1 and topic_id = $2 and part = $3 and position < $4`,
			in.cfg.Group, s.topicID[:], s.part, to).Scan(&lowest)
		if err != nil {
			return err
		}
		mark := to
		if lowest != nil {
			mark = min(to, *lowest+cleanChunk)
		}
		err = in.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error { return in.raiseMark(ctx, tx, s, mark) })
		if err != nil || mark == to {
			return err
		}
	}
}

func (in *Inbox) raiseMark(ctx context.Context, tx *db.Tx, s source, mark int64) error {
	_, err := tx.Exec(ctx, `delete from inbox where group_name = $1 and topic_id = $2 and part = $3 and position < $4`, in.cfg.Group, s.topicID[:], s.part, mark)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `insert into inbox_mark (group_name, topic_id, part, position) values ($1, $2, $3, $4)
		on conflict (group_name, topic_id, part) do update set position = excluded.position where inbox_mark.position < excluded.position`,
		in.cfg.Group, s.topicID[:], s.part, mark)
	return err
}

// keepTaken writes down how far the partitions have come. The caller has begun cleaning.
func (in *Inbox) keepTaken(ctx context.Context) error {
	in.mu.Lock()
	todo := map[source]int64{}
	for s, p := range in.progress {
		if p.next > p.kept {
			todo[s] = p.next
		}
	}
	in.mu.Unlock()
	for s, next := range todo {
		_, err := in.db.Exec(ctx, `insert into inbox_mark (group_name, topic_id, part, position, taken) values ($1, $2, $3, 0, $4)
			on conflict (group_name, topic_id, part) do update set taken = excluded.taken where inbox_mark.taken < excluded.taken`,
			in.cfg.Group, s.topicID[:], s.part, next)
		if err != nil {
			return fmt.Errorf("keep how far the inbox has come: %w", err)
		}
		in.mu.Lock()
		p := in.progress[s]
		p.kept = next
		in.progress[s] = p
		in.mu.Unlock()
	}
	return nil
}

// Rewind lets records at offset to and beyond be taken as new ones, though records that stood
// there before have been cleaned up: for a partition whose log was cut and is written anew
// from there. A stopped consumer that wakes up with such an old record would do it again.
func (in *Inbox) Rewind(ctx context.Context, topic string, topicID [16]byte, partition int32, to int64) error {
	if err := in.beginCleaning(ctx); err != nil { // what is being cleaned would raise the mark again
		return fmt.Errorf("wait for the inbox's clean-up: %w", err)
	}
	defer in.endCleaning()
	s := source{[16]byte(topicRef(topicID, topic)), partition}
	in.mu.Lock()
	delete(in.progress, s)
	in.mu.Unlock()
	_, err := in.db.Exec(ctx, `update inbox_mark set position = case when position > $4 then $4 else position end, taken = case when taken > $4 then $4 else taken end
		where group_name = $1 and topic_id = $2 and part = $3`, in.cfg.Group, s.topicID[:], s.part, to)
	if err != nil {
		return fmt.Errorf("rewind the inbox's mark: %w", err)
	}
	return nil
}

// Reached is the offset below which all records of a partition have been taken, 0 if none is
// remembered. It may be too low by what nobody here handles of the last minute.
func (in *Inbox) Reached(ctx context.Context, topic string, topicID [16]byte, partition int32) (offset int64, err error) {
	ref := topicRef(topicID, topic)
	var handled, taken int64
	err = in.db.QueryRow(ctx, `select coalesce((select max(position) + 1 from inbox where group_name = $1 and topic_id = $2 and part = $3), 0),
		coalesce((select case when taken > position then taken else position end from inbox_mark where group_name = $1 and topic_id = $2 and part = $3), 0)`,
		in.cfg.Group, ref, partition).Scan(&handled, &taken)
	if err != nil {
		return 0, fmt.Errorf("read how far the inbox has come: %w", err)
	}
	return max(handled, taken), nil
}
