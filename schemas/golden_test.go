package schemas_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hamba/avro/v2"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"example.com/keyline/pkg/codec"
	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

var at = time.Date(2026, 3, 1, 12, 30, 0, 250e6, time.UTC)

// TestGolden compares what is on the wire with bytes that never change: one file per version
// of an event, written by goavro. A version that has no file fails.
func TestGolden(t *testing.T) {
	t.Parallel()
	s := newShop(t, events...)
	line := func(sku string, quantity int32) map[string]any {
		return map[string]any{"sku": sku, "quantity": quantity}
	}

	placed := map[string]any{
		"order_id": "o-1", "customer_id": "c-1", "customer_email": "jane@example.com", "placed_at": at,
		"lines": []any{
			map[string]any{"sku": "mug", "quantity": int32(2), "unit_price_cents": int64(1250)},
			map[string]any{"sku": "tea", "quantity": int32(1), "unit_price_cents": int64(499)},
		},
	}
	want := schemas.OrderPlaced{
		OrderID: "o-1", CustomerID: "c-1", CustomerEmail: "jane@example.com", PlacedAt: at, Currency: "EUR",
		Lines: []schemas.OrderLine{{SKU: "mug", Quantity: 2, UnitPriceCents: 1250}, {SKU: "tea", Quantity: 1, UnitPriceCents: 499}},
	}
	golden(t, s, "order_placed.v1", placed, want)
	placed["currency"], want.Currency = "CHF", "CHF"
	golden(t, s, "order_placed.v2", placed, want)
	golden(t, s, "order_confirmed.v1", map[string]any{
		"order_id": "o-1", "total_cents": int64(2999), "currency": "CHF", "confirmed_at": at,
	}, schemas.OrderConfirmed{OrderID: "o-1", TotalCents: 2999, Currency: "CHF", ConfirmedAt: at})
	golden(t, s, "order_rejected.v1", map[string]any{
		"order_id": "o-1", "reason": "out_of_stock", "unavailable": []any{"mug", "tea"}, "rejected_at": at,
	}, schemas.OrderRejected{OrderID: "o-1", Reason: schemas.RejectionReasonOutOfStock, Unavailable: []string{"mug", "tea"}, RejectedAt: at})
	golden(t, s, "order_cancelled.v1", map[string]any{
		"order_id": "o-1", "reason": "deadline", "cancelled_at": at,
	}, schemas.OrderCancelled{OrderID: "o-1", Reason: schemas.CancellationReasonDeadline, CancelledAt: at})
	golden(t, s, "stock_reserved.v1", map[string]any{
		"order_id": "o-1", "lines": []any{line("mug", 2), line("tea", 1)}, "reserved_at": at,
	}, schemas.StockReserved{OrderID: "o-1", Lines: []schemas.ReservedLine{{SKU: "mug", Quantity: 2}, {SKU: "tea", Quantity: 1}}, ReservedAt: at})
	golden(t, s, "stock_rejected.v1", map[string]any{
		"order_id": "o-1", "missing": []any{map[string]any{"sku": "mug", "requested": int32(2), "available": int32(0)}}, "rejected_at": at,
	}, schemas.StockRejected{OrderID: "o-1", Missing: []schemas.MissingLine{{SKU: "mug", Requested: 2, Available: 0}}, RejectedAt: at})
	golden(t, s, "stock_released.v1", map[string]any{
		"order_id": "o-1", "lines": []any{}, "released_at": at,
	}, schemas.StockReleased{OrderID: "o-1", Lines: []schemas.ReleasedLine{}, ReleasedAt: at})
	golden(t, s, "email_sent.v1", map[string]any{
		"order_id": "o-1", "event_id": "e-1", "message_id": "<e-1@shop>", "kind": "confirmation", "sent_at": at,
	}, schemas.EmailSent{OrderID: "o-1", EventID: "e-1", MessageID: "<e-1@shop>", Kind: schemas.EmailKindConfirmation, SentAt: at})

	for _, subject := range schemas.Subjects() {
		for i := range subject.Versions {
			if !s.checked[subject.Name][i+1] {
				t.Errorf("%s: version %d has no golden bytes", subject.Name, i+1)
			}
		}
	}
}

var update = flag.Bool("update", false, "write the golden bytes of versions that have none yet; never change any")

