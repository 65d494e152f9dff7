//go:build synctests

package sim_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// host is a machine on the network, with at most one process at a time.
type host struct {
	name string
	down bool      // refuses connections
	held time.Time // until then nothing arrives or leaves: the process or its network has stopped
}

// network carries bytes between hosts. Each write arrives after a delay of its own, in order.
type network struct {
	w *world

	mu        sync.Mutex
	listeners map[string]*listener
	links     []*link // that are open, in the order of their making
}

// link is a connection between two hosts.
type link struct {
	from, to *host
	addr     string
	a, b     *conn
	// lastKey is the API key of the last request, if this leads to a broker.
	lastKey int16
	lose    bool // the next bytes that b writes are lost, and the link with them
}

// The errors are those of a kernel: clients tell them apart.
var (
	errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	errReset   = &net.OpError{Op: "read", Net: "tcp", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	errBroken  = &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
)

type listener struct {
	n      *network
	host   *host
	addr   string
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (n *network) listen(h *host, addr string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, fmt.Errorf("listen on %s: address already in use", addr)
	}
	l := &listener{n: n, host: h, addr: addr, queue: make(chan net.Conn, 256), closed: make(chan struct{})}
	n.listeners[addr] = l
	return l, nil
}

// Accept is part of [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is part of [net.Listener].
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.n.mu.Lock()
		defer l.n.mu.Unlock()
		if l.n.listeners[l.addr] == l {
			delete(l.n.listeners, l.addr)
		}
	})
	return nil
}

// Addr is part of [net.Listener].
func (l *listener) Addr() net.Addr { return address(l.addr) }

type address string

// Network is part of [net.Addr].
func (address) Network() string { return "virtual" }

func (a address) String() string { return string(a) }

func (n *network) dial(ctx context.Context, from *host, addr string) (net.Conn, error) {
	addr = strings.Replace(addr, "localhost", "127.0.0.1", 1)
	if err := n.w.pause(ctx, n.w.dice.netDelay()); err != nil {
		return nil, err
	}
	for {
		n.mu.Lock()
		l := n.listeners[addr]
		if from.down || l == nil || l.host.down || len(l.queue) == cap(l.queue) {
			n.mu.Unlock()
			return nil, errRefused
		}
		held := time.Until(later(from.held, l.host.held))
		if held <= 0 {
			k := n.link(from, l)
			n.mu.Unlock()
			return k.a, nil
		}
		n.mu.Unlock()
		if err := n.w.pause(ctx, held); err != nil {
			return nil, err
		}
	}
}

// link makes a link; n.mu is held.
func (n *network) link(from *host, l *listener) *link {
	k := &link{from: from, to: l.host, addr: l.addr, lastKey: -1}
	there, here := &stream{}, &stream{}
	k.a = &conn{n: n, link: k, in: here, out: there, local: address(from.name), remote: address(l.addr), asks: true}
	k.b = &conn{n: n, link: k, in: there, out: here, local: address(l.addr), remote: address(from.name)}
	n.links = append(n.links, k)
	l.queue <- k.b
	return k
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// cut breaks the links that which holds for, and returns how many. What a client has sent may
// still arrive.
func (n *network) cut(which func(*link) bool) int {
	n.mu.Lock()
	var hit []*link
	for _, k := range n.links {
		if which(k) {
			hit = append(hit, k)
		}
	}
	n.mu.Unlock()
	for _, k := range hit {
		k.cut(n.w.dice.chance(0.5))
	}
	return len(hit)
}

func (k *link) cut(arrives bool) {
	k.a.n.forget(k)
	k.a.in.fail(errReset, true)
	k.tell(errReset, !arrives)
}

// tell lets the end that was dialled know that the other has gone. A broker that a member
// waits for to join learns it late, as it does when a machine has lost its power: kfake never
// expires a member whose connection has broken by the time its JoinGroup is answered.
func (k *link) tell(err error, now bool) {
	if strings.HasPrefix(k.to.name, "kafka") && k.lastKey == joinGroup {
		time.AfterFunc(20*time.Second, func() { k.b.in.fail(err, now) })
		return
	}
	k.b.in.fail(err, now)
}

const joinGroup = 11

func (n *network) forget(k *link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.Index(n.links, k); i >= 0 {
		n.links = slices.Delete(n.links, i, i+1)
	}
}

// hold stops all traffic of a host for some time.
func (n *network) hold(h *host, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h.held = later(h.held, time.Now().Add(d))
}

func (n *network) setDown(h *host, down bool) {
	n.mu.Lock()
	h.down = down
	n.mu.Unlock()
	if down {
		n.cut(func(k *link) bool { return k.from == h || k.to == h })
	}
}

// heldUntil is when traffic of a link goes on.
func (n *network) heldUntil(k *link) time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	return later(k.from.held, k.to.held)
}

