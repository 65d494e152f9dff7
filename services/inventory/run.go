package inventory

import (
	"context"
	_ "embed"
	"errors"
	"time"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/idempotency"
	"example.com/keyline/pkg/service"
)

//go:embed openapi.yaml
var openAPI []byte

// Config is everything the service reads from its variables.
type Config struct {
	app.Config
	// KeyTTL is how long a repeated request gets the stored answer.
	KeyTTL time.Duration `env:"IDEMPOTENCY_TTL" envDefault:"24h"`
}

// Run runs the service until ctx ends, and returns once everything in hand is finished. It
// fails at once, naming the variable, if cfg makes no sense.
func Run(ctx context.Context, cfg Config) error {
	if cfg.KeyTTL <= 0 {
		return &service.ConfigError{Err: errors.New("IDEMPOTENCY_TTL must be longer than 0, such as 24h")}
	}
	a, err := app.New(ctx, "inventory", cfg.Config, payloads(), idempotency.Migrations, migrations)
	if err != nil {
		return err
	}
	s := &Service{db: a.DB, outbox: a.Outbox, log: a.Log}
	s.register(a.Inbox)
	keys := idempotency.New(a.DB, cfg.KeyTTL)
	return a.Run(ctx, s.mux(keys), openAPI, service.Part{Name: "idempotency keys", Run: func(ctx context.Context) error {
		return service.Every(ctx, time.Minute, a.Log, "remove expired keys", keys.Clean)
	}})
}
