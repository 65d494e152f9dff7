package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// The limits of an HTTP server. A long poll of 30 s fits into writeTimeout.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second // header and body
	writeTimeout      = 40 * time.Second // from the end of the header to the end of the answer
	answerTimeout     = 35 * time.Second // for a handler: it can then still say that it did not end
	idleTimeout       = 30 * time.Second
	maxHeaderBytes    = 16 << 10
	maxConns          = 2048 // per server; more wait in the kernel's backlog
)

// servingError is the failure of a server that should still be serving.
type servingError struct {
	addr string
	err  error
}

func (e *servingError) Error() string { return fmt.Sprintf("serve HTTP on %s: %v", e.addr, e.err) }
func (e *servingError) Unwrap() error { return e.err }

// listen opens the addresses and serves on them, on both or on neither.
func (r *run) listen() error {
	public, err := listener(r.Config.Listener, "HTTP_ADDR", r.Config.HTTPAddr)
	if err != nil {
		return err
	}
	attrs := []any{"http", public.Addr().String(), "version", r.version().Version}
	if r.Admin != nil {
		admin, err := listener(r.Config.AdminListener, "ADMIN_ADDR", r.Config.AdminAddr)
		if err != nil {
			return errors.Join(err, public.Close())
		}
		r.serve(admin, r.admin())
		attrs = append(attrs, "admin", admin.Addr().String())
	}
	r.serve(public, r.public())
	r.log.Info("service listening", attrs...)
	return nil
}

func listener(given net.Listener, variable, addr string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", variable, addr, err)
	}
	return l, nil
}

func (r *run) serve(l net.Listener, h http.Handler) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return r.requests },
		ErrorLog:          slog.NewLogLogger(r.log.Handler(), slog.LevelWarn),
	}
	server.ConnState = r.fresh.track
	r.servers = append(r.servers, server)
	go func() {
		err := server.Serve(&limitListener{Listener: l, slots: make(chan struct{}, maxConns), closed: make(chan struct{})})
		if !errors.Is(err, http.ErrServerClosed) {
			r.fail(&servingError{l.Addr().String(), err})
		}
	}()
}

const (
	freshGrace   = 100 * time.Millisecond // then connections that have never sent anything are closed
	requestGrace = 2 * time.Second        // then the contexts of requests end
	requestCut   = 3 * time.Second        // then their connections are closed
)

// fresh are the connections that have never sent a byte, such as those that clients open in
// advance. net/http's shutdown takes them for busy.
type fresh struct {
	mu    sync.Mutex
	conns map[net.Conn]bool
}

func (f *fresh) track(conn net.Conn, state http.ConnState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if state != http.StateNew {
		delete(f.conns, conn)
		return
	}
	if f.conns == nil {
		f.conns = map[net.Conn]bool{}
	}
	f.conns[conn] = true
}

func (f *fresh) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for conn := range f.conns {
		_ = conn.Close() // it carries nothing
	}
}

// drain ends the servers: no new connection, and a short time for the requests under way.
func (r *run) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, requestCut)
	defer cancel()
	grace := time.AfterFunc(requestGrace, r.cancelRequests)
	defer grace.Stop()
	unused := time.AfterFunc(freshGrace, r.fresh.close)
	defer unused.Stop()
	var all sync.WaitGroup
	for _, server := range r.servers {
		all.Go(func() {
			if server.Shutdown(ctx) == nil {
				return
			}
			if err := server.Close(); err != nil {
				r.log.WarnContext(ctx, "close HTTP connections", "error", err)
			}
		})
	}
	all.Wait()
}

// limitListener hands out a bounded number of connections at a time.
type limitListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	once   sync.Once
}

func (l *limitListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitConn struct {
	net.Conn
	release func()
}

func (c *limitConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
