package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/telemetry"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// start makes telemetry that logs into a buffer and records its spans.
func start(tb testing.TB, cfg telemetry.Config) (*telemetry.Telemetry, *tracetest.SpanRecorder, *logBuffer) {
	tb.Helper()
	spans, logs := tracetest.NewSpanRecorder(), new(logBuffer)
	cfg.SpanProcessors = append(cfg.SpanProcessors, spans)
	cfg.LogWriter = logs
	t, err := telemetry.New(context.Background(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = t.Shutdown(ctx) // some tests have shut it down, or point it nowhere
	})
	return t, spans, logs
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestTelemetry_Log(t *testing.T) {
	t.Parallel()
	t.Run("a JSON line holds service, trace_id and span_id", func(t *testing.T) {
		t.Parallel()
		tel, _, logs := start(t, telemetry.Config{Service: "order", LogFormat: telemetry.JSON})
		ctx, span := tel.Tracer.Start(t.Context(), "place")
		tel.Log.With("group", "g").InfoContext(ctx, "order placed", "order_id", "A1")
		var got map[string]string
		if err := json.Unmarshal([]byte(logs.String()), &got); err != nil {
			t.Fatalf("log line %q: %v", logs, err)
		}
		delete(got, "time")
		want := map[string]string{
			"level": "INFO", "msg": "order placed", "service": "order", "group": "g", "order_id": "A1",
			"trace_id": span.SpanContext().TraceID().String(), "span_id": span.SpanContext().SpanID().String(),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("line (-want +got):\n%s", diff)
		}
	})
	t.Run("a line outside any span has no trace_id", func(t *testing.T) {
		t.Parallel()
		tel, _, logs := start(t, telemetry.Config{Service: "order"})
		tel.Log.Info("hello")
		if got := logs.String(); strings.Contains(got, "trace_id") || !strings.Contains(got, "service=order") {
			t.Errorf("log line: got %q, want service but no trace_id", got)
		}
	})
	t.Run("the level holds back what is below it", func(t *testing.T) {
		t.Parallel()
		tel, _, logs := start(t, telemetry.Config{LogLevel: slog.LevelWarn})
		tel.Log.Info("quiet")
		tel.Log.Warn("loud")
		if got := logs.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "loud") {
			t.Errorf("log: got %q, want the warning only", got)
		}
	})
	t.Run("a format is text or json", func(t *testing.T) {
		t.Parallel()
		var f telemetry.LogFormat
		if err := f.UnmarshalText([]byte("xml")); err == nil {
			t.Error("xml: got no error")
		}
		if err := f.UnmarshalText([]byte("json")); err != nil || f != telemetry.JSON {
			t.Errorf("json: got %v, %v", f, err)
		}
	})
}

func TestTelemetry_resources(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"order", "inventory"} {
		tel, spans, _ := start(t, telemetry.Config{Service: name, Version: "v1.2.3"})
		_, span := tel.Tracer.Start(t.Context(), "work")
		span.End()
		attrs := spans.Ended()[0].Resource().Set()
		if got, _ := attrs.Value(semconv.ServiceNameKey); got.AsString() != name {
			t.Errorf("service.name of %s: got %q", name, got.AsString())
		}
		if got, _ := attrs.Value(semconv.ServiceVersionKey); got.AsString() != "v1.2.3" {
			t.Errorf("service.version of %s: got %q", name, got.AsString())
		}
	}
	tel, spans, _ := start(t, telemetry.Config{Service: "order", ServiceName: "order-eu"})
	_, span := tel.Tracer.Start(t.Context(), "work")
	span.End()
	if got, _ := spans.Ended()[0].Resource().Set().Value(semconv.ServiceNameKey); got.AsString() != "order-eu" {
		t.Errorf("service.name with OTEL_SERVICE_NAME: got %q, want order-eu", got.AsString())
	}
}

