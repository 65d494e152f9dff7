package inventory

import (
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"example.com/keyline/pkg/event"
	"example.com/keyline/schemas"
)

// Kind is what a movement does to the stock.
type Kind string

// The kinds of movements.
const (
	Received Kind = "received" // goods came in
	Reserved Kind = "reserved" // set aside for an order
	Released Kind = "released" // given back by a cancelled order
)

// Movement is one entry of the ledger. It is never changed.
type Movement struct {
	SKU      string    `json:"sku"`
	Version  int64     `json:"version"` // from 1, without gaps, within the SKU
	Kind     Kind      `json:"kind"`
	Quantity int64     `json:"quantity"`
	OrderID  string    `json:"order_id,omitempty"`
	Cause    string    `json:"cause"` // the event or request that brought it about
	At       time.Time `json:"at"`
}

// Stock is the state of one article: the fold of its movements up to Version.
type Stock struct {
	SKU      string
	Version  int64
	OnHand   int64
	Reserved int64
	At       time.Time // of the newest movement

	before int64 // the version when it was read
}

// Available is what can be reserved.
func (s *Stock) Available() int64 { return s.OnHand - s.Reserved }

// Apply folds the next movement.
func (s *Stock) Apply(m Movement) {
	s.Version, s.At = m.Version, m.At
	switch m.Kind {
	case Received:
		s.OnHand += m.Quantity
	case Reserved:
		s.Reserved += m.Quantity
	case Released:
		s.Reserved -= m.Quantity
	}
}

// move makes the next movement of the article and folds it. Its time is never before that
// of the one before it, whatever the clocks of the replicas say: a look into the past must
// find a beginning of the ledger.
func (s *Stock) move(k Kind, quantity int64, orderID, cause string, at time.Time) Movement {
	if at.Before(s.At) {
		at = s.At
	}
	m := Movement{SKU: s.SKU, Version: s.Version + 1, Kind: k, Quantity: quantity, OrderID: orderID, Cause: cause, At: at}
	s.Apply(m)
	return m
}

// Line is how much of an article an order has reserved.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// State is what became of an order's reservation.
type State string

// The states of a reservation. A released one stays so: an order that comes after its own
// cancellation reserves nothing.
const (
	held     State = "held"
	refused  State = "refused"
	released State = "released"
)

// Reservation is what the service knows of one order.
type Reservation struct {
	OrderID string
	State   State
	Lines   []Line
	Version int64 // how many events it has caused
}

// shelf is the stock that a transaction has locked.
type shelf map[string]*Stock

// reserve sets all lines aside, or none if any is short; then it says which are.
func (s shelf) reserve(o schemas.OrderPlaced, cause string, at time.Time) (r Reservation, moved []Movement, missing []schemas.MissingLine) {
	r = Reservation{OrderID: o.OrderID, State: held, Version: 1}
	for _, l := range o.Lines {
		available := int64(0)
		if stock := s[l.SKU]; stock != nil {
			available = stock.Available()
		}
		if available < int64(l.Quantity) {
			missing = append(missing, schemas.MissingLine{SKU: l.SKU, Requested: l.Quantity, Available: int(available)})
		}
	}
	if missing != nil {
		r.State = refused
		return r, nil, missing
	}
	for _, l := range o.Lines {
		r.Lines = append(r.Lines, Line{l.SKU, int64(l.Quantity)})
		moved = append(moved, s[l.SKU].move(Reserved, int64(l.Quantity), o.OrderID, cause, at))
	}
	return r, moved, nil
}

// release gives back what an order holds, and notes that it will never hold anything.
func (s shelf) release(r *Reservation, cause string, at time.Time) (moved []Movement) {
	for _, l := range r.Lines {
		moved = append(moved, s[l.SKU].move(Released, l.Quantity, r.OrderID, cause, at))
	}
	r.State, r.Lines = released, nil
	r.Version++
	return moved
}

// Limits of what the service takes.
const (
	MaxQuantity = 1_000_000_000 // of one receipt or line
	maxLines    = 1000
	maxText     = 100 // of a SKU or an ID
)

// checkKey refuses an event under another order's key: nothing would keep it in order with
// the order's other events, nor two of them from reserving at the same time.
func checkKey(m event.Meta, orderID string) error {
	if err := checkText(orderID); err != nil {
		return fmt.Errorf("order_id: %w", err)
	}
	if m.Subject != orderID {
		return errors.New("order_id: is not the record's key")
	}
	return nil
}

// checkOrder refuses what no order of ours contains, since any producer can write to the
// topic.
func checkOrder(m event.Meta, o schemas.OrderPlaced) error {
	if err := checkKey(m, o.OrderID); err != nil {
		return err
	}
	if len(o.Lines) == 0 || len(o.Lines) > maxLines {
		return fmt.Errorf("lines: %d of them, want 1 to %d", len(o.Lines), maxLines)
	}
	seen := map[string]bool{}
	for i, l := range o.Lines {
		if err := checkText(l.SKU); err != nil {
			return fmt.Errorf("lines[%d].sku: %w", i, err)
		}
		if seen[l.SKU] {
			return fmt.Errorf("lines[%d].sku: is in another line already", i)
		}
		seen[l.SKU] = true
		if l.Quantity < 1 || l.Quantity > MaxQuantity {
			return fmt.Errorf("lines[%d].quantity: %d, want 1 to %d", i, l.Quantity, MaxQuantity)
		}
	}
	return nil
}

func checkText(s string) error {
	if n := utf8.RuneCountInString(s); n < 1 || n > maxText || !utf8.ValidString(s) {
		return fmt.Errorf("must have 1 to %d characters", maxText)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return errors.New("must be printable text")
		}
	}
	return nil
}
