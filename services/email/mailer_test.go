package email_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/services/email"
)

// refuse is a fault that answers so often with an error, and counts the mails it saw.
func refuse(err error, times int64, seen *atomic.Int64) func(context.Context, embedded.Mail) error {
	return func(context.Context, embedded.Mail) error {
		if seen.Add(1) <= times {
			return err
		}
		return nil
	}
}

const forGood = 1 << 30

func answer(code int, enhanced smtp.EnhancedCode) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "<ada@customer.example> is not welcome"}
}

// The classes of failure, by what becomes of the event.
func TestMailer_failures(t *testing.T) {
	t.Parallel()
	for _, code := range []int{450, 451, 452} {
		t.Run(fmt.Sprint("after a ", code, " the mail is tried again"), func(t *testing.T) {
			t.Parallel()
			r := newRig(t).work()
			var seen atomic.Int64
			r.box.Fail(refuse(answer(code, smtp.EnhancedCode{4, 2, 0}), 3, &seen))
			r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
			r.mails(1)
			if got := seen.Load(); got != 4 {
				t.Errorf("%d attempts, want 4", got)
			}
			if all := r.published(); len(all) != 1 || all[0].meta.Version != 1 {
				t.Errorf("published %+v, want one event of version 1", all)
			}
			r.noAddress()
		})
	}
	t.Run("attempts are counted, and the last makes a dead letter", func(t *testing.T) {
		t.Parallel()
		box := newMailbox(t)
		r := newRigWith(t, sender(box.Addr()), inbox.Config{Attempts: 3}).work()
		var seen atomic.Int64
		box.Fail(refuse(answer(452, smtp.EnhancedCode{4, 2, 2}), forGood, &seen))
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.untilWaits("o-1", "dead after 3")
		if n := r.Count(`select count(*) from waiting_event where reason = 'exhausted' and error = 'mail server answered 452 4.2.2'`); n != 1 || seen.Load() != 3 {
			t.Errorf("%d dead letters after %d attempts, want 1 after 3", n, seen.Load())
		}
		r.noAddress()
	})
	for _, code := range []int{550, 552, 554} {
		t.Run(fmt.Sprint("a ", code, " is for good"), func(t *testing.T) {
			t.Parallel()
			r := newRig(t).serve().work()
			var seen atomic.Int64
			r.box.Fail(refuse(answer(code, smtp.EnhancedCode{5, 1, 1}), forGood, &seen))
			r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
			r.untilWaits("o-1", "dead after 1")
			if n := r.Count(`select count(*) from waiting_event where reason = 'permanent' and error = $1`, fmt.Sprintf("mail server answered %d 5.1.1", code)); n != 1 {
				t.Errorf("%d dead letters, want 1", n)
			}
			if all := r.ledger("o-1"); seen.Load() != 1 || len(all) != 1 || all[0].SentAt != nil || len(r.published()) != 0 {
				t.Errorf("after %d attempts the ledger is %+v, published %v; want one row that is not sent", seen.Load(), all, r.published())
			}
			r.noAddress()
		})
	}
	t.Run("after a 421 it waits, without counting, for the server", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).work()
		var seen atomic.Int64
		r.box.Fail(refuse(answer(421, smtp.EnhancedCode{4, 3, 2}), forGood, &seen))
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.untilWaits("o-1", "unavailable after 0")
		r.take(placed("o-2", "bob@customer.example"), confirmed("o-2"))
		r.untilWaits("o-2", "unavailable after 0")
		r.box.Fail(nil)
		r.mails(2)
		r.noAddress()
	})
	t.Run("so it does for one that is in trouble for longer than all attempts would last", func(t *testing.T) {
		t.Parallel()
		box := newMailbox(t)
		r := newRigWith(t, sender(box.Addr()), inbox.Config{Attempts: 2}).work()
		r.box = box
		var seen atomic.Int64
		box.Fail(refuse(answer(451, smtp.EnhancedCode{4, 3, 0}), 6, &seen))
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.take(placed("o-2", "bob@customer.example"), confirmed("o-2"))
		r.mails(2)
		if n := r.Count(`select count(*) from waiting_event where reason <> ''`); n != 0 || seen.Load() < 8 {
			t.Errorf("%d dead letters after %d attempts, want none after 8 at least", n, seen.Load())
		}
		r.noAddress()
	})
	t.Run("a recipient who is put off keeps nobody else waiting", func(t *testing.T) {
		t.Parallel()
		box := newMailbox(t)
		r := newRigWith(t, sender(box.Addr()), inbox.Config{Attempts: 1 << 30}).work()
		r.box = box
		box.Fail(func(_ context.Context, m embedded.Mail) error {
			if m.To[0] == "ada@customer.example" {
				return answer(451, smtp.EnhancedCode{4, 2, 1})
			}
			return nil
		})
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		eventtest.Until(t, "some attempts", func() bool { return r.Count(`select count(*) from waiting_event where attempts > 1`) == 1 })
		for i := range 5 {
			order := fmt.Sprint("o-", i+2)
			r.take(placed(order, "bob@customer.example"), confirmed(order))
		}
		eventtest.Until(t, "the others' mails are sent", func() bool { return len(box.Messages()) == 5 })
		if logs := r.Logs.String(); strings.Contains(logs, "unavailable") {
			t.Errorf("the circuit has opened:\n%s", logs)
		}
	})
	t.Run("so it does for one that refuses connections", func(t *testing.T) {
		t.Parallel()
		box := newMailbox(t)
		var back atomic.Bool
		cfg := sender(box.Addr())
		cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if !back.Load() {
				addr = "127.0.0.1:1" // nobody listens there
			}
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		}
		r := newRigWith(t, cfg, inbox.Config{Attempts: 1}).work()
		r.box = box
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.untilWaits("o-1", "unavailable after 0")
		back.Store(true)
		r.mails(1)
	})
	t.Run("a mail whose connection breaks in the middle comes again, and one that was taken by then recognisably", func(t *testing.T) {
		t.Parallel()
		r := newRig(t).serve().work()
		var seen atomic.Int64
		r.box.Fail(func(context.Context, embedded.Mail) error {
			switch seen.Add(1) {
			case 1:
				return embedded.ErrDrop
			case 2:
				return embedded.ErrDropTaken
			}
			return nil
		})
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		all := r.mails(2)
		if all[0].ID != all[1].ID {
			t.Errorf("Message-IDs %s and %s, want the same", all[0].ID, all[1].ID)
		}
		if ledger := r.ledger("o-1"); len(ledger) != 1 || ledger[0].SentAt == nil || len(r.published()) != 1 {
			t.Errorf("the ledger is %+v, published %v; want one mail", ledger, r.published())
		}
		r.noAddress()
	})
	t.Run("a server that hangs is given up when the claim ends", func(t *testing.T) {
		t.Parallel()
		box := newMailbox(t)
		r := newRigWith(t, sender(box.Addr()), inbox.Config{Claim: 1500 * time.Millisecond}).work()
		r.box = box
		var seen atomic.Int64
		box.Fail(func(ctx context.Context, _ embedded.Mail) error {
			if seen.Add(1) == 1 {
				<-ctx.Done() // the mailbox is closed
				return ctx.Err()
			}
			return nil
		})
		begun := time.Now()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.mails(1)
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("the mail took %v, want less than one step's timeout", took)
		}
		r.noAddress()
	})
	t.Run("a mail that breaks every connection does not hold up the others", func(t *testing.T) {
		t.Parallel()
		box := newMailbox(t)
		r := newRigWith(t, sender(box.Addr()), inbox.Config{Attempts: 4}).work()
		r.box = box
		box.Fail(func(_ context.Context, m embedded.Mail) error {
			if m.To[0] == "ada@customer.example" {
				return embedded.ErrDrop
			}
			return nil
		})
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.untilWaits("o-1", "unavailable after 0") // it could be the server
		sent := 0
		eventtest.Until(t, "it is found to be the one that breaks them", func() bool {
			sent++
			order := fmt.Sprint("o-", sent+1)
			r.take(placed(order, "bob@customer.example"), confirmed(order))
			eventtest.Until(t, "the other mail is sent", func() bool {
				return len(box.Messages()) >= min(sent, 100) && r.Count(`select count(*) from waiting_event`) <= 1
			})
			return r.Count(`select count(*) from waiting_event where reason = 'exhausted'`) == 1
		})
		r.untilWaits("o-1", "dead after 4")
		r.noAddress()
	})
}

