// Package check judges what a shop has done, from outside: what its customers were answered,
// every record on its topics, the mails that arrived, and what services tell of their state.
// It is the one judge of all end-to-end tests, of the fault suite and of the simulation.
//
//	facts := &check.Facts{Requests: …, Orders: …, Records: …}
//	for _, wrong := range facts.Judge(check.Expect{}) {
//		t.Error(wrong) // "I3: OrderConfirmed of order … has version 3, want 2"
//	}
//
// It does no I/O and knows no service's code, so that it cannot share their mistakes.
//
// # What is judged
//
//	I1  each accepted order ends in exactly one way, with one mail for each settling event
//	I2  stock is never negative, and is what was received less what live orders hold
//	I3  the events of each order and source count up by one, in the order of the log; so do mails
//	I4  no event has a second effect in a group
//	I5  settling event and mail belong to the trace of the request that caused them
//	I6  nothing is left to publish, to consume or to retry, but the expected dead letters
//	I7  no process has used more memory than its cap
//	I8  no event, mail or movement comes from a change that is not there
package check

import (
	"fmt"
	"strings"
)

// Facts are everything that is known of a shop when it is quiet. A field that is nil was not
// looked at, and what needs it is not judged.
type Facts struct {
	Requests  []Request             // the answers to customers
	Orders    []Order               // as the order service shows them
	Records   []Record              // of the topics of events; each partition in the order of its log
	Rows      map[string]Versions   // by source, such as "/order": its aggregates' rows
	Mails     []Mail                // in the order in which the mail server took them
	Ledger    []Sent                // as the email service shows it
	Stock     []Stock               // as inventory shows it
	Movements map[string][]Movement // by SKU, in the order of the ledger
	Waiting   []Waiting             // of all groups, as their operators see it
	Outbox    map[string]int64      // by service, what is left to publish
	Lag       map[string]int64      // by consumer group, records not yet committed
	Memory    map[string]int64      // by process, the most bytes that it has had
}

// Versions are how many events each aggregate has caused, by key, as its row says.
type Versions map[string]int64

// Request is an accepted request of a customer: one that places an order, or cancels one.
type Request struct {
	Key     string // Idempotency-Key; the same in each repetition
	OrderID string
	TraceID string // empty where no answer told it
	Cancel  bool
	Lines   []Line // of an order that is placed; nil: as the order service shows them
}

// Line is how much of an article an order is about.
type Line struct {
	SKU      string
	Quantity int64
}

// Order is an order as its customer sees it.
type Order struct {
	ID     string
	Status string
	Lines  []Line
	Steps  []string // its history
}

// Record is a record of a topic, decoded.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Key       string
	ID        string
	Type      string // the event's name, with or without its namespace
	Source    string // empty: not from one of our services
	Cause     string // the ID of the event that brought it about, if one did
	TraceID   string
	Version   int64
	Data      map[string]any // the payload
}

// name is the event's name without its namespace.
func (r *Record) name() string { return r.Type[strings.LastIndexByte(r.Type, '.')+1:] }

// text is a field of the payload.
func (r *Record) text(field string) string {
	s, _ := r.Data[field].(string)
	return s
}

// Mail is a mail that the mail server has taken.
type Mail struct {
	ID      string // Message-ID, with or without angle brackets
	OrderID string // empty where it cannot be told
}

// Sent is an entry of the ledger of mails.
type Sent struct {
	OrderID   string
	EventID   string
	MessageID string
	Done      bool // it was noted as sent
}

// Stock is an article's stock.
type Stock struct {
	SKU       string
	OnHand    int64
	Reserved  int64
	Available int64
}

// Movement is an entry of an article's ledger.
type Movement struct {
	Version  int64
	Kind     string // received, reserved, released
	Quantity int64
	OrderID  string
	Cause    string
}

// Waiting is an event that waits in a group.
type Waiting struct {
	Group  string
	Topic  string
	Key    string
	Type   string
	State  string // retrying, running, unavailable, dead, behind, set aside
	Reason string
	Error  string
}

// Expect is what the fault is allowed to leave behind. The zero value expects a shop that
// nothing can be seen of.
type Expect struct {
	// Dead are the dead letters, no more and no fewer; an empty field matches anything. The
	// orders that one of them holds up need not have ended.
	Dead []Waiting
	// MailRepeats is how many mails may have come again under their old Message-ID.
	MailRepeats int
	// Received is what was put on the shelves, by SKU; nil: whatever the ledger says.
	Received map[string]int64
	// Foreign allows records, mails and orders that no request of Facts asked for, because
	// others use the same topics or records were forged; they are not judged.
	Foreign bool
	// MemoryCap is how many bytes a process may have had; 0 is no cap.
	MemoryCap int64
}

// first are the records of our services, each ID once, at its first sight.
func (f *Facts) first() (first []*Record) {
	seen := map[string]bool{}
	for i := range f.Records {
		r := &f.Records[i]
		if id := r.Topic + " " + r.Source + " " + r.ID; r.Source != "" && !seen[id] {
			seen[id] = true
			first = append(first, r)
		}
	}
	return first
}

// Duplicates is how many records are repetitions of an earlier one, by source. Repetitions
// are allowed; a test of what happens then has to see one.
func (f *Facts) Duplicates() map[string]int {
	counts, seen := map[string]int{}, map[string]bool{}
	for _, r := range f.Records {
		id := r.Topic + " " + r.Source + " " + r.ID
		if seen[id] {
			counts[r.Source]++
		}
		seen[id] = true
	}
	return counts
}

// MailRepeats is how many mails are repetitions of an earlier one.
func (f *Facts) MailRepeats() (n int) {
	seen := map[string]bool{}
	for _, m := range f.Mails {
		if seen[bare(m.ID)] {
			n++
		}
		seen[bare(m.ID)] = true
	}
	return n
}

// bare is a Message-ID without its brackets.
func bare(id string) string { return strings.Trim(id, "<>") }

// verdict collects complaints.
type verdict struct {
	*Facts
	expect Expect
	wrong  []string
}

func (v *verdict) complain(format string, args ...any) {
	v.wrong = append(v.wrong, fmt.Sprintf(format, args...))
}
