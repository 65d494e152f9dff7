package email_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/service"
	"example.com/keyline/schemas"
	"example.com/keyline/services/email"
)

func environ(more ...string) map[string]string {
	vars := map[string]string{
		"KAFKA_BROKERS": "127.0.0.1:1", "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1", "DATABASE_URL": "postgres://127.0.0.1:1/email", "SMTP_ADDR": "127.0.0.1:1",
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
			var config *service.ConfigError
			if !errors.As(err, &config) || !strings.Contains(config.Error(), tt.name) {
				t.Errorf("%s=%q: %v, want an error of the configuration that names it", tt.name, tt.value, err)
			}
		})
	}
}

// The whole service on a broker: events come in, a mail goes out, and the stop is clean.
func TestRun(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	s := eventtest.NewService("email", email.Run)
	s.Change = func(cfg *app.Config) { cfg.Telemetry.SpanProcessors = append(cfg.Telemetry.SpanProcessors, spans) }
	r := eventtest.New(t, contract, s)
	p := r.Start()
	client := &rig{Parts: &eventtest.Parts{TB: t, DB: r.DB, Logs: r.Logs}, spans: spans, url: p.URL}

	settles := r.Event("/order", confirmed("o-1"))
	r.Publish(r.Event("/order", placed("o-1", "ada@customer.example")), settles)
	sent := eventtest.Await[schemas.EmailSent](r, "o-1", 1)[0]
	if all := client.ledger("o-1"); len(all) != 1 || all[0].SentAt == nil {
		t.Errorf("the ledger has %+v, want one mail that is sent", all)
	}
	id := string(settles.Header(event.HeaderID))
	if m := r.Mailbox.Messages(); len(m) != 1 || m[0].ID != "<"+id+"@keyline.example>" || sent.Data.MessageID != m[0].ID {
		t.Errorf("the mailbox has %+v", m)
	}
	p.Stop()
	client.noAddress()
}
