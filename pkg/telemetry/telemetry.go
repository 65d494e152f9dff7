package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// Config says who the service is and where its logs go. The exporters read their OTEL_
// variables themselves.
type Config struct {
	// Service names the service in logs and spans.
	Service string `env:"-"`
	// Version is the service's version; may be empty.
	Version string `env:"-"`
	// ServiceName, if set, is used in place of Service. Leave it empty where several
	// services share a process.
	ServiceName string `env:"OTEL_SERVICE_NAME"`
	// LogLevel is the least level that is logged.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info" expect:"debug, info, warn or error"`
	// LogFormat is text (the default) or json.
	LogFormat LogFormat `env:"LOG_FORMAT" envDefault:"text" expect:"text or json"`
	// LogWriter takes one line per Write, from several goroutines; nil is standard error.
	LogWriter io.Writer `env:"-"`
	// Disabled turns spans and metrics off; trace IDs are still made.
	Disabled bool `env:"OTEL_SDK_DISABLED"`
	// Sampler is always_on (the default), always_off or traceidratio, each also with
	// parentbased_ in front.
	Sampler string `env:"OTEL_TRACES_SAMPLER"`
	// SamplerArg is the ratio of traceidratio, 0 to 1; empty is 1.
	SamplerArg string `env:"OTEL_TRACES_SAMPLER_ARG"`
	// SpanProcessors see every recorded span beside the exporter, such as a collector
	// inside the process. Shutdown shuts them down.
	SpanProcessors []sdktrace.SpanProcessor `env:"-"`
}

// Telemetry is what one service observes itself with. Its fields are set by [New], not to
// be changed, and safe for concurrent use, as its methods are.
type Telemetry struct {
	Log            *slog.Logger
	Tracer         trace.Tracer
	TracerProvider trace.TracerProvider
	Meter          metric.Meter
	MeterProvider  metric.MeterProvider
	// Propagator reads the trace context of requests: W3C traceparent and a tracestate of
	// at most 512 bytes, or what OTEL_PROPAGATORS says. Baggage is not carried on.
	Propagator propagation.TextMapPropagator

	registry *prometheus.Registry
	shutdown []func(context.Context) error
}

// scope is the name of our instrumentation scope.
const scope = "keyline"

// New makes a service's telemetry. It connects to nothing: an endpoint that is down costs
// spans, one log line when it goes and one when it comes back. The error names the variable
// that is wrong.
func New(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.ServiceName != "" {
		cfg.Service = cfg.ServiceName
	}
	t := &Telemetry{Log: newLogger(cfg), registry: prometheus.NewRegistry()}
	t.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	res, err := resource.New(ctx,
		resource.WithService(), // an instance ID; the name is replaced below
		resource.WithHost(),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
		resource.WithAttributes(semconv.ServiceName(cfg.Service), semconv.ServiceVersion(cfg.Version)),
	)
	if err != nil {
		t.Log.WarnContext(ctx, "resource attributes incomplete", "error", err)
	}
	if t.Propagator, err = newPropagator(); err != nil {
		return nil, err
	}
	if err := t.trace(ctx, cfg, res); err != nil {
		return nil, err
	}
	if err := t.measure(ctx, cfg, res); err != nil {
		return nil, errors.Join(err, t.Shutdown(ctx))
	}
	return t, nil
}

// Metrics answers with all metrics in Prometheus' text format.
func (t *Telemetry) Metrics() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(t.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError, // one broken metric must not hide the others
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

// Shutdown sends what has been recorded and closes the exporters. When ctx ends first, the
// rest is lost. What is recorded afterwards is dropped.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, shutdown := range t.shutdown {
		errs = append(errs, shutdown(ctx))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("shut down telemetry: %w", err)
	}
	return nil
}

// anySet reports whether one of the variables is set.
func anySet(names ...string) bool {
	for _, name := range names {
		if os.Getenv(name) != "" {
			return true
		}
	}
	return false
}
