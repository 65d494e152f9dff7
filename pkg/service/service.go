package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"example.com/keyline/pkg/telemetry"
)

// Config says where a service listens and how it stops.
type Config struct {
	// HTTPAddr is where the public routes and the probes are.
	HTTPAddr string `env:"HTTP_ADDR" envDefault:":8080"`
	// AdminAddr is where the operator's routes are; keep it away from the public.
	AdminAddr string `env:"ADMIN_ADDR" envDefault:"127.0.0.1:8081"`
	// ShutdownTimeout bounds the whole stop; 0 is 25 s.
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"25s"`
	// TrustTraceparent continues a request's trace; without it every request begins a
	// trace of its own, linked to the request's.
	TrustTraceparent bool `env:"TRUST_TRACEPARENT" envDefault:"true"`
	// Listener and AdminListener, if set, are used in place of the addresses, and closed
	// at the stop.
	Listener      net.Listener `env:"-"`
	AdminListener net.Listener `env:"-"`
}

// Service is a process, or one of several in it. Name, Config and Telemetry are required.
type Service struct {
	Name      string
	Version   string // empty: what the build knows
	Config    Config
	Telemetry *telemetry.Telemetry

	Public  http.Handler // nil: no routes but the probes
	Admin   http.Handler // nil: AdminAddr is not opened
	OpenAPI []byte       // served at /openapi.yaml

	Prepare []Step
	Parts   []Part
	Checks  []Check
	Close   []func(context.Context) error // called in order at the end of a stop
}

// Step is something to be done before the parts start, such as a migration.
type Step struct {
	Name string
	// Run is called until it succeeds, with pauses from 100 ms to 5 s.
	Run func(context.Context) error
}

// Part is something that runs as long as the service.
type Part struct {
	Name string
	// Run blocks until its context ends and everything in hand is finished. An error before
	// that stops the service.
	Run func(context.Context) error
}

// Check is something without which the service is not ready. It has 2 seconds.
type Check struct {
	Name string
	Run  func(context.Context) error
	// Once: the check has passed when it has succeeded once since the start. A later
	// failure shows in /readyz?verbose only.
	Once bool
}

// Run serves /livez, /readyz, /metrics, /version, /openapi.yaml and the public routes,
// prepares, and runs the parts until ctx ends or one of them fails. Then it stops in this
// order, within ShutdownTimeout: not ready, HTTP, the parts, Close, telemetry. It returns
// what failed, joined; nil after a clean stop. Call it once.
func (s *Service) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &run{
		Service: s,
		log:     s.Telemetry.Log,
		fail:    fail,
		latched: make([]atomic.Bool, len(s.Checks)),
	}
	r.notReady.Store(new("starting"))
	// Requests and parts end when the stop comes to them, not when ctx ends.
	base := context.WithoutCancel(ctx)
	r.requests, r.cancelRequests = context.WithCancel(base)
	defer r.cancelRequests()

	err := r.listen()
	if err == nil {
		err = r.work(ctx, base)
	}
	return errors.Join(err, r.stop(base))
}

// run is a service while it runs.
type run struct {
	*Service
	log      *slog.Logger
	fail     context.CancelCauseFunc // ends the work
	notReady atomic.Pointer[string]  // why no request is taken; nil when ready
	latched  []atomic.Bool           // the Once checks that have passed
	checking singleflight.Group

	requests       context.Context
	cancelRequests context.CancelFunc
	servers        []*http.Server
	fresh          fresh
	parts          []*part
}

// work prepares and runs the parts until ctx ends; the error is that of the server, if that
// is what ended it. Errors of the parts are kept with them.
func (r *run) work(ctx, base context.Context) error {
	for _, step := range r.Prepare {
		if !r.try(ctx, step) {
			break
		}
	}
	if ctx.Err() == nil {
		for _, p := range r.Parts {
			r.parts = append(r.parts, r.start(base, p))
		}
		r.notReady.Store(nil)
		r.log.InfoContext(ctx, "service ready for requests")
	}
	<-ctx.Done()
	var serving *servingError
	if errors.As(context.Cause(ctx), &serving) {
		return serving
	}
	return nil
}

const (
	firstPause = 100 * time.Millisecond
	maxPause   = 5 * time.Second
)

// try runs a step until it succeeds, and reports whether it did before ctx ended.
func (r *run) try(ctx context.Context, step Step) bool {
	for attempt, pause := 1, firstPause; ; attempt, pause = attempt+1, min(2*pause, maxPause) {
		err := step.Run(ctx)
		if err == nil || ctx.Err() != nil {
			return err == nil
		}
		wait := pause/2 + rand.N(pause/2+1) // replicas must not come back all at once
		r.notReady.Store(new(fmt.Sprintf("%s: %v", step.Name, err)))
		r.log.WarnContext(ctx, "start step failed, trying again",
			"step", step.Name, "attempt", attempt, "error", err, "in", wait.Round(time.Millisecond))
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// part is a part that has been started.
type part struct {
	name string
	stop context.CancelFunc
	done chan struct{}
	err  error // valid once done is closed
}

func (r *run) start(base context.Context, p Part) *part {
	ctx, cancel := context.WithCancel(base)
	started := &part{name: p.Name, stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(started.done)
		err := p.Run(ctx)
		if err == nil || ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		started.err = fmt.Errorf("%s: %w", p.Name, err)
		r.fail(started.err)
	}()
	return started
}

const (
	defaultShutdown = 25 * time.Second
	// flushTime bounds telemetry's part of a stop: a collector that is down must not hold
	// the process.
	flushTime = 3 * time.Second
)

func (r *run) stop(base context.Context) error {
	timeout := r.Config.ShutdownTimeout
	if timeout <= 0 {
		timeout = defaultShutdown
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(base, timeout)
	defer cancel()
	r.notReady.Store(new("stopping"))
	r.log.InfoContext(ctx, "service stopping")

	r.drain(ctx)
	var errs []error
	for _, p := range r.parts {
		errs = append(errs, p.wait(ctx))
	}
	for _, shut := range r.Close {
		errs = append(errs, shut(ctx))
	}
	err := errors.Join(errs...)
	r.log.InfoContext(ctx, "service stopped", "took", time.Since(begin).Round(time.Millisecond), "clean", err == nil)
	flush, cancelFlush := context.WithTimeout(ctx, flushTime)
	defer cancelFlush()
	if lost := r.Telemetry.Shutdown(flush); lost != nil {
		r.log.WarnContext(ctx, "spans or metrics lost at the stop", "error", lost)
	}
	return err
}

// wait stops the part and returns its error.
func (p *part) wait(ctx context.Context) error {
	p.stop()
	select {
	case <-p.done:
	case <-ctx.Done():
		select {
		case <-p.done:
		default:
			return fmt.Errorf("%s: not finished when the time to stop was over", p.name)
		}
	}
	return p.err
}
