package email_test

import (
	"slices"
	"testing"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/services/email"
)

// However events arrive, each that settles an order becomes one mail in the ledger, and one
// Message-ID in the mailbox.
func TestTrial(t *testing.T) {
	t.Parallel()
	const ada, bob = "ada@customer.example", "bob@customer.example"
	eventtest.Trial{
		Contract: contract,
		Service:  eventtest.NewService("email", email.Run),
		Source:   "/order",
		Events: []event.Payload{
			placed("o-1", ada), placed("o-2", bob), confirmed("o-1"), rejected("o-2"), placed("o-3", ada), cancelled("o-1"), cancelled("o-3"),
		},
		State: func(r *eventtest.Rig) any {
			var mails []string
			for _, m := range r.Mailbox.Messages() {
				mails = append(mails, m.ID+" "+m.Subject+" to "+m.To[0])
			}
			slices.Sort(mails)
			return []any{
				slices.Compact(mails), // a mail may be sent again, under the same Message-ID
				r.Rows(`select event_id, order_id, kind, message_id, sent_at > 0 as sent from mail order by event_id`),
				r.Rows(`select order_id, address, version from recipient order by order_id`),
			}
		},
	}.Run(t)
}