// An outside sampled flag never forces recording, and never prevents it.
func TestSampler(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  telemetry.Config
		want bool
	}{
		{"by default every trace is recorded", telemetry.Config{}, true},
		{"always_on records every trace", telemetry.Config{Sampler: "always_on"}, true},
		{"always_off records none", telemetry.Config{Sampler: "always_off"}, false},
		{"parentbased_always_off records none either", telemetry.Config{Sampler: "parentbased_always_off"}, false},
		{"a ratio of 0 records none", telemetry.Config{Sampler: "parentbased_traceidratio", SamplerArg: "0"}, false},
		{"a ratio of 1 records all", telemetry.Config{Sampler: "traceidratio", SamplerArg: "1"}, true},
		{"a disabled SDK records none", telemetry.Config{Disabled: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tel, spans, _ := start(t, tt.cfg)
			for _, flags := range []trace.TraceFlags{0, trace.FlagsSampled} {
				parent := trace.NewSpanContext(trace.SpanContextConfig{
					TraceID: trace.TraceID{1, 15: 9}, SpanID: trace.SpanID{2}, TraceFlags: flags, Remote: true,
				})
				ctx, span := tel.Tracer.Start(trace.ContextWithSpanContext(t.Context(), parent), "work")
				_, child := tel.Tracer.Start(ctx, "child")
				if got := span.SpanContext().TraceID(); got != parent.TraceID() {
					t.Errorf("trace ID: got %s, want the parent's %s", got, parent.TraceID())
				}
				if span.SpanContext().SpanID() == parent.SpanID() {
					t.Error("span ID: got the parent's, want a new one")
				}
				if got := span.SpanContext().IsSampled(); got != tt.want {
					t.Errorf("parent with flags %s: sampled %v, want %v", flags, got, tt.want)
				}
				if got := child.SpanContext().IsSampled(); got != tt.want {
					t.Errorf("local child: sampled %v, want %v", got, tt.want)
				}
				child.End()
				span.End()
			}
			if got := len(spans.Ended()) == 4; got != tt.want {
				t.Errorf("recorded %d spans, sampled should be %v", len(spans.Ended()), tt.want)
			}
		})
	}
	t.Run("a wrong sampler or ratio is an error that names its variable", func(t *testing.T) {
		t.Parallel()
		for want, cfg := range map[string]telemetry.Config{
			`OTEL_TRACES_SAMPLER="sometimes"`:  {Sampler: "sometimes"},
			`OTEL_TRACES_SAMPLER_ARG="2"`:      {Sampler: "traceidratio", SamplerArg: "2"},
			`OTEL_TRACES_SAMPLER_ARG="NaN"`:    {Sampler: "traceidratio", SamplerArg: "NaN"},
			`OTEL_TRACES_SAMPLER_ARG="little"`: {Sampler: "traceidratio", SamplerArg: "little"},
		} {
			if _, err := telemetry.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error: got %v, want it to hold %s", err, want)
			}
		}
	})
}

func TestTelemetry_disabledStillMakesTraceIDs(t *testing.T) {
	t.Parallel()
	tel, _, _ := start(t, telemetry.Config{Disabled: true})
	_, span := tel.Tracer.Start(t.Context(), "work")
	if sc := span.SpanContext(); !sc.IsValid() || sc.IsSampled() || span.IsRecording() {
		t.Errorf("span context %+v, recording %v; want a valid one that is not recorded", sc, span.IsRecording())
	}
	counter, err := tel.Meter.Int64Counter("events_handled_total")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 1)
	if got := scrape(t, tel); strings.Contains(got, "events_handled") {
		t.Error("a metric was recorded although the SDK is disabled")
	}
}

func TestPropagator(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, tt := range []struct {
		name, traceparent, tracestate string
		wantTrace, wantState          string
	}{
		{"a valid parent is taken over", parent, "a=1", "0af7651916cd43dd8448eb211c80319c", "a=1"},
		{"a long tracestate is dropped, its parent kept", parent, longTracestate(), "0af7651916cd43dd8448eb211c80319c", ""},
		{"a malformed parent is no parent", "00-zz-1-01", "a=1", "", ""},
		{"a huge parent is no parent", strings.Repeat("0", 10_000), "", "", ""},
		{"a zero trace ID is no parent", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tel, _, _ := start(t, telemetry.Config{})
			h := http.Header{"Traceparent": {tt.traceparent}, "Tracestate": {tt.tracestate}, "Baggage": {"k=v"}}
			ctx := tel.Propagator.Extract(t.Context(), carrier(h))
			sc := trace.SpanContextFromContext(ctx)
			if got := sc.IsValid(); got != (tt.wantTrace != "") || got && sc.TraceID().String() != tt.wantTrace {
				t.Errorf("trace ID: got %s, want %s", sc.TraceID(), tt.wantTrace)
			}
			if got := sc.TraceState().String(); got != tt.wantState {
				t.Errorf("tracestate: got %q, want %q", got, tt.wantState)
			}
			out := http.Header{}
			tel.Propagator.Inject(ctx, carrier(out))
			if got := out.Get("Baggage"); got != "" {
				t.Errorf("baggage went on as %q", got)
			}
		})
	}
}

