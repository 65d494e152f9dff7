package inbox

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/outbox"
)

// queued is an event that a transaction puts into the tables of waiting.
type queued struct {
	*item
	state   state    // of its key
	behind  bool     // the key waits already
	verdict *verdict // of the attempt that failed, if there was one
	claim   int64    // its key's, if it follows the transaction
}

// enqueue writes the keys, then the events, then the copies of dead letters. The caller
// holds the locks of the keys that wait already.
func (in *Inbox) enqueue(ctx context.Context, tx *db.Tx, queue []queued) error {
	if len(queue) == 0 {
		return nil
	}
	now := int64(0) // the database's, if somebody wants to know
	if slices.ContainsFunc(queue, func(q queued) bool { return q.verdict != nil }) {
		if err := tx.QueryRow(ctx, `select now_micros()`).Scan(&now); err != nil {
			return err
		}
	}
	for _, q := range queue {
		if q.verdict != nil {
			q.record(q.verdict, now)
			if err := in.copyDead(ctx, tx, q.item, q.verdict); err != nil {
				return err
			}
		}
	}
	if err := in.insertKeys(ctx, tx, queue, now); err != nil {
		return err
	}
	if err := in.insertEvents(ctx, tx, queue); err != nil {
		return err
	}
	tx.AfterCommit(in.Wake)
	return nil
}

// record notes a failure in the event's letter.
func (it *item) record(v *verdict, now int64) {
	if v.counts {
		it.attempts++
	}
	it.reason, it.lastError, it.failedAt = v.reason, errorText(v.err), now
	if it.firstFailedAt == 0 {
		it.firstFailedAt = now
	}
}

// insertKeys lets keys wait. Those of effects that follow the transaction must not be there: if
// somebody has let one wait since it was looked for, the insert fails, and the rerun finds it.
func (in *Inbox) insertKeys(ctx context.Context, tx *db.Tx, queue []queued, now int64) error {
	var waiting, claimed []queued
	for _, q := range queue {
		switch {
		case q.behind || q.setAside:
		case q.state == running:
			claimed = append(claimed, q)
		default:
			waiting = append(waiting, q)
		}
	}
	// The update is for the row's lock.
	if err := in.insertDue(ctx, tx, waiting, now, 0, "on conflict (group_name, topic, key) do update set claim = waiting_key.claim"); err != nil {
		return err
	}
	return in.insertDue(ctx, tx, claimed, now, in.lease(), "")
}

// insertDue inserts keys that are due in pause, and after a failure later.
func (in *Inbox) insertDue(ctx context.Context, tx *db.Tx, queue []queued, now int64, pause time.Duration, tail string) error {
	slices.SortFunc(queue, func(a, b queued) int { return bytes.Compare(a.keyBytes(), b.keyBytes()) })
	n := len(queue)
	group, topic, states, types := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	keys, claims, due := make([][]byte, n), make([]int64, n), make([]int64, n)
	for i, q := range queue {
		group[i], topic[i], keys[i], states[i], types[i] = in.cfg.Group, q.Topic, q.keyBytes(), string(q.state), q.meta.Type
		claims[i], due[i] = q.claim, now+pause.Microseconds()
		if q.verdict != nil && q.state == retrying {
			due[i] += in.backoff(q.attempts).Microseconds()
		}
	}
	when := db.Column{Name: "due", Values: db.SQL(fmt.Sprintf("now_micros() + %d", pause.Microseconds()))}
	if now != 0 {
		when.Values = due
	}
	cols := []db.Column{
		{Name: "group_name", Values: group}, {Name: "topic", Values: topic}, {Name: "key", Values: keys},
		{Name: "state", Values: states}, {Name: "claim", Values: claims}, {Name: "type", Values: types}, when,
	}
	if err := tx.InsertAll(ctx, "waiting_key", tail, cols...); err != nil {
		return fmt.Errorf("let keys wait: %w", err)
	}
	return nil
}

