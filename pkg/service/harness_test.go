package service_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"example.com/keyline/pkg/service"
	"example.com/keyline/pkg/telemetry"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// memory is a listener without a network, for bubbles of virtual time.
type memory struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newMemory() *memory {
	return &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

func (m *memory) dial() (net.Conn, error) {
	server, client := net.Pipe()
	select {
	case m.conns <- server:
		return client, nil
	case <-m.closed:
		return nil, errors.New("connection refused")
	}
}

func (m *memory) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return m.dial() },
	}}
}

// running is a service under test.
type running struct {
	t      *testing.T
	listen *memory
	admin  *memory
	client *http.Client
	spans  *tracetest.SpanRecorder
	logs   *logBuffer
	stop   context.CancelFunc
	done   chan struct{}
	err    error // valid once done is closed
}

// run starts the service on listeners in memory. The test ends it with halt.
func run(t *testing.T, s service.Service) *running {
	t.Helper()
	r := &running{
		t: t, listen: newMemory(), admin: newMemory(),
		spans: tracetest.NewSpanRecorder(), logs: new(logBuffer), done: make(chan struct{}),
	}
	var err error
	s.Telemetry, err = telemetry.New(t.Context(), telemetry.Config{Service: "demo", LogWriter: r.logs, SpanProcessors: []sdktrace.SpanProcessor{r.spans}})
	if err != nil {
		t.Fatal(err)
	}
	s.Name = "demo"
	s.Config.Listener, s.Config.AdminListener = r.listen, r.admin
	r.client = r.listen.client()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r.stop = stop
	go func() {
		defer close(r.done)
		r.err = s.Run(ctx)
	}()
	return r
}

// halt stops the service and returns the error of Run.
func (r *running) halt() error {
	r.t.Helper()
	r.stop()
	<-r.done
	return r.err
}

// get returns status and body.
func (r *running) get(path string) (int, string) {
	r.t.Helper()
	res, body := r.do("GET", path, "", nil)
	return res.StatusCode, body
}

func (r *running) do(method, path, body string, header http.Header) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://demo.test"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	res, err := r.client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res, string(text)
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// quiet is telemetry that logs nothing.
func quiet(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Config{Service: "demo", LogWriter: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}
