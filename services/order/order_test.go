package order_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
	"example.com/keyline/services/order"
)

var (
	noon    = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	oneHour = noon.Add(time.Hour)
)

// in is an order that stands at a status.
func in(s order.Status) *order.Order {
	return &order.Order{ID: "o-1", Currency: "EUR", TotalCents: 900, Status: s, Reason: "as before", PlacedAt: noon}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	o, placed, err := order.Place("o-1", draft, noon)
	if err != nil {
		t.Fatal(err)
	}
	want := &order.Order{
		ID: "o-1", CustomerID: "ada", CustomerEmail: "ada@example.com", Currency: "EUR", Lines: draft.Lines, TotalCents: 2100,
		Status: order.Pending, Version: 1, PlacedAt: noon, History: []order.Step{{Step: "placed", At: noon}},
	}
	if diff := cmp.Diff(o, want); diff != "" {
		t.Error(diff)
	}
	wantEvent := schemas.OrderPlaced{
		OrderID: "o-1", CustomerID: "ada", CustomerEmail: "ada@example.com", PlacedAt: noon, Currency: "EUR",
		Lines: []schemas.OrderLine{{SKU: "tea", Quantity: 2, UnitPriceCents: 450}, {SKU: "cup", Quantity: 1, UnitPriceCents: 1200}},
	}
	if diff := cmp.Diff(placed, event.Payload(wantEvent)); diff != "" {
		t.Error(diff)
	}
}

