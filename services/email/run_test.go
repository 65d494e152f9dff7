package email_test

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
	"example.com/keyline/services/email"
)

func environ(more ...string) map[string]string {
	vars := map[string]string{
		"KAFKA_BROKERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": registryURL, "DATABASE_URL": "sqlite:email.db", "SMTP_ADDR": "127.0.0.1:1",
	}
	for i := 0; i < len(more); i += 2 {
		vars[more[i]] = more[i+1]
	}
	return vars
}

func TestRun_variables(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, value string }{
		{"KAFKA_BROKERS", ""}, {"SCHEMA_REGISTRY_URL", ""}, {"DATABASE_URL", ""}, {"DATABASE_URL", "mysql://x"}, {"RETRY_MAX_BACKOFF", "long"},
		{"SMTP_ADDR", ""}, {"SMTP_ADDR", "mail.example.com"}, {"SMTP_FROM", "the shop"}, {"SMTP_TLS", "yes"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Parallel()
			cfg, err := service.Parse[email.Config](environ(tt.name, tt.value))
			if err == nil {
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // should it start after all
				err = email.Run(ctx, cfg)
			}
			if err == nil || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("%s=%q: %v, want an error that names it", tt.name, tt.value, err)
			}
		})
	}
}

// The whole service on a broker: events come in, a mail goes out, and the stop is clean.
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
	r := newRig(t) // for its codec, its log, its mailbox, and as a client
	cfg, err := service.Parse[email.Config](environ("KAFKA_BROKERS", broker.Addr(), "DATABASE_URL", dbtest.URL(t), "SMTP_ADDR", r.box.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Telemetry.LogWriter, cfg.Telemetry.LogLevel = r.logs, slog.LevelDebug
	cfg.Telemetry.SpanProcessors = append(cfg.Telemetry.SpanProcessors, r.spans)
	if cfg.Service.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if cfg.Service.AdminListener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	r.url = "http://" + cfg.Service.Listener.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- email.Run(ctx, cfg) }()
	defer stop()
	eventually(t, "the service is ready", func() bool { return r.do("GET", "/readyz").StatusCode == 200 })

	producer, err := kafka.NewProducer(kafka.Config{Brokers: []string{broker.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	records := []event.Record{r.record(placed("o-1", "ada@customer.example"), eventID(1), "/order"), r.record(confirmed("o-1"), eventID(2), "/order")}
	if errs := producer.Publish(ctx, records); errs != nil {
		t.Fatal(errs)
	}
	eventually(t, "the mail is sent and noted", func() bool {
		all := r.ledger("o-1")
		return len(all) == 1 && all[0].SentAt != nil
	})
	if m := r.box.Messages(); len(m) != 1 || m[0].ID != "<"+eventID(2)+"@keyline.example>" {
		t.Errorf("the mailbox has %+v", m)
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("Run = %v, want a clean stop", err)
	}
	r.noAddress()
}
