package eventtest

import (
	"cmp"
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/kafka"
)

// Contract is the topics and schemas that services agree on. Its methods may be called
// concurrently; one variable serves all tests of a package.
type Contract struct {
	topics   []kafka.Topic
	subjects []codec.Subject
	registry func() (string, error)
}

// NewContract makes a contract of [kafka.Topic] and [codec.Subject], or of types that look
// like them. Subjects name all versions of all events. It starts nothing.
func NewContract[T ~struct {
	Name       string
	Partitions int32
	Retention  time.Duration
}, S ~struct {
	Name     string
	Versions []string
}](topics []T, subjects []S) *Contract {
	c := &Contract{}
	for _, t := range topics {
		c.topics = append(c.topics, kafka.Topic(t))
	}
	for _, s := range subjects {
		c.subjects = append(c.subjects, codec.Subject(s))
	}
	c.registry = sync.OnceValues(c.startRegistry)
	return c
}

func (c *Contract) startRegistry() (url string, err error) {
	registry, err := embedded.NewRegistry("")
	if err != nil {
		return "", err
	}
	srv := httptest.NewServer(registry)
	return srv.URL, codec.Provision(context.Background(), codec.Config{URL: srv.URL}, c.subjects)
}

// Registry is the URL of a schema registry that has all subjects. It is started once, and
// ends with the process.
func (c *Contract) Registry(tb testing.TB) (url string) {
	tb.Helper()
	url, err := c.registry()
	if err != nil {
		tb.Fatalf("start a registry: %v", err)
	}
	return url
}

// NewCodec returns a codec for the payloads that can encode.
func (c *Contract) NewCodec(tb testing.TB, payloads ...event.Payload) *codec.Codec {
	tb.Helper()
	made, err := codec.New(codec.Config{URL: c.Registry(tb)}, payloads...)
	if err == nil {
		err = made.Verify(tb.Context())
	}
	if err != nil {
		tb.Fatal(err)
	}
	return made
}

// name is an event's type without its namespace, as people say it.
func name(typ string) string { return typ[strings.LastIndexByte(typ, '.')+1:] }

// Record is the record of an event as a service of ours publishes it, its partition and
// offset apart. meta needs no more than an ID and a source; its subject, if there is one, is
// the key.
func Record(tb testing.TB, c *codec.Codec, p event.Payload, meta event.Meta) event.Record {
	tb.Helper()
	value, err := c.Encode(p)
	if err != nil {
		tb.Fatalf("encode %s: %v", fmt.Sprintf("%T", p), err)
	}
	meta.Type, meta.Subject = codec.FullName(p.Schema()), cmp.Or(meta.Subject, p.Key())
	if meta.Time.IsZero() {
		meta.Time = time.Now()
	}
	return event.Record{Topic: p.Topic(), Timestamp: time.Now(), Key: []byte(meta.Subject), Value: value, Headers: meta.Headers()}
}
