package all_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"example.com/keyline/pkg/db/dbtest"
	"example.com/keyline/pkg/embedded"
	"example.com/keyline/services/all/check"
	"example.com/keyline/services/inventory"
)

// A handler of inventory panics for some orders. Only they wait, become dead letters, and go
// on when the operator redrives them after the bug is mended.
func TestF8_a_panic_stops_its_key_only(t *testing.T) {
	t.Parallel()
	f := newTrial(t, map[string]string{"RETRY_ATTEMPTS": "3", "RETRY_MAX_BACKOFF": "50ms"})
	cursed := newSKU("cursed")
	var bug atomic.Bool
	var panics atomic.Int64
	bug.Store(true)
	f.cfg.Tune = func(cfg any) {
		if c, ok := cfg.(*inventory.Config); ok {
			c.Database.Wrap = dbtest.Breaks{Statement: func(query string, args []driver.NamedValue, _ bool) error {
				if bug.Load() && strings.HasPrefix(query, "insert into reservation") && strings.Contains(fmt.Sprint(args), cursed) {
					panics.Add(1)
					panic("a handler's bug")
				}
				return nil
			}}.Wrap
		}
	}
	f.start()
	f.stockUp()
	f.articles = append(f.articles, cursed)
	f.receive(cursed, 100)
	f.received[cursed] = 100
	f.articles = f.articles[:len(f.articles)-1] // the others do not order it

	var stuck []string
	dead := check.Expect{}
	for range size(3, 15) {
		id := f.order(line{cursed, 1, 450}).OrderID
		f.trade(size(8, 200))
		stuck = append(stuck, id)
		dead.Dead = append(dead.Dead, check.Waiting{Group: "inventory", Key: id, State: "dead", Reason: "exhausted"})
	}
	f.settle(stuck...)
	for _, id := range stuck {
		eventually(t, "a dead letter", func() bool {
			w := f.waits("inventory", id)
			return len(w) == 1 && w[0].State == "dead" && w[0].Attempts == 3 && strings.Contains(w[0].Error, "panic: a handler's bug")
		})
	}
	f.injected = int(panics.Load())
	if f.injected < 3*len(stuck) {
		t.Errorf("%d panics, want 3 for each of %d orders", f.injected, len(stuck))
	}
	f.judge(dead)

	bug.Store(false)
	a := f.sendTo(f.URLs.Admin, "POST", "/inventory/admin/waiting/redrive", map[string]any{"filter": map[string]string{"reason": "exhausted"}, "dry_run": false, "limit": 1000})
	a.want(t, http.StatusOK)
	f.articles = append(f.articles, cursed)
	for i := range f.requests { // a redriven event is a trace of its own, linked to the request's
		if slices.Contains(stuck, f.requests[i].OrderID) {
			f.requests[i].TraceID = ""
		}
	}
	f.settle()
	f.judge(check.Expect{})
}

// The mail server is slow, refuses connections, is in trouble, puts off a recipient, refuses
// one for good, and takes mails without saying so.
func TestF43_a_mail_server_may_do_its_worst(t *testing.T) {
	t.Parallel()
	f := openTrial(t, map[string]string{"RETRY_ATTEMPTS": "40", "RETRY_MAX_BACKOFF": "100ms"})
	first := f.mailbox
	n := size(8, 200)
	var injected atomic.Int64
	some := func(with error, when func(m embedded.Mail) bool) {
		f.Mailbox().Fail(func(_ context.Context, m embedded.Mail) error {
			if !when(m) {
				return nil
			}
			injected.Add(1)
			return with
		})
	}
	all := func(embedded.Mail) bool { return true }
	waits := func(state string, n int) {
		t.Helper()
		eventually(t, fmt.Sprint(n, " mails are ", state), func() bool {
			count := 0
			for _, w := range f.waits("email", "") {
				if w.State == state {
					count++
				}
			}
			return count >= n
		})
	}

	// Slow: half as many workers as mails, and each takes its time.
	f.Mailbox().Fail(func(ctx context.Context, _ embedded.Mail) error {
		injected.Add(1)
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
		}
		return nil
	})
	f.trade(n)
	f.settle()
	f.quiet()

	// Away.
	_, port, _ := strings.Cut(first.Addr(), ":")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	f.trade(n)
	waits("unavailable", n/2)
	f.boxes, f.mailbox = []*embedded.Mailbox{first}, mailbox(t, atoi(t, port))
	injected.Add(int64(n))

	// In trouble, which counts no attempts; then it puts off one recipient, which does.
	some(&smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 3, 1}, Message: "disk full"}, all)
	f.trade(n)
	waits("unavailable", n/2)
	before := injected.Load()
	eventually(t, "probes", func() bool { return injected.Load() > before+2 })
	for _, w := range f.waits("email", "") {
		if w.Attempts > 0 {
			t.Errorf("%s of %s counts %d attempts: %s", w.Type, w.Key, w.Attempts, w.Error)
		}
	}
	putOff := f.order(line{f.articles[1], 1, 450}).OrderID
	some(&smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "greylisted"}, func(m embedded.Mail) bool { return strings.Contains(m.Text, putOff) })
	eventually(t, "attempts are counted", func() bool {
		w := f.waits("email", putOff)
		return len(w) > 0 && w[0].Attempts > 1
	})
	f.trade(n)
	f.settle(putOff)
	f.Mailbox().Fail(nil)
	f.settle()
	f.quiet()

	// For good, for one order; and mails that are taken without an answer.
	bad := f.order(line{f.articles[1], 1, 450}).OrderID
	lost := map[string]bool{}
	var mu sync.Mutex
	f.Mailbox().Fail(func(_ context.Context, m embedded.Mail) error {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.Contains(m.Text, bad):
			injected.Add(1)
			return never
		case len(lost) < 3 && !lost[m.ID]:
			lost[m.ID] = true
			injected.Add(1)
			return embedded.ErrDropTaken
		}
		return nil
	})
	f.trade(n)
	f.settle()
	waits("dead", 1)
	f.injected = int(injected.Load())
	facts := f.judge(check.Expect{Dead: []check.Waiting{{Group: "email", Key: bad, Reason: "permanent"}}, MailRepeats: 3})
	if got := facts.MailRepeats(); got != 3 {
		t.Errorf("%d mails came again under their Message-ID, want the 3 that were taken without an answer", got)
	}
	if got := f.metric("email", "dead_letters_total"); got != 1 || !f.logged("level=ERROR", "dead letter", "reason=permanent", bad) {
		t.Errorf("%v dead letters are counted, want 1, which the log tells", got)
	}
}

func atoi(t testing.TB, text string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
