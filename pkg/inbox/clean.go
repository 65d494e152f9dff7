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

// progress is how far a partition has come: all below next has been taken, and all below
// logStart can no longer be read.
type progress struct{ logStart, next, cleaned int64 }

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

// clean removes the inbox rows of records that can no longer be read and have been taken,
// and raises the partition's mark in the same transaction: without the mark, a stopped
// consumer that wakes up with an old batch would do everything again.
func (in *Inbox) clean(ctx context.Context) (more bool, err error) {
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
			return false, fmt.Errorf("clean the inbox: %w", err)
		}
		in.mu.Lock()
		p = in.progress[s]
		p.cleaned = to
		in.progress[s] = p
		in.mu.Unlock()
	}
	return false, nil
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

// mark is the offset below which the partition's records are old.
func (in *Inbox) mark(ctx context.Context, tx *db.Tx, b *event.Batch) (int64, error) {
	var mark int64
	err := tx.QueryRow(ctx, `select coalesce(max(position), 0) from inbox_mark where group_name = $1 and topic_id = $2 and part = $3`,
		in.cfg.Group, topicRef(b.TopicID, b.Topic), b.Partition).Scan(&mark)
	if err != nil {
		return 0, fmt.Errorf("read the mark: %w", err)
	}
	return mark, nil
}

// Rewind lets records at offset to and beyond be taken as new ones, though records that stood
// there before have been cleaned up: for a partition whose log was cut and is written anew
// from there. A stopped consumer that wakes up with such an old record would do it again.
func (in *Inbox) Rewind(ctx context.Context, topic string, topicID [16]byte, partition int32, to int64) error {
	s := source{[16]byte(topicRef(topicID, topic)), partition}
	err := in.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, `update inbox_mark set position = $4 where group_name = $1 and topic_id = $2 and part = $3 and position > $4`,
			in.cfg.Group, s.topicID[:], s.part, to)
		return err
	})
	if err != nil {
		return fmt.Errorf("rewind the inbox's mark: %w", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.progress, s)
	return nil
}

// Reached is the offset behind the last record of a partition that is remembered as taken, 0 if
// there is none.
func (in *Inbox) Reached(ctx context.Context, topic string, topicID [16]byte, partition int32) (offset int64, err error) {
	err = in.db.QueryRow(ctx, `select coalesce(max(position) + 1, 0) from inbox where group_name = $1 and topic_id = $2 and part = $3`,
		in.cfg.Group, topicRef(topicID, topic), partition).Scan(&offset)
	if err != nil {
		return 0, fmt.Errorf("read how far the inbox has come: %w", err)
	}
	return offset, nil
}
