// Code generated from the .avsc files by schemas/internal/generate. DO NOT EDIT.

package schemas

import (
	"time"
)

// ReservedLine is one article that was set aside.
type ReservedLine struct {
	// The article.
	SKU string `avro:"sku"`
	// How many pieces, from 1.
	Quantity int `avro:"quantity"`
}

// StockReserved says that every line of an order is set aside for it.
type StockReserved struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// What is set aside.
	Lines []ReservedLine `avro:"lines"`
	// When the stock was set aside.
	ReservedAt time.Time `avro:"reserved_at"`
}

// OrderCancelled says that an order will not be fulfilled; whatever was reserved for it has to come back.
type OrderCancelled struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// Why the order was cancelled.
	Reason CancellationReason `avro:"reason"`
	// When the order was cancelled.
	CancelledAt time.Time `avro:"cancelled_at"`
}

// OrderLine is one article of an order.
type OrderLine struct {
	// The article.
	SKU string `avro:"sku"`
	// How many pieces, from 1.
	Quantity int `avro:"quantity"`
	// The price of one piece, in minor units of the order's currency.
	UnitPriceCents int64 `avro:"unit_price_cents"`
}

// OrderPlaced says that a customer's order was accepted; it waits for stock.
type OrderPlaced struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// Who ordered, as the shop knows them.
	CustomerID string `avro:"customer_id"`
	// Where the shop writes to about this order.
	CustomerEmail string `avro:"customer_email"`
	// What was ordered: at least one line, each SKU once.
	Lines []OrderLine `avro:"lines"`
	// When the order was accepted.
	PlacedAt time.Time `avro:"placed_at"`
	// The currency of all prices, as in ISO 4217; before version 2 every order was in EUR.
	Currency string `avro:"currency"`
}

// CancellationReason is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type CancellationReason string

// The symbols of CancellationReason.
const (
	CancellationReasonUnknown  CancellationReason = "unknown"
	CancellationReasonCustomer CancellationReason = "customer"
	CancellationReasonDeadline CancellationReason = "deadline"
)
