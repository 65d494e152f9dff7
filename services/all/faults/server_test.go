//go:build unix

package faults_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx", for the test's own connections

	"example.com/keyline/pkg/eventtest"
)

// server is a part that runs in a process of its own and keeps its state in a folder.
type server struct {
	r    *rig
	addr string
	log  string
	make func() *exec.Cmd
	up   func() bool // whether it serves; nil: it accepts connections
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts the server and returns when it serves.
func (s *server) start() {
	s.r.Helper()
	log, err := os.OpenFile(s.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		s.r.Fatal(err)
	}
	defer log.Close()
	for begun := time.Now(); ; lasting(100 * time.Millisecond) {
		cmd, done := s.make(), make(chan struct{})
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			s.r.Fatal(err)
		}
		go func() {
			defer close(done)
			_ = cmd.Wait() // its state says the same
		}()
		s.cmd, s.done = cmd, done
		if within(bootPatience, func() bool { return s.serves() || s.gone() }) && !s.gone() {
			return
		}
		// Postgres refuses to start while a backend of the one that was killed is there.
		if !s.gone() || time.Since(begun) > bootPatience {
			s.r.Fatalf("%s does not start; see %s", s.cmd, s.tail())
		}
	}
}

func (s *server) serves() bool {
	if s.up != nil {
		return s.up()
	}
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

func (s *server) gone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *server) tail() string {
	text, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// kill ends the server as a crash would.
func (s *server) kill() { s.end(syscall.SIGKILL) }

func (s *server) end(sig syscall.Signal) {
	_ = s.cmd.Process.Signal(sig) // it may be gone
	select {
	case <-s.done:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// startApart starts the embedded broker in a process of its own.
func (r *rig) startApart() {
	r.Helper()
	addr, port := eventtest.FreeAddr(r)
	r.brokers = addr
	r.broker = &server{r: r, addr: r.brokers, log: filepath.Join(r.dir, "broker.log"), make: func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVar+"=broker", portVar+"="+strconv.Itoa(port), dirVar+"="+filepath.Join(r.dir, "broker"))
		if _, err := cmd.StdinPipe(); err != nil { // closed when it is waited for, or with this process
			r.Fatal(err)
		}
		return cmd
	}}
	r.broker.start()
	r.Cleanup(func() { r.broker.end(syscall.SIGTERM) })
}

// brokerScript becomes a real broker.
const brokerScript = "../../../.ci/rig/broker"

func missingKafka() error {
	out, err := exec.Command(brokerScript).CombinedOutput()
	if err != nil {
		return fmt.Errorf("no real Kafka broker: %s %w", strings.TrimSpace(string(out)), err)
	}
	return nil
}

// startReal starts a real broker, behind a proxy.
func (r *rig) startReal() {
	r.Helper()
	addr, _ := eventtest.FreeAddr(r)
	controller, _ := eventtest.FreeAddr(r)
	r.wire = newProxy(r, addr)
	r.brokers = r.wire.addr
	ports := make([]string, 3)
	for i, a := range []string{addr, controller, r.wire.addr} {
		_, ports[i], _ = net.SplitHostPort(a)
	}
	dir := filepath.Join(r.dir, "kafka")
	r.broker = &server{r: r, addr: addr, log: filepath.Join(r.dir, "broker.log"), make: func() *exec.Cmd {
		return exec.Command(brokerScript, append([]string{dir}, ports...)...)
	}}
	r.broker.start()
	r.Cleanup(func() { r.broker.end(syscall.SIGKILL) })
	r.provision()
}

// postgres is a PostgreSQL of the rig's own.
type postgres struct {
	*server
	admin *sql.DB // past the proxy, as its superuser
}

// postgresBin is the folder of the newest PostgreSQL's programs.
func postgresBin() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return "", errors.New("no PostgreSQL (Debian: postgresql)")
	}
	version := func(path string) int64 { return atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) }
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return int(version(a) - version(b)) })), nil
}

// startPostgres starts a PostgreSQL with durable settings, behind a proxy for each service.
func (r *rig) startPostgres() {
	r.Helper()
	bin, err := postgresBin()
	if err != nil {
		r.Fatal(err)
	}
	base := r.folder() // one of its own: another user has to own it
	dir := filepath.Join(base, "data")
	addr, port := eventtest.FreeAddr(r)
	as := r.postgresUser(base)
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", dir, "-U", "keyline", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.SysProcAttr, initdb.Dir = as, base
	if out, err := initdb.CombinedOutput(); err != nil {
		r.Fatalf("initdb: %v: %s", err, out)
	}
	r.postgres = &postgres{server: &server{r: r, addr: addr, log: filepath.Join(r.dir, "postgres.log"), make: func() *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "postgres"), "-D", dir, "-p", strconv.Itoa(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
			"-c", "max_connections=200", "-c", "deadlock_timeout=100ms")
		cmd.SysProcAttr, cmd.Dir = as, base
		return cmd
	}}}
	// Not by its port: a child of one that was killed may have that open for a moment longer.
	r.postgres.up = func() bool {
		ctx, cancel := context.WithTimeout(r.ctx, time.Second)
		defer cancel()
		c, err := pgx.Connect(ctx, r.postgres.url(addr, ""))
		if err != nil {
			return false
		}
		return c.Close(ctx) == nil
	}
	r.postgres.start()
	r.Cleanup(func() { r.postgres.end(syscall.SIGQUIT) })
	for _, s := range services {
		r.cables[s] = newProxy(r, addr)
	}
	r.postgres.admin, err = sql.Open("pgx", r.postgres.url(addr, ""))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { r.postgres.admin.Close() })
	for _, s := range services {
		if _, err := r.postgres.admin.ExecContext(r.ctx, "create schema "+s+"_service"); err != nil {
			r.Fatal(err)
		}
	}
}

// postgresUser makes a folder that of the user PostgreSQL has to run as: it refuses root.
func (r *rig) postgresUser(dir string) *syscall.SysProcAttr {
	r.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		r.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		r.Fatal(err)
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// url is the database of a service, each in a schema of its own; empty: all of it.
func (p *postgres) url(addr, service string) string {
	u := url.URL{Scheme: "postgres", User: url.User("keyline"), Host: addr, Path: "/postgres", RawQuery: "sslmode=disable"}
	if service != "" {
		u.RawQuery += "&search_path=" + service + "_service"
	}
	return u.String()
}
