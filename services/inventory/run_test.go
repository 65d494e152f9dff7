package inventory_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"

	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/inventory"
)

func environ(more ...string) map[string]string {
	vars := map[string]string{"KAFKA_BROKERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": registryURL, "DATABASE_URL": "sqlite:inventory.db"}
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
			if err == nil || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("%s=%q: %v, want an error that names it", tt.name, tt.value, err)
			}
		})
	}
}

// The whole service on a broker: goods come in by HTTP, an order as an event, and the stop is
// clean.
func TestRun(t *testing.T) {
	t.Parallel()
	var topics []embedded.Topic
	for _, topic := range schemas.Topics() {
		topics = append(topics, embedded.Topic(topic))
	}
	broker, err := embedded.StartKafka(embedded.KafkaConfig{Topics: topics})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cfg, err := service.Parse[inventory.Config](environ("KAFKA_BROKERS", broker.Addr(), "DATABASE_URL", dbtest.URL(t)))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t) // for its codec, its log, and as a client
	cfg.Telemetry.LogWriter, cfg.Telemetry.LogLevel = r.logs, slog.LevelDebug
	if cfg.Service.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if cfg.Service.AdminListener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + cfg.Service.Listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- inventory.Run(ctx, cfg) }()
	defer stop()
	eventually(t, "the service is ready", func() bool { return r.do("GET", "/readyz", "").StatusCode == 200 })

	r.receipt("tea", 5)
	producer, err := kafka.NewProducer(kafka.Config{Brokers: []string{broker.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	if errs := producer.Publish(ctx, []event.Record{r.record(order("o-1", "2 tea"), "o-1")}); errs != nil {
		t.Fatal(errs)
	}
	eventually(t, "the order is reserved", func() bool {
		return strings.Contains(r.do("GET", "/v1/stock/tea", "").text, `"available":3`)
	})
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want a clean stop", err)
	}
	if logs := r.logs.String(); strings.Contains(logs, "ada@") {
		t.Errorf("an address is in the log:\n%s", logs)
	}
}
