package outbox

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"example.com/keyline/pkg/db"
)

// Held is what the relay cannot publish and holds back: the events of one key, one event
// without a key, or a whole topic if there is neither Key nor Row.
type Held struct {
	Topic string    `json:"topic"`
	Key   []byte    `json:"key"`           // an empty one is a key, nil is none
	Row   int64     `json:"row,omitempty"` // of an event without a key; such have no order to keep
	Error string    `json:"error"`         // what the last attempt was answered
	Since time.Time `json:"since"`         // of the first one
}

// target is what of a Held tells it from others.
type target struct {
	topic, key string
	keyed      bool
	row        int64
}

func (t Held) target() target { return target{t.Topic, string(t.Key), t.Key != nil, t.Row} }

// whole reports whether it is a whole topic.
func (t Held) whole() bool { return t.Key == nil && t.Row == 0 }

// holds are the targets that are held back.
type holds map[target]*hold

type hold struct {
	Held
	next  time.Time // of the next probe
	pause time.Duration
	told  bool // to the log, and to those who ask
}

const (
	firstPause = time.Second
	lastPause  = time.Minute

	// maxHeld bounds what is held back one by one. Beyond it the relay waits.
	maxHeld = 100
	// maxDoubt is how many failures in a row, each of another key, are the brokers' fault.
	maxDoubt = 5
	// maxError bounds, in bytes, the text of an error that is kept.
	maxError = 300
)

// add holds one back, longer each time, and long if the attempt took long, since everything
// else waits for the next one.
func (h holds) add(t Held, now time.Time, took time.Duration) *hold {
	was := h[t.target()]
	switch {
	case was == nil:
		t.Since = now.UTC().Truncate(time.Millisecond)
		was = &hold{Held: t, next: now.Add(firstPause), pause: firstPause}
		h[t.target()] = was
	case !now.Before(was.next): // else it is another record of the same window
		was.Error, was.pause = t.Error, min(max(2*was.pause, 6*took), lastPause)
		was.next = now.Add(was.pause)
	}
	return was
}

func (h holds) all() []Held { return h.list(func(*hold) bool { return true }) }

// told are those that count as held back.
func (h holds) told() []Held { return h.list(func(h *hold) bool { return h.told }) }

func (h holds) list(which func(*hold) bool) []Held {
	list := make([]Held, 0, len(h))
	for _, hold := range h {
		if which(hold) {
			list = append(list, hold.Held)
		}
	}
	return list
}

// without is the condition that leaves held events out.
func without(d *db.DB, held []Held) (where string, args []any) {
	var topics []string
	var ids []int64
	where = "where true"
	for _, t := range held {
		switch {
		case t.whole():
			topics = append(topics, t.Topic)
		case t.Row != 0:
			ids = append(ids, t.Row)
		default:
			where += fmt.Sprintf(" and (key is null or not (topic = $%d and key = $%d))", len(args)+1, len(args)+2)
			args = append(args, t.Topic, t.Key)
		}
	}
	if topics != nil {
		cond, arg := d.In("topic", len(args)+1, topics)
		where, args = where+" and not ("+cond+")", append(args, arg)
	}
	if len(ids) > 0 {
		cond, arg := d.In("id", len(args)+1, ids)
		where, args = where+" and not ("+cond+")", append(args, arg)
	}
	return where, args
}

// only is the condition for the events of one hold.
func only(t Held) (where string, args []any) {
	switch {
	case t.whole():
		return "where topic = $1", []any{t.Topic}
	case t.Row != 0:
		return "where id = $1", []any{t.Row}
	}
	return "where topic = $1 and key = $2", []any{t.Topic, t.Key}
}

