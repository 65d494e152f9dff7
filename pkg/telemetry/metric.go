package telemetry

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/exemplar"
	"go.opentelemetry.io/otel/sdk/resource"
)

// serverLabels are the labels of the HTTP server's metrics: those that the conventions require,
// or do under a condition. They have others, such as the server's address, which the client chooses.
var serverLabels = attribute.NewAllowKeysFilter(
	"http.request.method", "url.scheme", "http.route", "http.response.status_code", "error.type",
)

func (t *Telemetry) measure(ctx context.Context, cfg Config, res *resource.Resource) error {
	if cfg.Disabled {
		t.MeterProvider = noop.NewMeterProvider()
		t.Meter = t.MeterProvider.Meter(scope)
		return nil
	}
	scrape, err := prometheus.New(
		prometheus.WithRegisterer(t.registry),
		prometheus.WithoutScopeInfo(),
	)
	if err != nil {
		return fmt.Errorf("make the metrics page: %w", err)
	}
	opts := []sdkmetric.Option{
		sdkmetric.WithResource(res),
		sdkmetric.WithReader(scrape),
		sdkmetric.WithView(sdkmetric.NewView(
			sdkmetric.Instrument{Name: "http.server.*"},
			sdkmetric.Stream{AttributeFilter: serverLabels},
		)),
	}
	if !anySet("OTEL_METRICS_EXEMPLAR_FILTER") {
		// Exemplars would carry the very attributes that the view takes away.
		opts = append(opts, sdkmetric.WithExemplarFilter(exemplar.AlwaysOffFilter))
	}
	if anySet("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_METRICS_EXPORTER") {
		exporter, err := newMetricExporter(ctx)
		if err != nil {
			return fmt.Errorf("make the metric exporter: %w", err)
		}
		if exporter != nil {
			opts = append(opts, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter)))
		}
	}
	provider := sdkmetric.NewMeterProvider(opts...)
	t.MeterProvider, t.Meter = provider, provider.Meter(scope)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return nil
}
