package email

import (
	"context"
	_ "embed"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/service"
)

//go:embed openapi.yaml
var openAPI []byte

// Config is everything the service reads from its variables.
type Config struct {
	app.Config
	SMTP SMTPConfig
	// Attempts is the inbox's with another default: a recipient's server may put a mail off
	// for many minutes, and a hundred attempts last an hour. 0 is the inbox's default.
	Attempts int `env:"RETRY_ATTEMPTS" envDefault:"100"`
}

// Run runs the service until ctx ends, and returns once everything in hand is finished.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Attempts != 0 {
		cfg.Inbox.Attempts = cfg.Attempts
	}
	a, err := app.New(ctx, "email", cfg.Config, payloads(), migrations)
	if err != nil {
		return err
	}
	m, err := newMailer(cfg.SMTP, a.Tracer)
	if err != nil {
		return &service.ConfigError{Err: err}
	}
	s := &Service{db: a.DB, outbox: a.Outbox, mailer: m, log: a.Log}
	s.register(a.Inbox)
	defer m.idle.close()
	return a.Run(ctx, s.mux(), openAPI)
}
