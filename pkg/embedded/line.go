package embedded

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Line is what connects one process to its brokers, for tests that let the process die: from
// Cut on, nothing that it says arrives, and nothing that it is told is heard. Set the
// functions first; then it is safe for concurrent use.
type Line struct {
	// Committing is called before an offset commit is sent, Produced when the answer to a
	// produce request has come and before the client sees it. Either may Cut. Nil is nothing.
	Committing, Produced func()

	mu    sync.Mutex
	conns map[net.Conn]bool
	cut   bool
}

// Option makes a client's connections those of the line.
func (l *Line) Option() kgo.Opt { return kgo.Dialer(l.dial) }

var errCut = errors.New("the line is cut")

func (l *Line) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.Join(errCut, conn.Close())
	}
	if l.conns == nil {
		l.conns = map[net.Conn]bool{}
	}
	l.conns[conn] = true
	return &lineConn{Conn: conn, line: l}, nil
}

// Cut ends all connections, and refuses further ones.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for conn := range l.conns {
		_ = conn.Close() // its only error is that it is closed already
	}
	l.conns = nil
}

func (l *Line) isCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cut
}

// lineConn is a connection. Clients send a request with one Write, and read an answer from
// one goroutine.
type lineConn struct {
	net.Conn
	line *Line

	mu        sync.Mutex
	producing bool // a produce request waits for its answer
}

func (c *lineConn) Write(b []byte) (int, error) {
	const apiKey = 4 // behind the request's length
	if len(b) >= apiKey+2 {
		switch int16(binary.BigEndian.Uint16(b[apiKey:])) {
		case int16(kmsg.OffsetCommit):
			call(c.line.Committing)
		case int16(kmsg.Produce):
			c.setProducing(true)
		}
	}
	return c.Conn.Write(b)
}

func (c *lineConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.setProducing(false) {
		call(c.line.Produced)
	}
	if c.line.isCut() {
		return 0, errCut
	}
	return n, err
}

func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c.Conn)
	c.line.mu.Unlock()
	return c.Conn.Close()
}

func (c *lineConn) setProducing(now bool) (before bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, c.producing = c.producing, now
	return before
}

func call(fn func()) {
	if fn != nil {
		fn()
	}
}