// server is a mail server that says what a test wants: script has its answers by the first
// word of a command, "DATA." for the end of a mail; an empty answer drops the connection.
// heard, if set, is called with each first word.
func server(t *testing.T, script map[string]string, heard func(verb string)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l, script, heard)
}

func serve(t *testing.T, l net.Listener, script map[string]string, heard func(verb string)) (addr string) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			talk(conn, script, heard)
		}
	}()
	t.Cleanup(func() { l.Close(); <-ended })
	return l.Addr().String()
}

func talk(conn net.Conn, script map[string]string, heard func(verb string)) {
	defer conn.Close()
	say := func(verb, otherwise string) bool {
		text, ok := script[verb]
		if !ok {
			text = otherwise
		}
		fmt.Fprint(conn, text, "\r\n")
		return text != ""
	}
	if !say("hello", "220 test") {
		return
	}
	for lines, data := bufio.NewScanner(conn), false; lines.Scan(); {
		verb, _, _ := strings.Cut(lines.Text(), " ")
		if heard != nil {
			heard(verb)
		}
		switch {
		case data && verb != ".":
		case data:
			data = false
			if !say("DATA.", "250 taken") {
				return
			}
		case verb == "DATA":
			_, refused := script[verb]
			data = !refused
			if !say(verb, "354 go on") {
				return
			}
		case !say(verb, "250 fine"):
			return
		}
	}
}

