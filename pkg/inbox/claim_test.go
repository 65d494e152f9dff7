package inbox_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"example.com/keyline/pkg/event"
	"example.com/keyline/pkg/inbox"
)

// A mail server that is slow must not make two mails of one: while the effect is at work its
// claim is renewed, and no other worker takes the key.
func TestHandleSlow_keeps_its_claim_while_it_works(t *testing.T) {
	t.Parallel()
	r := newRig(t, inbox.Config{Workers: 2, Claim: 6 * time.Second}) // a claim that is not renewed lasts a sixth
	due := func() int { return r.count(`select due from waiting_key`) }
	var calls atomic.Int64
	inbox.HandleSlow(r.Inbox, func(context.Context, event.Event[step]) (inbox.Done, error) {
		if calls.Add(1) > 1 {
			return nil, nil
		}
		first := due()
		r.until("the claim was renewed, or has run out", func() bool { return due() != first })
		return nil, nil
	})
	r.steps("a", 1, 1)
	r.run()
	r.poll(0)
	r.until("it is done", func() bool { return len(r.states()) == 0 })
	if n := calls.Load(); n != 1 {
		t.Errorf("the effect ran %d times, want once", n)
	}
}
