package outbox

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
)

// Publisher writes records to their topics.
type Publisher interface {
	// Publish writes a window in order per key and returns when the fate of every record
	// is known, or ctx has ended: nil if all were acknowledged, else one entry per record, nil
	// for those that were. No record of the window may be written after it has returned. An
	// error of a record wraps [event.ErrTopic] if its whole topic cannot be written.
	Publish(ctx context.Context, window []event.Record) []error
}

// lookForLease is how often, at least, a relay that is not on duty looks whether it may be.
const lookForLease = 500 * time.Millisecond

// stopGrace is how long a window may take that is under way when the relay is stopped.
const stopGrace = 5 * time.Second

// maxWindowBytes bounds the memory of one window.
const maxWindowBytes = 8 << 20

// Relay publishes the outbox's rows until ctx ends, and returns nil then. While the
// database or the broker is away it tries again; while another replica's relay holds the
// lease it waits for it. One call per process is enough.
func (o *Outbox) Relay(ctx context.Context, pub Publisher) error {
	unregister, err := o.observe()
	if err != nil {
		return err
	}
	defer unregister()
	r := &relay{Outbox: o, pub: pub, limit: o.window, held: holds{}}
	defer r.release(context.WithoutCancel(ctx))
	defer func() { _ = r.sweep(ctx) }() // should it fail, they are published again
	var renewed time.Time
	for ctx.Err() == nil {
		if r.changed || time.Since(renewed) > o.lease/3 {
			mine, err := r.acquire(ctx)
			if err == nil && !mine {
				err = r.sweep(ctx) // or the one on duty publishes it again
			}
			if err != nil || !mine {
				r.report(ctx, "relay waits for the database", err)
				pause(ctx, min(max(o.idle, o.lease/10), lookForLease), o.wake)
				continue
			}
			renewed, r.changed = time.Now(), false
		}
		more, err := r.step(ctx)
		r.report(ctx, "relay waits for the database", err)
		switch {
		case err != nil:
			pause(ctx, 10*o.idle, o.wake)
		case !more:
			r.woken = pause(ctx, o.idle, o.wake)
		}
	}
	return nil
}

// Wake makes the relay look for rows now. It never blocks.
func (o *Outbox) Wake() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) (woken bool) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
		return true
	case <-t.C:
	}
	return false
}

// relay is the state of one call of Relay.
type relay struct {
	*Outbox
	pub     Publisher
	limit   int       // rows of the next window
	woken   bool      // by a commit in this process, since it last looked for rows
	gone    published // still to be deleted
	swept   time.Time // when the last ones were deleted
	held    holds
	probed  bool          // something held, in the last step
	changed bool          // what is told of them, since the lease has named it
	row     []target      // held since the brokers have taken something
	doubt   int           // whether it is their fault, of maxDoubt
	took    time.Duration // by the last window
	failed  string        // the last error reported, and no success since
}

type stored struct {
	id, created int64
	event.Record
}

// alone is what is held back when the record fails by itself.
func (s *stored) alone() Held {
	if s.Key == nil {
		return Held{Topic: s.Topic, Row: s.id}
	}
	return Held{Topic: s.Topic, Key: s.Key}
}

// step publishes one window and reports whether to look for more at once: what has been committed in
// this process meanwhile wakes the relay, what has been in other replicas does not.
func (r *relay) step(ctx context.Context) (more bool, err error) {
	// A deletion and a probe may outlast the lease, so that nothing else follows in the same step.
	due := r.due(time.Now())
	if n := len(r.gone.ids); n >= fewRows || n > 0 && (due != nil || time.Since(r.swept) > r.sweepEvery) {
		return true, r.sweep(ctx)
	}
	if r.probed = due != nil && !r.probed; r.probed { // in turn with what flows
		return true, r.probe(ctx, due)
	}
	where, args := without(r.db, r.held.all())
	if len(r.gone.ids) > 0 {
		cond, gone := r.gone.in(r.db, len(args)+1)
		where, args = where+" and not ("+cond+")", append(args, gone...)
	}
	woken := r.woken
	r.woken = false
	window, full, err := r.read(ctx, where, args, r.limit)
	if err != nil || len(window) == 0 {
		return err == nil && r.again(ctx), err
	}
	clean := r.publish(ctx, window)
	switch {
	case !clean:
		// Read again, smaller, until the culprit is alone in its window.
		r.limit = max(1, r.limit/2)
		if r.away() {
			pause(ctx, r.retry, nil)
		}
	case r.limit < r.window:
		r.limit = min(r.window, 2*r.limit)
	}
	return full || !clean || !woken, nil
}

// publish writes a window, and notes what was acknowledged.
func (r *relay) publish(ctx context.Context, window []stored) (clean bool) {
	records := make([]event.Record, len(window))
	for i := range window {
		records[i] = window[i].Record
	}
	// A window that is under way at the stop is seen to its end, or it would be published
	// again by the next relay.
	pctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, cancel) })
	defer stop()
	start := time.Now()
	errs := r.pub.Publish(pctx, records)
	r.took = time.Since(start)
	late := pctx.Err() != nil
	sent := 0
	for i := range window {
		if errs == nil || errs[i] == nil {
			r.gone.add(&window[i])
			sent++
		}
	}
	if sent > 0 {
		r.answered(ctx)
	}
	if ctx.Err() == nil { // else it stops, and nothing is a record's fault
		r.blame(ctx, window, errs, late, sent > 0)
	}
	return sent == len(window)
}

