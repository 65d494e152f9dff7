package order_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

func environ(more ...string) map[string]string {
	vars := map[string]string{"KAFKA_BROKERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": registryURL, "DATABASE_URL": "sqlite:order.db"}
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
			if err == nil || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("%s=%q: %v, want an error that names it", tt.name, tt.value, err)
			}
		})
	}
}

// keep is a consumer's processor that keeps what it gets.
type keep struct {
	mu      sync.Mutex
	records []event.Record
}

func (k *keep) Process(_ context.Context, b event.Batch) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.records = append(k.records, b.Records...)
	return nil
}

func (k *keep) all() []event.Record {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]event.Record(nil), k.records...)
}

// The whole service on a broker: an order goes out as an event, the answer settles it, and
// the stop is clean.
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
	cfg, err := service.Parse[order.Config](environ("KAFKA_BROKERS", broker.Addr(), "DATABASE_URL", dbtest.URL(t)))
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
	go func() { ended <- order.Run(ctx, cfg) }()
	defer stop()
	eventually(t, "the service is ready", func() bool { return r.do("GET", "/readyz", "").StatusCode == 200 })

	sent := &keep{}
	consumer, err := kafka.NewConsumer(kafka.Config{Brokers: []string{broker.Addr()}, Group: "test"}, []string{schemas.TopicOrders}, sent)
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := consumer.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	id := r.post(body)
	eventually(t, "OrderPlaced is on its topic", func() bool { return len(sent.all()) == 1 })
	if placed := sent.all()[0]; string(placed.Key) != id || string(placed.Header(event.HeaderAggregateVersion)) != "1" {
		t.Errorf("the record has key %s and headers %s", placed.Key, placed.Headers)
	}
	producer, err := kafka.NewProducer(kafka.Config{Brokers: []string{broker.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	if errs := producer.Publish(ctx, []event.Record{r.record(reserved(id), "answer-1")}); errs != nil {
		t.Fatal(errs)
	}
	if a := r.do("GET", "/v1/orders/"+id+"?wait=30s", ""); a.json["status"] != "confirmed" {
		t.Errorf("GET = %s, want a confirmed order", a)
	}
	eventually(t, "OrderConfirmed is on its topic", func() bool { return len(sent.all()) == 2 })
	begun := time.Now()
	stop()
	reading.Wait()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v after %v, want a clean stop", err, time.Since(begun))
	}
	noAddress(t, r)
}
