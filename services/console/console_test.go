package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/keyline/services/console"
)

// stand is an in-memory stand-in for a service's operator routes: it answers by "METHOD path"
// and keeps what it was asked. The real routes are met in services/all.
type stand struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]string
	status  map[string]int
	asked   []string
	on      map[string]func(*stand) // is called, locked, before what was asked is answered
}

func newStand(t *testing.T, answers map[string]string) *stand {
	t.Helper()
	s := &stand{answers: answers, status: map[string]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *stand) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	s.asked = append(s.asked, strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)))
	what := r.Method + " " + r.URL.Path
	if on := s.on[what]; on != nil {
		on(s)
	}
	text, ok := s.answers[what]
	if code := s.status[what]; code != 0 {
		w.WriteHeader(code)
	} else if !ok {
		w.WriteHeader(http.StatusNotFound)
	}
	fmt.Fprint(w, text)
}

func (s *stand) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// typed is what a command has answered.
type typed struct {
	code      int
	out, errs string
}

// run runs a command line in an empty folder.
func run(t *testing.T, environ map[string]string, args ...string) typed {
	t.Helper()
	return runIn(t, t.TempDir(), environ, args...)
}

func runIn(t *testing.T, dir string, environ map[string]string, args ...string) typed {
	t.Helper()
	return runWith(t.Context(), console.Config{Environ: environ, Dir: dir}, args...)
}

func runWith(ctx context.Context, cfg console.Config, args ...string) typed {
	var out, errs bytes.Buffer
	code := console.Run(ctx, cfg, args, &out, &errs)
	return typed{code, out.String(), errs.String()}
}

func (a typed) want(t *testing.T, code int, words ...string) {
	t.Helper()
	if a.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", a.code, code, a.out, a.errs)
	}
	for _, w := range words {
		if !strings.Contains(a.out+a.errs, w) {
			t.Errorf("%q is missing in\n%s%s", w, a.out, a.errs)
		}
	}
}

func admin(services map[string]*stand) map[string]string {
	var all []string
	for name, s := range services {
		all = append(all, name+"="+s.URL+"/")
	}
	return map[string]string{"ADMIN_URLS": strings.Join(all, ",")}
}

var commands = []string{"waiting ls", "waiting show", "redrive", "drop", "lag", "tail", "outbox", "skip", "replay", "provision", "acls"}

func TestRun_help(t *testing.T) {
	t.Parallel()

	t.Run("alone it lists the commands and the four lines that mend an order", func(t *testing.T) {
		t.Parallel()
		for _, args := range [][]string{nil, {"help"}, {"--help"}, {"-h"}} {
			a := run(t, nil, args...)
			a.want(t, 0, "console waiting ls  ", "console waiting show email/17  ", "console redrive email/17 --yes  ", "console drop email/17 --why", "ADMIN_URLS", "exit code")
			for _, c := range commands {
				if !strings.Contains(a.out, "\n  "+c+" ") {
					t.Errorf("%q is not listed in\n%s", c, a.out)
				}
			}
		}
	})

	t.Run("every command has a help with an example, and needs no system for it", func(t *testing.T) {
		t.Parallel()
		for _, c := range commands {
			for _, args := range [][]string{append(strings.Fields(c), "--help"), append(strings.Fields(c), "x", "-h"), append([]string{"help"}, strings.Fields(c)...)} {
				run(t, nil, args...).want(t, 0, "usage: console "+c, "examples:\n  console "+c, "--json", "exit code: 0 done, 1 failed")
			}
		}
		run(t, nil, "waiting").want(t, 0, "waiting ls", "waiting show")
		run(t, nil, "waiting", "--help").want(t, 0, "waiting ls", "waiting show")
	})

	t.Run("the examples of the help are understood", func(t *testing.T) {
		t.Parallel()
		for _, c := range commands {
			_, examples, _ := strings.Cut(run(t, nil, append(strings.Fields(c), "--help")...).out, "examples:\n")
			examples, _, _ = strings.Cut(examples, "\n\nflags:")
			for _, line := range strings.Split(examples, "\n") {
				line, _, _ = strings.Cut(line, " | ")
				a := run(t, nil, words(line)[1:]...)
				// They find no system, which comes after their words are understood.
				if c == "acls" { // it needs none
					a.want(t, 0)
					continue
				}
				if a.code != 1 || strings.Contains(a.errs, "console: ") && !strings.Contains(a.errs, "no services") && !strings.Contains(a.errs, "is missing") {
					t.Errorf("%s: %d %s", line, a.code, a.errs)
				}
			}
		}
	})
}

