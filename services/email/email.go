package email

import (
	"embed"
	"fmt"
	htmltemplate "html/template"
	"strings"
	texttemplate "text/template"

	"example.com/keyline/schemas"
)

// Letter is what a mail says.
type Letter struct {
	Kind    schemas.EmailKind
	OrderID string
	Total   string // of a confirmed order, such as "12.34 EUR"
	Reason  string // of any other
}

//go:embed templates/*
var templates embed.FS

var (
	textBody = texttemplate.Must(texttemplate.ParseFS(templates, "templates/mail.txt"))
	htmlBody = htmltemplate.Must(htmltemplate.ParseFS(templates, "templates/mail.html"))
)

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
