package all_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/pkg/db"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/services/all"
)

// patience bounds every wait; none comes near it on a machine that works.
const patience = 90 * time.Second

// real are the variables of `make test-real`: with them the same tests run on a real broker
// and a real PostgreSQL. The topics have fixed names, so the shops of these tests then run
// one after the other, each in consumer groups of its own that begin at the topics' ends.
var real = func() map[string]string {
	vars := map[string]string{}
	for _, name := range []string{"KAFKA_BROKERS", "DATABASE_URL", "SCHEMA_REGISTRY_URL"} {
		if value := os.Getenv(name); value != "" {
			vars[name] = value
		}
	}
	return vars
}()

// parallel lets a test run beside others, where it has a broker of its own.
func parallel(t *testing.T) {
	t.Helper()
	if real["KAFKA_BROKERS"] == "" {
		t.Parallel()
	}
}

// shop is a shop under test, with what its customers, its operator and a bystander at the
// broker can do.
type shop struct {
	testing.TB
	*all.Shop // the running one
	cfg       all.Config
	client    *http.Client
	stopped   func() error      // stops it and returns what Run returned
	mailbox   *embedded.Mailbox // beside the shop; nil: its own
	log       *logBook
	login     []kgo.Opt // of the test itself at the broker, if one is needed

	mu     sync.Mutex
	mine   map[string]bool // the keys of this test's records
	starts offsets         // where this test's records begin
}

// open starts a shop that keeps nothing and ends with the test. vars are variables beside
// those of the real parts, if there are any; an empty value takes one of those out.
func open(t testing.TB, vars map[string]string) *shop {
	t.Helper()
	s := prepare(t, vars)
	s.start()
	return s
}

// prepare is open without the start.
func prepare(t testing.TB, vars map[string]string) *shop {
	t.Helper()
	environ := maps.Clone(real)
	maps.Copy(environ, vars)
	s := &shop{TB: t, mine: map[string]bool{}, client: &http.Client{Transport: &http.Transport{}, Timeout: patience}, log: &logBook{to: t.Output()}}
	s.cfg = all.Config{Environ: environ, Out: io.Discard, Log: s.log}
	t.Cleanup(s.log.close)
	s.useOwnSchemas()
	s.useOwnGroups()
	t.Cleanup(s.stop)
	return s
}

// logBook keeps what a shop logs and shows it with the test.
type logBook struct {
	mu   sync.Mutex
	to   io.Writer // nil: the test is over, and a connection that was being made says so
	text bytes.Buffer
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	if l.to == nil {
		return len(p), nil
	}
	return l.to.Write(p)
}

func (l *logBook) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = nil
}

func (l *logBook) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.FieldsFunc(l.text.String(), func(r rune) bool { return r == '\n' })
}

// start runs the shop and returns when it is open.
func (s *shop) start() {
	s.Helper()
	opened, ended := s.run()
	select {
	case s.Shop = <-opened:
	case err := <-ended:
		s.Fatalf("the shop has ended: %v", err)
	case <-time.After(patience):
		s.Fatal("the shop does not open")
	}
}

// run runs the shop. opened yields it when it is open, ended what Run returns.
func (s *shop) run() (opened <-chan *all.Shop, ended <-chan error) {
	open, end := make(chan *all.Shop, 1), make(chan error, 1)
	cfg := s.cfg
	cfg.Started = func(started *all.Shop) { open <- started }
	ctx, cancel := context.WithCancel(context.Background())
	go func() { end <- all.Run(ctx, cfg) }()
	s.stopped = sync.OnceValue(func() error {
		cancel()
		return <-end
	})
	return open, end
}

// Mailbox is where the shop's mails arrive.
func (s *shop) Mailbox() *embedded.Mailbox {
	if s.mailbox != nil {
		return s.mailbox
	}
	return s.Shop.Mailbox()
}

// stop stops the shop and wants that to be clean.
func (s *shop) stop() {
	s.Helper()
	if s.stopped == nil {
		return
	}
	s.client.CloseIdleConnections() // one without a request yet would hold up the stop
	if err := s.stopped(); err != nil {
		s.Errorf("the shop stopped with %v", err)
	}
	s.stopped = nil
}