func TestMailer_conversations(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		script map[string]string
		state  string
		err    string
	}{
		{"a server that is closing says so at once", map[string]string{"hello": "421 closing"}, "unavailable after 0", "421"},
		{"a server that never takes mail", map[string]string{"hello": "554 no mail here"}, "unavailable after 0", "554"},
		{"a server that hangs up", map[string]string{"hello": ""}, "unavailable after 0", "reach the mail server"},
		{"a recipient refused for good", map[string]string{"RCPT": "550 5.1.1 <ada@customer.example>: no such user"}, "dead after 1", "mail server answered 550"},
		{"a recipient refused for now", map[string]string{"RCPT": "450 4.2.1 <ada@customer.example>: greylisted"}, "dead after 2", "mail server answered 450"},
		{"a sender refused", map[string]string{"MAIL": "553 <shop@keyline.example> may not send to <ada@customer.example>"}, "dead after 1", "mail server answered 553"},
		{"a recipient who is put off without a reason", map[string]string{"RCPT": "451 later, ada@customer.example"}, "dead after 2", "mail server answered 451"},
		{"a server that is full at the recipient", map[string]string{"EHLO": "250-test\r\n250 ENHANCEDSTATUSCODES", "RCPT": "452 4.3.1 ada@customer.example: disk full"}, "unavailable after 0", "mail server answered 452 4.3.1"},
		{"a mailbox that is full behind the mail", map[string]string{"EHLO": "250-test\r\n250 ENHANCEDSTATUSCODES", "DATA.": "452 4.2.2 ada@customer.example: full"}, "dead after 2", "mail server answered 452 4.2.2"},
		{"a sender that is put off", map[string]string{"EHLO": "250-test\r\n250 ENHANCEDSTATUSCODES", "MAIL": "451 4.1.8 no such domain today"}, "unavailable after 0", "mail server answered 451 4.1.8"},
		{"a mail refused before it is sent", map[string]string{"DATA": "451 not now, ada@customer.example"}, "unavailable after 0", "mail server answered 451"},
		{"a connection lost behind the recipient", map[string]string{"RCPT": ""}, "unavailable after 0", "the connection to the mail server broke"},
		{"a connection lost behind the mail", map[string]string{"DATA.": ""}, "unavailable after 0", "the connection to the mail server broke"},
		{"a mail taken by a server that says no goodbye", map[string]string{"QUIT": "", "RSET": ""}, "done", ""},
		{"a mail taken by a server that is full by now", map[string]string{"QUIT": "421 closing", "RSET": "421 closing", "NOOP": "421 closing"}, "done", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sender(server(t, tt.script, nil)), inbox.Config{Attempts: 2})
			r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
			r.work()
			r.untilWaits("o-1", tt.state)
			var text string
			err := r.DB.QueryRow(t.Context(), `select error from waiting_event`).Scan(&text)
			if tt.state != "done" && (err != nil || !strings.Contains(text, tt.err)) {
				t.Errorf("the error is %q, %v; want %q in it", text, err, tt.err)
			}
			if sent := r.Count(`select count(*) from mail where sent_at > 0`); sent != map[bool]int{true: 1}[tt.state == "done"] {
				t.Errorf("%d mails are sent by the ledger, and the event is %s", sent, tt.state)
			}
			r.noAddress()
		})
	}
}

