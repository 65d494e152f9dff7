//go:build synctests

package sim_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/app"
	"example.com/keyline/pkg/service"
	"example.com/keyline/services/email"
	"example.com/keyline/services/inventory"
	"example.com/keyline/services/order"
)

// services are the shop's, with the topic that each consumes.
var services = []string{"order", "inventory", "email"}

var consumed = map[string]string{"order": "inventory", "inventory": "orders", "email": "orders"}

// process is one life of one replica of a service.
type process struct {
	w       *world
	service string
	name    string // such as order-0
	db      *database
	host    *host
	cancel  context.CancelFunc
	ended   chan struct{}
	err     error // of its Run, once ended

	mu      sync.Mutex
	dead    bool
	conns   []*dbConn
	trap    trap
	forget  int // so many commits are not told
	stopped bool
}

// trap is where a process crashes.
type trap struct {
	at    point
	after int
}

type point int

const (
	nowhere point = iota
	beforeCommit
	afterCommit
)

// start starts a replica of a service. Its addresses are those of its former lives.
func (w *world) start(service string, replica int) *process {
	name := fmt.Sprintf("%s-%d", service, replica)
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{w: w, service: service, name: name, db: w.databases[service], host: &host{name: name}, cancel: cancel, ended: make(chan struct{})}
	w.log.line(name, "starts")
	w.mu.Lock()
	w.alive[name] = p
	w.mu.Unlock()
	w.all.Go(func() {
		defer close(p.ended)
		p.err = p.run(ctx)
		w.log.line(name, "has ended: %v", p.err)
	})
	return p
}

func (p *process) run(ctx context.Context) error {
	environ := map[string]string{
		"DATABASE_URL": "sqlite:/" + p.service + "?vfs=memdb", "KAFKA_BROKERS": brokers, "SCHEMA_REGISTRY_URL": "http://registry",
		"SMTP_ADDR": mailAddr, "RETRY_MAX_BACKOFF": "2s", "OTEL_SDK_DISABLED": fmt.Sprint(p.w.quietTelemetry), "KAFKA_CLIENT_ID": p.name,
	}
	switch p.service {
	case "order":
		return boot(ctx, p, environ, order.Run, func(c *order.Config) *app.Config { return &c.Config })
	case "inventory":
		return boot(ctx, p, environ, inventory.Run, func(c *inventory.Config) *app.Config { return &c.Config })
	}
	return boot(ctx, p, environ, email.Run, func(c *email.Config) *app.Config {
		c.SMTP.Dial = p.dial
		return &c.Config
	})
}

func boot[C any](ctx context.Context, p *process, environ map[string]string, run func(context.Context, C) error, of func(*C) *app.Config) error {
	cfg, err := service.Parse[C](environ)
	if err != nil {
		return err
	}
	c := of(&cfg)
	c.Telemetry.LogWriter = p.w.log.writer(p.name)
	if c.Service.Listener, err = p.w.net.listen(p.host, p.name+":80"); err != nil {
		return err
	}
	if c.Service.AdminListener, err = p.w.net.listen(p.host, p.name+":81"); err != nil {
		return err
	}
	c.Kafka.Opts = []kgo.Opt{kgo.Dialer(p.dial)}
	c.Registry.Transport = registryTransport{p}
	c.Database.Wrap = func(base driver.Connector) driver.Connector { return connector{base, p} }
	c.Inbox.Clean, c.Inbox.Claim = p.w.cleanEvery, p.w.claim
	return run(ctx, cfg)
}

func (p *process) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	return p.w.net.dial(ctx, p.host, addr)
}

// crash ends the process as kill -9 does: first nothing leaves it any more, then it is told.
func (p *process) crash(how string) {
	p.mu.Lock()
	if p.dead || p.stopped {
		p.mu.Unlock()
		return
	}
	p.dead = true
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	p.w.log.count("crash " + how)
	p.w.log.line("fault", "%s crashes (%s)", p.name, how)
	p.w.net.setDown(p.host, true)
	p.w.net.close(p.host)
	for _, c := range conns {
		c.kill()
	}
	p.w.gone(p)
	p.cancel()
}

// stop ends the process as SIGTERM does, and returns when it has ended.
func (p *process) stop() error {
	p.mu.Lock()
	p.stopped = true
	dead := p.dead
	p.mu.Unlock()
	p.w.gone(p)
	p.cancel()
	<-p.ended
	if dead {
		return nil
	}
	return p.err
}

// call waits for what a call of the database takes, and says whether it can be made.
func (p *process) call(ctx context.Context) error {
	slow, broken, _ := p.db.state()
	wait := p.w.dice.dbDelay() + slow
	if held := time.Until(p.w.net.heldHost(p.host)); held > 0 {
		wait += held
	}
	if err := p.w.pause(ctx, wait); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.dead:
		return errGone
	case broken:
		return errDisk
	}
	return nil
}

func (p *process) adopt(c *dbConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.dead {
		p.conns = append(p.conns, c)
	}
	return !p.dead
}

func (p *process) disown(c *dbConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
}

// setTrap lets the process crash at a commit of its, the n-th from now.
func (p *process) setTrap(at point, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trap = trap{at, n}
}

// trapped reports whether the process has crashed here.
func (p *process) trapped(at point) bool {
	p.mu.Lock()
	if p.trap.at != at || p.dead {
		p.mu.Unlock()
		return false
	}
	p.trap.after--
	if p.trap.after > 0 {
		p.mu.Unlock()
		return false
	}
	p.trap = trap{}
	p.mu.Unlock()
	p.crash(map[point]string{beforeCommit: "before a commit", afterCommit: "after a commit"}[at])
	return p.isDead()
}

func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// forgets reports whether the answer to this commit is lost.
func (p *process) forgets() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.forget == 0 {
		return false
	}
	p.forget--
	p.w.log.count("commit without an answer")
	return true
}

// close closes the listeners of a host.
func (n *network) close(h *host) {
	n.mu.Lock()
	var all []*listener
	for _, addr := range slices.Sorted(maps.Keys(n.listeners)) {
		if n.listeners[addr].host == h {
			all = append(all, n.listeners[addr])
		}
	}
	n.mu.Unlock()
	for _, l := range all {
		l.Close()
	}
}

func (n *network) heldHost(h *host) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return h.held
}

// gone takes the process off the list of those alive.
func (w *world) gone(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alive[p.name] == p {
		delete(w.alive, p.name)
	}
}

// living is the process of a replica; nil if it is down.
func (w *world) living(service string, replica int) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alive[fmt.Sprintf("%s-%d", service, replica)]
}