// blame holds back the records that failed alone, and the topics that cannot be written. One
// whose first record is not answered in time counts as such, for all others wait with it, if
// the brokers answer at all.
func (r *relay) blame(ctx context.Context, window []stored, errs []error, late, answered bool) {
	seen := map[string]bool{}
	for i, err := range errs {
		topic := window[i].Topic
		first := !seen[topic]
		seen[topic] = true
		switch {
		case err == nil:
		case errors.Is(err, event.ErrTopic):
			r.hold(ctx, Held{Topic: topic}, err, 0)
		case late && first:
			doubt := 0
			if !answered {
				doubt = maxDoubt
			}
			r.hold(ctx, Held{Topic: topic}, fmt.Errorf("no answer within %s: %w", r.patience, err), doubt)
		case !late && len(window) == 1:
			r.hold(ctx, window[i].alone(), err, 1)
		}
	}
}

// probe tries the first event of what is held back, alone. Nothing is left to be deleted, or it
// might be read once more.
func (r *relay) probe(ctx context.Context, h *hold) error {
	where, args := only(h.Held)
	first, _, err := r.read(ctx, where, args, 1)
	if err != nil {
		return err
	}
	clean, until := true, h.next
	if len(first) > 0 {
		if clean = r.publish(ctx, first); ctx.Err() != nil {
			return nil
		}
	}
	// A topic whose event has failed for a reason of its own can be written again.
	if clean || h.whole() && h.next.Equal(until) {
		delete(r.held, h.target())
		if h.told {
			r.changed = true
			r.cfg.Log.InfoContext(ctx, "held events flow again", "topic", h.Topic)
		}
	}
	return nil
}

// read reads up to limit rows, in their order. The window is full if there may be more.
func (r *relay) read(ctx context.Context, where string, args []any, limit int) (window []stored, full bool, err error) {
	size := 0
	rows, err := r.db.Query(ctx, `select id, created_at, topic, key, key is null, value, value is null, headers from outbox `+where+fmt.Sprintf(` order by id limit %d`, limit), args...)
	window, err = db.Collect(rows, err, func(rows *sql.Rows, s *stored) error {
		var headers []byte
		var noKey, noValue bool
		if err := rows.Scan(&s.id, &s.created, &s.Topic, &s.Key, &noKey, &s.Value, &noValue, &headers); err != nil {
			return err
		}
		s.Key, s.Value = db.Bytes(s.Key, noKey), db.Bytes(s.Value, noValue)
		size += len(s.Key) + len(s.Value) + len(headers)
		if size > maxWindowBytes && size > len(s.Key)+len(s.Value)+len(headers) {
			return errFull
		}
		s.Headers, err = event.ParseHeaders(headers)
		return err
	})
	if full = errors.Is(err, errFull); err != nil && !full {
		return nil, false, fmt.Errorf("read the outbox: %w", err)
	}
	return window, full || len(window) == limit, nil
}

var errFull = errors.New("window full")

// published are rows that the brokers have. They are told by their IDs and their times: a database that
// has fallen back, to a standby without the last rows say, gives their IDs to others.
type published struct{ ids, created []int64 }

func (all *published) add(s *stored) {
	all.ids, all.created = append(all.ids, s.id), append(all.created, s.created)
}

// in is the condition for them, whose arguments are numbered from n.
func (all *published) in(d *db.DB, n int) (cond string, args []any) {
	withID, ids := d.In("id", n, all.ids)
	withTime, created := d.In("created_at", n+1, all.created)
	return withID + " and " + withTime, []any{ids, created}
}

// fewRows that have been published may be left to be deleted together, since that costs as much as to
// publish a small window. The next ones leave them out one by one, which takes time that grows with their
// square: a lower ID may be committed later.
const fewRows = 50

// sweep deletes what has been published. Until that has worked nothing more is published; what a relay
// leaves at its end is published again by the next one.
func (r *relay) sweep(ctx context.Context) error {
	if len(r.gone.ids) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	where, args := r.gone.in(r.db, 1)
	if _, err := r.db.Exec(ctx, `delete from outbox where `+where, args...); err != nil {
		return fmt.Errorf("delete published events: %w", err)
	}
	r.gone, r.swept = published{}, time.Now()
	return nil
}

// acquire takes or renews the lease, and notes in it what is held back, for Stats in every
// replica.
func (r *relay) acquire(ctx context.Context) (mine bool, err error) {
	held, err := json.Marshal(r.held.told())
	if err != nil {
		return false, err
	}
	// A lease that ends far ahead is of a clock that has jumped since.
	n, err := r.db.Exec(ctx, `update outbox_lease set owner = $1, until = now_micros() + $2, held = $3
		where id = 1 and (owner = $1 or until < now_micros() or until > now_micros() + 10 * $2)`,
		r.owner, r.lease.Microseconds(), string(held))
	return n == 1, err
}

// release lets another relay start at once after a clean stop.
func (r *relay) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// Should it fail, the lease runs out by itself.
	_, _ = r.db.Exec(ctx, `update outbox_lease set until = 0 where id = 1 and owner = $1`, r.owner)
}

// report logs a failure once, not at every repetition, and again after a success, which is nil.
func (r *relay) report(ctx context.Context, message string, err error) {
	switch {
	case ctx.Err() != nil:
	case err == nil:
		r.failed = ""
	case err.Error() != r.failed:
		r.failed = err.Error()
		r.cfg.Log.WarnContext(ctx, message, "error", err)
	}
}