// hold holds back what has failed. doubt is how much this speaks for the brokers' being away
// instead, of maxDoubt. While they are, what fails is left out all the same, lest many bad
// events stand before a good one; but nobody is told, so that what waits counts as waiting.
func (r *relay) hold(ctx context.Context, t Held, err error, doubt int) {
	if r.held[t.target()] == nil && doubt > 0 {
		full := len(r.held) >= maxHeld
		if full {
			doubt = maxDoubt
		}
		r.suspect(ctx, doubt, err)
		if full {
			r.forget()
			return
		}
		r.row = append(r.row, t.target())
	}
	t.Error = cut(err.Error())
	h := r.held.add(t, time.Now(), r.took)
	if !h.told && (doubt == 0 || !r.away()) {
		h.told, r.changed = true, true
		r.cfg.Log.ErrorContext(ctx, "event cannot be published, those behind it are held back", "topic", t.Topic, "whole_topic", t.whole(), "error", err)
	}
}

// away reports whether the brokers take nothing.
func (r *relay) away() bool { return r.doubt >= maxDoubt }

// suspect adds to the doubt, and takes back what was told since the brokers took something if
// it comes to be theirs.
func (r *relay) suspect(ctx context.Context, doubt int, err error) {
	was := r.away()
	r.doubt += doubt
	if was || !r.away() {
		return
	}
	for _, t := range r.row {
		if h := r.held[t]; h != nil && h.told {
			h.told, r.changed = false, true
		}
	}
	r.cfg.Log.WarnContext(ctx, "brokers take no events, all of them wait", "error", err)
}

// answered is called when the brokers have taken something. If they were away, what failed
// meanwhile is tried again, and has to show whether it is at fault.
func (r *relay) answered(ctx context.Context) {
	if r.away() {
		for _, t := range r.row {
			if h := r.held[t]; h != nil && !h.told {
				h.next = time.Time{}
			}
		}
		r.cfg.Log.InfoContext(ctx, "brokers take events again")
	}
	r.doubt, r.row = 0, nil
}

// again starts from the front when everything has been tried while the brokers are away.
func (r *relay) again(ctx context.Context) bool {
	if !r.away() || len(r.row) == 0 {
		return false
	}
	r.forget()
	pause(ctx, r.retry, nil)
	return true
}

// forget gives up what was held back without being told.
func (r *relay) forget() {
	for _, t := range r.row {
		if h := r.held[t]; h != nil && !h.told {
			delete(r.held, t)
		}
	}
	r.row = nil
}

// due is the hold that has been due for a probe the longest, if one is. None is within a topic
// that is held as a whole, nor if the brokers are to blame.
func (r *relay) due(now time.Time) (due *hold) {
	for _, h := range r.held {
		topic := r.held[target{topic: h.Topic}]
		if (topic == nil || topic == h) && (h.told || !r.away()) && !now.Before(h.next) && (due == nil || h.next.Before(due.next)) {
			due = h
		}
	}
	return due
}

// cut keeps what an operator has to see of an error: each hold has one, and all are one text.
func cut(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	return strings.ToValidUTF8(text[:min(len(text), maxError)], "")
}

// observe registers the gauges of the outbox.
func (o *Outbox) observe() (unregister func(), err error) {
	pending, err := o.cfg.Meter.Int64ObservableGauge("outbox_pending", metric.WithDescription("Events that wait to be published."))
	if err != nil {
		return nil, err
	}
	oldest, err := o.cfg.Meter.Float64ObservableGauge("outbox_oldest_age_seconds", metric.WithDescription("How long the oldest of them has waited."))
	if err != nil {
		return nil, err
	}
	held, err := o.cfg.Meter.Int64ObservableGauge("outbox_held", metric.WithDescription("Keys, topics and single events that cannot be published and are held back."))
	if err != nil {
		return nil, err
	}
	reg, err := o.cfg.Meter.RegisterCallback(func(ctx context.Context, obs metric.Observer) error {
		all, err := o.backlog(ctx, "", nil)
		if err != nil {
			return err
		}
		back, err := o.Held(ctx)
		if err != nil {
			return err
		}
		obs.ObserveInt64(held, int64(len(back)))
		obs.ObserveInt64(pending, all.Events)
		obs.ObserveFloat64(oldest, all.Oldest.Seconds())
		return nil
	}, pending, oldest, held)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}