func (in *Inbox) insertEvents(ctx context.Context, tx *db.Tx, queue []queued) error {
	n := len(queue)
	text := func(get func(queued) string) []string {
		v := make([]string, n)
		for i, q := range queue {
			v[i] = get(q)
		}
		return v
	}
	number := func(get func(queued) int64) []int64 {
		v := make([]int64, n)
		for i, q := range queue {
			v[i] = get(q)
		}
		return v
	}
	blob := func(get func(queued) []byte) [][]byte {
		v := make([][]byte, n)
		for i, q := range queue {
			v[i] = get(q)
		}
		return v
	}
	flag := func(get func(queued) bool) []bool {
		v := make([]bool, n)
		for i, q := range queue {
			v[i] = get(q)
		}
		return v
	}
	err := tx.InsertAll(ctx, "waiting_event", "",
		db.Column{Name: "group_name", Values: text(func(queued) string { return in.cfg.Group })},
		db.Column{Name: "topic", Values: text(func(q queued) string { return q.Topic })},
		db.Column{Name: "key", Values: blob(func(q queued) []byte { return q.keyBytes() })},
		db.Column{Name: "has_key", Values: flag(func(q queued) bool { return q.Key != nil })},
		db.Column{Name: "topic_id", Values: blob(func(q queued) []byte { return q.TopicID[:] })},
		db.Column{Name: "part", Values: number(func(q queued) int64 { return int64(q.Partition) })},
		db.Column{Name: "position", Values: number(func(q queued) int64 { return q.Offset })},
		db.Column{Name: "identity", Values: blob(func(q queued) []byte { return q.identity[:] })},
		db.Column{Name: "recorded_at", Values: number(func(q queued) int64 { return db.Micros(q.Timestamp) })},
		db.Column{Name: "headers", Values: blob(func(q queued) []byte { return event.AppendHeaders([]byte{}, q.Headers) })},
		db.Column{Name: "value", Values: blob(func(q queued) []byte { return q.Value })},
		db.Column{Name: "type", Values: text(func(q queued) string { return q.meta.Type })},
		db.Column{Name: "set_aside", Values: flag(func(q queued) bool { return q.setAside })},
		db.Column{Name: "attempts", Values: number(func(q queued) int64 { return int64(q.attempts) })},
		db.Column{Name: "redrives", Values: number(func(q queued) int64 { return int64(q.redrives) })},
		db.Column{Name: "reason", Values: text(func(q queued) string { return q.reason })},
		db.Column{Name: "error", Values: text(func(q queued) string { return q.lastError })},
		db.Column{Name: "first_failed_at", Values: number(func(q queued) int64 { return q.firstFailedAt })},
		db.Column{Name: "failed_at", Values: number(func(q queued) int64 { return q.failedAt })},
		db.Column{Name: "taken_at", Values: db.SQL("now_micros()")})
	if err != nil {
		return fmt.Errorf("queue events: %w", err)
	}
	return nil
}

// eventColumns are the columns that scanItem reads.
const eventColumns = `seq, topic, key, has_key, topic_id, part, position, identity, recorded_at, headers, value, value is null,
	type, set_aside, attempts, redrives, reason, error, first_failed_at, failed_at, taken_at`

func scanItem(r interface{ Scan(...any) error }, it *item) error {
	var topicID, identity, headers []byte
	var hasKey, noValue bool
	var recorded int64
	it.Record = &event.Record{}
	err := r.Scan(&it.seq, &it.Topic, &it.Key, &hasKey, &topicID, &it.Partition, &it.Offset, &identity, &recorded, &headers, &it.Value, &noValue,
		&it.meta.Type, &it.setAside, &it.attempts, &it.redrives, &it.reason, &it.lastError, &it.firstFailedAt, &it.failedAt, &it.takenAt)
	if err != nil {
		return err
	}
	it.Key, it.Value = db.Bytes(it.Key, !hasKey), db.Bytes(it.Value, noValue)
	if !hasKey {
		it.Key = nil
	}
	copy(it.TopicID[:], topicID)
	copy(it.identity[:], identity)
	it.Timestamp = db.Time(recorded)
	it.Headers, err = event.ParseHeaders(headers)
	return err
}

// head reads the first event of a key's queue as it is stored, and nil if the queue is empty.
func (in *Inbox) head(ctx context.Context, tx *db.Tx, topic string, key []byte) (*item, error) {
	stored := &item{}
	row := tx.QueryRow(ctx, `select `+eventColumns+` from waiting_event
		where group_name = $1 and topic = $2 and key = $3 and not set_aside order by seq limit 1`, in.cfg.Group, topic, key)
	switch err := scanItem(row, stored); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	return stored, nil
}

// reopen is a stored event, decoded, or as it was opened before.
func (in *Inbox) reopen(ctx context.Context, stored, opened *item) *item {
	it := opened
	if it == nil {
		it = in.open(ctx, stored.Record)
	}
	it.letter, it.identity = stored.letter, stored.identity
	return it
}

// remove deletes an event, and its key's row if nothing waits behind it; otherwise the key
// is due now. The caller holds the key's lock.
func (in *Inbox) remove(ctx context.Context, tx *db.Tx, it *item) error {
	if _, err := tx.Exec(ctx, `delete from waiting_event where seq = $1`, it.seq); err != nil {
		return fmt.Errorf("delete a waiting event: %w", err)
	}
	return in.next(ctx, tx, it.Topic, it.keyBytes())
}