func longTracestate() string {
	members := make([]string, 5)
	for i := range members {
		members[i] = string(rune('a'+i)) + "=" + strings.Repeat("v", 200)
	}
	return strings.Join(members, ",")
}

type carrier http.Header

func (c carrier) Get(k string) string { return http.Header(c).Get(k) }
func (c carrier) Set(k, v string)     { http.Header(c).Set(k, v) }
func (c carrier) Keys() (keys []string) {
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

func scrape(tb testing.TB, tel *telemetry.Telemetry) string {
	tb.Helper()
	w := httptest.NewRecorder()
	tel.Metrics().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != http.StatusOK {
		tb.Fatalf("GET /metrics: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// The names that contract.md promises come out as they are written there, whether the
// instrument carries a unit or not.
func TestTelemetry_Metrics_names(t *testing.T) {
	t.Parallel()
	tel, _, _ := start(t, telemetry.Config{Service: "order"})
	type instrument struct{ name, unit string }
	counters := map[instrument]string{
		{"events_handled_total", "{event}"}:             "events_handled_total",
		{"consumer_retries_total", ""}:                  "consumer_retries_total",
		{"dead_letters_total", "{record}"}:              "dead_letters_total",
		{"inbox_duplicates_total", "1"}:                 "inbox_duplicates_total",
		{"orders_settled_total", "{order}"}:             "orders_settled_total",
		{"messaging.client.sent.messages", "{message}"}: "messaging_client_sent_messages_total",
	}
	gauges := map[instrument]string{
		{"consumer_lag_records", "{record}"}:  "consumer_lag_records",
		{"consumer_lag_seconds", "s"}:         "consumer_lag_seconds",
		{"waiting_events", "{event}"}:         "waiting_events",
		{"waiting_oldest_age_seconds", "s"}:   "waiting_oldest_age_seconds",
		{"outbox_pending", "{event}"}:         "outbox_pending",
		{"outbox_oldest_age_seconds", "s"}:    "outbox_oldest_age_seconds",
		{"circuit_state", ""}:                 "circuit_state",
		{"messaging.client.in_flight", "{x}"}: "messaging_client_in_flight",
	}
	histograms := map[instrument]string{
		{"event_age_seconds", "s"}:            "event_age_seconds",
		{"http.server.request.duration", "s"}: "http_server_request_duration_seconds",
		{"messaging.process.duration", "s"}:   "messaging_process_duration_seconds",
	}
	var want []string
	for i, name := range counters {
		c, err := tel.Meter.Int64Counter(i.name, metric.WithUnit(i.unit))
		if err != nil {
			t.Fatal(err)
		}
		c.Add(t.Context(), 1)
		want = append(want, name+" 1")
	}
	for i, name := range gauges {
		g, err := tel.Meter.Float64Gauge(i.name, metric.WithUnit(i.unit))
		if err != nil {
			t.Fatal(err)
		}
		g.Record(t.Context(), 2)
		want = append(want, name+" 2")
	}
	for i, name := range histograms {
		h, err := tel.Meter.Float64Histogram(i.name, metric.WithUnit(i.unit))
		if err != nil {
			t.Fatal(err)
		}
		h.Record(t.Context(), 3)
		want = append(want, name+"_count 1")
	}
	page := scrape(t, tel)
	for _, line := range want {
		if !strings.Contains(page, "\n"+line+"\n") {
			t.Errorf("/metrics has no line %q", line)
		}
	}
	if strings.Contains(page, "otel_scope") {
		t.Error("/metrics holds otel_scope labels")
	}
	for _, line := range []string{"go_goroutines ", `target_info{`, `service_name="order"`} {
		if !strings.Contains(page, line) {
			t.Errorf("/metrics holds no %s", line)
		}
	}
}

func TestTelemetry_Metrics_dropsWhatAClientChooses(t *testing.T) {
	t.Parallel()
	tel, _, _ := start(t, telemetry.Config{Service: "order"})
	h, err := tel.MeterProvider.Meter("other").Float64Histogram("http.server.request.duration", metric.WithUnit("s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer.Start(t.Context(), "sampled")
	defer span.End()
	h.Record(ctx, 1, metric.WithAttributes(
		attribute.String("http.request.method", "GET"), attribute.String("url.scheme", "http"), attribute.String("http.route", "/v1/orders"),
		attribute.Int("http.response.status_code", 502), attribute.String("error.type", "502"),
		attribute.String("server.address", strings.Repeat("evil", 100))))
	page := scrape(t, tel)
	const labels = `{error_type="502",http_request_method="GET",http_response_status_code="502",http_route="/v1/orders",url_scheme="http"}`
	if strings.Contains(page, "evil") || !strings.Contains(page, labels) {
		t.Errorf("/metrics should hold %s and not the address:\n%s", labels, page)
	}
}

func TestTelemetry_longAttributesAreCut(t *testing.T) {
	t.Parallel()
	tel, spans, _ := start(t, telemetry.Config{})
	_, span := tel.Tracer.Start(t.Context(), "work")
	span.SetAttributes(attribute.String("user_agent.original", strings.Repeat("x", 1<<20)))
	span.End()
	if got := len(spans.Ended()[0].Attributes()[0].Value.AsString()); got != 1024 {
		t.Errorf("attribute has %d bytes, want 1024", got)
	}
}

// receiver is an OTLP endpoint that notes the paths it was asked for.
func receiver(t *testing.T, answer http.HandlerFunc) (url string, paths chan string) {
	t.Helper()
	paths = make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		paths <- r.URL.Path
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, paths
}

func ok(http.ResponseWriter, *http.Request) {}

func drain(paths chan string) (all []string) {
	for {
		select {
		case p := <-paths:
			all = append(all, p)
		default:
			return all
		}
	}
}

// The tests below set variables of the process, so they cannot be parallel.

// setExport sets these variables, and takes away whatever else of exporting the machine has set.
func setExport(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, name := range []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_METRICS_EXPORTER",
		"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
	} {
		t.Setenv(name, vars[name])
	}
}

func TestTelemetry_exportsWhereVariablesSay(t *testing.T) {
	for _, tt := range []struct {
		name string
		vars func(url string) map[string]string
		cfg  telemetry.Config
		want []string
	}{
		{"no endpoint means no export", func(string) map[string]string { return nil }, telemetry.Config{}, nil},
		{"the general endpoint gets spans", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url}
		}, telemetry.Config{}, []string{"/v1/traces"}},
		{"the endpoints of the signals get both", func(url string) map[string]string {
			return map[string]string{
				"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":  url + "/t",
				"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": url + "/m",
			}
		}, telemetry.Config{}, []string{"/t", "/m"}},
		{"exporter none means no export", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_EXPORTER": "none"}
		}, telemetry.Config{}, nil},
		{"a metric exporter named without an endpoint of its own uses the general one", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_METRICS_EXPORTER": "otlp"}
		}, telemetry.Config{}, []string{"/v1/traces", "/v1/metrics"}},
		{"exporter prometheus is the metrics page, and pushes nothing", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": url, "OTEL_METRICS_EXPORTER": "prometheus"}
		}, telemetry.Config{}, nil},
		{"metric exporter none pushes nothing either", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": url, "OTEL_METRICS_EXPORTER": "none"}
		}, telemetry.Config{}, nil},
		{"exporter console writes to standard output, and asks no endpoint", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "console"}
		}, telemetry.Config{}, nil},
		{"http/protobuf is the protocol", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
		}, telemetry.Config{}, []string{"/v1/traces"}},
		{"the protocol of a signal goes before the general one", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
		}, telemetry.Config{}, []string{"/v1/traces"}},
		{"a disabled SDK exports nothing", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_METRICS_EXPORTER": "otlp"}
		}, telemetry.Config{Disabled: true}, nil},
		{"always_off exports nothing", func(url string) map[string]string {
			return map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": url}
		}, telemetry.Config{Sampler: "always_off"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, paths := receiver(t, ok)
			setExport(t, tt.vars(url))
			tel, _, logs := start(t, tt.cfg)
			counter, err := tel.Meter.Int64Counter("n")
			if err != nil {
				t.Fatal(err)
			}
			counter.Add(t.Context(), 1)
			_, span := tel.Tracer.Start(t.Context(), "work")
			span.End()
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, drain(paths)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if got := logs.String(); got != "" {
				t.Errorf("log: got %q, want nothing", got)
			}
		})
	}
}

