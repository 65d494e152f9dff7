package order_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

func environ(more ...string) map[string]string {
	vars := map[string]string{"KAFKA_BROKERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1", "DATABASE_URL": "postgres://127.0.0.1:1/order"}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

func TestRun_variables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, value string }{
		{"KAFKA_BROKERS", ""}, {"SCHEMA_REGISTRY_URL", ""}, {"SCHEMA_REGISTRY_URL", "ftp://x"}, {"DATABASE_URL", ""}, {"DATABASE_URL", "mysql://x"},
		{"ORDER_DEADLINE", "soon"}, {"ORDER_DEADLINE", "0s"}, {"ORDER_DEADLINE", "-30s"}, {"IDEMPOTENCY_TTL", "0"},
		{"OVERLOAD_OUTBOX_AGE", "-1s"}, {"OVERLOAD_LAG", "0s"}, {"OVERLOAD_LAG", "10"}, {"RETRY_ATTEMPTS", "many"}, {"LOG_FORMAT", "xml"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Parallel()
			cfg, err := service.Parse[order.Config](environ(tt.name, tt.value))
			if err == nil {
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // should it start after all
				err = order.Run(ctx, cfg)
			}
			var config *service.ConfigError
			if !errors.As(err, &config) || !strings.Contains(config.Error(), tt.name) {
				t.Errorf("%s=%q: %v, want an error of the configuration that names it", tt.name, tt.value, err)
			}
		})
	}
}

// The whole service on a broker: an order goes out as an event, the answer settles it, and
// the stop is clean.
func TestRun(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	s := eventtest.NewService("order", order.Run)
	s.Change = func(cfg *app.Config) { cfg.Telemetry.SpanProcessors = append(cfg.Telemetry.SpanProcessors, spans) }
	r := eventtest.New(t, contract, s)
	p := r.Start()
	client := &rig{Parts: &eventtest.Parts{TB: t, Logs: r.Logs}, spans: spans, url: p.URL}

	id := client.post(body)
	if placed := eventtest.Await[schemas.OrderPlaced](r, "", 1)[0]; placed.Meta.Subject != id || placed.Meta.Version != 1 {
		t.Errorf("OrderPlaced has key %s and version %d", placed.Meta.Subject, placed.Meta.Version)
	}
	r.Publish(r.Event("/inventory", reserved(id)))
	if a := client.do("GET", "/v1/orders/"+id+"?wait=30s", ""); a.JSON["status"] != "confirmed" {
		t.Errorf("GET = %s, want a confirmed order", a)
	}
	eventtest.Await[schemas.OrderConfirmed](r, id, 1)
	p.Stop()
	noAddress(t, client)
}
