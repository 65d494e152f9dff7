package order

import (
	"fmt"
	"math"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// Status is where an order stands.
type Status string

// An order is pending until it settles; a confirmed one may still be cancelled.
const (
	Pending   Status = "pending"
	Confirmed Status = "confirmed"
	Rejected  Status = "rejected"
	Cancelled Status = "cancelled"
)

// Order is an order as the service keeps it.
type Order struct {
	ID            string
	CustomerID    string
	CustomerEmail string
	Currency      string
	Lines         []Line
	TotalCents    int64
	Status        Status
	Reason        string // why it was rejected or cancelled
	Version       int64  // how many events it has caused
	PlacedAt      time.Time
	History       []Step
	Traceparent   string // of the request that placed it
}

// Line is one line of an order.
type Line struct {
	SKU            string `json:"sku"`
	Quantity       int    `json:"quantity"`
	UnitPriceCents int64  `json:"unit_price_cents" required:"true"` // 0 is a price
}

// Step is one thing that happened to an order.
type Step struct {
	Step string    `json:"step"`
	At   time.Time `json:"at"`
}

// Limits of an order.
const (
	MaxLines     = 100
	MaxQuantity  = 1_000_000
	MaxUnitPrice = 1_000_000_000_00 // cents
	maxText      = 100
	maxEmail     = 254 // RFC 5321, section 4.5.3.1.3, less the angle brackets
)

// FieldError says which field of a request breaks which rule.
type FieldError struct{ Field, Rule string }

func (e *FieldError) Error() string { return e.Field + " " + e.Rule }

// Draft is an order that a customer asks for.
type Draft struct {
	CustomerID    string `json:"customer_id"`
	CustomerEmail string `json:"customer_email"`
	Lines         []Line `json:"lines"`
	Currency      string `json:"currency"`
}

// Place makes an order of a draft. The error is a [*FieldError].
func Place(id string, d Draft, at time.Time) (*Order, event.Payload, error) {
	if d.Currency == "" {
		d.Currency = "EUR"
	}
	total, err := d.check()
	if err != nil {
		return nil, nil, err
	}
	o := &Order{
		ID: id, CustomerID: d.CustomerID, CustomerEmail: d.CustomerEmail, Currency: d.Currency, Lines: d.Lines, TotalCents: total,
		Status: Pending, Version: 1, PlacedAt: at,
	}
	o.step("placed", at)
	placed := schemas.OrderPlaced{OrderID: id, CustomerID: d.CustomerID, CustomerEmail: d.CustomerEmail, Currency: d.Currency, PlacedAt: at}
	for _, l := range d.Lines {
		placed.Lines = append(placed.Lines, schemas.OrderLine{SKU: l.SKU, Quantity: l.Quantity, UnitPriceCents: l.UnitPriceCents})
	}
	return o, placed, nil
}

// check returns the total in cents.
func (d *Draft) check() (total int64, err error) {
	if err := checkText("customer_id", d.CustomerID); err != nil {
		return 0, err
	}
	if err := checkEmail(d.CustomerEmail); err != nil {
		return 0, err
	}
	if len(d.Currency) != 3 || strings.Trim(d.Currency, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return 0, &FieldError{"currency", "must be three capital letters, as in ISO 4217"}
	}
	if len(d.Lines) == 0 || len(d.Lines) > MaxLines {
		return 0, &FieldError{"lines", fmt.Sprintf("must be 1 to %d", MaxLines)}
	}
	seen := map[string]bool{}
	for i, l := range d.Lines {
		field := fmt.Sprintf("lines[%d].", i)
		if err := checkText(field+"sku", l.SKU); err != nil {
			return 0, err
		}
		switch {
		case seen[l.SKU]:
			return 0, &FieldError{field + "sku", "is in another line already"}
		case l.Quantity < 1 || l.Quantity > MaxQuantity:
			return 0, &FieldError{field + "quantity", fmt.Sprintf("must be 1 to %d", MaxQuantity)}
		case l.UnitPriceCents < 0 || l.UnitPriceCents > MaxUnitPrice:
			return 0, &FieldError{field + "unit_price_cents", fmt.Sprintf("must be 0 to %d", int64(MaxUnitPrice))}
		}
		seen[l.SKU] = true
		// At most 1e6 x 1e11 a line, so one line cannot overflow; a hundred could.
		sum := int64(l.Quantity) * l.UnitPriceCents
		if total > math.MaxInt64-sum {
			return 0, &FieldError{"lines", "add up to more than can be counted"}
		}
		total += sum
	}
	return total, nil
}

func checkText(field, s string) error {
	if n := utf8.RuneCountInString(s); n < 1 || n > maxText {
		return &FieldError{field, fmt.Sprintf("must have 1 to %d characters", maxText)}
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(s) {
		return &FieldError{field, "must be printable text"}
	}
	return nil
}

func checkEmail(s string) error {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > maxEmail {
		return &FieldError{"customer_email", "must be a mail address, such as ada@example.com"}
	}
	return nil
}

// The transitions return the event they cause, and nil where they cause none. Each may meet
// an order in any status: the answers of inventory race with cancellations.

// StockReserved confirms a pending order. A cancelled one stays so: its stock comes back.
func (o *Order) StockReserved(at time.Time) event.Payload {
	o.step("stock reserved", at)
	if o.Status != Pending {
		return nil
	}
	o.settle(Confirmed, "", at)
	return schemas.OrderConfirmed{OrderID: o.ID, TotalCents: o.TotalCents, Currency: o.Currency, ConfirmedAt: at}
}

// StockRejected rejects a pending order.
func (o *Order) StockRejected(missing []string, at time.Time) event.Payload {
	o.step("stock rejected", at)
	if o.Status != Pending {
		return nil
	}
	o.settle(Rejected, "out of stock: "+strings.Join(missing, ", "), at)
	return schemas.OrderRejected{OrderID: o.ID, Reason: schemas.RejectionReasonOutOfStock, Unavailable: missing, RejectedAt: at}
}

// StockReleased notes that nothing is reserved for the order any more.
func (o *Order) StockReleased(at time.Time) { o.step("stock released", at) }

// Cancel cancels an order that is pending or confirmed. It reports ErrRejected for a
// rejected one; one that is cancelled already stays as it is.
func (o *Order) Cancel(reason schemas.CancellationReason, at time.Time) (event.Payload, error) {
	switch o.Status {
	case Rejected:
		return nil, ErrRejected
	case Cancelled:
		return nil, nil
	}
	o.settle(Cancelled, string(reason), at)
	return schemas.OrderCancelled{OrderID: o.ID, Reason: reason, CancelledAt: at}, nil
}

func (o *Order) settle(s Status, reason string, at time.Time) {
	o.Status, o.Reason = s, reason
	o.step(string(s), at)
}

// maxSteps bounds an order's history. No order needs more; a producer gone wild must not
// grow a row without end.
const maxSteps = 50

func (o *Order) step(what string, at time.Time) {
	if len(o.History) < maxSteps {
		o.History = append(o.History, Step{what, at.UTC()})
	}
}