func TestTelemetry_wrongVariables(t *testing.T) {
	const endpoint, metrics = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
	for _, tt := range []struct {
		name string
		vars map[string]string
		want []string
	}{
		{"a span exporter that nobody knows", map[string]string{"OTEL_TRACES_EXPORTER": "pigeon"}, []string{`OTEL_TRACES_EXPORTER="pigeon"`, "otlp, console or none"}},
		{"a metric exporter that nobody knows", map[string]string{"OTEL_METRICS_EXPORTER": "pigeon"}, []string{`OTEL_METRICS_EXPORTER="pigeon"`, "otlp, prometheus, console or none"}},
		{"gRPC", map[string]string{endpoint: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, []string{`OTEL_EXPORTER_OTLP_PROTOCOL="grpc"`, "http/protobuf", "4318"}},
		{"gRPC for spans", map[string]string{endpoint: "http://c:4317", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, []string{`OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="grpc"`, "http/protobuf", "4318"}},
		{"gRPC for metrics", map[string]string{metrics: "http://c:4317", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, []string{`OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc"`, "http/protobuf", "4318"}},
		{"JSON", map[string]string{endpoint: "http://c:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, []string{`OTEL_EXPORTER_OTLP_PROTOCOL="http/json"`, "http/protobuf"}},
	} {
		t.Run(tt.name+" is an error that names variable and remedy", func(t *testing.T) {
			setExport(t, tt.vars)
			_, err := telemetry.New(t.Context(), telemetry.Config{})
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v: got %v, want it to hold %s", tt.vars, err, want)
				}
			}
		})
	}
	t.Run("a wrong propagator is one that names its variable", func(t *testing.T) {
		t.Setenv("OTEL_PROPAGATORS", "pigeon")
		if _, err := telemetry.New(t.Context(), telemetry.Config{}); err == nil || !strings.Contains(err.Error(), "OTEL_PROPAGATORS") {
			t.Errorf("propagator: got %v", err)
		}
	})
}

func TestTelemetry_endpointThatFails(t *testing.T) {
	t.Run("it is logged once, and once when it works again", func(t *testing.T) {
		var mu sync.Mutex
		status := http.StatusBadRequest // not one that is retried
		url, _ := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			w.WriteHeader(status)
		})
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
		tel, _, logs := start(t, telemetry.Config{})
		export := func() {
			_, span := tel.Tracer.Start(t.Context(), "work")
			span.End()
			if err := tel.TracerProvider.(*sdktrace.TracerProvider).ForceFlush(t.Context()); err != nil {
				t.Error(err)
			}
		}
		export()
		export()
		mu.Lock()
		status = http.StatusOK
		mu.Unlock()
		export()
		export()
		got := logs.String()
		if strings.Count(got, "\n") != 2 || !strings.Contains(got, "span export fails") || !strings.Contains(got, "works again") {
			t.Errorf("log: got %q, want one line when it fails and one when it works", got)
		}
	})
	t.Run("ending spans does not wait for it, shutdown ends with its context", func(t *testing.T) {
		hang := make(chan struct{})
		url, asked := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		})
		defer close(hang)
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
		t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
		tel, _, _ := start(t, telemetry.Config{})
		for range 5_000 { // more than the queue holds
			_, span := tel.Tracer.Start(t.Context(), "work")
			span.End()
		}
		<-asked
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begin := time.Now()
		if err := tel.Shutdown(ctx); err == nil {
			t.Error("shutdown of a hanging exporter: got no error")
		}
		if d := time.Since(begin); d > 5*time.Second {
			t.Errorf("shutdown took %v, its context 50ms", d)
		}
	})
}
