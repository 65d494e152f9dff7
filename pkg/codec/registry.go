package codec

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
)

const (
	// maxResponse bounds what is read of one answer, in bytes: JSON may write each byte of a
	// schema as six.
	maxResponse = 6*maxSchema + 4<<10
	// requestTimeout bounds requests at the start and while provisioning, for registries
	// that are slow to warm up.
	requestTimeout = 5 * time.Second
)

// registry asks a Confluent-compatible schema registry.
type registry struct{ client *sr.Client }

func newRegistry(cfg Config) (*registry, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, errors.New("SCHEMA_REGISTRY_URL is no http or https URL") // it may hold a password
	}
	if base.User != nil { // sr's errors would show it
		if cfg.Username == "" {
			cfg.Username = base.User.Username()
			cfg.Password, _ = base.User.Password()
		}
		base.User = nil
	}
	transport, err := newTransport(cfg)
	if err != nil {
		return nil, err
	}
	opts := []sr.ClientOpt{
		sr.URLs(base.String()),
		sr.HTTPClient(&http.Client{Transport: bounded{transport}, Timeout: requestTimeout}),
		sr.UserAgent("keyline"),
	}
	if cfg.Username != "" {
		opts = append(opts, sr.BasicAuth(cfg.Username, cfg.Password))
	}
	client, err := sr.NewClient(opts...)
	return &registry{client}, err
}

func newTransport(cfg Config) (http.RoundTripper, error) {
	if cfg.Transport != nil {
		return cfg.Transport, nil
	}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		MaxConnsPerHost:        8,
		IdleConnTimeout:        5 * time.Second, // requests come in a row, then none for long
		MaxResponseHeaderBytes: 64 << 10,
	}
	if cfg.CAFile != "" {
		var err error
		if transport.TLSClientConfig, err = trust(cfg.CAFile); err != nil {
			return nil, fmt.Errorf("SCHEMA_REGISTRY_CA_FILE: %w", err)
		}
	}
	return transport, nil
}

func trust(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return &tls.Config{RootCAs: pool}, nil
}

// bounded is a transport that reads no more than maxResponse of an answer. A longer one is
// an error, but an error's text is only cut: its status counts.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body := resp.Body
	resp.Body = http.MaxBytesReader(nil, body, maxResponse)
	if resp.StatusCode >= http.StatusMultipleChoices {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(body, maxResponse), body}
	}
	return resp, nil
}

// schema fetches a schema by its ID. Unless the registry itself says that there is none, or
// answers with something that is no Avro schema, the error is ErrUnavailable.
func (r *registry) schema(ctx context.Context, id int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s, err := r.client.SchemaByID(ctx, id)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return "", fmt.Errorf("%w: longer than %d bytes", ErrIncompatible, maxSchema)
	case notFound(err):
		return "", ErrUnknownSchema
	case err != nil:
		return "", fmt.Errorf("%w: %w", ErrUnavailable, short(err))
	case s.Type != sr.TypeAvro:
		return "", fmt.Errorf("%w: it is %s, not Avro", ErrIncompatible, s.Type)
	case len(s.References) > 0:
		return "", fmt.Errorf("%w: it refers to other schemas", ErrIncompatible)
	}
	return s.Schema, nil
}

// lookup returns the ID of a schema in a subject, without registering it. found is false if
// the registry says that it has no such subject or schema.
func (r *registry) lookup(ctx context.Context, subject, text string) (id int, found bool, err error) {
	s, err := r.client.LookupSchema(ctx, subject, sr.Schema{Schema: text})
	switch {
	case notFound(err):
		return 0, false, nil
	case unreachable(err):
		return 0, false, fmt.Errorf("%w: %w", ErrUnavailable, short(err))
	case err != nil:
		return 0, false, short(err)
	}
	return s.ID, true, nil
}

// notFound reports whether the registry itself says that something does not exist. A 404
// without the registry's own error code comes from something else behind the URL.
func notFound(err error) bool {
	var answer *sr.ResponseError
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound && answer.ErrorCode/100 == http.StatusNotFound
}

// unreachable reports whether there was no answer, or one of something else than the
// registry, or the registry's that it is in trouble.
func unreachable(err error) bool {
	var answer *sr.ResponseError
	if !errors.As(err, &answer) {
		return err != nil
	}
	return answer.ErrorCode == 0 || answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests
}

// short makes an error of the registry fit into a line: an answer may be a whole page.
func short(err error) error {
	var answer *sr.ResponseError
	if !errors.As(err, &answer) {
		return err
	}
	return fmt.Errorf("the registry answered %d: %s", answer.StatusCode, line(answer.Error()))
}

// line makes text one line, and cuts it.
func line(text string) string {
	const most = 300 // bytes
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}
