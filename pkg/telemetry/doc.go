// Package telemetry makes one service's tracer, meter and logger, as values that are handed
// on in Config structs; nothing is registered globally, so that several services in one
// process stay apart.
//
//	t, err := telemetry.New(ctx, telemetry.Config{Service: "order"})
//	ctx, span := t.Tracer.Start(ctx, "place")
//	t.Log.InfoContext(ctx, "order placed", "order_id", id) // with service, trace_id, span_id
//
// OpenTelemetry's own variables are honoured. Spans leave the process only if one of
// OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_TRACES_EXPORTER is
// set. Metrics are read at [Telemetry.Metrics], and pushed as well only if
// OTEL_EXPORTER_OTLP_METRICS_ENDPOINT or OTEL_METRICS_EXPORTER is set: the usual receiver
// behind the general endpoint takes spans alone. OTEL_TRACES_EXPORTER is otlp (the default),
// console or none; OTEL_METRICS_EXPORTER is also prometheus, which that page is already.
//
// # Why OTLP goes over HTTP only
//
// Context: every collector takes OTLP as protobuf over HTTP, on port 4318, beside gRPC on
// 4317; the usual package that chooses between them, autoexport, links both and exporters of
// logs too: 1.5 MB in each service, 3 MB in the console. Decision: the HTTP exporters alone,
// which read OTEL_EXPORTER_OTLP_* themselves. Cost: a collector that is reached by
// OTEL_EXPORTER_OTLP_PROTOCOL=grpc (or http/json) needs its other port; New says so.
//
// # Why our own sampler decides for remote parents
//
// Context: a trace goes on from headers that anybody can write. Decision: trace and parent
// IDs are taken over, the sampled flag is not: OTEL_TRACES_SAMPLER decides for every span
// whose parent is remote, and local children follow their parent; parentbased_X is the same
// as X. With a ratio the decision hangs on the trace ID, so that services which share the
// ratio agree. Cost: services with different ratios cut traces.
//
// # Why trace IDs are made even when tracing is off
//
// Context: the correlation ID of an order is its trace ID, in answers, logs and records.
// Decision: with OTEL_SDK_DISABLED, or an unsampled trace, IDs are made and passed on while
// nothing is recorded. Cost: some 100 ns per request.
package telemetry
