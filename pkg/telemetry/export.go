package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/stdout/stdoutmetric"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// newSpanExporter makes the exporter that the variables ask for; nil if they ask for none.
func newSpanExporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	switch name := cmp.Or(os.Getenv("OTEL_TRACES_EXPORTER"), "otlp"); name {
	case "otlp":
		if err := checkProtocol("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"); err != nil {
			return nil, err
		}
		return otlptracehttp.New(ctx)
	case "console":
		return stdouttrace.New()
	case "none":
		return nil, nil
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%q is not otlp, console or none", name)
	}
}

// newMetricExporter makes the exporter that the variables ask for; nil if they ask for none
// beside the metrics page.
func newMetricExporter(ctx context.Context) (sdkmetric.Exporter, error) {
	switch name := cmp.Or(os.Getenv("OTEL_METRICS_EXPORTER"), "otlp"); name {
	case "otlp":
		if err := checkProtocol("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"); err != nil {
			return nil, err
		}
		return otlpmetrichttp.New(ctx)
	case "console":
		return stdoutmetric.New()
	case "none", "prometheus":
		return nil, nil
	default:
		return nil, fmt.Errorf("OTEL_METRICS_EXPORTER=%q is not otlp, prometheus, console or none", name)
	}
}

// checkProtocol refuses what we do not speak: the exporters would only warn, and then send
// to a port that does not understand them. The signal's own variable goes before the general one.
func checkProtocol(ofSignal string) error {
	for _, variable := range []string{ofSignal, "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch protocol := os.Getenv(variable); protocol {
		case "":
			continue
		case "http/protobuf":
			return nil
		default:
			return fmt.Errorf("%s=%q is not built in: set it to http/protobuf, and the endpoint to the collector's port for that, usually 4318", variable, protocol)
		}
	}
	return nil
}
