package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

const (
	dialTimeout   = 3 * time.Second
	answerTimeout = 40 * time.Second // a part of a replay may take half of that
	maxAnswer     = 64 << 20
)

// Service is a service's operator routes.
type Service struct {
	Name     string
	replicas []*url.URL
	client   *http.Client
	source   string
}

// Problem is a service's refusal.
type Problem struct {
	Service string `json:"-"`
	Status  int    `json:"status"`
	Title   string `json:"title"`
	Detail  string `json:"detail"`
}

func (p *Problem) Error() string {
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	if text == "" {
		text = http.StatusText(p.Status)
	}
	return p.Service + ": " + safe(text, 500)
}

func refused(err error, status int) bool {
	var p *Problem
	return errors.As(err, &p) && p.Status == status
}

// get asks the replicas in turn until one answers: all of them have the same database.
func (s *Service) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return s.anyReplica(func(at *url.URL) error { return s.do(ctx, http.MethodGet, at, path, nil, into) })
}

// post goes to the next replica only if a replica could not be reached at all: what has been
// sent may have been done.
func (s *Service) post(ctx context.Context, path string, body, into any) error {
	return s.anyReplica(func(at *url.URL) error { return s.do(ctx, http.MethodPost, at, path, body, into) })
}

func (s *Service) anyReplica(do func(*url.URL) error) (err error) {
	for _, at := range s.replicas {
		var away *unreachable
		if err = do(at); err == nil || !errors.As(err, &away) {
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
	if errors.Is(cause, syscall.ECONNREFUSED) {
		text = "connection refused"
	}
	return fmt.Sprintf("%s does not answer at %s (from %s): %s", u.service, u.at, u.source, text)
}

func (u *unreachable) Unwrap() error { return u.err }

func (s *Service) do(ctx context.Context, method string, at *url.URL, path string, body, into any) error {
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, at.String()+path, text)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.client.Do(req)
	if err != nil {
		var dial *net.OpError
		if method == http.MethodGet || errors.As(err, &dial) && dial.Op == "dial" {
			return &unreachable{s.Name, at.Redacted(), s.source, err}
		}
		return fmt.Errorf("%s: no answer, it may have been done: %w", s.Name, err)
	}
	defer resp.Body.Close()
	return s.read(resp, into)
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
