package all_test

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"example.com/keyline/schemas"
)

// registered returns a version of an event's schema as the registry has it, with its ID.
func (s *shop) registered(subject string, version int) sr.SubjectSchema {
	s.Helper()
	client, err := sr.NewClient(sr.URLs(s.URLs.Registry))
	if err != nil {
		s.Fatal(err)
	}
	schema, err := client.SchemaByVersion(s.Context(), subject, version)
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