// words cuts a line as a shell does, as far as the examples need it.
func words(line string) (all []string) {
	var word strings.Builder
	quote := rune(0)
	for _, r := range strings.TrimSpace(line) + " " {
		switch {
		case quote == 0 && (r == '\'' || r == '"'):
			quote = r
		case r == quote:
			quote = 0
		case quote == 0 && r == ' ':
			all = append(all, word.String())
			word.Reset()
		default:
			word.WriteRune(r)
		}
	}
	return all
}

func TestRun_misused(t *testing.T) {
	t.Parallel()
	environ := admin(map[string]*stand{"email": newStand(t, nil)})
	for _, tt := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"an unknown command suggests the nearest", []string{"redrvie"}, []string{`did you mean "redrive"?`, "next: console redrive --help"}},
		{"so does the second word", []string{"waiting", "lst"}, []string{`did you mean "waiting ls"?`}},
		{"a command without its group", []string{"ls"}, []string{`did you mean "waiting ls"?`}},
		{"a command in a group that is none of it", []string{"waiting", "redrive", "email/1"}, []string{"next: console redrive"}},
		{"nothing near", []string{"xylophone"}, []string{"there is no command", "next: console --help"}},
		{"an unknown flag suggests the nearest", []string{"redrive", "--fource"}, []string{"did you mean --force?", "next: console redrive --help"}},
		{"a malformed flag", []string{"redrive", "--rate", "fast"}, []string{"--rate", "expected: a number", "next: console redrive --help"}},
		{"a flag with a dash too many", []string{"redrive", "---key", "x"}, []string{"there is no flag ---key; did you mean --key?"}},
		{"a duration without its unit", []string{"redrive", "--all", "--wait", "5"}, []string{`"5"`, "--wait", "expected: how long, with its unit, such as 5s"}},
		{"a number that is none", []string{"tail", "--limit", "many"}, []string{"--limit", "expected: a whole number"}},
		{"redrive of nothing named", []string{"redrive", "--yes"}, []string{"--all", "next: console waiting ls"}},
		{"redrive of IDs and a filter", []string{"redrive", "email/1", "--all"}, []string{"not both"}},
		{"redrive at a rate below nothing", []string{"redrive", "--all", "--rate", "-1"}, []string{"--rate must be 0 or more"}},
		{"an ID without its service", []string{"waiting", "show", "17"}, []string{"such as email/17", "next: console waiting ls --each"}},
		{"a service that is none", []string{"waiting", "show", "mail/17"}, []string{`no service "mail"; there are email`, "next: console waiting show --help"}},
		{"show of nothing", []string{"waiting", "show"}, []string{"one ID"}},
		{"drop without a reason", []string{"drop", "email/17", "--yes"}, []string{`next: console drop email/17 --why '...' --yes`}},
		{"drop of a filter without a reason", []string{"drop", "--key", "o 1", "--yes"}, []string{`next: console drop --key 'o 1' --why '...' --yes`}},
		{"drop of a filter with a reason that is none of a failure", []string{"drop", "--key", "o-1", "--reason", "customer was called"}, []string{"permanent, exhausted", "--why"}},
		{"drop of nothing named", []string{"drop", "--why", "x"}, []string{"say which", "next: console waiting ls --each"}},
		{"drop of an ID and a filter", []string{"drop", "email/1", "--key", "o-1", "--why", "x"}, []string{"either IDs or a filter"}},
		{"drop with a reason of blanks", []string{"drop", "email/17", "--reason", " ", "--yes"}, []string{"say why"}},
		{"an empty key does not mean all keys", []string{"redrive", "--key", "", "--yes"}, []string{"--key is empty", "next: console redrive --help"}},
		{"nor an empty word all services", []string{"outbox", ""}, []string{"a word is empty"}},
		{"nor an empty service all services", []string{"waiting", "ls", "--service="}, []string{"--service is empty"}},
		{"nor an empty type all types", []string{"replay", "email", "orders", "--from", "1h", "--type", "", "--yes"}, []string{"--type is empty"}},
		{"a state that is none", []string{"waiting", "ls", "--state", "died"}, []string{"--state: it is one of dead, unavailable"}},
		{"a reason that is none", []string{"redrive", "--reason", "permanet"}, []string{"it is one of permanent, exhausted, undecodable, unknown-schema"}},
		{"to go on behind an ID is no filter", []string{"redrive", "--after", "email/3", "--yes"}, []string{"say which", "next: console waiting ls"}},
		{"a group's second word that is nothing near", []string{"waiting", "xylophone"}, []string{"next: console waiting --help"}},
		{"ls with a limit for groups", []string{"waiting", "ls", "--limit", "2"}, []string{"next: console waiting ls --each --limit 2"}},
		{"tail of less than nothing", []string{"tail", "--limit", "-1"}, []string{"--limit must be 1 or more"}},
		{"redrive that waits less than nothing", []string{"redrive", "email/1", "--wait", "-1s"}, []string{"--wait must be 0 or more"}},
		{"redrive of all that waits for what becomes of them", []string{"redrive", "--all", "--wait", "3s"}, []string{"--wait goes with IDs or --key"}},
		{"replay of nothing", []string{"replay", "email", "orders", "--from", "1h", "--until", "2h"}, []string{"nothing lies between --from 1h and --until 2h"}},
		{"replay of a partition from nowhere", []string{"replay", "email", "orders/3"}, []string{"orders/3@1200", "next: console replay email orders/3@0"}},
		{"ls with a word", []string{"waiting", "ls", "email"}, []string{"flags only"}},
		{"a time that is none", []string{"tail", "--from", "yesterday"}, []string{"2026-03-01T08:00:00Z"}},
		{"replay from nowhere", []string{"replay", "email", "orders"}, []string{"--from 2h"}},
		{"replay of two topics", []string{"replay", "email", "orders/1@2", "emails/1@2"}, []string{"all of one topic"}},
		{"replay from a place and a time", []string{"replay", "email", "orders/1@2", "--from", "1h"}, []string{"not both"}},
		{"acls in a format that is none", []string{"acls", "--format", "yaml"}, []string{"table or kafka-acls"}},
		{"acls that all principals would share", []string{"acls", "--principal", "User:shop"}, []string{"--principal must have NAME"}},
		{"acls of a service", []string{"acls", "order"}, []string{"flags only"}},
		{"ADMIN_URLS that are none", []string{"outbox"}, []string{"ADMIN_URLS"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			vars := environ
			if tt.name == "ADMIN_URLS that are none" {
				vars = map[string]string{"ADMIN_URLS": "127.0.0.1:9000"}
			}
			a := run(t, vars, tt.args...)
			a.want(t, 2, tt.words...)
			if a.out != "" {
				t.Errorf("standard output has %q", a.out)
			}
			var only struct{ Error, Next string }
			a = run(t, vars, append(tt.args, "--json")...)
			if err := json.Unmarshal([]byte(a.out), &only); err != nil || a.code != 2 || tt.args[0] != "outbox" && (only.Error == "" || only.Next == "") || !strings.Contains(a.errs, only.Error) {
				t.Errorf("with --json: %v, exit code %d, %s, want what is wrong and what to type", err, a.code, a.out)
			}
		})
	}
}

