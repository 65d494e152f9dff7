package outbox

import (
	"context"
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
}

const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// add holds one back, longer each time, and reports whether it is new.
func (h holds) add(t Held, now time.Time) bool {
	was := h[t.target()]
	switch {
	case was == nil:
		t.Since = now.UTC().Truncate(time.Millisecond)
		h[t.target()] = &hold{t, now.Add(firstPause), firstPause}
	case !now.Before(was.next): // else it is another record of the same window
		was.Error, was.pause = t.Error, min(2*was.pause, lastPause)
		was.next = now.Add(was.pause)
	}
	return was == nil
}

// due is the hold that has been due for a probe the longest, if one is. Within a topic that is
// held as a whole, none is.
func (h holds) due(now time.Time) (due *hold) {
	for _, hold := range h {
		topic := h[target{topic: hold.Topic}]
		if (topic == nil || topic == hold) && !now.Before(hold.next) && (due == nil || hold.next.Before(due.next)) {
			due = hold
		}
	}
	return due
}

func (h holds) all() []Held {
	all := make([]Held, 0, len(h))
	for _, hold := range h {
		all = append(all, hold.Held)
	}
	return all
}

// without is the condition that leaves held events out. A held key is left out in all topics:
// it is rare, and one list of keys is one plan.
func without(d *db.DB, held []Held) (where string, args []any) {
	var topics []string
	var keys [][]byte
	var ids []int64
	for _, t := range held {
		switch {
		case t.whole():
			topics = append(topics, t.Topic)
		case t.Row != 0:
			ids = append(ids, t.Row)
		default:
			keys = append(keys, t.Key)
		}
	}
	where = "where true"
	if topics != nil {
		cond, arg := d.In("topic", len(args)+1, topics)
		where, args = where+" and not ("+cond+")", append(args, arg)
	}
	if ids != nil {
		cond, arg := d.In("id", len(args)+1, ids)
		where, args = where+" and not ("+cond+")", append(args, arg)
	}
	if keys != nil {
		cond, arg := d.In("key", len(args)+1, keys)
		where, args = where+" and (key is null or not ("+cond+"))", append(args, arg)
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
		all, _, err := o.Stats(ctx)
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
