package email

import (
	"context"
	_ "embed"

	"example.com/keyline/pkg/app"
)

//go:embed openapi.yaml
var openAPI []byte

// Config is everything the service reads from its variables.
type Config struct {
	app.Config
	SMTP SMTPConfig
}

// Run runs the service until ctx ends, and returns once everything in hand is finished.
func Run(ctx context.Context, cfg Config) error {
	a, err := app.New(ctx, "email", cfg.Config, payloads(), migrations)
	if err != nil {
		return err
	}
	m, err := newMailer(cfg.SMTP, a.Tracer)
	if err != nil {
		return err
	}
	s := &Service{db: a.DB, outbox: a.Outbox, mailer: m, log: a.Log}
	s.register(a.Inbox)
	return a.Run(ctx, s.mux(), openAPI)
}
