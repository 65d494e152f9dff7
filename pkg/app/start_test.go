package app_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
)

func config() app.Config {
	return app.Config{
		Telemetry: telemetry.Config{LogWriter: io.Discard},
		Kafka:     kafka.Config{Brokers: []string{"127.0.0.1:1"}},
		Registry:  codec.Config{URL: "http://127.0.0.1:1"},
		Database:  db.Config{URL: "sqlite:nowhere.db"},
	}
}

// clients are the goroutines of Kafka clients.
func clients() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "franz-go")
}

// A service whose start has failed leaves nothing behind that goes on dialling. Not parallel:
// it looks at all goroutines.
func TestFailedStart_leaves_no_client(t *testing.T) {
	ctx := context.Background()
	if _, err := app.New(ctx, "test", config(), nil); err != nil {
		t.Fatal(err)
	}
	if n := clients(); n > 0 {
		t.Errorf("%d goroutines of a Kafka client after New", n)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := config()
	cfg.Service.HTTPAddr = taken.Addr().String()
	a, err := app.New(ctx, "test", cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	inbox.Handle(a.Inbox, func(context.Context, *db.Tx, event.Event[noEvent]) error { return nil })
	if err := a.Run(ctx, nil, nil); err == nil || !strings.Contains(err.Error(), "HTTP_ADDR") {
		t.Errorf("Run on an address that is taken = %v", err)
	}
	// A client that is closed is waited for: its goroutines may be about to end.
	over := time.After(10 * time.Second)
	for clients() > 0 {
		select {
		case <-over:
			t.Fatalf("%d goroutines of a Kafka client go on after Run has failed", clients())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// noEvent is a payload, for a topic to consume.
type noEvent struct{}

func (noEvent) Schema() string { return `{"type":"record","name":"test.NoEvent","fields":[]}` }
func (noEvent) Topic() string  { return "nothing" }
func (noEvent) Key() string    { return "" }

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for variable, spoil := range map[string]func(*app.Config){
		"DATABASE_URL":        func(c *app.Config) { c.Database.URL = "mysql://x" },
		"SCHEMA_REGISTRY_URL": func(c *app.Config) { c.Registry.URL = "nowhere" },
		"RETRY_ATTEMPTS":      func(c *app.Config) { c.Inbox.Attempts = -1 },
		"KAFKA_BROKERS":       func(c *app.Config) { c.Kafka.Brokers = []string{"nowhere"} },
	} {
		cfg := config()
		spoil(&cfg)
		a, err := app.New(t.Context(), "test", cfg, nil)
		if err == nil {
			inbox.Handle(a.Inbox, func(context.Context, *db.Tx, event.Event[noEvent]) error { return nil })
			err = a.Run(t.Context(), nil, nil)
		}
		var config *service.ConfigError
		if !errors.As(err, &config) || !strings.Contains(err.Error(), variable) {
			t.Errorf("%s: %v, want an error of the configuration that names it", variable, err)
		}
	}
}
