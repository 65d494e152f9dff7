package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/contrib/propagators/autoprop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxAttribute bounds attributes, in bytes: some hold what a client sent.
	maxAttribute = 1024
	// maxTracestate bounds what is carried on of a client's tracestate, in bytes.
	maxTracestate = 512
)

func (t *Telemetry) trace(ctx context.Context, cfg Config, res *resource.Resource) error {
	sampler, err := newSampler(cfg)
	if err != nil {
		return err
	}
	limits := sdktrace.NewSpanLimits()
	if limits.AttributeValueLengthLimit < 0 {
		limits.AttributeValueLengthLimit = maxAttribute
	}
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(res),
		sdktrace.WithSampler(sampler),
		sdktrace.WithRawSpanLimits(limits),
	}
	if !cfg.Disabled {
		for _, p := range cfg.SpanProcessors {
			opts = append(opts, sdktrace.WithSpanProcessor(p))
		}
		if anySet("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER") {
			exporter, err := newSpanExporter(ctx)
			if err != nil {
				return fmt.Errorf("make the span exporter: %w", err)
			}
			if exporter != nil {
				// A full queue drops spans, it never blocks the one who ends a span.
				opts = append(opts, sdktrace.WithBatcher(&reportingExporter{SpanExporter: exporter, log: t.Log}))
			}
		}
	}
	provider := sdktrace.NewTracerProvider(opts...)
	t.TracerProvider, t.Tracer = provider, provider.Tracer(scope)
	t.shutdown = append(t.shutdown, provider.Shutdown)
	return nil
}

func newSampler(cfg Config) (sdktrace.Sampler, error) {
	if cfg.Disabled {
		return sdktrace.NeverSample(), nil
	}
	var root sdktrace.Sampler
	switch strings.TrimPrefix(strings.ToLower(cfg.Sampler), "parentbased_") {
	case "", "always_on":
		root = sdktrace.AlwaysSample()
	case "always_off":
		root = sdktrace.NeverSample()
	case "traceidratio":
		ratio := 1.0
		if cfg.SamplerArg != "" {
			var err error
			if ratio, err = strconv.ParseFloat(cfg.SamplerArg, 64); err != nil || !(ratio >= 0 && ratio <= 1) {
				return nil, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG=%q is not a ratio from 0 to 1", cfg.SamplerArg)
			}
		}
		root = sdktrace.TraceIDRatioBased(ratio)
	default:
		return nil, fmt.Errorf("OTEL_TRACES_SAMPLER=%q is not always_on, always_off or traceidratio, with or without parentbased_", cfg.Sampler)
	}
	return sdktrace.ParentBased(root,
		sdktrace.WithRemoteParentSampled(root),
		sdktrace.WithRemoteParentNotSampled(root),
	), nil
}

// reportingExporter logs when exporting begins to fail and when it works again, instead of
// one global error per batch.
type reportingExporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	failing atomic.Bool
}

func (e *reportingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	switch err := e.SpanExporter.ExportSpans(ctx, spans); {
	case err != nil && !e.failing.Swap(true):
		e.log.WarnContext(ctx, "span export fails, spans are lost", "error", err)
	case err == nil && e.failing.Swap(false):
		e.log.InfoContext(ctx, "span export works again")
	}
	return nil
}

func newPropagator() (propagation.TextMapPropagator, error) {
	names := os.Getenv("OTEL_PROPAGATORS")
	if names == "" {
		return bounded{propagation.TraceContext{}}, nil
	}
	p, err := autoprop.TextMapPropagator(strings.Split(names, ",")...)
	if err != nil {
		return nil, fmt.Errorf("OTEL_PROPAGATORS=%q: %w", names, err)
	}
	return bounded{p}, nil
}

// bounded drops a tracestate that is too long: it would be stored and sent on with every
// event that the request causes.
type bounded struct{ propagation.TextMapPropagator }

func (b bounded) Extract(ctx context.Context, carrier propagation.TextMapCarrier) context.Context {
	ctx = b.TextMapPropagator.Extract(ctx, carrier)
	sc := trace.SpanContextFromContext(ctx)
	if len(sc.TraceState().String()) <= maxTracestate {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, sc.WithTraceState(trace.TraceState{}))
}
