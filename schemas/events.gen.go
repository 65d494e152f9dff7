// Code generated from the .avsc files by schemas/internal/generate. DO NOT EDIT.

package schemas

import (
	"time"
)

// EmailSent says that the mail server took the message that tells a customer how their order was settled.
type EmailSent struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// The event that settled the order and so caused the message.
	EventID string `avro:"event_id"`
	// The Message-ID of the mail; the same in every repetition.
	MessageID string `avro:"message_id"`
	// What the message said.
	Kind EmailKind `avro:"kind"`
	// When the mail server took the message.
	SentAt time.Time `avro:"sent_at"`
}

// MissingLine is one article of which there was too little.
type MissingLine struct {
	// The article.
	SKU string `avro:"sku"`
	// How many pieces the order asked for.
	Requested int `avro:"requested"`
	// How many pieces were available then, from 0.
	Available int `avro:"available"`
}

// StockRejected says that an order asked for more than there is, and that nothing was set aside for it.
type StockRejected struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// The lines that could not be served.
	Missing []MissingLine `avro:"missing"`
	// When the order was turned down.
	RejectedAt time.Time `avro:"rejected_at"`
}

// ReleasedLine is one article that came back.
type ReleasedLine struct {
	// The article.
	SKU string `avro:"sku"`
	// How many pieces, from 1.
	Quantity int `avro:"quantity"`
}

// StockReleased says that nothing is set aside for a cancelled order any more.
type StockReleased struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// What came back; empty if nothing had been set aside.
	Lines []ReleasedLine `avro:"lines"`
	// When the stock came back.
	ReleasedAt time.Time `avro:"released_at"`
}

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

// OrderConfirmed says that all lines of an order are reserved and that the order stands.
type OrderConfirmed struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// The sum of all lines, in minor units of the currency.
	TotalCents int64 `avro:"total_cents"`
	// The currency of the total, as in ISO 4217.
	Currency string `avro:"currency"`
	// When the order was confirmed.
	ConfirmedAt time.Time `avro:"confirmed_at"`
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

// OrderRejected says that an order cannot be fulfilled and that nothing is reserved for it.
type OrderRejected struct {
	// The order, and the key of the record.
	OrderID string `avro:"order_id"`
	// Why the order was rejected.
	Reason RejectionReason `avro:"reason"`
	// The SKUs of which there was too little; may be empty.
	Unavailable []string `avro:"unavailable"`
	// When the order was rejected.
	RejectedAt time.Time `avro:"rejected_at"`
}

// EmailKind is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type EmailKind string

// The symbols of EmailKind.
const (
	EmailKindUnknown      EmailKind = "unknown"
	EmailKindConfirmation EmailKind = "confirmation"
	EmailKindRejection    EmailKind = "rejection"
	EmailKindCancellation EmailKind = "cancellation"
)

// CancellationReason is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type CancellationReason string

// The symbols of CancellationReason.
const (
	CancellationReasonUnknown  CancellationReason = "unknown"
	CancellationReasonCustomer CancellationReason = "customer"
	CancellationReasonDeadline CancellationReason = "deadline"
)

// RejectionReason is one of the symbols below. The zero value is none of them and cannot be
// encoded.
type RejectionReason string

// The symbols of RejectionReason.
const (
	RejectionReasonUnknown    RejectionReason = "unknown"
	RejectionReasonOutOfStock RejectionReason = "out_of_stock"
)
