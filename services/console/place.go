package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/kafka"
	"example.com/keyline/pkg/service"
)

// urlFile is what `make run` writes while it runs.
var urlFile = filepath.Join(".run", "urls.json")

// place is where the system is.
type place struct {
	from    map[string]string // where each address was read, by its variable
	front   string            // `make run` has all services' operator routes behind one URL
	environ map[string]string // with the addresses of the file for those that are not set
}

// urls is the file that `make run` writes.
type urls struct {
	HTTP     string `json:"http"`
	Admin    string `json:"admin"`
	Kafka    string `json:"kafka"`
	Registry string `json:"registry"`
}

// find takes each address from its variable, and those that are not set from the file of
// `make run` in dir or above it.
func find(environ map[string]string, dir string) (*place, error) {
	p := &place{from: map[string]string{}, environ: maps.Clone(environ)}
	if p.environ == nil {
		p.environ = map[string]string{}
	}
	file, u, err := findFile(dir)
	switch {
	case err != nil && p.lacks():
		return nil, err
	case err != nil:
		file = ""
	}
	for name, address := range map[string]string{"ADMIN_URLS": u.Admin, "KAFKA_BROKERS": u.Kafka, "SCHEMA_REGISTRY_URL": u.Registry} {
		switch {
		case environ[name] != "" && environ[name] != address:
			p.from[name] = "the variable " + name
		case file != "":
			p.from[name] = file
			if name == "ADMIN_URLS" {
				p.front = address
			} else {
				p.environ[name] = address
			}
		}
	}
	return p, nil
}

// mixed warns of services, brokers and a registry that may be those of two systems, and is
// empty if not.
func (p *place) mixed() string {
	var files, variables []string
	for _, of := range []struct{ what, name string }{{"the services", "ADMIN_URLS"}, {"the brokers", "KAFKA_BROKERS"}, {"the registry", "SCHEMA_REGISTRY_URL"}} {
		switch from := p.from[of.name]; {
		case from == "":
		case strings.HasSuffix(from, urlFile):
			files = append(files, of.what+" from "+from)
		default:
			variables = append(variables, of.what+" from "+from)
		}
	}
	if len(files) == 0 || len(variables) == 0 {
		return ""
	}
	return "there may be two systems: " + strings.Join(append(files, variables...), ", ")
}

// lacks reports whether one of the addresses is not set as a variable.
func (p *place) lacks() bool {
	return p.environ["ADMIN_URLS"] == "" || p.environ["KAFKA_BROKERS"] == "" || p.environ["SCHEMA_REGISTRY_URL"] == ""
}

// findFile looks for the file in dir and above it. One that is there and cannot be read ends
// the search: a file further up would be another system's.
func findFile(dir string) (file string, u urls, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", u, err
	}
	for {
		file = filepath.Join(dir, urlFile)
		text, err := os.ReadFile(file)
		if err == nil {
			u, err = readURLs(text)
			if err != nil {
				return "", u, fail("%s is damaged: %v", file, err).then("make run")
			}
			return file, u, nil
		}
		if !absent(file, err) {
			return "", u, fail("the addresses cannot be read: %v", err).
				then("make %s readable, or remove it, or set ADMIN_URLS, KAFKA_BROKERS and SCHEMA_REGISTRY_URL", file)
		}
		if filepath.Dir(dir) == dir {
			return "", u, nil
		}
		dir = filepath.Dir(dir)
	}
}

// absent reports whether a file that could not be read is not there, as far as one may look.
func absent(file string, err error) bool {
	if errors.Is(err, fs.ErrPermission) { // of the file, or of a folder above that is no system's
		_, err = os.Lstat(filepath.Dir(file))
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR)
}

func readURLs(text []byte) (u urls, err error) {
	if err := json.Unmarshal(text, &u); err != nil {
		return u, err
	}
	if u.Admin == "" || u.Kafka == "" || u.Registry == "" {
		return u, errors.New("it lacks an address")
	}
	return u, nil
}

const (
	startHint = "make run"
	adminHint = "make run, or export ADMIN_URLS=order=http://host:port,inventory=http://host:port,email=http://host:port"
)

