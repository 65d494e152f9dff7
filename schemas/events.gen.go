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

var symbolsOfEmailKind = []EmailKind{EmailKindUnknown, EmailKindConfirmation, EmailKindRejection, EmailKindCancellation}

func appendEmailKind(dst []byte, v EmailKind, ok bool) ([]byte, bool) {
	return appendSymbol(dst, v, ok, symbolsOfEmailKind)
}

func readEmailKind(src string, at int) (EmailKind, int) {
	return readSymbol(src, at, symbolsOfEmailKind)
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e EmailSent) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendString(dst, e.EventID, ok)
	dst, ok = appendString(dst, e.MessageID, ok)
	dst, ok = appendEmailKind(dst, e.Kind, ok)
	dst, ok = appendMillis(dst, e.SentAt, ok)
	return dst, ok
}

func decodeEmailSent(datum []byte) (e EmailSent, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.EventID, at = readString(src, at)
	e.MessageID, at = readString(src, at)
	e.Kind, at = readEmailKind(src, at)
	e.SentAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (EmailSent) AvroVersions() ([]string, []any) {
	return texts("email/email_sent.v1.avsc"), []any{decodeEmailSent}
}

func appendMissingLine(dst []byte, v MissingLine, ok bool) ([]byte, bool) {
	dst, ok = appendString(dst, v.SKU, ok)
	dst, ok = appendInt(dst, v.Requested, ok)
	dst, ok = appendInt(dst, v.Available, ok)
	return dst, ok
}

func readMissingLine(src string, at int) (v MissingLine, _ int) {
	v.SKU, at = readString(src, at)
	v.Requested, at = readInt(src, at)
	v.Available, at = readInt(src, at)
	return v, at
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e StockRejected) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendArray(dst, e.Missing, ok, appendMissingLine)
	dst, ok = appendMillis(dst, e.RejectedAt, ok)
	return dst, ok
}

func decodeStockRejected(datum []byte) (e StockRejected, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.Missing, at = readArray(src, at, readMissingLine)
	e.RejectedAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (StockRejected) AvroVersions() ([]string, []any) {
	return texts("inventory/stock_rejected.v1.avsc"), []any{decodeStockRejected}
}

func appendReleasedLine(dst []byte, v ReleasedLine, ok bool) ([]byte, bool) {
	dst, ok = appendString(dst, v.SKU, ok)
	dst, ok = appendInt(dst, v.Quantity, ok)
	return dst, ok
}

func readReleasedLine(src string, at int) (v ReleasedLine, _ int) {
	v.SKU, at = readString(src, at)
	v.Quantity, at = readInt(src, at)
	return v, at
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e StockReleased) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendArray(dst, e.Lines, ok, appendReleasedLine)
	dst, ok = appendMillis(dst, e.ReleasedAt, ok)
	return dst, ok
}

func decodeStockReleased(datum []byte) (e StockReleased, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.Lines, at = readArray(src, at, readReleasedLine)
	e.ReleasedAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (StockReleased) AvroVersions() ([]string, []any) {
	return texts("inventory/stock_released.v1.avsc"), []any{decodeStockReleased}
}

func appendReservedLine(dst []byte, v ReservedLine, ok bool) ([]byte, bool) {
	dst, ok = appendString(dst, v.SKU, ok)
	dst, ok = appendInt(dst, v.Quantity, ok)
	return dst, ok
}

func readReservedLine(src string, at int) (v ReservedLine, _ int) {
	v.SKU, at = readString(src, at)
	v.Quantity, at = readInt(src, at)
	return v, at
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e StockReserved) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendArray(dst, e.Lines, ok, appendReservedLine)
	dst, ok = appendMillis(dst, e.ReservedAt, ok)
	return dst, ok
}

func decodeStockReserved(datum []byte) (e StockReserved, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.Lines, at = readArray(src, at, readReservedLine)
	e.ReservedAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (StockReserved) AvroVersions() ([]string, []any) {
	return texts("inventory/stock_reserved.v1.avsc"), []any{decodeStockReserved}
}

var symbolsOfCancellationReason = []CancellationReason{CancellationReasonUnknown, CancellationReasonCustomer, CancellationReasonDeadline}

func appendCancellationReason(dst []byte, v CancellationReason, ok bool) ([]byte, bool) {
	return appendSymbol(dst, v, ok, symbolsOfCancellationReason)
}

func readCancellationReason(src string, at int) (CancellationReason, int) {
	return readSymbol(src, at, symbolsOfCancellationReason)
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e OrderCancelled) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendCancellationReason(dst, e.Reason, ok)
	dst, ok = appendMillis(dst, e.CancelledAt, ok)
	return dst, ok
}

