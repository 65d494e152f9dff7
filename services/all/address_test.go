package all_test

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/services/all"
)

// absence is a part of the shop that is not there when it starts.
type absence struct {
	name   string
	vars   map[string]string
	check  string // what the probes of every service say
	log    string // what some line of the log says
	appear func(t *testing.T)
}

func absentKafka(t *testing.T) absence {
	addr, port := eventtest.FreeAddr(t)
	return absence{"a broker", map[string]string{"KAFKA_BROKERS": addr}, "fail kafka: ", addr, func(t *testing.T) {
		broker(t, port)
	}}
}

func absentRegistry(t *testing.T) absence {
	addr, _ := eventtest.FreeAddr(t)
	return absence{"a registry", map[string]string{"SCHEMA_REGISTRY_URL": "http://" + addr}, "fail verify the schemas: ", addr, func(t *testing.T) {
		registry, err := embedded.NewRegistry("")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: registry}
		go srv.Serve(l)
		t.Cleanup(func() { srv.Close() })
	}}
}

// absentDatabase is a folder that is not there, or a way to the real PostgreSQL that opens
// late.
func absentDatabase(t *testing.T) absence {
	const check, log = "fail migrate the database: ", "migrate the database"
	if base, ok := strings.CutPrefix(real["DATABASE_URL"], "postgres://"); ok {
		at, rest, _ := strings.Cut(base, "/")
		server := at[strings.LastIndexByte(at, '@')+1:]
		addr, _ := eventtest.FreeAddr(t)
		url := "postgres://" + strings.TrimSuffix(at, server) + addr + "/" + rest
		return absence{"a database", map[string]string{"DATABASE_URL": url}, check, log, func(t *testing.T) { forward(t, addr, server) }}
	}
	dir := filepath.Join(t.TempDir(), "later")
	return absence{"a database", map[string]string{"DATABASE_URL": "sqlite:" + filepath.Join(dir, "shop.db")}, check, log, func(t *testing.T) {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}}
}

// forward is a way from one address to another.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	pipe := func(a, b net.Conn) {
		defer a.Close()
		_, _ = io.Copy(a, b) // either side may go at any time
	}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
}

// A wrong address is said in the probes and, a few times, in the log; when something answers
// there, the shop goes on without a restart.
func TestAddress(t *testing.T) {
	parallel(t)
	for _, absent := range []func(*testing.T) absence{absentKafka, absentRegistry, absentDatabase} {
		one := absent(t)
		t.Run(one.name+" that comes late", func(t *testing.T) {
			parallel(t)
			s := prepare(t, one.vars)
			addr, port := eventtest.FreeAddr(t)
			s.cfg.Port = port
			s.Shop = &all.Shop{URLs: all.URLs{HTTP: "http://" + addr}}
			opened, ended := s.run()

			for _, service := range services {
				eventually(t, service+" tells what it waits for", func() bool {
					a, err := s.try(s.URLs.HTTP, "GET", "/"+service+"/readyz?verbose", nil)
					return err == nil && a.status == http.StatusServiceUnavailable && strings.Contains(a.body, one.check)
				})
			}
			if a := s.send("GET", "/readyz", nil); a.status != http.StatusServiceUnavailable {
				t.Errorf("the shop's own probe answers %d", a.status)
			}
			if a := s.send("GET", "/order/livez", nil); a.status != http.StatusOK {
				t.Errorf("livez answers %d: it says nothing about what is needed", a.status)
			}
			eventually(t, "a line in the log", func() bool { return strings.Contains(strings.Join(s.log.lines(), "\n"), one.log) })

			one.appear(t)
			select {
			case s.Shop = <-opened:
			case err := <-ended:
				t.Fatalf("the shop has ended: %v", err)
			case <-time.After(patience):
				t.Fatal("the shop does not open")
			}
			if lines := s.log.lines(); len(lines) > 60 {
				t.Errorf("%d lines in the log", len(lines))
			}
			sku := newSKU("tea")
			s.receive(sku, 1)
			s.mails(s.place(line{sku, 1, 450}).OrderID, 1)
			s.stop() // before what has appeared goes
		})
	}
}

// A variable that is wrong ends the shop at once, with one line that names it.
func TestVariable(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"ORDER_DEADLINE": "soon", "RETRY_ATTEMPTS": "many", "KAFKA_TLS": "perhaps", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml",
		"DATABASE_URL": "mysql://localhost/shop", "SCHEMA_REGISTRY_URL": "registry", "SMTP_ADDR": "mail", "SMTP_FROM": "nobody", "SMTP_TLS": "maybe",
		"KAFKA_SASL_MECHANISM": "GSSAPI", "KAFKA_TLS_CA_FILE": "/nowhere/ca.pem", "TRUST_TRACEPARENT": "sometimes", "OTEL_TRACES_SAMPLER": "never",
		"IDEMPOTENCY_TTL": "1 day", "OVERLOAD_LAG": "x", "SHUTDOWN_TIMEOUT": "25",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := prepare(t, map[string]string{"KAFKA_BROKERS": "", "DATABASE_URL": "", "SCHEMA_REGISTRY_URL": "", name: value})
			_, ended := s.run()
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s=%s ended the shop with %q, want one line that names the variable", name, value, err)
				}
				s.stopped = nil
			case <-time.After(patience):
				t.Errorf("the shop runs with %s=%s", name, value)
			}
		})
	}
}
