package email

import (
	_ "embed"
	"fmt"
	"html"
	"strings"

	"example.com/keyline/schemas"
)

// Letter is what a mail says.
type Letter struct {
	Kind    schemas.EmailKind
	OrderID string
	Total   string // of a confirmed order, such as "12.34 EUR"
	Reason  string // of any other
}

var (
	//go:embed templates/mail.txt
	textTemplate string
	//go:embed templates/mail.html
	htmlTemplate string
)

// Text is the mail for programs that show no HTML.
func (l Letter) Text() string {
	return l.fill(textTemplate, func(word string) string { return word })
}

// HTML is the mail for all others.
func (l Letter) HTML() string { return l.fill(htmlTemplate, html.EscapeString) }

// fill puts the letter's words into a template, without the lines of words that it has not.
// Package template would cost 5 MB: it calls methods by name, so that the linker keeps all.
func (l Letter) fill(template string, escape func(string) string) string {
	words := strings.NewReplacer("{{subject}}", escape(l.Subject()), "{{order_id}}", escape(l.OrderID),
		"{{total}}", escape(l.Total), "{{reason}}", escape(l.Reason))
	var b strings.Builder
	for line := range strings.Lines(template) {
		if l.Total == "" && strings.Contains(line, "{{total}}") || l.Reason == "" && strings.Contains(line, "{{reason}}") {
			continue
		}
		b.WriteString(words.Replace(line))
	}
	return b.String()
}

// Subject is the mail's subject line.
func (l Letter) Subject() string {
	switch l.Kind {
	case schemas.EmailKindConfirmation:
		return "Your order is confirmed"
	case schemas.EmailKindRejection:
		return "Your order cannot be fulfilled"
	}
	return "Your order is cancelled"
}

// Confirmation is the letter for a confirmed order.
func Confirmation(e schemas.OrderConfirmed) Letter {
	return Letter{Kind: schemas.EmailKindConfirmation, OrderID: e.OrderID, Total: money(e.TotalCents, e.Currency)}
}

// Rejection is the letter for a rejected order.
func Rejection(e schemas.OrderRejected) Letter {
	reason := "We could not reserve what you ordered."
	if len(e.Unavailable) > 0 {
		reason = "We are out of " + strings.Join(e.Unavailable, ", ") + "."
	}
	return Letter{Kind: schemas.EmailKindRejection, OrderID: e.OrderID, Reason: reason}
}

// Cancellation is the letter for a cancelled order.
func Cancellation(e schemas.OrderCancelled) Letter {
	reason := "We could not keep it open." // for a reason from the future too
	switch e.Reason {
	case schemas.CancellationReasonCustomer:
		reason = "You cancelled it."
	case schemas.CancellationReasonDeadline:
		reason = "Our warehouse did not answer in time."
	}
	return Letter{Kind: schemas.EmailKindCancellation, OrderID: e.OrderID, Reason: reason}
}

// money writes an amount of minor units; every currency of the shop has two decimals.
func money(cents int64, currency string) string {
	return fmt.Sprintf("%d.%02d %s", cents/100, cents%100, currency)
}
