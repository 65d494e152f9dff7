package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// target is the waiting event that an operator acts on, its key's row locked.
type target struct {
	*item
	state state // of the event
}

func (in *Inbox) target(ctx context.Context, tx *db.Tx, id int64) (*target, error) {
	t := &target{item: &item{}}
	row := tx.QueryRow(ctx, `select `+eventColumns+` from waiting_event where seq = $1 and group_name = $2`, id, in.cfg.Group)
	switch err := scanItem(row, t.item); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, refusal{http.StatusNotFound, "no such waiting event; it may be done by now"}
	case err != nil:
		return nil, fmt.Errorf("read a waiting event: %w", err)
	}
	var key string
	err := tx.QueryRow(ctx, `select state from waiting_key where group_name = $1 and topic = $2 and key = $3`+tx.ForUpdate(),
		in.cfg.Group, t.Topic, t.keyBytes()).Scan(&key)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("lock a key: %w", err)
	}
	if t.letter.setAside {
		t.state = setAside
		return t, nil
	}
	var first sql.NullInt64
	err = tx.QueryRow(ctx, `select min(seq) from waiting_event where group_name = $1 and topic = $2 and key = $3 and not set_aside`,
		in.cfg.Group, t.Topic, t.keyBytes()).Scan(&first)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read a queue: %w", err)
	case first.Int64 > id || !first.Valid: // it was done before the lock was had
		return nil, refusal{http.StatusNotFound, "no such waiting event; it is done by now"}
	case first.Int64 < id:
		return nil, refusal{http.StatusConflict, fmt.Sprintf("event %d of the key comes first: only the head of a key can be redriven or dropped", first.Int64)}
	case state(key) == running:
		return nil, refusal{http.StatusConflict, "it is running now; wait for its outcome"}
	}
	t.state = state(key)
	return t, nil
}

// name is what the log keeps of an event that an operator acted on.
func (t *target) name() []any {
	meta := event.ReadMeta(t.Record, t.meta.Type)
	return []any{
		"id", t.seq, "topic", t.Topic, "partition", t.Partition, "offset", t.Offset, "key", short(meta.Subject), "event_id", meta.ID, "type", meta.Type,
		"state", t.state, "reason", t.reason, "attempts", t.attempts, "redrives", t.redrives, "error", t.lastError,
	}
}

// redrive gives an event its attempts back and lets it run now, in its place; one that was
// set aside goes to the end of its key's queue, since the key has gone on without it: there
// it has the number now. It reaches this group only, with its ID, and a count that stops
// loops.
func (in *Inbox) redrive(ctx context.Context, tx *db.Tx, id int64, force bool) (now int64, err error) {
	t, err := in.target(ctx, tx, id)
	if err != nil {
		return 0, err
	}
	if t.redrives >= maxRedrives && !force {
		return 0, refusal{http.StatusConflict, fmt.Sprintf("redriven %d times before: only with force", t.redrives)}
	}
	log := in.cfg.Log.With(t.name()...)
	tx.AfterCommit(func() { log.InfoContext(ctx, "waiting event redriven") })
	if t.state == setAside {
		return in.requeue(ctx, tx, t.item)
	}
	again := 0 // what still retries of itself makes no loop
	if t.state == dead {
		again = 1
	}
	_, err = tx.Exec(ctx, `update waiting_event set attempts = 0, redrives = redrives + $2, reason = '' where seq = $1`, id, again)
	if err != nil {
		return 0, fmt.Errorf("redrive: %w", err)
	}
	if _, open := in.breaker.admits(t.meta.Type); open || t.state == unavailable {
		return id, in.probeNext(ctx, tx, t.item)
	}
	return id, in.next(ctx, tx, t.Topic, t.keyBytes())
}

// probeNext makes an event the next probe of its type, whose circuit is open: all that waits
// goes on if it succeeds.
func (in *Inbox) probeNext(ctx context.Context, tx *db.Tx, it *item) error {
	_, err := tx.Exec(ctx, `update waiting_key set state = 'unavailable', due = 0, type = $4 where group_name = $1 and topic = $2 and key = $3`,
		in.cfg.Group, it.Topic, it.keyBytes(), it.meta.Type)
	if err != nil {
		return fmt.Errorf("redrive: %w", err)
	}
	tx.AfterCommit(func() { in.breaker.hurry(it.meta.Type, time.Now()) })
	return nil
}

