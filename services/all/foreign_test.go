package all_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/schemas"
)

// A program in another language, with another Avro library and no headers, in the version of
// the event before today's: part of promise 9.
func TestForeignProducer(t *testing.T) {
	parallel(t)
	s := open(t, map[string]string{"RETRY_ATTEMPTS": "3", "RETRY_MAX_BACKOFF": "20ms"})
	sku := newSKU("tea")
	s.receive(sku, 10)
	orderID := s.forge(draftOf(line{sku, 3, 450}))

	var answered fact
	eventually(t, "inventory's answer", func() bool {
		answers := s.factsOf(schemas.TopicInventory, orderID)
		if len(answers) > 0 {
			answered = answers[0]
		}
		return len(answers) > 0
	})
	if answered.typ != "shop.inventory.StockReserved" || answered.causation == "" || answered.version != 1 {
		t.Errorf("inventory answered %s, caused by %q, version %d, want StockReserved", answered.typ, answered.causation, answered.version)
	}
	s.wantStock(sku, stock{10, 3, 7})

	var dead waiting
	eventually(t, "a dead letter of group order, which has no such order", func() bool {
		if w := s.waits("order", orderID); len(w) > 0 {
			dead = w[0]
		}
		return dead.State == "dead"
	})
	if dead.Type != answered.typ || dead.Reason != "exhausted" || dead.Attempts != 3 || dead.Error == "" {
		t.Errorf("the dead letter is %+v, want StockReserved, exhausted after 3 attempts", dead)
	}
	eventually(t, "its copy", func() bool {
		letters := s.deadLetters("order")
		return len(letters) == 1 && bytes.Equal(letters[0].Value, answered.Value) && header(letters[0], "dlt-reason") == "exhausted"
	})

	// Email has learned the recipient from it as from any other.
	s.write(&kgo.Record{Topic: schemas.TopicOrders, Key: []byte(orderID), Value: s.encode(s.registered("orders-shop.order.OrderConfirmed", 1),
		map[string]any{"order_id": orderID, "total_cents": int64(1350), "currency": "EUR", "confirmed_at": time.Now()})})
	if mail := s.mails(orderID, 1)[0]; mail.Subject != confirmedMail || mail.To[0] != "ada@example.com" {
		t.Errorf("the mail is %q to %v", mail.Subject, mail.To)
	}
	s.quiet()
}

// A service that was deployed before its producer reads the producer's new version: part of
// promise 9.
func TestForeignConsumer_ofAnEarlierVersion(t *testing.T) {
	parallel(t)
	s := open(t, nil)
	sku := newSKU("tea")
	s.receive(sku, 10)
	o := s.accept(s.send("POST", "/v1/orders", draft{"ada", "ada@example.com", []line{{sku, 3, 450}}, "CHF"}, "Idempotency-Key", newKey()))
	s.await(o.OrderID, "confirmed")
	placed := s.factsOf(schemas.TopicOrders, o.OrderID)[0]
	var id sr.ConfluentHeader
	n, datum, err := id.DecodeID(placed.Value)
	if err != nil {
		t.Fatal(err)
	}
	written, err := s.registry().SchemaByID(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	old := s.registered("orders-shop.order.OrderPlaced", 1)
	if written.Schema == old.Schema.Schema {
		t.Fatal("today's events are of version 1: the test has no teeth")
	}
	reader, err := avro.Resolve(avro.MustParse(written.Schema), avro.MustParse(old.Schema.Schema))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if _, err := reader.Decode(datum, &got); err != nil {
		t.Fatal(err)
	}
	if _, new := got["currency"]; new || got["order_id"] != o.OrderID || got["customer_email"] != "ada@example.com" || len(got["lines"].([]any)) != 1 {
		t.Errorf("a reader of version 1 gets %v", got)
	}
}

func (s *shop) registry() *sr.Client {
	s.Helper()
	client, err := sr.NewClient(sr.URLs(s.URLs.Registry))
	if err != nil {
		s.Fatal(err)
	}
	return client
}

// registered returns a version of an event's schema as the registry has it, with its ID.
func (s *shop) registered(subject string, version int) sr.SubjectSchema {
	s.Helper()
	schema, err := s.registry().SchemaByVersion(s.Context(), subject, version)
	if err != nil {
		s.Fatal(err)
	}
	return schema
}

// encode writes an event as a producer that is not ours does: by goavro, with the registry's
// ID in front.
func (s *shop) encode(schema sr.SubjectSchema, native map[string]any) []byte {
	s.Helper()
	c, err := goavro.NewCodec(schema.Schema.Schema)
	if err != nil {
		s.Fatal(err)
	}
	value, err := c.BinaryFromNative(binary.BigEndian.AppendUint32([]byte{0}, uint32(schema.ID)), native)
	if err != nil {
		s.Fatal(err)
	}
	return value
}

// forge writes an OrderPlaced that the order service never issued, in version 1 and without
// headers, and returns its order's ID.
func (s *shop) forge(d draft) (orderID string) {
	s.Helper()
	orderID = uuid.NewString()
	var lines []any
	for _, l := range d.Lines {
		lines = append(lines, map[string]any{"sku": l.SKU, "quantity": l.Quantity, "unit_price_cents": l.Cents})
	}
	value := s.encode(s.registered("orders-shop.order.OrderPlaced", 1), map[string]any{
		"order_id": orderID, "customer_id": d.CustomerID, "customer_email": d.CustomerEmail, "lines": lines, "placed_at": time.Now(),
	})
	s.write(&kgo.Record{Topic: schemas.TopicOrders, Key: []byte(orderID), Value: value})
	return orderID
}

// forgeCancellation writes an OrderCancelled likewise.
func (s *shop) forgeCancellation(orderID string) {
	s.Helper()
	value := s.encode(s.registered("orders-shop.order.OrderCancelled", 1), map[string]any{
		"order_id": orderID, "reason": "customer", "cancelled_at": time.Now(),
	})
	s.write(&kgo.Record{Topic: schemas.TopicOrders, Key: []byte(orderID), Value: value})
}
