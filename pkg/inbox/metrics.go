package inbox

import (
	"context"
	"database/sql"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"example.com/keyline/pkg/db"
)

// The outcomes of events_handled_total.
const (
	outcomeDone    = "done"
	outcomeRetry   = "retry"
	outcomeWaits   = "waits" // behind another event, or for something that is down
	outcomeDead    = "dead"
	outcomeIgnored = "ignored" // nobody here handles its type
)

type metrics struct {
	events     metric.Int64Counter
	retries    metric.Int64Counter
	letters    metric.Int64Counter
	duplicates metric.Int64Counter
	duration   metric.Float64Histogram
	age        metric.Float64Histogram
	waiting    metric.Int64ObservableGauge
	oldest     metric.Float64ObservableGauge
	circuit    metric.Int64ObservableGauge
	labels     labels
	group      string
}

// labels are sets of attributes that were made before: making one costs more than counting with
// it. There are as many as types times outcomes.
type labels struct {
	mu   sync.RWMutex
	sets map[labelled]attributes
}

// labelled names a set; what it has not is empty.
type labelled struct{ topic, typ, outcome string }

// attributes are one set, as counters and as histograms take it.
type attributes struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func (l *labels) of(key labelled, attrs func() []attribute.KeyValue) attributes {
	l.mu.RLock()
	a, ok := l.sets[key]
	l.mu.RUnlock()
	if ok {
		return a
	}
	set := metric.WithAttributeSet(attribute.NewSet(attrs()...))
	a = attributes{[]metric.AddOption{set}, []metric.RecordOption{set}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sets == nil {
		l.sets = map[labelled]attributes{}
	}
	l.sets[key] = a
	return a
}

// process are the attributes of a topic that the semantic conventions of messaging name.
func (m *metrics) process(topic string) attributes {
	return m.labels.of(labelled{topic: topic, outcome: "process"}, func() []attribute.KeyValue {
		return []attribute.KeyValue{
			attribute.String("messaging.system", "kafka"), attribute.String("messaging.operation.name", "process"),
			attribute.String("messaging.destination.name", topic), attribute.String("messaging.consumer.group.name", m.group),
		}
	})
}

// topic are the attributes of a topic in our own words.
func (m *metrics) topic(topic string) attributes {
	return m.labels.of(labelled{topic: topic}, func() []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("group", m.group), attribute.String("topic", topic)}
	})
}

func newMetrics(meter metric.Meter, group string) (*metrics, error) {
	m := &metrics{group: group}
	var errs [9]error
	seconds := metric.WithUnit("s")
	buckets := metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300)
	m.events, errs[0] = meter.Int64Counter("events_handled", metric.WithDescription("Events by what became of them."))
	m.retries, errs[1] = meter.Int64Counter("consumer_retries", metric.WithDescription("Attempts that failed and will be repeated."))
	m.letters, errs[2] = meter.Int64Counter("dead_letters", metric.WithDescription("Events that became dead letters."))
	m.duplicates, errs[3] = meter.Int64Counter("inbox_duplicates", metric.WithDescription("Records whose event had been taken before."))
	m.duration, errs[4] = meter.Float64Histogram("messaging.process.duration", seconds, buckets, metric.WithDescription("How long handlers took."))
	m.age, errs[5] = meter.Float64Histogram("event_age", seconds, buckets, metric.WithDescription("From the event to its being done."))
	m.waiting, errs[6] = meter.Int64ObservableGauge("waiting_events", metric.WithDescription("Events that wait, by their key's state."))
	m.oldest, errs[7] = meter.Float64ObservableGauge("waiting_oldest_age", seconds, metric.WithDescription("How long the oldest of them has waited."))
	m.circuit, errs[8] = meter.Int64ObservableGauge("circuit_state", metric.WithDescription("1 while a type's events wait for something that is down."))
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) handled(ctx context.Context, it *item, outcome string) {
	typ := it.meta.Type
	if it.handler == nil {
		typ = "other" // a foreign producer must not make labels
	}
	m.events.Add(ctx, 1, m.labels.of(labelled{it.Topic, typ, outcome}, func() []attribute.KeyValue {
		return []attribute.KeyValue{
			attribute.String("group", m.group), attribute.String("topic", it.Topic), attribute.String("type", typ), attribute.String("outcome", outcome),
		}
	}).add...)
}

func (m *metrics) dead(ctx context.Context, it *item, reason string) {
	m.letters.Add(ctx, 1, metric.WithAttributes(attribute.String("group", m.group), attribute.String("topic", it.Topic), attribute.String("reason", reason)))
}

// attempt counts one attempt whose outcome is committed.
func (in *Inbox) attempt(ctx context.Context, s *processSpan) {
	m, it := in.metrics, s.item
	s.finish()
	m.duration.Record(ctx, s.end.Sub(s.start).Seconds(), m.process(it.Topic).record...)
	if s.err != nil {
		return // counted by what becomes of the event
	}
	in.breaker.worked(it.meta.Type)
	m.handled(ctx, it, outcomeDone)
	if age := s.end.Sub(it.meta.Time); age > 0 {
		m.age.Record(ctx, age.Seconds(), m.topic(it.Topic).record...)
	}
}

// failed counts what a failure made of an event.
func (in *Inbox) failed(ctx context.Context, it *item, v *verdict) {
	outcome := outcomeDead
	switch v.state {
	case retrying:
		outcome = outcomeRetry
		in.metrics.retries.Add(ctx, 1, in.metrics.topic(it.Topic).add...)
	case unavailable:
		outcome = outcomeWaits
	}
	in.metrics.handled(ctx, it, outcome)
}

// observe registers the gauges, which ask the database when they are read.
func (in *Inbox) observe() (unregister func(), err error) {
	m := in.metrics
	reg, err := in.cfg.Meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		group := attribute.String("group", in.cfg.Group)
		for _, typ := range in.breaker.types() {
			o.ObserveInt64(m.circuit, 1, metric.WithAttributes(group, attribute.String("type", typ)))
		}
		type count struct {
			topic, state string
			n, age       int64
		}
		rows, err := in.db.Query(ctx, `select e.topic, case when e.set_aside then 'set aside' else k.state end, count(*), max(now_micros() - e.taken_at)
			from waiting_event e left join waiting_key k on k.group_name = e.group_name and k.topic = e.topic and k.key = e.key
			where e.group_name = $1 group by 1, 2`, in.cfg.Group)
		counts, err := db.Collect(rows, err, func(r *sql.Rows, c *count) error {
			var state sql.NullString
			err := r.Scan(&c.topic, &state, &c.n, &c.age)
			c.state = state.String
			return err
		})
		if err != nil {
			return err
		}
		for _, c := range counts {
			labels := metric.WithAttributes(group, attribute.String("topic", c.topic), attribute.String("state", c.state))
			o.ObserveInt64(m.waiting, c.n, labels)
			o.ObserveFloat64(m.oldest, (time.Duration(c.age) * time.Microsecond).Seconds(), labels)
		}
		return nil
	}, m.waiting, m.oldest, m.circuit)
	if err != nil {
		return nil, err
	}
	return func() { _ = reg.Unregister() }, nil
}
