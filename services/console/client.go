package console

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	dialTimeout = 3 * time.Second
	maxAnswer   = 64 << 20
)

// timing is how long a service may take.
type timing struct {
	slow   time.Duration // then somebody is told who is waited for
	look   time.Duration // then a question is given up
	work   time.Duration // then a request that changes something is; a part of a replay may take half of it
	finish time.Duration // then one is that was in hand when its context ended

	brokers time.Duration // so often a tail that follows looks whether they answer, and so long it waits for that
}

const perhapsDone = "it may have been done"

var patience = timing{slow: 2 * time.Second, look: 10 * time.Second, work: 40 * time.Second, finish: 10 * time.Second, brokers: 3 * time.Second}

// Service is a service's operator routes.
type Service struct {
	Name     string
	replicas []*url.URL
	answered *atomic.Int32 // the replica that was the last to answer, which is asked first
	client   *http.Client
	source   string
	timing   timing
	slow     func(service string) // hears of one that lets wait; it may be called at any time
}

// Problem is a service's refusal.
type Problem struct {
	Service string `json:"-"`
	Status  int    `json:"status"`
	Title   string `json:"title"`
	Detail  string `json:"detail"`
}

func (p *Problem) Error() string { return p.Service + ": " + safe(p.text(), 500) }

func (p *Problem) text() string { return cmp.Or(p.Detail, p.Title, http.StatusText(p.Status)) }

func refused(err error, status int) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status == status
}

// get asks the replicas in turn until one answers: all of them have the same database.
func (s *Service) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return s.anyReplica(func(at *url.URL) error { return s.do(ctx, call{http.MethodGet, path, nil, false}, at, into) })
}

// ask is get for a question that is posted.
func (s *Service) ask(ctx context.Context, path string, body, into any) error {
	return s.anyReplica(func(at *url.URL) error { return s.do(ctx, call{http.MethodPost, path, body, false}, at, into) })
}

// post goes to the next replica only if a replica could not be reached at all: what has been
// sent may have been done. When ctx ends, a request in hand is finished, so that its outcome
// is known, and no other begins.
func (s *Service) post(ctx context.Context, path string, body, into any) error {
	return s.anyReplica(func(at *url.URL) error { return s.do(ctx, call{http.MethodPost, path, body, true}, at, into) })
}

func (s *Service) anyReplica(do func(*url.URL) error) (err error) {
	first := int(s.answered.Load())
	for i := range s.replicas {
		n := (first + i) % len(s.replicas)
		var away *unreachable
		if err = do(s.replicas[n]); err == nil || !errors.As(err, &away) {
			s.answered.Store(int32(n))
			return err
		}
	}
	return err
}

// unreachable says that a request has not been sent, or got no answer.
type unreachable struct {
	service, at, source string
	err                 error
}

func (u *unreachable) Error() string {
	cause := u.err
	var inner *url.Error
	if errors.As(cause, &inner) {
		cause = inner.Err
	}
	text := cause.Error()
	switch {
	case errors.Is(cause, syscall.ECONNREFUSED):
		text = "connection refused"
	case errors.Is(cause, context.DeadlineExceeded):
		text = "no answer in time"
	}
	return fmt.Sprintf("%s does not answer at %s (from %s): %s", u.service, u.at, u.source, text)
}

func (u *unreachable) Unwrap() error { return u.err }

// call is what a service is asked, or told if it changes something.
type call struct {
	method, path string
	body         any
	changes      bool
}

func (s *Service) do(ctx context.Context, c call, at *url.URL, into any) error {
	var text io.Reader
	if c.body != nil {
		b, err := json.Marshal(c.body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(b)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	bounded, cancel := s.bounded(ctx, c.changes)
	defer cancel()
	if s.slow != nil {
		defer time.AfterFunc(s.timing.slow, func() { s.slow(s.Name) }).Stop()
	}
	req, err := http.NewRequestWithContext(bounded, c.method, at.String()+c.path, text)
	if err != nil {
		return err
	}
	if c.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Service-Name", s.Name) // another service refuses it
	resp, err := s.client.Do(req)
	if err != nil {
		if !c.changes && ctx.Err() != nil {
			return ctx.Err()
		}
		var dial *net.OpError
		if !c.changes || errors.As(err, &dial) && dial.Op == "dial" {
			return &unreachable{s.Name, at.Redacted(), s.source, err}
		}
		return fmt.Errorf("%s: no answer, %s: %w", s.Name, perhapsDone, err)
	}
	defer resp.Body.Close()
	return s.read(resp, into)
}

// bounded bounds a request. One that changes something outlives ctx for a while.
func (s *Service) bounded(ctx context.Context, changes bool) (context.Context, context.CancelFunc) {
	if !changes {
		return context.WithTimeout(ctx, s.timing.look)
	}
	on, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.timing.work)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(s.timing.finish, cancel) })
	return on, func() {
		stop()
		cancel()
	}
}

func (s *Service) read(resp *http.Response, into any) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: the answer broke off: %w", s.Name, err)
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		p := &Problem{}
		if json.Unmarshal(text, p) != nil {
			p.Detail = fmt.Sprintf("answered %s; is it the operator's address?", resp.Status)
		}
		p.Service, p.Status = s.Name, resp.StatusCode
		return p
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: the answer is no JSON of the operator's routes; is it the operator's address?", s.Name)
	}
	return nil
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     5 * time.Second,
	}}
}