func decodeOrderCancelled(datum []byte) (e OrderCancelled, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.Reason, at = readCancellationReason(src, at)
	e.CancelledAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (OrderCancelled) AvroVersions() ([]string, []any) {
	return texts("order/order_cancelled.v1.avsc"), []any{decodeOrderCancelled}
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e OrderConfirmed) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendLong(dst, e.TotalCents, ok)
	dst, ok = appendString(dst, e.Currency, ok)
	dst, ok = appendMillis(dst, e.ConfirmedAt, ok)
	return dst, ok
}

func decodeOrderConfirmed(datum []byte) (e OrderConfirmed, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.TotalCents, at = readLong(src, at)
	e.Currency, at = readString(src, at)
	e.ConfirmedAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (OrderConfirmed) AvroVersions() ([]string, []any) {
	return texts("order/order_confirmed.v1.avsc"), []any{decodeOrderConfirmed}
}

func appendOrderLine(dst []byte, v OrderLine, ok bool) ([]byte, bool) {
	dst, ok = appendString(dst, v.SKU, ok)
	dst, ok = appendInt(dst, v.Quantity, ok)
	dst, ok = appendLong(dst, v.UnitPriceCents, ok)
	return dst, ok
}

func readOrderLine(src string, at int) (v OrderLine, _ int) {
	v.SKU, at = readString(src, at)
	v.Quantity, at = readInt(src, at)
	v.UnitPriceCents, at = readLong(src, at)
	return v, at
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e OrderPlaced) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendString(dst, e.CustomerID, ok)
	dst, ok = appendString(dst, e.CustomerEmail, ok)
	dst, ok = appendArray(dst, e.Lines, ok, appendOrderLine)
	dst, ok = appendMillis(dst, e.PlacedAt, ok)
	dst, ok = appendString(dst, e.Currency, ok)
	return dst, ok
}

func decodeOrderPlaced(datum []byte) (e OrderPlaced, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.CustomerID, at = readString(src, at)
	e.CustomerEmail, at = readString(src, at)
	e.Lines, at = readArray(src, at, readOrderLine)
	e.PlacedAt, at = readMillis(src, at)
	e.Currency, at = readString(src, at)
	return e, at == len(src)
}

func decodeOrderPlaced1(datum []byte) (e OrderPlaced, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.CustomerID, at = readString(src, at)
	e.CustomerEmail, at = readString(src, at)
	e.Lines, at = readArray(src, at, readOrderLine)
	e.PlacedAt, at = readMillis(src, at)
	e.Currency = "EUR"
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (OrderPlaced) AvroVersions() ([]string, []any) {
	return texts("order/order_placed.v1.avsc", "order/order_placed.v2.avsc"), []any{decodeOrderPlaced1, decodeOrderPlaced}
}

var symbolsOfRejectionReason = []RejectionReason{RejectionReasonUnknown, RejectionReasonOutOfStock}

func appendRejectionReason(dst []byte, v RejectionReason, ok bool) ([]byte, bool) {
	return appendSymbol(dst, v, ok, symbolsOfRejectionReason)
}

func readRejectionReason(src string, at int) (RejectionReason, int) {
	return readSymbol(src, at, symbolsOfRejectionReason)
}

// AppendAvro is for pkg/codec: it appends the event, or is not ok where pkg/codec has to say why not.
func (e OrderRejected) AppendAvro(dst []byte) (_ []byte, ok bool) {
	ok = true
	dst, ok = appendString(dst, e.OrderID, ok)
	dst, ok = appendRejectionReason(dst, e.Reason, ok)
	dst, ok = appendArray(dst, e.Unavailable, ok, appendString)
	dst, ok = appendMillis(dst, e.RejectedAt, ok)
	return dst, ok
}

func decodeOrderRejected(datum []byte) (e OrderRejected, ok bool) {
	src, at := string(datum), 0
	e.OrderID, at = readString(src, at)
	e.Reason, at = readRejectionReason(src, at)
	e.Unavailable, at = readArray(src, at, readString)
	e.RejectedAt, at = readMillis(src, at)
	return e, at == len(src)
}

// AvroVersions is for pkg/codec: all versions, oldest first, and what decodes them.
func (OrderRejected) AvroVersions() ([]string, []any) {
	return texts("order/order_rejected.v1.avsc"), []any{decodeOrderRejected}
}
