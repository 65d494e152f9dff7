package console

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"example.com/keyline/pkg/kafka"
)

// Config says where to look for the system.
type Config struct {
	Environ map[string]string    // variables of the process
	Dir     string               // where the file of `make run` is looked for, there and above
	Slow    func(service string) // if set, hears which service lets wait; it may be called at any time
	Name    string               // how the command line was called, for what it proposes; "console" if empty
	timing  timing
}

// Console asks the system. It is safe for concurrent use.
type Console struct {
	place  *place
	slow   func(string)
	timing timing

	mu       sync.Mutex
	services []*Service // once known
	reader   *kafka.Reader
}

// Open finds the system and connects to nothing yet.
func Open(cfg Config) (*Console, error) {
	p, err := find(cfg.Environ, cmp.Or(cfg.Dir, "."))
	if err != nil {
		return nil, err
	}
	return &Console{place: p, slow: cfg.Slow, timing: cmp.Or(cfg.timing, patience)}, nil
}

// Close ends the connections.
func (c *Console) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.services {
		s.client.CloseIdleConnections()
	}
	if c.reader != nil {
		c.reader.Close()
	}
}

// Sources are where the addresses were read, by their variables: a file's path, or words for
// the variables themselves.
func (c *Console) Sources() map[string]string { return maps.Clone(c.place.from) }

// Services are those of the system, by name.
func (c *Console) Services(ctx context.Context) ([]*Service, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.services != nil {
		return c.services, nil
	}
	var err error
	var all []*Service
	if c.place.front != "" {
		all, err = c.behindFront(ctx)
	} else {
		all, err = c.place.services()
	}
	if err != nil {
		return nil, err
	}
	client := newClient()
	for _, s := range all {
		s.client, s.source, s.timing, s.slow = client, c.place.from["ADMIN_URLS"], c.timing, c.slow
		s.answered = new(atomic.Int32)
	}
	c.services = all
	return all, nil
}

// behindFront asks `make run` for its services.
func (c *Console) behindFront(ctx context.Context) ([]*Service, error) {
	p := c.place
	base, err := url.Parse(p.front)
	if err != nil {
		return nil, fail("%s has a malformed URL", p.from["ADMIN_URLS"]).then(startHint)
	}
	front := &Service{Name: "the shop", replicas: []*url.URL{base}, answered: new(atomic.Int32), client: newClient(), source: p.from["ADMIN_URLS"], timing: c.timing, slow: c.slow}
	defer front.client.CloseIdleConnections()
	var list struct{ Services []string }
	if err := front.get(ctx, "/", nil, &list); err != nil {
		return nil, explain(err)
	}
	all := map[string]*Service{}
	for _, name := range list.Services {
		all[name] = &Service{Name: name, replicas: []*url.URL{base.JoinPath(name)}}
	}
	return sorted(all), nil
}

// explain says what to do about an error of a service.
func explain(err error) error {
	var away *unreachable
	var known *Failure
	switch {
	case err == nil || errors.As(err, &known) || err == context.Canceled:
		return err
	case refused(err, http.StatusMisdirectedRequest):
		return fail("%v", err).then("correct ADMIN_URLS: each address behind the name of its service")
	case errors.As(err, &away) && strings.HasSuffix(away.source, urlFile):
		return fail("%v", away).then("is `make run` still running? start it; or remove %s", away.source)
	case errors.As(err, &away):
		return fail("%v", away).then("start %s, or correct ADMIN_URLS", away.service)
	}
	return fail("%s", safe(err.Error(), 500))
}

// service is one of them by its name.
func (c *Console) service(ctx context.Context, name string) (*Service, error) {
	all, err := c.Services(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return nil, wrong("no service %q; there are %s", safe(name, 60), strings.Join(names, ", "))
}

// chosen are all services, or the one of that name.
func (c *Console) chosen(ctx context.Context, name string) ([]*Service, error) {
	if name == "" {
		return c.Services(ctx)
	}
	s, err := c.service(ctx, name)
	return []*Service{s}, err
}

// gather asks services at the same time and returns what they answered, in their order. What
// some have answered counts though others fail.
func gather[T any](ctx context.Context, services []*Service, ask func(context.Context, *Service) ([]T, error)) (all []T, err error) {
	answers, errs := make([][]T, len(services)), make([]error, len(services))
	var wait sync.WaitGroup
	for i, s := range services {
		wait.Go(func() {
			answers[i], errs[i] = ask(ctx, s)
			errs[i] = explain(errs[i])
		})
	}
	wait.Wait()
	for _, some := range answers {
		all = append(all, some...)
	}
	return all, errors.Join(errs...)
}

// kafka is a connection to the brokers.
func (c *Console) kafka(ctx context.Context) (*kafka.Reader, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reader != nil {
		return c.reader, nil
	}
	cfg, err := c.place.kafka()
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	c.reader, err = kafka.NewReader(bounded, cfg)
	if err != nil {
		return nil, fail("%s (from %s)", safe(err.Error(), 300), c.place.from["KAFKA_BROKERS"]).then("%s", c.place.mend("the brokers", "KAFKA_BROKERS"))
	}
	return c.reader, nil
}

// brokersFailed says what the brokers have answered, and what to do next: where they do not allow
// what was asked, trying again does not help.
func brokersFailed(what string, err error, next string) *Failure {
	if kafka.Forbidden(err) {
		next = "console acls"
	}
	return fail("%s%s", what, safe(err.Error(), 400)).then(next)
}

// ID is a waiting event's: its service and its number there, "order/17".
type ID struct {
	Service string
	N       int64
}

func (id ID) String() string { return id.Service + "/" + strconv.FormatInt(id.N, 10) }

// MarshalText writes an ID as it is typed.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseID reads an ID as it is typed.
func ParseID(text string) (ID, error) {
	service, number, ok := strings.Cut(text, "/")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || service == "" || err != nil || n < 1 {
		return ID{}, wrong("%q is not an ID of a waiting event, such as email/17", safe(text, 60)).then("console waiting ls --each")
	}
	return ID{service, n}, nil
}
