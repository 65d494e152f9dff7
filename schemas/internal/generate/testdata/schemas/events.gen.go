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