// writeHex writes the golden bytes of a version that has none, as goavro encodes it.
func writeHex(t *testing.T, file, schema string, native map[string]any) {
	t.Helper()
	other, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	datum, err := other.BinaryFromNative(nil, native)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	f, err := os.OpenFile("testdata/"+file+".hex", os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	if err == nil {
		_, err = fmt.Fprintf(f, "%x\n", datum)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s: wrote %d golden bytes: look at them, and commit them", file, len(datum))
}

// golden checks one version of want's event: native is the event for goavro, want is how
// today's code reads it.
func golden[P event.Payload](t *testing.T, s *shop, file string, native map[string]any, want P) {
	t.Helper()
	schema, number, newest := s.version(want, file)
	if *update {
		writeHex(t, file, schema, native)
	}
	datum := readHex(t, file)
	value := append(s.header(want, number), datum...)

	other, err := goavro.NewCodec(schema)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := other.BinaryFromNative(nil, native); err != nil || !cmp.Equal(got, datum) {
		t.Errorf("%s: goavro writes %x, error %v, want %x", file, got, err, datum)
	}
	if got, rest, err := other.NativeFromBinary(datum); err != nil || len(rest) > 0 || !cmp.Equal(got, any(native)) {
		t.Errorf("%s: goavro reads otherwise, error %v\n%s", file, err, cmp.Diff(got, any(native)))
	}
	if got, err := codec.Decode[P](t.Context(), s.codec, value); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%s: we read otherwise, error %v\n%s", file, err, cmp.Diff(got, want))
	}
	if !newest {
		return
	}
	if got, err := s.codec.Encode(want); err != nil || !cmp.Equal(got, value) {
		t.Errorf("%s: we write %x, error %v, want %x", file, got, err, value)
	}
	hamba, err := avro.ParseWithCache(schema, "", &avro.SchemaCache{})
	if err != nil {
		t.Fatal(err)
	}
	// hamba writes arrays in blocks that state their size, which is as good.
	written, err := avro.Marshal(hamba, want)
	if err != nil {
		t.Fatal(err)
	}
	back, err := codec.Decode[P](t.Context(), s.codec, append(s.header(want, number), written...))
	if err != nil || !cmp.Equal(back, want) {
		t.Errorf("%s: we read hamba's bytes otherwise, error %v\n%s", file, err, cmp.Diff(back, want))
	}
	var got P
	if err := avro.Unmarshal(hamba, datum, &got); err != nil || !cmp.Equal(got, want) {
		t.Errorf("%s: hamba reads otherwise, error %v\n%s", file, err, cmp.Diff(got, want))
	}
}

// orderPlacedThen is what a service had before version 2.
type orderPlacedThen struct {
	OrderID       string              `avro:"order_id"`
	CustomerID    string              `avro:"customer_id"`
	CustomerEmail string              `avro:"customer_email"`
	Lines         []schemas.OrderLine `avro:"lines"`
	PlacedAt      time.Time           `avro:"placed_at"`
}

func (orderPlacedThen) Schema() string { return schemas.Subjects()[0].Versions[0] }
func (orderPlacedThen) Topic() string  { return schemas.TopicOrders }
func (o orderPlacedThen) Key() string  { return o.OrderID }

func TestOldReader(t *testing.T) {
	t.Parallel()
	s := newShop(t, orderPlacedThen{})
	value := append(s.header(orderPlacedThen{}, 2), readHex(t, "order_placed.v2")...)
	got, err := codec.Decode[orderPlacedThen](t.Context(), s.codec, value)
	if err != nil {
		t.Fatal(err)
	}
	want := orderPlacedThen{
		OrderID: "o-1", CustomerID: "c-1", CustomerEmail: "jane@example.com", PlacedAt: at,
		Lines: []schemas.OrderLine{{SKU: "mug", Quantity: 2, UnitPriceCents: 1250}, {SKU: "tea", Quantity: 1, UnitPriceCents: 499}},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Error(diff)
	}
}

// shop is a codec with the registry that has all schemas.
type shop struct {
	codec    *codec.Codec
	registry *srfake.Registry
	checked  map[string]map[int]bool // by subject and version
}

func newShop(t *testing.T, payloads ...event.Payload) *shop {
	t.Helper()
	s := &shop{registry: srfake.New(), checked: make(map[string]map[int]bool)}
	t.Cleanup(s.registry.Close)
	cfg := codec.Config{URL: s.registry.URL()}
	var subjects []codec.Subject
	for _, subject := range schemas.Subjects() {
		subjects = append(subjects, codec.Subject(subject))
		s.checked[subject.Name] = make(map[int]bool)
	}
	if err := codec.Provision(t.Context(), cfg, subjects); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.codec, err = codec.New(cfg, payloads...); err != nil {
		t.Fatal(err)
	}
	if err := s.codec.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// version finds the schema for a file such as "order_placed.v2", and notes that it was used.
func (s *shop) version(p event.Payload, file string) (schema string, number int, newest bool) {
	_, digits, _ := strings.Cut(file, ".v")
	number, _ = strconv.Atoi(digits)
	subject := codec.SubjectName(p)
	found, _ := s.registry.GetSchema(subject, number)
	s.checked[subject][number] = true
	return found.Schema.Schema, number, found.Schema.Schema == p.Schema()
}

// header is the frame of a value of that version.
func (s *shop) header(p event.Payload, number int) []byte {
	found, _ := s.registry.GetSchema(codec.SubjectName(p), number)
	return binary.BigEndian.AppendUint32([]byte{0}, uint32(found.ID))
}

func readHex(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file + ".hex")
	if err != nil {
		t.Fatalf("%v: write the bytes of a new version with: go test ./schemas -run TestGolden -update", err)
	}
	datum, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return datum
}
