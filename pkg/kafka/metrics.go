package kafka

import (
	"context"
	"errors"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// consumerMetrics are the instruments of one consumer. Their labels are groups, topics,
// partitions and a few fixed words.
type consumerMetrics struct {
	group attribute.KeyValue

	lagRecords, stopped metric.Int64ObservableGauge
	lagSeconds          metric.Float64ObservableGauge
	missing             metric.Int64Gauge

	retries, lost metric.Int64Counter
}

func newConsumerMetrics(meter metric.Meter, group string) (*consumerMetrics, error) {
	m := &consumerMetrics{group: attribute.String("group", group)}
	var errs [6]error
	m.lagRecords, errs[0] = meter.Int64ObservableGauge("consumer_lag_records",
		metric.WithDescription("Records of an owned partition that are not done yet."))
	m.lagSeconds, errs[1] = meter.Float64ObservableGauge("consumer_lag_seconds",
		metric.WithDescription("Age of the oldest record of an owned partition that is in memory and not done; with none there and lag, the time since the partition last moved."))
	m.stopped, errs[2] = meter.Int64ObservableGauge("consumer_partition_stopped",
		metric.WithDescription("1 for an owned partition that cannot be read, with the reason."))
	m.missing, errs[3] = meter.Int64Gauge("consumer_topic_missing",
		metric.WithDescription("1 for a topic that does not exist."))
	m.retries, errs[4] = meter.Int64Counter("consumer_batch_retries",
		metric.WithDescription("Batches that were handed over again after an error."))
	m.lost, errs[5] = meter.Int64Counter("consumer_records_lost",
		metric.WithDescription("Records that the brokers removed before the group had read them, or that an offset which was set from outside leaves out, those of types without a handler among them."))
	return m, errors.Join(errs[:]...)
}

// observeLag begins to report the state of the owned partitions, until stop is called.
func (c *Consumer) observeLag() (stop func() error, err error) {
	m := c.metrics
	r, err := c.cfg.Meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		now := time.Now()
		for _, p := range c.owned() {
			where := metric.WithAttributes(m.group, attribute.String("topic", p.topic), attribute.String("partition", strconv.Itoa(int(p.id))))
			records, seconds, reason, known := p.lag(now)
			if known {
				o.ObserveInt64(m.lagRecords, records, where)
				o.ObserveFloat64(m.lagSeconds, seconds, where)
			}
			if reason != "" {
				o.ObserveInt64(m.stopped, 1, where, metric.WithAttributes(attribute.String("reason", reason)))
			}
		}
		return nil
	}, m.lagRecords, m.lagSeconds, m.stopped)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// lag is what separates the partition from its end; not known before the first look at it.
func (p *partition) lag(now time.Time) (records int64, seconds float64, reason string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.logEnd < 0 {
		return 0, 0, p.fault.reason, false
	}
	records = max(0, max(p.logEnd, p.open.end)-max(p.done.Offset, p.logStart))
	switch {
	case !p.oldest.IsZero():
		seconds = max(0, now.Sub(p.oldest).Seconds())
	case records > 0:
		seconds = now.Sub(p.moved).Seconds()
	}
	return records, seconds, p.stopped(), true
}

// stopped is why the partition is not read, or empty; p.mu is held.
func (p *partition) stopped() string {
	if p.fault.reason == "" && p.open.end > 0 {
		return "open_transaction"
	}
	return p.fault.reason
}

func (m *consumerMetrics) retried(topic string) {
	m.retries.Add(context.Background(), 1, metric.WithAttributes(m.group, attribute.String("topic", topic)))
}

func (m *consumerMetrics) recordsLost(topic string, id int32, n int64) {
	m.lost.Add(context.Background(), n, metric.WithAttributes(m.group,
		attribute.String("topic", topic), attribute.String("partition", strconv.Itoa(int(id)))))
}

func (m *consumerMetrics) topicMissing(topic string, is bool) {
	var n int64
	if is {
		n = 1
	}
	m.missing.Record(context.Background(), n, metric.WithAttributes(m.group, attribute.String("topic", topic)))
}
