package all_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/service"
	"example.com/keyline/services/all"
)

// childFile makes the test binary a shop, as its main is, so that it can be killed. It names
// the file for the shop's URLs.
const childFile = "KEYLINE_TEST_CHILD"

func TestMain(m *testing.M) {
	file := os.Getenv(childFile)
	if file == "" {
		os.Exit(m.Run())
	}
	service.Main("keyline", func(ctx context.Context, cfg all.Config) error {
		cfg.Environ, cfg.URLFile, cfg.Out = map[string]string{}, file, io.Discard
		for _, pair := range os.Environ() {
			name, value, _ := strings.Cut(pair, "=")
			cfg.Environ[name] = value
		}
		return all.Run(ctx, cfg)
	})
}

// process is a shop in a process of its own.
type process struct {
	tb     testing.TB
	cmd    *exec.Cmd
	file   string
	stderr bytes.Buffer
	ended  chan struct{} // closed when it has; then stderr may be read
}

// spawn starts a shop in a process of its own, with the variables of s.
func spawn(s *shop, vars ...string) *process {
	s.Helper()
	p := &process{tb: s.TB, cmd: exec.Command(os.Args[0]), file: filepath.Join(s.TempDir(), "urls.json"), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childFile+"="+p.file, "LOAD=0", "DATA="+s.cfg.Data)
	for name, value := range s.cfg.Environ {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Env = append(p.cmd.Env, vars...)
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // its state says the same
	}()
	s.Cleanup(func() { p.signal(syscall.SIGKILL) })
	return p
}

// opened returns the shop's URLs once it is open.
func (p *process) opened() (urls all.URLs) {
	p.tb.Helper()
	eventually(p.tb, "the shop's process is open", func() bool {
		select {
		case <-p.ended:
			p.tb.Fatalf("the shop's process has ended: %s", p.stderr.String())
		default:
		}
		text, err := os.ReadFile(p.file)
		return err == nil && json.Unmarshal(text, &urls) == nil
	})
	return urls
}

// signal ends the process and returns its exit status.
func (p *process) signal(sig syscall.Signal) (status int) {
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.tb.Error(err)
	}
	return p.status()
}

// status is the exit status of the process, once it has ended.
func (p *process) status() int {
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.tb.Error("the shop's process does not end")
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	return p.cmd.ProcessState.ExitCode()
}

// TestAcceptedMeansDurable is promise 1: a shop that is killed, broker and all, loses no
// order that it has accepted, and a request whose answer was lost can be repeated.
func TestAcceptedMeansDurable(t *testing.T) {
	parallel(t)
	const rounds, customers, enough = 2, 4, 25
	// No mail server until the end: a mail that was being sent when the process died would be
	// left alone until its claim ends, which takes a minute.
	smtp, port := eventtest.FreeAddr(t)
	data := t.TempDir()
	s := prepare(t, map[string]string{"SMTP_ADDR": smtp})
	s.cfg.Data = data
	sku := newSKU("tea")
	open := map[string]bool{} // requests, by key, without an answer
	var orders []accepted
	for round := range rounds {
		p := spawn(s)
		s.Shop = &all.Shop{URLs: p.opened()}
		if round == 0 {
			s.receive(sku, 1000)
		}
		orders = append(orders, s.placeUntilKilled(p, sku, open, customers, enough)...)
	}

	mailbox, err := embedded.StartMailbox(embedded.MailboxConfig{Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mailbox.Close() })
	s.mailbox = mailbox
	s.start()
	t.Logf("%d orders accepted before the kills, %d requests without an answer", len(orders), len(open))
	for key := range open {
		a, err := s.insist(draftOf(line{sku, 1, 450}), key)
		if err != nil {
			t.Fatal(err)
		}
		orders = append(orders, s.accept(a))
	}
	s.settled(orders)
	s.quiet()
	s.check(orders...)
}

// insist places an order until the answer is not 503: a shop that was killed has to catch up
// first.
func (s *shop) insist(d draft, key string) (a answer, err error) {
	s.Helper()
	eventually(s, "an answer that is not 503", func() bool {
		a, err = s.try(s.URLs.HTTP, "POST", "/v1/orders", d, "Idempotency-Key", key)
		return a.status != http.StatusServiceUnavailable
	})
	return a, err
}

// placeUntilKilled kills the shop when that many orders have been accepted, while customers
// go on placing. Those without an answer are noted in open, and asked for first.
func (s *shop) placeUntilKilled(p *process, sku string, open map[string]bool, customers, enough int) (orders []accepted) {
	s.Helper()
	var mu sync.Mutex
	next := func() string {
		mu.Lock()
		defer mu.Unlock()
		for key, pending := range open {
			if pending {
				open[key] = false // somebody asks
				return key
			}
		}
		key := newKey()
		open[key] = false
		return key
	}
	for key := range open {
		open[key] = true
	}
	var all sync.WaitGroup
	for range customers {
		all.Go(func() {
			for {
				key := next()
				a, err := s.insist(draftOf(line{sku, 1, 450}), key)
				if err != nil {
					return // killed
				}
				o := s.accept(a)
				mu.Lock()
				delete(open, key)
				orders = append(orders, o)
				if len(orders) == enough {
					go p.signal(syscall.SIGKILL)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	p.status()
	return orders
}

func TestProcess(t *testing.T) {
	parallel(t)
	data := t.TempDir()
	s := prepare(t, nil)
	s.cfg.Data = data
	first := spawn(s)
	first.opened()

	t.Run("a second process on the same DATA is refused with one line", func(t *testing.T) {
		second := spawn(s)
		status := second.status()
		text := second.stderr.String()
		if status != 1 || strings.Count(text, "\n") != 1 || !strings.Contains(text, "DATA") || !strings.Contains(text, data) {
			t.Errorf("exit status %d, and said %q; want 1 and a line that names DATA and the folder", status, text)
		}
	})
	t.Run("SIGTERM ends it with status 0", func(t *testing.T) {
		if status := first.signal(syscall.SIGTERM); status != 0 {
			t.Errorf("exit status %d, and said %q", status, first.stderr.String())
		}
	})
	t.Run("then the folder is free again", func(t *testing.T) {
		again := spawn(s)
		again.opened()
		if status := again.signal(syscall.SIGINT); status != 0 {
			t.Errorf("exit status %d, and said %q", status, again.stderr.String())
		}
	})
	t.Run("a malformed variable ends it with status 2 and one line", func(t *testing.T) {
		bad := spawn(s, "PORT=eighty")
		status := bad.status()
		if text := bad.stderr.String(); status != 2 || strings.Count(text, "\n") != 1 || !strings.Contains(text, "PORT") {
			t.Errorf("exit status %d, and said %q", status, text)
		}
	})
}