// next lets a key go on: its row goes if its queue is empty, else the next event is due.
func (in *Inbox) next(ctx context.Context, tx *db.Tx, topic string, key []byte) error {
	n, err := tx.Exec(ctx, `delete from waiting_key where group_name = $1 and topic = $2 and key = $3 and not exists (
		select 1 from waiting_event e where e.group_name = $1 and e.topic = $2 and e.key = $3 and not e.set_aside)`, in.cfg.Group, topic, key)
	if err == nil && n == 0 {
		_, err = tx.Exec(ctx, `update waiting_key set state = 'retrying', due = now_micros() where group_name = $1 and topic = $2 and key = $3`, in.cfg.Group, topic, key)
		tx.AfterCommit(in.Wake)
	}
	if err != nil {
		return fmt.Errorf("let a key go on: %w", err)
	}
	return nil
}

// keep writes a failure of a waiting event. The caller holds the key's lock.
func (in *Inbox) keep(ctx context.Context, tx *db.Tx, it *item, v *verdict) error {
	var now int64
	if err := tx.QueryRow(ctx, `select now_micros()`).Scan(&now); err != nil {
		return err
	}
	it.record(v, now)
	it.setAside = v.setAside
	_, err := tx.Exec(ctx, `update waiting_event set attempts = $2, reason = $3, error = $4, first_failed_at = $5, failed_at = $6, set_aside = $7, type = $8 where seq = $1`,
		it.seq, it.attempts, it.reason, it.lastError, it.firstFailedAt, it.failedAt, it.setAside, it.meta.Type)
	if err != nil {
		return fmt.Errorf("keep a failure: %w", err)
	}
	if err := in.copyDead(ctx, tx, it, v); err != nil {
		return err
	}
	if v.setAside {
		return in.next(ctx, tx, it.Topic, it.keyBytes())
	}
	due := now
	if v.state == retrying {
		due += in.backoff(it.attempts).Microseconds()
	}
	_, err = tx.Exec(ctx, `update waiting_key set state = $4, due = $5, type = $6 where group_name = $1 and topic = $2 and key = $3`,
		in.cfg.Group, it.Topic, it.keyBytes(), string(v.state), due, it.meta.Type)
	if err != nil {
		return fmt.Errorf("let a key wait: %w", err)
	}
	return nil
}

// DeadLetterTopic is the topic of the copies of a group's dead letters.
func DeadLetterTopic(topic, group string) string { return topic + "." + group + ".dlt" }

// copyDead sends a copy of a dead letter to its topic, bytes untouched, for other people's
// tools. The letter itself is the row in the database.
func (in *Inbox) copyDead(ctx context.Context, tx *db.Tx, it *item, v *verdict) error {
	if v.state != dead {
		return nil
	}
	stamp := func(micros int64) string { return db.Time(micros).Format(time.RFC3339Nano) }
	add := []event.Header{
		{Key: "dlt-topic", Value: []byte(it.Topic)},
		{Key: "dlt-partition", Value: []byte(strconv.Itoa(int(it.Partition)))},
		{Key: "dlt-offset", Value: strconv.AppendInt(nil, it.Offset, 10)},
		{Key: "dlt-timestamp", Value: it.Timestamp.UTC().AppendFormat(nil, time.RFC3339Nano)},
		{Key: "dlt-group", Value: []byte(in.cfg.Group)},
		{Key: "dlt-reason", Value: []byte(v.reason)},
		{Key: "dlt-error", Value: []byte(it.lastError)},
		{Key: "dlt-attempts", Value: []byte(strconv.Itoa(it.attempts))},
		{Key: "dlt-first-failed-at", Value: []byte(stamp(it.firstFailedAt))},
		{Key: "dlt-failed-at", Value: []byte(stamp(it.failedAt))},
		{Key: "dlt-redrives", Value: []byte(strconv.Itoa(it.redrives))},
	}
	headers := append(append(make([]event.Header, 0, len(it.Headers)+len(add)), it.Headers...), add...)
	letter := event.Record{Topic: DeadLetterTopic(it.Topic, in.cfg.Group), Key: it.Key, Value: it.Value, Headers: headers}
	err := in.outbox.AppendRaw(tx, letter)
	if errors.Is(err, outbox.ErrTooLarge) {
		in.cfg.Log.WarnContext(ctx, "dead letter too large for a copy", "topic", it.Topic, "partition", it.Partition, "offset", it.Offset)
		err = nil
	}
	tx.AfterCommit(func() {
		in.metrics.dead(ctx, it, v.reason)
		in.cfg.Log.ErrorContext(ctx, "dead letter", "topic", it.Topic, "partition", it.Partition, "offset", it.Offset,
			"key", short(it.meta.Subject), "type", it.meta.Type, "event_id", it.meta.ID, "reason", v.reason, "attempts", it.attempts, "error", it.lastError)
	})
	return err
}
