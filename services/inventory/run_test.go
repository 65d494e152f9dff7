package inventory_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/inventory"
)

func environ(more ...string) map[string]string {
	vars := map[string]string{"KAFKA_BROKERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1", "DATABASE_URL": "postgres://127.0.0.1:1/inventory"}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

func TestRun_variables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, value string }{
		{"KAFKA_BROKERS", ""}, {"SCHEMA_REGISTRY_URL", ""}, {"DATABASE_URL", ""}, {"DATABASE_URL", "mysql://x"},
		{"IDEMPOTENCY_TTL", "0s"}, {"IDEMPOTENCY_TTL", "a day"}, {"RETRY_ATTEMPTS", "many"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Parallel()
			cfg, err := service.Parse[inventory.Config](environ(tt.name, tt.value))
			if err == nil {
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // should it start after all
				err = inventory.Run(ctx, cfg)
			}
			var config *service.ConfigError
			if !errors.As(err, &config) || !strings.Contains(config.Error(), tt.name) {
				t.Errorf("%s=%q: %v, want an error of the configuration that names it", tt.name, tt.value, err)
			}
		})
	}
}

// The whole service on a broker: goods come in by HTTP, an order as an event, and the stop is
// clean.
func TestRun(t *testing.T) {
	t.Parallel()
	r := eventtest.New(t, contract, eventtest.NewService("inventory", inventory.Run))
	p := r.Start()
	client := &rig{Parts: &eventtest.Parts{TB: t}, url: p.URL}

	client.receipt("tea", 5)
	r.Publish(r.Event("/order", order("o-1", "2 tea")))
	eventtest.Await[schemas.StockReserved](r, "o-1", 1)
	if a := client.do("GET", "/v1/stock/tea", ""); !strings.Contains(a.Text, `"available":3`) {
		t.Errorf("GET = %s, want 3 available", a)
	}
	p.Stop()
	if logs := r.Logs.String(); strings.Contains(logs, "ada@") {
		t.Errorf("an address is in the log:\n%s", logs)
	}
}
