package codec_test

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
)

// Two versions of an event of this package's own, since pkg knows no service's events.
const (
	placedV1 = `{"type": "record", "name": "Placed", "namespace": "test", "fields": [
		{"name": "id", "type": "string"},
		{"name": "email", "type": "string", "pii": true},
		{"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
			{"name": "sku", "type": "string"},
			{"name": "quantity", "type": "int"},
			{"name": "cents", "type": "long"}]}}},
		{"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}`
	placedV2 = `{"type": "record", "name": "Placed", "namespace": "test", "fields": [
		{"name": "id", "type": "string"},
		{"name": "email", "type": "string", "pii": true},
		{"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
			{"name": "sku", "type": "string"},
			{"name": "quantity", "type": "int"},
			{"name": "cents", "type": "long"}]}}},
		{"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
		{"name": "currency", "type": "string", "default": "EUR"},
		{"name": "note", "type": ["null", "string"], "default": null},
		{"name": "reason", "type": {"type": "enum", "name": "Reason", "symbols": ["unknown", "gift"], "default": "unknown"}, "default": "unknown"}]}`
	settled = `{"type": "record", "name": "Settled", "namespace": "test", "fields": [{"name": "id", "type": "string"}]}`
)

type line struct {
	SKU      string `avro:"sku"`
	Quantity int    `avro:"quantity"`
	Cents    int64  `avro:"cents"`
}

// placed is what a service of today has, placedThen what one had before version 2.
type placed struct {
	ID       string    `avro:"id"`
	Email    string    `avro:"email"`
	Lines    []line    `avro:"lines"`
	PlacedAt time.Time `avro:"placed_at"`
	Currency string    `avro:"currency"`
	Note     *string   `avro:"note"`
	Reason   reason    `avro:"reason"`
}

type reason string

func (placed) Schema() string { return placedV2 }
func (placed) Topic() string  { return "orders" }
func (p placed) Key() string  { return p.ID }

type placedThen struct {
	ID       string    `avro:"id"`
	Email    string    `avro:"email"`
	Lines    []line    `avro:"lines"`
	PlacedAt time.Time `avro:"placed_at"`
}

func (placedThen) Schema() string { return placedV1 }
func (placedThen) Topic() string  { return "orders" }
func (p placedThen) Key() string  { return p.ID }

type settledEvent struct {
	ID string `avro:"id"`
}

func (settledEvent) Schema() string { return settled }
func (settledEvent) Topic() string  { return "orders" }
func (s settledEvent) Key() string  { return s.ID }

// IDs of the schemas in the registries of the tests.
const (
	idV1      = 11
	idV2      = 12
	idSettled = 13
)

func then() placedThen {
	return placedThen{
		ID: "o-1", Email: "jane@example.com",
		Lines:    []line{{"mug", 2, 1250}, {"tea", 1, 499}},
		PlacedAt: time.Date(2026, 3, 1, 12, 30, 0, 250e6, time.UTC),
	}
}

func now() placed {
	t, note := then(), "ring twice"
	return placed{ID: t.ID, Email: t.Email, Lines: t.Lines, PlacedAt: t.PlacedAt, Currency: "CHF", Note: &note, Reason: "gift"}
}

// newRegistry starts a registry that has the schemas of this file.
func newRegistry(tb testing.TB) *srfake.Registry {
	tb.Helper()
	r := srfake.New()
	tb.Cleanup(r.Close)
	r.SeedSchema("orders-test.Placed", 1, idV1, sr.Schema{Schema: placedV1})
	r.SeedSchema("orders-test.Placed", 2, idV2, sr.Schema{Schema: placedV2})
	r.SeedSchema("orders-test.Settled", 1, idSettled, sr.Schema{Schema: settled})
	return r
}

// newCodec returns a verified codec.
func newCodec(tb testing.TB, cfg codec.Config, payloads ...event.Payload) *codec.Codec {
	tb.Helper()
	c, err := codec.New(cfg, payloads...)
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.Verify(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return c
}

// encode returns a payload's value.
func encode(tb testing.TB, c *codec.Codec, p event.Payload) []byte {
	tb.Helper()
	value, err := c.Encode(p)
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

// frame puts a schema's ID before a datum.
func frame(id int, datum ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(id)), datum...)
}

// memory is a store that lasts as long as the test.
type memory struct {
	mu      sync.Mutex
	schemas map[int]string
	err     error
}

func (m *memory) LoadSchemas(context.Context) (map[int]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := make(map[int]string)
	for id, text := range m.schemas {
		kept[id] = text
	}
	return kept, m.err
}

func (m *memory) SaveSchema(_ context.Context, id int, schema string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.schemas == nil {
		m.schemas = make(map[int]string)
	}
	m.schemas[id] = schema
	return m.err
}

// deadURL is the address of a registry that has just gone.
func deadURL() string {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	return s.URL
}
