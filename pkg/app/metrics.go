package app

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// observeTables begins to report what the service's tables take on disk: a queue that grows
// for ever, or is not vacuumed, shows there first.
func (a *App) observeTables() (stop func() error, err error) {
	size, err := a.Meter.Int64ObservableGauge("table_size", metric.WithUnit("By"),
		metric.WithDescription("What a table takes on disk with its indexes; on SQLite the whole file."))
	if err != nil {
		return nil, err
	}
	r, err := a.Meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		sizes, err := a.DB.Sizes(ctx)
		for _, s := range sizes {
			o.ObserveInt64(size, s.Bytes, metric.WithAttributes(attribute.String("table", s.Table)))
		}
		return err
	}, size)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}
