package order

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/service"
)

//go:embed openapi.yaml
var openAPI []byte

// Config is everything the service reads from its variables.
type Config struct {
	app.Config
	Limits Limits
	// Deadline is how long an order waits for inventory before it is cancelled.
	Deadline time.Duration `env:"ORDER_DEADLINE" envDefault:"30s"`
	// KeyTTL is how long a repeated request gets the stored answer.
	KeyTTL time.Duration `env:"IDEMPOTENCY_TTL" envDefault:"24h"`
}

// check names a variable that makes no sense.
func (c Config) check() error {
	for _, v := range []struct {
		name string
		d    time.Duration
	}{
		{"ORDER_DEADLINE", c.Deadline}, {"IDEMPOTENCY_TTL", c.KeyTTL}, {"OVERLOAD_OUTBOX_AGE", c.Limits.OutboxAge}, {"OVERLOAD_LAG", c.Limits.Lag},
	} {
		if v.d <= 0 {
			return &service.ConfigError{Err: fmt.Errorf("%s must be longer than 0, such as 30s", v.name)}
		}
	}
	return nil
}

// Run runs the service until ctx ends, and returns once everything in hand is finished. It
// fails at once, naming the variable, if cfg makes no sense.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.check(); err != nil {
		return err
	}
	a, err := app.New(ctx, "order", cfg.Config, payloads(), idempotency.Migrations, migrations)
	if err != nil {
		return err
	}
	s := &Service{db: a.DB, outbox: a.Outbox, tracer: a.Tracer, log: a.Log, patience: cfg.Deadline, limits: cfg.Limits}
	s.settled, err = a.Meter.Int64Counter("orders_settled", metric.WithDescription("Orders by the status they settled in."))
	if err != nil {
		return err
	}
	s.register(a.Inbox)
	keys := idempotency.New(a.DB, cfg.KeyTTL)
	every := func(pause time.Duration, what string, do func(context.Context) error) service.Part {
		return service.Part{Name: what, Run: func(ctx context.Context) error { return service.Every(ctx, pause, a.Log, what, do) }}
	}
	return a.Run(ctx, s.mux(idempotency.NewBatch(keys, s.place)), openAPI,
		every(time.Second, "cancel overdue orders", s.cancelAllOverdue),
		every(500*time.Millisecond, "measure the load", s.measurePressure),
		every(time.Minute, "remove expired keys", keys.Clean),
	)
}

func statusLabel(s Status) metric.AddOption {
	return metric.WithAttributes(attribute.String("status", string(s)))
}