func TestSMTPConfig(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  email.SMTPConfig
		want string // the variable; empty: fine
	}{
		{"an address", email.SMTPConfig{Addr: "mail.example.com:587"}, ""},
		{"an address of IPv6", email.SMTPConfig{Addr: "[::1]:25"}, ""},
		{"TLS from the first byte", email.SMTPConfig{Addr: "mail.example.com:465", TLS: "tls", Username: "u", Password: "p"}, ""},
		{"no encryption, no password", email.SMTPConfig{Addr: "mail.example.com:25", TLS: "off"}, ""},
		{"no address", email.SMTPConfig{}, "SMTP_ADDR"},
		{"no port", email.SMTPConfig{Addr: "mail.example.com"}, "SMTP_ADDR"},
		{"no host", email.SMTPConfig{Addr: ":25"}, "SMTP_ADDR"},
		{"a port in words", email.SMTPConfig{Addr: "mail.example.com:smtp"}, "SMTP_ADDR"},
		{"port zero", email.SMTPConfig{Addr: "mail.example.com:0"}, "SMTP_ADDR"},
		{"a port too high", email.SMTPConfig{Addr: "mail.example.com:65536"}, "SMTP_ADDR"},
		{"a sender that is none", email.SMTPConfig{Addr: "mail.example.com:25", From: "the shop"}, "SMTP_FROM"},
		{"an unknown way of encryption", email.SMTPConfig{Addr: "mail.example.com:25", TLS: "yes"}, "SMTP_TLS"},
		{"a password in clear text", email.SMTPConfig{Addr: "mail.example.com:25", TLS: "off", Username: "u", Password: "secret"}, "SMTP_TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.cfg.From == "" {
				tt.cfg.From = "shop@keyline.example"
			}
			_, err := email.New(nil, nil, tt.cfg, nil, nil)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret")) {
				t.Errorf("%+v: %v, want an error that names %q", tt.cfg, err, tt.want)
			}
		})
	}
	for _, tls := range []string{"", "auto", "starttls"} {
		t.Run("with a username and "+tls+" nothing goes over a connection in clear text", func(t *testing.T) {
			t.Parallel()
			said := make(chan string, 1000)
			cfg := sender(server(t, map[string]string{"EHLO": "250-test\r\n250 AUTH CRAM-MD5 PLAIN LOGIN"}, func(verb string) { said <- verb }))
			cfg.Username, cfg.Password, cfg.TLS = "shop", "secret", tls
			r := newRigWith(t, cfg, inbox.Config{})
			r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
			r.work()
			r.untilWaits("o-1", "unavailable after 0")
			for len(said) > 0 {
				if verb := <-said; verb != "EHLO" && verb != "QUIT" {
					t.Errorf("the server heard %s", verb)
				}
			}
			if logs := r.Logs.String(); strings.Contains(logs, "secret") {
				t.Errorf("the password is in the log:\n%s", logs)
			}
			r.noAddress()
		})
	}
}

// Where a connection is encrypted from its first byte, the password may travel as it is.
func TestMailer_tls(t *testing.T) {
	t.Parallel()
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var authenticated atomic.Bool
	cfg := sender(serve(t, tls.NewListener(l, &tls.Config{Certificates: web.TLS.Certificates}), map[string]string{
		"EHLO": "250-test\r\n250 AUTH PLAIN", "AUTH": "235 welcome",
	}, func(verb string) {
		if verb == "AUTH" {
			authenticated.Store(true)
		}
	}))
	cfg.Username, cfg.Password, cfg.TLS = "shop", "secret", "tls"
	send := func(r *rig, want string) {
		t.Helper()
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.work().untilWaits("o-1", want)
	}
	send(newRigWith(t, cfg, inbox.Config{}), "unavailable after 0")
	if authenticated.Load() {
		t.Error("the password was sent to a server whose certificate nobody knows")
	}
	r := newRigWith(t, cfg, inbox.Config{})
	r.Trust(roots)
	send(r, "done")
	if !authenticated.Load() {
		t.Error("the server was never told the password")
	}
}
