package eventtest_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/smtp"
	"slices"
	"sync"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/outbox"
	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
)

var moves = []event.Payload{
	Moved{"tea", 5}, Moved{"cup", 3}, Moved{"tea", -2}, Moved{"pot", 1}, Moved{"cup", 4}, Moved{"tea", 10}, Moved{"pot", 1}, Moved{"cup", -1}, Moved{"tea", 1},
}

// wrong is the example's service with a handler that makes mistakes.
type wrong struct {
	Service
	smtp   string
	memory counter
}

type handler func(s *wrong, ctx context.Context, tx *db.Tx, e event.Event[Moved]) error

type wrongConfig struct {
	app.Config
	SMTP string `env:"SMTP_ADDR"`
}

func handled(h handler) eventtest.Service {
	return eventtest.NewService("shelf", func(ctx context.Context, cfg wrongConfig) error {
		a, err := app.New(ctx, "shelf", cfg.Config, []event.Payload{Moved{}, Counted{}}, migrations)
		if err != nil {
			return err
		}
		s := &wrong{Service: Service{outbox: a.Outbox}, smtp: cfg.SMTP}
		inbox.Handle(a.Inbox, func(ctx context.Context, tx *db.Tx, e event.Event[Moved]) error { return h(s, ctx, tx, e) })
		mux := http.NewServeMux()
		mux.HandleFunc("GET /memory", func(w http.ResponseWriter, _ *http.Request) { service.WriteJSON(w, http.StatusOK, s.memory.all()) })
		return a.Run(ctx, mux, nil)
	})
}

// counter counts pieces in memory.
type counter struct {
	mu     sync.Mutex
	pieces map[string]int64
}

func (c *counter) add(m Moved) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pieces == nil {
		c.pieces = map[string]int64{}
	}
	c.pieces[m.SKU] += m.Pieces
}

func (c *counter) all() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.pieces)
}

// mail tells somebody, outside any transaction.
func (s *wrong) mail(m Moved) error {
	text := fmt.Sprintf("Subject: %d of %s\r\n\r\n", m.Pieces, m.SKU)
	return smtp.SendMail(s.smtp, nil, "shelf@shop.example", []string{"ada@customer.example"}, []byte(text))
}

func mails(r *eventtest.Rig) any {
	var subjects []string
	for _, m := range r.Mailbox.Messages() {
		subjects = append(subjects, m.Subject)
	}
	slices.Sort(subjects)
	return subjects
}

// runWithoutInbox is a service that believes whatever its consumer hands over.
func runWithoutInbox(ctx context.Context, cfg Config) error {
	t, err := telemetry.New(ctx, cfg.Telemetry)
	if err != nil {
		return err
	}
	d, err := db.Open(cfg.Database)
	if err != nil {
		return err
	}
	c, err := codec.New(cfg.Registry, Moved{})
	if err != nil {
		return err
	}
	consumer, err := kafka.NewConsumer(cfg.Kafka, []string{"moves"}, adder{d, c})
	if err != nil {
		return err
	}
	return (&service.Service{
		Name: "shelf", Config: cfg.Service, Telemetry: t,
		Prepare: []service.Step{{Name: "migrate the database", Run: func(ctx context.Context) error {
			return d.Migrate(ctx, outbox.Migrations, inbox.Migrations, migrations)
		}}},
		Parts: []service.Part{{Name: "consumer", Run: consumer.Run}},
		Close: []func(context.Context) error{func(context.Context) error { return d.Close() }},
	}).Run(ctx)
}

// adder adds up what it is handed.
type adder struct {
	db    *db.DB
	codec *codec.Codec
}

func (a adder) Process(ctx context.Context, b event.Batch) error {
	return a.db.InTx(ctx, func(ctx context.Context, tx *db.Tx) error {
		for _, rec := range b.Records {
			m, err := codec.Decode[Moved](ctx, a.codec, rec.Value)
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, `insert into shelf (sku, pieces, version) values ($1, $2, 1)
				on conflict (sku) do update set pieces = shelf.pieces + excluded.pieces`, m.SKU, m.Pieces)
			if err != nil {
				return err
			}
		}
		return nil
	})
}
