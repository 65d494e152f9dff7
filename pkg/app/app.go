// Package app puts an event-driven service together: database, codec, outbox, inbox,
// producer, consumer, and the process around them. It is the one place that knows all of
// them, so that the order in which they start and stop is written once.
//
//	a, err := app.New(ctx, "order", cfg.Config, payloads(), migrations)
//	…
//	s := &Service{db: a.DB, outbox: a.Outbox}
//	inbox.Handle(a.Inbox, s.onStockReserved)
//	return a.Run(ctx, s.routes(), openAPI)
package app

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
)

// Config is what every service reads from its variables.
type Config struct {
	Service   service.Config
	Telemetry telemetry.Config
	Kafka     kafka.Config
	Registry  codec.Config
	Database  db.Config
	Inbox     inbox.Config
}

// App is a service that is being put together. Its fields are for the service's own code.
type App struct {
	Log    *slog.Logger
	Tracer trace.Tracer
	Meter  metric.Meter
	DB     *db.DB
	Outbox *outbox.Outbox
	Inbox  *inbox.Inbox // register handlers before Run

	name       string
	cfg        Config
	telemetry  *telemetry.Telemetry
	codec      *codec.Codec
	migrations []db.Migrations
}

// New makes the parts of the service of that name, which is also its consumer group unless
// KAFKA_GROUP says otherwise. payloads are zero values of all events that it writes or
// reads, migrations those of its own tables. It connects to nothing; an error names the
// variable that is wrong, and is a [*service.ConfigError].
func New(ctx context.Context, name string, cfg Config, payloads []event.Payload, migrations ...db.Migrations) (_ *App, err error) {
	defer func() {
		if err != nil {
			err = &service.ConfigError{Err: err}
		}
	}()
	if cfg.Kafka.Group == "" {
		cfg.Kafka.Group = name
	}
	cfg.Telemetry.Service = name
	t, err := telemetry.New(ctx, cfg.Telemetry)
	if err != nil {
		return nil, err
	}
	a := &App{Log: t.Log, Tracer: t.Tracer, Meter: t.Meter, name: name, telemetry: t}
	if a.DB, err = db.Open(cfg.Database); err != nil {
		return nil, err
	}
	cfg.Registry.Store, cfg.Registry.Meter, cfg.Registry.Log = a.DB, t.Meter, t.Log
	if a.codec, err = codec.New(cfg.Registry, payloads...); err != nil {
		return nil, err
	}
	a.Outbox = outbox.New(a.DB, a.codec, outbox.Config{Source: "/" + name, Meter: t.Meter, Log: t.Log})
	cfg.Inbox.Group, cfg.Inbox.Tracer, cfg.Inbox.Meter, cfg.Inbox.Log = cfg.Kafka.Group, t.Tracer, t.Meter, t.Log
	if a.Inbox, err = inbox.New(a.DB, a.codec, a.Outbox, cfg.Inbox); err != nil {
		return nil, err
	}
	cfg.Kafka.Tracer, cfg.Kafka.Meter, cfg.Kafka.Log = t.Tracer, t.Meter, t.Log
	a.cfg = cfg
	a.migrations = append([]db.Migrations{outbox.Migrations, inbox.Migrations}, migrations...)
	return a, nil
}

// Run runs the service until ctx ends, and returns once everything in hand is finished.
// public are its routes, parts what it runs beside the consumer, the inbox and the relay;
// the relay stops last, since all others append to the outbox. A [*service.ConfigError] names
// a variable of Kafka's that is wrong.
func (a *App) Run(ctx context.Context, public http.Handler, openAPI []byte, parts ...service.Part) error {
	a.cfg.Kafka.BeforeSkip, a.cfg.Kafka.Reached = a.Inbox.Rewind, a.Inbox.Reached
	consumer, err := kafka.NewConsumer(a.cfg.Kafka, a.Inbox.Topics(), a.Inbox)
	if err != nil {
		return &service.ConfigError{Err: err}
	}
	stopMeasuring, err := a.observeTables()
	if err != nil {
		return err
	}
	producer, err := kafka.NewProducer(a.cfg.Kafka) // from here on it connects
	if err != nil {
		return &service.ConfigError{Err: errors.Join(err, stopMeasuring())}
	}
	all := append([]service.Part{{Name: "consumer", Run: consumer.Run}, {Name: "inbox", Run: a.Inbox.Run}}, parts...)
	all = append(all, service.Part{Name: "relay", Run: func(ctx context.Context) error { return a.Outbox.Relay(ctx, producer) }})
	return (&service.Service{
		Name: a.name, Config: a.cfg.Service, Telemetry: a.telemetry, Public: public, Admin: a.operatorRoutes(consumer), OpenAPI: openAPI,
		Prepare: []service.Step{
			{Name: "migrate the database", Run: func(ctx context.Context) error { return a.DB.Migrate(ctx, a.migrations...) }},
			{Name: "verify the schemas", Run: a.codec.Verify},
		},
		Parts: all,
		Checks: []service.Check{
			{Name: "database", Run: a.DB.Ping},
			{Name: "kafka", Run: consumer.Ping, Once: true},
			{Name: "consumer group", Once: true, Run: func(context.Context) error {
				if !consumer.Joined() {
					return errors.New("not joined yet")
				}
				return nil
			}},
		},
		Close: []func(context.Context) error{
			func(context.Context) error { producer.Close(); return nil },
			func(context.Context) error { return stopMeasuring() },
			func(context.Context) error { return a.DB.Close() },
		},
	}).Run(ctx)
}
