package outbox

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"example.com/keyline/pkg/db"
)

// Held is what the relay cannot publish and holds back: the events of one key, or of a whole
// topic if Key is empty.
type Held struct {
	Topic string    `json:"topic"`
	Key   []byte    `json:"key,omitempty"`
	Error string    `json:"error"` // what the last attempt was answered
	Since time.Time `json:"since"` // of the first one
}

// id is it as the key of a map.
func (t Held) id() [2]string { return [2]string{t.Topic, string(t.Key)} }

// holds are the targets that are held back, with the time of their next probe.
type holds map[[2]string]hold

type hold struct {
	Held
	next  time.Time
	pause time.Duration
}

const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// add holds one back, longer each time, and reports whether it is new.
func (h holds) add(t Held, now time.Time) bool {
	was, again := h[t.id()]
	if again && now.Before(was.next) {
		return false // another record of the same window
	}
	if t.Since = now.UTC().Truncate(time.Millisecond); again {
		t.Since = was.Since
	}
	pause := min(max(firstPause, 2*was.pause), lastPause)
	h[t.id()] = hold{t, now.Add(pause), pause}
	return !again
}

func (h holds) due(now time.Time) (due []Held) {
	for _, hold := range h {
		if !now.Before(hold.next) {
			due = append(due, hold.Held)
		}
	}
	return due
}

func (h holds) targets() []Held {
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
	for _, t := range held {
		if len(t.Key) == 0 {
			topics = append(topics, t.Topic)
		} else {
			keys = append(keys, t.Key)
		}
	}
	var conditions []string
	if topics != nil {
		cond, arg := d.In("topic", len(args)+1, topics)
		conditions, args = append(conditions, "not ("+cond+")"), append(args, arg)
	}
	if keys != nil {
		cond, arg := d.In("key", len(args)+1, keys)
		conditions, args = append(conditions, "(key is null or not ("+cond+"))"), append(args, arg)
	}
	if conditions == nil {
		return "", nil
	}
	return "where " + strings.Join(conditions, " and "), args
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
	held, err := o.cfg.Meter.Int64ObservableGauge("outbox_held", metric.WithDescription("Keys and topics whose events cannot be published and are held back."))
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
