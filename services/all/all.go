package all

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
	"example.com/keyline/services/email"
	"example.com/keyline/services/inventory"
	"example.com/keyline/services/order"
)

// Config is what `make run` can be told. The services read all other variables as they do
// on their own.
type Config struct {
	// Port of the page and all routes; 0 is 8080 or the next free one.
	Port int `env:"PORT"`
	// KafkaPort and SMTPPort fix the ports of the embedded parts; 0 is a free one.
	KafkaPort int `env:"KAFKA_PORT"`
	SMTPPort  int `env:"SMTP_PORT"`
	// Load is how many sample orders are placed per second; 0 places none.
	Load float64 `env:"LOAD" envDefault:"1" expect:"orders per second, such as 0, 0.5 or 5"`
	// Data is the folder that keeps everything for the next start; empty keeps nothing.
	Data string `env:"DATA"`

	// Environ are the variables of the process.
	Environ map[string]string `env:"-"`
	// Out gets the banner; nil is standard output.
	Out io.Writer `env:"-"`
	// Log gets the lines that the shop and its services log; nil is standard error.
	Log io.Writer `env:"-"`
	// URLFile, if set, is where the URLs are written for other programs.
	URLFile string `env:"-"`
	// Tune, if set, may change the services' configurations before they start: it is called
	// with an *order.Config, an *inventory.Config and an *email.Config.
	Tune func(cfg any) `env:"-"`
	// Started, if set, is called once everything is ready.
	Started func(*Shop) `env:"-"`
}

// maxLoad is how many sample orders a second the one customer can place.
const maxLoad = 1000

// Shop is the running shop.
type Shop struct {
	URLs  URLs
	parts *parts
	spans *spans
	log   *slog.Logger
	// order, inventory and email are where the services listen, beside the front.
	order, inventory, email endpoint
	inner                   *http.Client // asks them
}

// URLs are where the parts of the shop are reached.
type URLs struct {
	HTTP     string `json:"http"`
	Admin    string `json:"admin"`
	Kafka    string `json:"kafka"`
	Registry string `json:"registry"`
	SMTP     string `json:"smtp"`
}

// Run runs the shop until ctx ends, and returns once every part of it has stopped: the
// services first, then what they stand on.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg.Out == nil {
		cfg.Out = os.Stdout
	}
	if cfg.Log == nil {
		cfg.Log = os.Stderr
	}
	inner := &http.Transport{MaxIdleConnsPerHost: 100}
	if !(cfg.Load >= 0 && cfg.Load <= maxLoad) {
		return &service.ConfigError{Err: fmt.Errorf("LOAD must be 0 to %d orders per second", maxLoad)}
	}
	s := &Shop{spans: newSpans(), inner: &http.Client{Transport: inner}, log: slog.New(slog.NewTextHandler(cfg.Log, nil))}
	front, err := listenFront(cfg.Port)
	if err != nil {
		return err
	}
	defer front.Close()
	s.URLs.HTTP = "http://" + front.Addr().String()
	if s.parts, err = startParts(cfg, s.URLs.HTTP, s.log); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.parts.close()) }()
	return s.run(ctx, cfg, front)
}

// provisionGrace is how long the services wait for topics and schemas before they start
// without.
const provisionGrace = 2 * time.Second

func (s *Shop) run(ctx context.Context, cfg Config, front net.Listener) error {
	services, err := s.services(cfg)
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.URLs.Admin = "http://" + admin.Addr().String()
	s.URLs.Kafka, s.URLs.Registry, s.URLs.SMTP = s.parts.environ["KAFKA_BROKERS"], s.parts.environ["SCHEMA_REGISTRY_URL"], s.parts.environ["SMTP_ADDR"]

	g, ctx := errgroup.WithContext(ctx)
	// A connection without a request yet would hold up the stop of the service behind it.
	defer context.AfterFunc(ctx, s.inner.CloseIdleConnections)()
	stopped, servicesStopped := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return serve(stopped, front, s.routes()) })
	g.Go(func() error { return serve(stopped, admin, s.adminRoutes()) })
	provisioned := make(chan struct{})
	g.Go(func() error {
		defer close(provisioned)
		return s.parts.provision(ctx, s.log)
	})
	g.Go(func() error {
		defer servicesStopped() // the registry behind the front serves them to their end
		// A part that stays away is the services' to tell, in their probes.
		select {
		case <-provisioned:
		case <-time.After(provisionGrace):
		}
		return services(ctx)
	})
	g.Go(func() error { return s.open(ctx, cfg) })
	return g.Wait()
}

// services makes the three services' configurations, and returns what runs them.
func (s *Shop) services(cfg Config) (run func(context.Context) error, err error) {
	oc, err := service.Parse[order.Config](s.parts.forService("order"))
	if err != nil {
		return nil, err
	}
	ic, err := service.Parse[inventory.Config](s.parts.forService("inventory"))
	if err != nil {
		return nil, err
	}
	ec, err := service.Parse[email.Config](s.parts.forService("email"))
	if err != nil {
		return nil, err
	}
	for _, one := range []struct {
		at *endpoint
		c  *service.Config
	}{{&s.order, &oc.Service}, {&s.inventory, &ic.Service}, {&s.email, &ec.Service}} {
		if *one.at, err = one.at.listen(one.c); err != nil {
			return nil, err
		}
	}
	for _, t := range []*telemetry.Config{&oc.Telemetry, &ic.Telemetry, &ec.Telemetry} {
		t.LogWriter, t.SpanProcessors = cfg.Log, append(t.SpanProcessors, s.spans)
	}
	if cfg.Tune != nil {
		for _, c := range []any{&oc, &ic, &ec} {
			cfg.Tune(c)
		}
	}
	return func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error { return order.Run(ctx, oc) })
		g.Go(func() error { return inventory.Run(ctx, ic) })
		g.Go(func() error { return email.Run(ctx, ec) })
		return g.Wait()
	}, nil
}

// open waits until all services are ready, fills the shelves, says where everything is, and
// then places sample orders until ctx ends.
func (s *Shop) open(ctx context.Context, cfg Config) error {
	begun := time.Now()
	if !s.awaitReady(ctx) {
		return nil
	}
	load := &load{orders: s.order.url, stock: s.inventory.url, client: &http.Client{Transport: s.inner.Transport, Timeout: 10 * time.Second}, log: s.log}
	if err := load.fillShelves(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("fill the shelves: %w", err)
	}
	other, err := s.writeURLs(ctx, cfg.URLFile)
	if err != nil {
		return err
	}
	defer s.removeURLs(cfg.URLFile)
	s.banner(cfg, time.Since(begun), other)
	if cfg.Started != nil {
		cfg.Started(s)
	}
	load.run(ctx, cfg.Load)
	<-ctx.Done() // without load there is nothing to do
	return nil
}
