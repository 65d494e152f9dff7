package all_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"example.com/keyline/schemas"
)

// poison are records that are no events, each with the reason of its dead letter.
func (s *shop) poison() (records []*kgo.Record, reasons map[string]string) {
	s.Helper()
	placed := s.registered("orders-shop.order.OrderPlaced", 1)
	good := s.encode(placed, map[string]any{
		"order_id": "o", "customer_id": "c", "customer_email": "ada@example.com", "placed_at": time.Now(),
		"lines": []any{map[string]any{"sku": "s", "quantity": 1, "unit_price_cents": 1}},
	})
	frame := good[:5:5]
	values := map[string][]byte{
		"empty":          {},
		"one byte":       {0},
		"text":           []byte(`{"order_id": "o"}`),
		"bad magic":      append([]byte{1}, good[1:]...),
		"no datum":       frame,
		"trailing bytes": append(good[:len(good):len(good)], 0),
		"an array bomb":  append(frame, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f),
		"a long string":  append(frame, 0xfe, 0xff, 0xff, 0xff, 0x0f),
		"noise":          noise(200),
	}
	for cut := 6; cut < len(good); cut += 7 {
		values["cut to "+itoa(int64(cut))] = good[:cut]
	}
	reasons = map[string]string{}
	add := func(name string, value []byte, reason string) {
		key := name + " " + uuid.NewString()
		reasons[key] = reason
		records = append(records, &kgo.Record{Topic: schemas.TopicOrders, Key: []byte(key), Value: value, Headers: []kgo.RecordHeader{{Key: "who", Value: []byte(name)}}})
	}
	for name, value := range values {
		add(name, value, "undecodable")
	}
	add("no value", nil, "undecodable")
	add("unknown schema", append(binary.BigEndian.AppendUint32([]byte{0}, 4711), good[5:]...), "unknown-schema")
	return records, reasons
}

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.IntN(256))
	}
	b[0] = 7 // no schema's frame
	return b
}

// Bytes that are no events end as dead letters, untouched, and hold up nobody: part of
// promises 6 and 11.
func TestPoison(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku := newSKU("tea")
	s.receive(sku, 100)
	records, reasons := s.poison()
	keyless := &kgo.Record{Topic: schemas.TopicOrders, Value: []byte("no key")}
	var orders []accepted
	for i, r := range append(records, keyless) {
		s.write(r)
		if i%4 == 0 {
			orders = append(orders, s.place(line{sku, 1, 450}))
		}
	}
	for _, o := range orders { // on time: no poison is waited for
		s.mails(o.OrderID, 1)
	}
	s.quiet()
	s.wantStock(sku, stock{100, int64(len(orders)), 100 - int64(len(orders))})

	for _, service := range []string{"inventory", "email"} {
		letters := map[string]*kgo.Record{}
		for _, letter := range s.deadLetters(service) {
			letters[string(letter.Key)] = letter
		}
		for _, r := range append(records, keyless) {
			letter, reason := letters[string(r.Key)], reasons[string(r.Key)]
			if r == keyless {
				reason = "undecodable"
			}
			if letter == nil {
				t.Errorf("%s has no dead letter for %q", service, r.Key)
				continue
			}
			if !bytes.Equal(letter.Value, r.Value) || header(letter, "who") != header(r, "who") {
				t.Errorf("%s: the copy of %q is %x, want %x", service, r.Key, letter.Value, r.Value)
			}
			if (letter.Value == nil) != (r.Value == nil) {
				t.Errorf("%s: the copy of %q has no value: %v, want %v", service, r.Key, letter.Value == nil, r.Value == nil)
			}
			if got := header(letter, "dlt-reason"); got != reason {
				t.Errorf("%s: %q is %s because %s, want %s", service, r.Key, got, header(letter, "dlt-error"), reason)
			}
		}
		if len(letters) != len(records)+1 {
			t.Errorf("%s has %d dead letters, want %d", service, len(letters), len(records)+1)
		}
	}
	for _, w := range s.waits("inventory", "") {
		if w.Reason == "undecodable" && w.State != "set aside" {
			t.Errorf("%q is %s, want set aside: it holds nothing", w.Key, w.State)
		}
	}
}
