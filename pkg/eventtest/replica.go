package eventtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/service"
)

// Service is a service under test.
type Service struct {
	// Name is the service's, and its consumer group.
	Name string
	// Vars are variables beside those of Kafka, registry, database and mail server.
	Vars map[string]string
	// Change, if set, has the last word on the configuration of each replica.
	Change func(*app.Config)

	run func(ctx context.Context, vars map[string]string, fit func(*app.Config)) error
}

// NewService is the service that run runs, as its main does. C embeds [app.Config]; vars are
// pairs of names and values.
func NewService[C any](name string, run func(context.Context, C) error, vars ...string) Service {
	s := Service{Name: name, Vars: map[string]string{}}
	for i := 0; i+1 < len(vars); i += 2 {
		s.Vars[vars[i]] = vars[i+1]
	}
	s.run = func(ctx context.Context, vars map[string]string, fit func(*app.Config)) error {
		cfg, err := service.Parse[C](vars)
		if err != nil {
			return err
		}
		base := baseOf(reflect.ValueOf(&cfg).Elem())
		if base == nil {
			return fmt.Errorf("%T embeds no app.Config", cfg)
		}
		fit(base)
		return run(ctx, cfg)
	}
	return s
}

// baseOf finds the app.Config in a service's own.
func baseOf(v reflect.Value) *app.Config {
	if base, ok := v.Addr().Interface().(*app.Config); ok {
		return base
	}
	if v.Kind() == reflect.Struct {
		if f := v.FieldByName("Config"); f.IsValid() && f.Type() == reflect.TypeFor[app.Config]() {
			return f.Addr().Interface().(*app.Config)
		}
	}
	return nil
}

// Replica is a replica of the service, in this process. Its methods may be called
// concurrently.
type Replica struct {
	URL      string // of its public routes
	AdminURL string // of the operator's

	rig      *Rig
	line     *embedded.Line
	database *database
	stop     context.CancelFunc
	ended    chan struct{}
	err      error                 // what Run returned, once it has
	armed    atomic.Pointer[point] // where it will be killed
}

// point is where a replica may be killed.
type point string

// What a crash at each of them leaves undone.
const (
	beforeCommit point = "before the transaction of an effect commits"
	beforeOffset point = "before the offset is committed"
	afterPublish point = "before it learns that its events are published"
)

// Start starts a replica, and returns when it is ready. It is stopped at the end of the test.
func (r *Rig) Start() *Replica {
	r.Helper()
	p := r.launch(nil)
	p.ready()
	return p
}

// claim is how long a slow effect may take in a rig: after a kill another worker takes over
// within a sixth of it.
const claim = 6 * time.Second

// launch is Start that does not wait.
func (r *Rig) launch(vars map[string]string) *Replica {
	r.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context()))
	p := &Replica{rig: r, stop: stop, ended: make(chan struct{})}
	p.line = &embedded.Line{Committing: func() { p.reach(beforeOffset) }, Produced: func() { p.reach(afterPublish) }}
	p.database = &database{committing: func() { p.reach(beforeCommit) }}
	public, admin := r.listen(), r.listen()
	p.URL, p.AdminURL = "http://"+public.Addr().String(), "http://"+admin.Addr().String()
	all := maps.Clone(r.environ)
	maps.Copy(all, r.service.Vars)
	maps.Copy(all, vars)
	go func() {
		defer close(p.ended)
		p.err = r.service.run(ctx, all, func(c *app.Config) {
			c.Service.Listener, c.Service.AdminListener, c.Service.ShutdownTimeout = public, admin, 10*time.Second
			c.Telemetry.LogWriter, c.Telemetry.LogLevel = r.Logs, slog.LevelDebug
			c.Kafka.Opts = append(c.Kafka.Opts, p.line.Option())
			c.Database.Wrap = p.database.wrap
			c.Inbox.Claim = claim
			if r.service.Change != nil {
				r.service.Change(c)
			}
		})
	}()
	r.replicas = append(r.replicas, p)
	r.Cleanup(p.Stop)
	return p
}

func (r *Rig) listen() net.Listener {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	return l
}

// ready returns when the replica is.
func (p *Replica) ready() {
	p.rig.Helper()
	Until(p.rig, "the service is ready", func() bool {
		select {
		case <-p.ended:
			p.rig.Fatalf("the service has ended: %v\n%s", p.err, p.rig.Logs)
		default:
		}
		return ready(p.URL)
	})
}

// Stop stops the replica as SIGTERM would, and fails the test if that is not clean. A replica
// that was killed it waits for.
func (p *Replica) Stop() {
	p.rig.Helper()
	p.stop()
	<-p.ended // bounded by the stop's own timeout
	if p.err != nil && !p.killed() {
		p.rig.Errorf("Run = %v, want a clean stop", p.err)
		p.err = nil
	}
}

// Kill ends the replica without any clean-up: see the package's comment.
func (p *Replica) Kill() {
	p.database.dead.Store(true)
	p.line.Cut()
	p.stop()
}

func (p *Replica) killed() bool { return p.database.dead.Load() }

// killAt kills the replica when it comes to a point.
func (p *Replica) killAt(at point) { p.armed.Store(&at) }

// reach is called at the points, by the replica's own goroutines.
func (p *Replica) reach(at point) {
	if armed := p.armed.Load(); armed != nil && *armed == at && p.armed.CompareAndSwap(armed, nil) {
		p.Kill()
	}
}

// replica is the newest one that lives.
func (r *Rig) replica() *Replica {
	r.Helper()
	for i := len(r.replicas) - 1; i >= 0; i-- {
		select {
		case <-r.replicas[i].ended:
		default:
			if !r.replicas[i].killed() {
				return r.replicas[i]
			}
		}
	}
	r.Fatal("no replica runs: call Start first")
	return nil
}

// Get asks the newest replica of a rig by HTTP, and returns the JSON of a 200.
func Get[T any](r *Rig, path string) (v T) {
	r.Helper()
	res, err := http.Get(r.replica().URL + path)
	if err != nil {
		r.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil || res.StatusCode != http.StatusOK {
		r.Fatalf("GET %s = %s, %v, %v", path, res.Status, v, err)
	}
	return v
}

// Rows asks the database, and returns the rows as maps by column. Order them, and leave out
// what may rightly differ: most states are one such query.
func (r *Rig) Rows(query string, args ...any) (all []map[string]any) {
	r.Helper()
	rows, err := r.DB.Query(r.Context(), query, args...)
	if err != nil {
		r.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	for err == nil && rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		err = rows.Scan(into...)
		row := map[string]any{}
		for i, v := range values {
			if b, ok := v.([]byte); ok {
				v = string(b)
			}
			row[names[i]] = v
		}
		all = append(all, row)
	}
	if err := errors.Join(err, rows.Err()); err != nil {
		r.Fatal(err)
	}
	return all
}

// Log keeps what services log.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write takes lines.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is all that was logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// complaints are the last lines that are not of level debug or info.
func (l *Log) complaints() string {
	var lines []string
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-10):], "")
}