// requeue puts an event that was set aside back into its key's queue, and returns its number
// there.
func (in *Inbox) requeue(ctx context.Context, tx *db.Tx, it *item) (now int64, err error) {
	if len(it.Key) > maxKey {
		return 0, refusal{http.StatusConflict, fmt.Sprintf("its key is longer than %d bytes, which no attempt can take", maxKey)}
	}
	if err := in.takeAway(ctx, tx, it.seq); err != nil {
		return 0, err
	}
	it.attempts, it.reason, it.setAside = 0, "", false
	it.redrives++
	// Whether the key waits is not looked at: its row is made, or locked as it is. One that was
	// only seen may be gone by now.
	if err := in.enqueue(ctx, tx, []queued{{item: it, state: retrying}}); err != nil {
		return 0, err
	}
	// The key's row is locked: nothing comes behind it before the commit.
	err = tx.QueryRow(ctx, `select max(seq) from waiting_event where group_name = $1 and topic = $2 and key = $3 and not set_aside`,
		in.cfg.Group, it.Topic, it.keyBytes()).Scan(&now)
	if err != nil {
		return 0, fmt.Errorf("redrive: %w", err)
	}
	return now, nil
}

// drop removes an event for good; the log keeps who it was and why.
func (in *Inbox) drop(ctx context.Context, tx *db.Tx, id int64, reason string) error {
	t, err := in.target(ctx, tx, id)
	if err != nil {
		return err
	}
	tx.AfterCommit(func() { in.cfg.Log.With(t.name()...).WarnContext(ctx, "waiting event dropped", "why", reason) })
	if t.state == setAside {
		return in.takeAway(ctx, tx, id)
	}
	return in.remove(ctx, tx, t.item)
}

// takeAway takes away an event that was set aside: nothing is locked that would keep another
// operator from doing the same, so only one of them may find it.
func (in *Inbox) takeAway(ctx context.Context, tx *db.Tx, id int64) error {
	n, err := tx.Exec(ctx, `delete from waiting_event where seq = $1`, id)
	if err != nil {
		return fmt.Errorf("take a letter away: %w", err)
	}
	if n == 0 {
		return refusal{http.StatusNotFound, "no such waiting event; it may be done by now"}
	}
	return nil
}

// serveRedriveAll redrives the dead letters that a filter selects, oldest first, a page at a
// time: next is where the next page begins. IDs are drawn upwards, so that a pass which is
// bounded by the highest ID at its start ends, though what was redriven may die again.
func (in *Inbox) serveRedriveAll(w http.ResponseWriter, r *http.Request) {
	req, err := readRequest(w, r)
	if err != nil {
		in.problem(w, r, err)
		return
	}
	if req.Limit < 1 || req.Limit > maxList {
		req.Limit = listLimit
	}
	if req.Filter.State == "" {
		req.Filter.State = string(dead)
	}
	all, err := in.find(r.Context(), req.Filter, req.After, req.Limit, false)
	if err != nil {
		in.problem(w, r, err)
		return
	}
	result := struct {
		DryRun   bool      `json:"dry_run"`
		Matched  int       `json:"matched"`
		Redriven int       `json:"redriven"`
		Refused  []string  `json:"refused,omitempty"`
		Items    []Waiting `json:"items"`
		Next     int64     `json:"next"` // 0: there are no more
	}{DryRun: req.DryRun == nil || *req.DryRun, Items: []Waiting{}}
	if len(all) == req.Limit {
		result.Next = all[len(all)-1].seq
	}
	for i := range all {
		if req.Until > 0 && all[i].seq > req.Until {
			result.Next = 0
			break
		}
		result.Matched++
		result.Items = append(result.Items, in.view(&all[i]))
		if result.DryRun {
			continue
		}
		err := in.db.InTx(r.Context(), func(ctx context.Context, tx *db.Tx) (err error) {
			result.Items[i].NewID, err = in.redrive(ctx, tx, all[i].seq, req.Force)
			return err
		})
		var refused refusal
		switch {
		case errors.As(err, &refused):
			result.Refused = append(result.Refused, fmt.Sprintf("%d: %s", all[i].seq, refused.detail))
		case err != nil:
			in.problem(w, r, err)
			return
		default:
			result.Redriven++
		}
	}
	writeJSON(w, http.StatusOK, result)
}