// Every status meets every input.
func TestOrder_transitions(t *testing.T) {
	t.Parallel()
	type outcome struct {
		Status order.Status
		Reason string
		Event  event.Payload // nil: none
		Err    error
		Steps  []string
	}
	confirmed := schemas.OrderConfirmed{OrderID: "o-1", TotalCents: 900, Currency: "EUR", ConfirmedAt: oneHour}
	refused := schemas.OrderRejected{OrderID: "o-1", Reason: schemas.RejectionReasonOutOfStock, Unavailable: []string{"tea", "cup"}, RejectedAt: oneHour}
	cancelled := func(r schemas.CancellationReason) event.Payload {
		return schemas.OrderCancelled{OrderID: "o-1", Reason: r, CancelledAt: oneHour}
	}
	inputs := map[string]func(*order.Order) (event.Payload, error){
		"reserved": func(o *order.Order) (event.Payload, error) { return o.StockReserved(oneHour), nil },
		"rejected": func(o *order.Order) (event.Payload, error) {
			return o.StockRejected([]string{"tea", "cup"}, oneHour), nil
		},
		"released": func(o *order.Order) (event.Payload, error) { o.StockReleased(oneHour); return nil, nil },
		"customer": func(o *order.Order) (event.Payload, error) {
			return o.Cancel(schemas.CancellationReasonCustomer, oneHour)
		},
		"deadline": func(o *order.Order) (event.Payload, error) {
			return o.Cancel(schemas.CancellationReasonDeadline, oneHour)
		},
	}
	same := func(s order.Status, steps ...string) outcome { return outcome{s, "as before", nil, nil, steps} }
	want := map[order.Status]map[string]outcome{
		order.Pending: {
			"reserved": {order.Confirmed, "", confirmed, nil, []string{"stock reserved", "confirmed"}},
			"rejected": {order.Rejected, "out of stock: tea, cup", refused, nil, []string{"stock rejected", "rejected"}},
			"released": same(order.Pending, "stock released"),
			"customer": {order.Cancelled, "customer", cancelled(schemas.CancellationReasonCustomer), nil, []string{"cancelled"}},
			"deadline": {order.Cancelled, "deadline", cancelled(schemas.CancellationReasonDeadline), nil, []string{"cancelled"}},
		},
		order.Confirmed: {
			"reserved": same(order.Confirmed, "stock reserved"),
			"rejected": same(order.Confirmed, "stock rejected"),
			"released": same(order.Confirmed, "stock released"),
			"customer": {order.Cancelled, "customer", cancelled(schemas.CancellationReasonCustomer), nil, []string{"cancelled"}},
			"deadline": {order.Cancelled, "deadline", cancelled(schemas.CancellationReasonDeadline), nil, []string{"cancelled"}},
		},
		order.Rejected: {
			"reserved": same(order.Rejected, "stock reserved"),
			"rejected": same(order.Rejected, "stock rejected"),
			"released": same(order.Rejected, "stock released"),
			"customer": {order.Rejected, "as before", nil, order.ErrRejected, nil},
			"deadline": {order.Rejected, "as before", nil, order.ErrRejected, nil},
		},
		order.Cancelled: {
			"reserved": same(order.Cancelled, "stock reserved"),
			"rejected": same(order.Cancelled, "stock rejected"),
			"released": same(order.Cancelled, "stock released"),
			"customer": same(order.Cancelled),
			"deadline": same(order.Cancelled),
		},
	}
	for _, status := range []order.Status{order.Pending, order.Confirmed, order.Rejected, order.Cancelled} {
		for name, input := range inputs {
			t.Run(fmt.Sprintf("%s meets %s", status, name), func(t *testing.T) {
				t.Parallel()
				o := in(status)
				caused, err := input(o)
				got := outcome{o.Status, o.Reason, caused, nil, nil}
				if err != nil {
					got.Err = order.ErrRejected
				}
				for _, s := range o.History {
					got.Steps = append(got.Steps, s.Step)
				}
				expected, listed := want[status][name]
				if diff := cmp.Diff(got, expected, cmp.Comparer(func(a, b error) bool { return errors.Is(a, b) })); !listed || diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

func TestOrder_history_isBounded(t *testing.T) {
	t.Parallel()
	o := in(order.Cancelled)
	for range 1000 {
		o.StockReserved(noon)
	}
	if got, want := len(o.History), order.MaxSteps; got != want {
		t.Errorf("%d steps after 1,000 answers, want %d", got, want)
	}
}

// with is the sample draft with a change.
func with(change func(*order.Draft)) order.Draft {
	d := draft
	d.Lines = append([]order.Line(nil), draft.Lines...)
	change(&d)
	return d
}

func lines(n int, quantity int, cents int64) (all []order.Line) {
	for i := range n {
		all = append(all, order.Line{SKU: fmt.Sprint("sku-", i), Quantity: quantity, UnitPriceCents: cents})
	}
	return all
}

func TestPlace_limits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*order.Draft)
		field  string // empty: accepted
	}{
		{"the longest customer ID is taken", func(d *order.Draft) { d.CustomerID = strings.Repeat("ü", 100) }, ""},
		{"no customer ID", func(d *order.Draft) { d.CustomerID = "" }, "customer_id"},
		{"a customer ID too long", func(d *order.Draft) { d.CustomerID = strings.Repeat("x", 101) }, "customer_id"},
		{"a line break in the customer ID", func(d *order.Draft) { d.CustomerID = "a\nb" }, "customer_id"},
		{"a NUL in the customer ID", func(d *order.Draft) { d.CustomerID = "a\x00b" }, "customer_id"},
		{"bad UTF-8 in the customer ID", func(d *order.Draft) { d.CustomerID = "a\xff" }, "customer_id"},
		{"no address", func(d *order.Draft) { d.CustomerEmail = "" }, "customer_email"},
		{"an address without a domain", func(d *order.Draft) { d.CustomerEmail = "ada" }, "customer_email"},
		{"an address with a name", func(d *order.Draft) { d.CustomerEmail = "Ada <ada@example.com>" }, "customer_email"},
		{"two addresses", func(d *order.Draft) { d.CustomerEmail = "a@example.com, b@example.com" }, "customer_email"},
		{"a header behind the address", func(d *order.Draft) { d.CustomerEmail = "ada@example.com\r\nBcc: eve@example.com" }, "customer_email"},
		{"the longest address is taken", func(d *order.Draft) { d.CustomerEmail = strings.Repeat("x", 242) + "@example.com" }, ""},
		{"an address too long", func(d *order.Draft) { d.CustomerEmail = strings.Repeat("x", 243) + "@example.com" }, "customer_email"},
		{"an address beyond ASCII is taken", func(d *order.Draft) { d.CustomerEmail = "jörg@exämple.com" }, ""},
		{"another currency is taken", func(d *order.Draft) { d.Currency = "USD" }, ""},
		{"a currency in small letters", func(d *order.Draft) { d.Currency = "usd" }, "currency"},
		{"a currency of four letters", func(d *order.Draft) { d.Currency = "EURO" }, "currency"},
		{"a currency of three bytes, not letters", func(d *order.Draft) { d.Currency = "€" }, "currency"},
		{"no line", func(d *order.Draft) { d.Lines = nil }, "lines"},
		{"a hundred lines are taken", func(d *order.Draft) { d.Lines = lines(100, 1, 1) }, ""},
		{"a hundred and one lines", func(d *order.Draft) { d.Lines = lines(101, 1, 1) }, "lines"},
		{"an empty SKU", func(d *order.Draft) { d.Lines[1].SKU = "" }, "lines[1].sku"},
		{"a SKU too long", func(d *order.Draft) { d.Lines[0].SKU = strings.Repeat("x", 101) }, "lines[0].sku"},
		{"a SKU of strange characters is taken", func(d *order.Draft) { d.Lines[0].SKU = "50% off / ½ <b>茶</b> & \"'" }, ""},
		{"a tab in a SKU", func(d *order.Draft) { d.Lines[0].SKU = "a\tb" }, "lines[0].sku"},
		{"a SKU twice", func(d *order.Draft) { d.Lines[1].SKU = d.Lines[0].SKU }, "lines[1].sku"},
		{"quantity zero", func(d *order.Draft) { d.Lines[0].Quantity = 0 }, "lines[0].quantity"},
		{"a negative quantity", func(d *order.Draft) { d.Lines[1].Quantity = -1 }, "lines[1].quantity"},
		{"the greatest quantity is taken", func(d *order.Draft) { d.Lines[0].Quantity = order.MaxQuantity }, ""},
		{"a quantity too great", func(d *order.Draft) { d.Lines[0].Quantity = order.MaxQuantity + 1 }, "lines[0].quantity"},
		{"the greatest quantity of all", func(d *order.Draft) { d.Lines[0].Quantity = math.MaxInt }, "lines[0].quantity"},
		{"a gift is taken", func(d *order.Draft) { d.Lines[0].UnitPriceCents = 0 }, ""},
		{"a negative price", func(d *order.Draft) { d.Lines[0].UnitPriceCents = -1 }, "lines[0].unit_price_cents"},
		{"a price too high", func(d *order.Draft) { d.Lines[0].UnitPriceCents = order.MaxUnitPrice + 1 }, "lines[0].unit_price_cents"},
		{"the highest sum that can be counted is taken", func(d *order.Draft) { d.Lines = lines(92, order.MaxQuantity, order.MaxUnitPrice) }, ""},
		{"a sum that overflows", func(d *order.Draft) { d.Lines = lines(93, order.MaxQuantity, order.MaxUnitPrice) }, "lines"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, placed, err := order.Place("o-1", with(tt.change), noon)
			var broken *order.FieldError
			switch {
			case tt.field == "" && (err != nil || o == nil || o.TotalCents < 0):
				t.Errorf("Place = %v, %v; want an order", o, err)
			case tt.field != "" && (!errors.As(err, &broken) || broken.Field != tt.field || o != nil || placed != nil):
				t.Errorf("Place = %v, %v; want only an error of the field %s", o, err, tt.field)
			}
		})
	}
}
