//go:build unix

package faults_test

import (
	"net"
	"sync"
	"testing"
)

// proxy stands before a server, and can cut, hold or look at what passes.
type proxy struct {
	addr   string
	target string

	mu    sync.Mutex
	open  *sync.Cond
	l     net.Listener
	pairs map[*pair]bool
	held  bool                                    // nothing passes, in either direction, and nobody is told
	watch func(p *pair, sent []byte) (act action) // sees what a client sends
	cuts  int
}

// action is what the proxy does with what a client has sent.
type action int

const (
	pass     action = iota
	swallow         // nothing of it arrives, and the connection stays
	cutFirst        // the connection ends, and nothing of it arrives
	cutLast         // it arrives, and the connection ends before the answer
)

// pair is one connection through the proxy.
type pair struct {
	client, server net.Conn
	deaf           bool // the answers are dropped
	mute           bool // what the client sends is, too
}

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), target: target, l: l, pairs: map[*pair]bool{}}
	p.open = sync.NewCond(&p.mu)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(c, &all) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.hold(false)
		p.cut()
		all.Wait()
	})
	return p
}

func (p *proxy) serve(client net.Conn, all *sync.WaitGroup) {
	p.await()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	both := &pair{client: client, server: server}
	p.mu.Lock()
	p.pairs[both] = true
	p.mu.Unlock()
	all.Go(func() { p.copy(both, server, client, false) })
	p.copy(both, client, server, true)
	p.mu.Lock()
	delete(p.pairs, both)
	p.mu.Unlock()
}

// await returns once something may pass.
func (p *proxy) await() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.held {
		p.open.Wait()
	}
}

// copy moves bytes in one direction until one side is gone, and then ends both.
func (p *proxy) copy(both *pair, from, to net.Conn, fromClient bool) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			p.await()
			act := pass
			p.mu.Lock()
			watch, deaf, mute := p.watch, both.deaf, both.mute
			p.mu.Unlock()
			switch {
			case fromClient && mute:
				act = swallow
			case fromClient && watch != nil:
				act = watch(both, buf[:n])
			case !fromClient && deaf:
				act = swallow
			}
			if act == cutFirst {
				return
			}
			if act == cutLast {
				p.mu.Lock()
				both.deaf = true
				p.mu.Unlock()
			}
			if act != swallow {
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
			if act == cutLast {
				from.Close() // the client; the server goes on and finds nobody to answer
				p.drain(to)
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// drain lets the server finish what it was sent: it hears of the end only by the end of the
// stream, behind it.
func (p *proxy) drain(server net.Conn) {
	if c, ok := server.(*net.TCPConn); ok {
		_ = c.CloseWrite() // if it fails it is closed
	}
	buf := make([]byte, 4<<10)
	for {
		if _, err := server.Read(buf); err != nil {
			return
		}
	}
}

// look lets watch see what clients send, a read at a time; nil ends that.
func (p *proxy) look(watch func(both *pair, sent []byte) action) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = watch
}

// cut ends all connections and returns how many there were.
func (p *proxy) cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.pairs)
	for both := range p.pairs {
		both.client.Close()
		both.server.Close()
	}
	p.cuts += n
	return n
}

// strand lets nothing pass on the connections that are open now, and tells nobody; new ones work.
func (p *proxy) strand() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for both := range p.pairs {
		both.deaf, both.mute = true, true
	}
	return len(p.pairs)
}

// hold lets nothing pass, as if the cable were out: connections stay, and new ones are taken
// and get no answer.
func (p *proxy) hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = on
	p.open.Broadcast()
}