func TestRun_findsTheSystem(t *testing.T) {
	t.Parallel()

	// front is what `make run` has: the services under their names.
	front := func(t *testing.T) (dir string, s *stand) {
		s = newStand(t, map[string]string{
			"GET /": `{"services": ["email"]}`, "GET /email/admin/outbox": `{"pending": 0, "held": []}`,
		})
		dir = t.TempDir()
		write(t, dir, map[string]string{"admin": s.URL, "kafka": "127.0.0.1:1", "registry": "http://127.0.0.1:1"})
		return dir, s
	}

	t.Run("by the file of make run, from a folder below", func(t *testing.T) {
		t.Parallel()
		dir, _ := front(t)
		below := filepath.Join(dir, "a", "b")
		if err := os.MkdirAll(below, 0o755); err != nil {
			t.Fatal(err)
		}
		runIn(t, below, nil, "outbox", "--verbose").want(t, 0, "email", filepath.Join(dir, ".run", "urls.json"))
		if a := runIn(t, below, nil, "outbox"); strings.Contains(a.errs, "urls.json") {
			t.Errorf("the file is named without --verbose: %s", a.errs)
		}
		// variables that say the same do not matter
		runIn(t, below, map[string]string{"KAFKA_BROKERS": "127.0.0.1:1"}, "outbox").want(t, 0, "email")
	})

	t.Run("a variable wins, and what is not set is taken from the file", func(t *testing.T) {
		t.Parallel()
		dir, s := front(t)
		other := newStand(t, map[string]string{"GET /admin/outbox": `{"pending": 3, "oldest_age_seconds": 192, "held": [{"topic": "orders", "key": "o-1"}]}`})
		runIn(t, dir, admin(map[string]*stand{"order": other}), "outbox").want(t, 0, "order", "3m12s", "orders o-1")
		if n := len(s.requests()); n != 0 {
			t.Errorf("the system of the file was asked %d times", n)
		}
		runIn(t, dir, map[string]string{"KAFKA_BROKERS": "elsewhere:9092"}, "outbox").want(t, 0, "email", "the brokers from the variable KAFKA_BROKERS")
		a := runIn(t, dir, map[string]string{"SCHEMA_REGISTRY_URL": "http://elsewhere:8081"}, "outbox", "--verbose")
		a.want(t, 0, "email", "there may be two systems", "the registry from the variable SCHEMA_REGISTRY_URL", "SCHEMA_REGISTRY_URL is from the variable", "ADMIN_URLS is from "+dir)
	})

	t.Run("where there is none it says what to start or to set", func(t *testing.T) {
		t.Parallel()
		run(t, nil, "outbox").want(t, 1, "no services", "next: make run, or export ADMIN_URLS=")
		run(t, nil, "lag").want(t, 1, "KAFKA_BROKERS is missing", "next: make run, or export KAFKA_BROKERS=host:9092")
	})

	t.Run("an address behind the name of another service is refused", func(t *testing.T) {
		t.Parallel()
		s := newStand(t, map[string]string{"GET /admin/outbox": `{"status": 421, "detail": "this is the service email"}`})
		s.status["GET /admin/outbox"] = http.StatusMisdirectedRequest
		run(t, admin(map[string]*stand{"order": s}), "outbox").want(t, 1, "order: this is the service email", "next: correct ADMIN_URLS")
		run(t, map[string]string{"ADMIN_URLS": "order=" + s.URL + ",email=" + s.URL + "/"}, "outbox").want(t, 2, "is there twice, as order and as email")
	})

	t.Run("a shop that has gone is named with its file", func(t *testing.T) {
		t.Parallel()
		dir, s := front(t)
		s.Close()
		runIn(t, dir, nil, "outbox").want(t, 1, "does not answer", "connection refused", "urls.json", "next: is `make run` still running?")
	})

	t.Run("a damaged file is said to be that", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		write(t, dir, "not what it should be")
		runIn(t, dir, nil, "outbox").want(t, 1, "is damaged", "next: make run")
	})

	t.Run("a file that cannot be read is named, and none further up is taken for it", func(t *testing.T) {
		t.Parallel()
		dir, s := front(t)
		below := filepath.Join(dir, "a")
		file := filepath.Join(below, ".run", "urls.json")
		for _, tt := range []struct {
			name string
			make func() error
			want string
		}{
			{"a folder", func() error { return os.MkdirAll(file, 0o755) }, "make " + file + " readable"},
			{"no permission", func() error { return os.WriteFile(file, []byte("{}"), 0) }, "make " + file + " readable"},
			{"no JSON", func() error { return os.WriteFile(file, []byte("{"), 0o600) }, "next: make run"},
			{"no addresses", func() error { return os.WriteFile(file, []byte("{}"), 0o600) }, "next: make run"},
		} {
			if err := errors.Join(os.RemoveAll(file), os.MkdirAll(filepath.Dir(file), 0o755), tt.make()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadFile(file); err == nil && tt.name == "no permission" {
				continue // root may read it
			}
			runIn(t, below, nil, "outbox").want(t, 1, file, tt.want)
		}
		if n := len(s.requests()); n != 0 {
			t.Errorf("the system further up was asked %d times", n)
		}
		// Who names all addresses needs no file.
		environ := admin(map[string]*stand{"email": newStand(t, map[string]string{"GET /admin/outbox": `{"pending": 7}`})})
		environ["KAFKA_BROKERS"], environ["SCHEMA_REGISTRY_URL"] = "127.0.0.1:1", "http://127.0.0.1:1"
		runIn(t, below, environ, "outbox").want(t, 0, "7")
	})

	t.Run("variables with values that make no sense are named, with what they should be", func(t *testing.T) {
		t.Parallel()
		for _, tt := range []struct{ vars, line, want string }{
			{"KAFKA_TLS=perhaps", "lag", "KAFKA_TLS=\"perhaps\" is malformed (expected: true or false)"},
			{"KAFKA_BROKERS=127.0.0.1:1 KAFKA_SASL_MECHANISM=GUESS KAFKA_SASL_USERNAME=u KAFKA_SASL_PASSWORD=p", "lag", "KAFKA_SASL_MECHANISM"},
			{"KAFKA_BROKERS=127.0.0.1:x", "tail", "KAFKA_BROKERS: "},
			{"KAFKA_BROKERS=127.0.0.1:1 SCHEMA_REGISTRY_URL=localhost:8081", "provision", "SCHEMA_REGISTRY_URL is no http or https URL"},
		} {
			vars := map[string]string{}
			for _, pair := range strings.Fields(tt.vars) {
				name, value, _ := strings.Cut(pair, "=")
				vars[name] = value
			}
			run(t, vars, tt.line).want(t, 2, tt.want)
		}
	})

	t.Run("what to correct is what was set", func(t *testing.T) {
		t.Parallel()
		dir, _ := front(t)
		a := runIn(t, dir, nil, "tail")
		a.want(t, 1, "no broker answers", "next: is `make run` still running? start it; or remove "+filepath.Join(dir, ".run", "urls.json"))
		run(t, map[string]string{"KAFKA_BROKERS": "127.0.0.1:1"}, "tail").want(t, 1, "next: start the brokers, or correct KAFKA_BROKERS\n")
	})

	t.Run("of several replicas the next one is asked where one is away", func(t *testing.T) {
		t.Parallel()
		gone, there := newStand(t, nil), newStand(t, map[string]string{"GET /admin/outbox": `{"pending": 7}`})
		gone.Close()
		environ := map[string]string{"ADMIN_URLS": "order=" + gone.URL + ", order=" + there.URL}
		run(t, environ, "outbox").want(t, 0, "7")
	})

	t.Run("what some services answer is told though others do not", func(t *testing.T) {
		t.Parallel()
		gone, there := newStand(t, nil), newStand(t, map[string]string{"GET /admin/outbox": `{"pending": 7}`})
		gone.Close()
		environ := admin(map[string]*stand{"order": gone, "email": there})
		run(t, environ, "outbox").want(t, 1, "email    7", "order does not answer", "next: start order, or correct ADMIN_URLS")
		var list struct {
			Items  []struct{ Service string }
			Errors []struct{ Text, Next string }
		}
		a := run(t, environ, "outbox", "--json")
		if err := json.Unmarshal([]byte(a.out), &list); err != nil || len(list.Items) != 1 || a.code != 1 {
			t.Errorf("%v, %+v, exit code %d", err, list, a.code)
		}
		if len(list.Errors) != 1 || !strings.Contains(list.Errors[0].Text, "order does not answer") || list.Errors[0].Next == "" {
			t.Errorf("errors %+v, want that order does not answer, and what to do", list.Errors)
		}
		if a := run(t, admin(map[string]*stand{"email": there}), "outbox", "--json"); strings.Contains(a.out, "errors") {
			t.Errorf("there are errors in %s", a.out)
		}
	})

	t.Run("an address that is not the operator's is said to be that", func(t *testing.T) {
		t.Parallel()
		page := newStand(t, map[string]string{"GET /admin/outbox": "<html>"})
		run(t, admin(map[string]*stand{"order": page}), "outbox").want(t, 1, "is it the operator's address?")
		run(t, admin(map[string]*stand{"order": newStand(t, nil)}), "outbox").want(t, 1, "404", "is it the operator's address?")
	})
}

func write(t *testing.T, dir string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".run"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".run", "urls.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}