// stream is one direction of a link.
type stream struct {
	mu       sync.Mutex
	chunks   []chunk
	err      error // behind the chunks
	now      bool  // err comes before them
	deadline time.Time
	changed  chan struct{} // closed when something has changed; nil if nobody waits
}

type chunk struct {
	at   time.Time
	data []byte
}

func (s *stream) wake() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

func (s *stream) fail(err error, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil || now && !s.now {
		s.err, s.now = err, now
		s.wake()
	}
}

// add appends bytes that arrive after a delay.
func (s *stream) add(p []byte, delay time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return errBroken
	}
	at := time.Now().Add(delay)
	if n := len(s.chunks); n > 0 {
		at = later(at, s.chunks[n-1].at)
	}
	s.chunks = append(s.chunks, chunk{at, slices.Clone(p)})
	s.wake()
	return nil
}

// read takes what has arrived; nothing and no error means to try again after wait, or when
// changed closes.
func (s *stream) read(p []byte, held time.Time) (n int, wait time.Duration, changed chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, until := time.Now(), s.deadline
	switch {
	case s.err != nil && s.now:
		return 0, 0, nil, s.err
	case !s.deadline.IsZero() && !now.Before(s.deadline):
		return 0, 0, nil, os.ErrDeadlineExceeded
	case len(s.chunks) == 0 && s.err != nil:
		return 0, 0, nil, s.err
	case len(s.chunks) > 0:
		at := later(s.chunks[0].at, held)
		if !now.Before(at) {
			n = copy(p, s.chunks[0].data)
			if s.chunks[0].data = s.chunks[0].data[n:]; len(s.chunks[0].data) == 0 {
				s.chunks = s.chunks[1:]
			}
			return n, 0, nil, nil
		}
		if until.IsZero() || at.Before(until) {
			until = at
		}
	}
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	if until.IsZero() {
		return 0, -1, s.changed, nil
	}
	return 0, until.Sub(now), s.changed, nil
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.wake()
}

// conn is one end of a link.
type conn struct {
	n             *network
	link          *link
	in, out       *stream
	local, remote address
	asks          bool // the end that dialled
}

// Read is part of [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, wait, changed, err := c.in.read(p, c.n.heldUntil(c.link))
		if n > 0 || err != nil {
			return n, err
		}
		if wait < 0 {
			<-changed
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

// Write is part of [net.Conn]. It does not wait for the other end.
func (c *conn) Write(p []byte) (int, error) {
	if c.asks && len(p) >= 6 {
		c.link.lastKey = int16(binary.BigEndian.Uint16(p[4:]))
	} else if !c.asks && c.link.lose {
		c.n.w.log.count("answer lost")
		c.n.w.log.line("fault", "an answer of %s to %s is lost, key %d", c.link.addr, c.link.from.name, c.link.lastKey)
		c.link.cut(true)
		return 0, errBroken
	}
	if err := c.out.add(p, c.n.w.dice.netDelay()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close is part of [net.Conn].
func (c *conn) Close() error {
	c.n.forget(c.link)
	c.in.fail(net.ErrClosed, true)
	if c.asks {
		c.link.tell(io.EOF, false)
	} else {
		c.out.fail(io.EOF, false)
	}
	return nil
}

// LocalAddr is part of [net.Conn].
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr is part of [net.Conn].
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline is part of [net.Conn].
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline is part of [net.Conn].
func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline is part of [net.Conn]; a write never waits.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