// eventually returns once ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	over := time.After(patience)
	for !ok() {
		select {
		case <-look.C:
		case <-over:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// useOwnSchemas gives the services schemas of their own on a real PostgreSQL.
func (s *shop) useOwnSchemas() {
	base := s.cfg.Environ["DATABASE_URL"]
	if !strings.HasPrefix(base, "postgres") {
		return
	}
	prefix := "test_" + strings.ToLower(rand.Text()[:10])
	join := "?"
	if strings.Contains(base, "?") {
		join = "&"
	}
	s.cfg.Environ["DATABASE_URL"] = base + join + "search_path=" + prefix
	s.Cleanup(func() {
		d, err := db.Open(db.Config{URL: real["DATABASE_URL"]})
		if err != nil {
			s.Fatal(err)
		}
		defer d.Close()
		for _, service := range services {
			if _, err := d.Exec(context.Background(), "drop schema if exists "+prefix+"_keyline_"+service+" cascade"); err != nil {
				s.Errorf("drop a schema of the test: %v", err)
			}
		}
	})
}

var services = []string{"order", "inventory", "email"}

// databaseURL is the database of a service, whether the shop runs or not.
func (s *shop) databaseURL(service string) string {
	dir := s.cfg.Data
	if dir == "" {
		dir = s.Dir()
	}
	return all.DatabaseURL(s.cfg.Environ["DATABASE_URL"], dir, service)
}

// count counts the rows of a service's table.
func (s *shop) count(service, table string) (rows int) {
	s.Helper()
	d, err := db.Open(db.Config{URL: s.databaseURL(service)})
	if err != nil {
		s.Fatal(err)
	}
	defer d.Close()
	if err := d.QueryRow(s.Context(), "select count(*) from "+table).Scan(&rows); err != nil {
		s.Fatal(err)
	}
	return rows
}

// hold keeps a service from its database until release is called.
func (s *shop) hold(service string) (release func()) {
	s.Helper()
	d, err := db.Open(db.Config{URL: s.databaseURL(service)})
	if err != nil {
		s.Fatal(err)
	}
	held, let, done := make(chan error, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		defer d.Close()
		done <- d.Once(context.Background(), func(ctx context.Context, tx *db.Tx) error {
			var err error
			if strings.HasPrefix(s.databaseURL(service), "postgres") { // SQLite's lock is had by the beginning
				_, err = tx.Exec(ctx, "lock table inbox in access exclusive mode")
			}
			held <- err
			busy := time.NewTicker(time.Second) // an idle transaction would be ended
			defer busy.Stop()
			for {
				select {
				case <-let:
					return err
				case <-busy.C:
					var one int
					if err := tx.QueryRow(ctx, "select 1").Scan(&one); err != nil {
						return err
					}
				}
			}
		})
	}()
	release = sync.OnceFunc(func() {
		close(let)
		if err := <-done; err != nil {
			s.Errorf("the hold on %s broke: %v", service, err)
		}
	})
	s.Cleanup(release)
	select {
	case err := <-held:
		if err != nil {
			s.Fatal(err)
		}
	case <-time.After(patience):
		s.Fatalf("the database of %s cannot be held", service)
	}
	return release
}

// answer is what a request was answered.
type answer struct {
	status int
	header http.Header
	body   string
}

// into reads the answer's JSON.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		t.Fatalf("%v in the answer %d %s", err, a.status, a.body)
	}
}

// send sends a request to the page's port. body is text, or is made JSON.
func (s *shop) send(method, path string, body any, header ...string) answer {
	s.Helper()
	return s.sendTo(s.URLs.HTTP, method, path, body, header...)
}

func (s *shop) sendTo(base, method, path string, body any, header ...string) answer {
	s.Helper()
	a, err := s.try(base, method, path, body, header...)
	if err != nil {
		s.Fatal(err)
	}
	return a
}

// try is sendTo where there may be no answer.
func (s *shop) try(base, method, path string, body any, header ...string) (answer, error) {
	s.Helper()
	text, ok := body.(string)
	if !ok && body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			s.Fatal(err)
		}
		text = string(b)
	}
	req, err := http.NewRequest(method, base+path, bytes.NewBufferString(text))
	if err != nil {
		s.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(all)}, err
}

// want fails the test unless the answer has the status.
func (a answer) want(t testing.TB, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("answered %d %s, want %d", a.status, a.body, status)
	}
	return a
}

func newKey() string { return rand.Text() }

// newSKU is an article that no other test has.
func newSKU(what string) string { return fmt.Sprintf("%s-%s", what, rand.Text()[:8]) }
