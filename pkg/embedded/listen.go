package embedded

import (
	"fmt"
	"net"
	"sync"
)

// maxConns bounds the connections of one listener; a Kafka client holds up to five.
const maxConns = 256

// loopback is a listener that knows its open connections, so that they are bounded and can all
// be cut.
type loopback struct {
	net.Listener

	mu   sync.Mutex
	open map[*conn]struct{}
}

// conn leaves its listener's books when it is closed.
type conn struct {
	net.Conn
	from *loopback
}

// listen refuses every address but a loopback one.
func listen(network, address string) (*loopback, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("listen on %s: the embedded parts serve loopback only", address)
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, err // says "listen tcp 127.0.0.1:…" itself
	}
	return &loopback{Listener: ln, open: make(map[*conn]struct{})}, nil
}

// Accept hands out the next connection; one too many is closed at once.
func (l *loopback) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if added := l.add(c); added != nil {
			return added, nil
		}
		c.Close()
	}
}

func (l *loopback) add(c net.Conn) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= maxConns {
		return nil
	}
	added := &conn{Conn: c, from: l}
	l.open[added] = struct{}{}
	return added
}

// cut closes every open connection.
func (l *loopback) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		c.Conn.Close()
	}
	clear(l.open)
}

// Close closes the connection and gives its place to another.
func (c *conn) Close() error {
	c.from.mu.Lock()
	delete(c.from.open, c)
	c.from.mu.Unlock()
	return c.Conn.Close()
}