// services are those that ADMIN_URLS names, with all their replicas.
func (p *place) services() ([]*Service, error) {
	cfg, err := service.Parse[struct {
		URLs []string `env:"ADMIN_URLS" expect:"order=http://host:port, or several with commas"`
	}](p.environ)
	if err != nil {
		return nil, wrong("%v", err).then(adminHint)
	}
	if len(cfg.URLs) == 0 {
		return nil, fail("no services: there is no %s here or above, and ADMIN_URLS is not set", urlFile).then(adminHint)
	}
	all, seen := map[string]*Service{}, map[string]string{}
	for _, one := range cfg.URLs {
		name, at, ok := strings.Cut(strings.TrimSpace(one), "=")
		base, err := url.Parse(at)
		if !ok || name == "" || strings.Contains(name, "/") || err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
			return nil, wrong("ADMIN_URLS: %q is not name=http://host:port", safe(one, 60)).then(adminHint)
		}
		if all[name] == nil {
			all[name] = &Service{Name: name}
		}
		base.Path = strings.TrimSuffix(base.Path, "/")
		if other, twice := seen[base.String()]; twice {
			return nil, wrong("ADMIN_URLS: %s is there twice, as %s and as %s", safe(base.Redacted(), 100), other, safe(name, 60)).then(adminHint)
		}
		seen[base.String()] = name
		all[name].replicas = append(all[name].replicas, base)
	}
	return sorted(all), nil
}

func sorted(all map[string]*Service) []*Service {
	var list []*Service
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name])
	}
	return list
}

// kafka is how the brokers are reached; the console is in no group.
func (p *place) kafka() (kafka.Config, error) {
	cfg, err := parsed[kafka.Config](p, "KAFKA_BROKERS", "host:9092")
	if err != nil {
		return cfg, err
	}
	cfg.Group, cfg.InstanceID, cfg.ClientID = "", "", "console"
	// With a context that has ended nothing is wrong but the variables.
	ended, end := context.WithCancel(context.Background())
	end()
	if _, err := kafka.NewReader(ended, cfg); err != nil && !errors.Is(err, context.Canceled) {
		text := safe(err.Error(), 300)
		if !strings.Contains(text, "KAFKA_") {
			text = "KAFKA_BROKERS: " + text + " (expected: host:port, or several with commas)"
		}
		return cfg, wrong("%s", text)
	}
	return cfg, nil
}

func (p *place) registry() (codec.Config, error) {
	cfg, err := parsed[codec.Config](p, "SCHEMA_REGISTRY_URL", "http://host:8081")
	if err == nil {
		_, err = codec.New(cfg)
		if err != nil {
			err = wrong("%s", safe(err.Error(), 300))
		}
	}
	return cfg, err
}

// parsed reads variables. That the address is missing is none of how a command is used: no
// shop was found.
func parsed[C any](p *place, name, example string) (C, error) {
	cfg, err := service.Parse[C](p.environ)
	if err == nil {
		return cfg, nil
	}
	if p.environ[name] == "" {
		with := maps.Clone(p.environ)
		with[name] = example
		if _, other := service.Parse[C](with); other == nil {
			return cfg, fail("%v", err).then("make run, or export %s=%s", name, example)
		}
	}
	return cfg, wrong("%v", err)
}

// mend says what to do where nobody answers at the address that a variable, or the file, names.
func (p *place) mend(who, name string) string {
	if from := p.from[name]; strings.HasSuffix(from, urlFile) {
		return "is `make run` still running? start it; or remove " + from
	}
	return "start " + who + ", or correct " + name
}

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitNone   = 3 // nothing was found that matches
	exitDrift  = 4 // what is there is not what is declared
)

// Failure is an error for the operator: one line, and what to type next.
type Failure struct {
	Text string
	Next string // empty if there is nothing to type
	code int
	of   string // what was named and is not there; a question whose answer is empty has none
}

func (f *Failure) Error() string { return f.Text }

func (f *Failure) then(next string, args ...any) *Failure {
	if len(args) > 0 {
		next = fmt.Sprintf(next, args...)
	}
	f.Next = next
	return f
}

func fail(format string, args ...any) *Failure {
	return &Failure{Text: fmt.Sprintf(format, args...), code: exitFailed}
}

// wrong is for what was asked in a way that cannot work.
func wrong(format string, args ...any) *Failure {
	return &Failure{Text: fmt.Sprintf(format, args...), code: exitUsage}
}

// none is for a question whose answer is empty.
func none(format string, args ...any) *Failure {
	return &Failure{Text: fmt.Sprintf(format, args...), code: exitNone}
}
