package main

import (
	"fmt"
	"net/smtp"
	"strings"

	"example.com/keyline/schemas"
	"example.com/keyline/services/email"
)

// peerMailer sends the mails of the others' shops: the same words as ours, over connections that
// are kept. It is safe for concurrent use.
type peerMailer struct {
	addr string
	idle chan *smtp.Client
}

func newPeerMailer(addr string) *peerMailer {
	return &peerMailer{addr, make(chan *smtp.Client, partitions)}
}

func (m *peerMailer) send(c confirmedEvent) (err error) {
	client, err := m.take()
	if err != nil {
		return fmt.Errorf("reach the mail server: %w", err)
	}
	defer func() {
		select {
		case m.idle <- client:
		default:
			_ = client.Close() // one more than is ever needed at once
		}
	}()
	if err := client.Mail("shop@keyline.example"); err != nil {
		return err
	}
	if err := client.Rcpt(c.CustomerEmail); err != nil {
		return err
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(compose(c)); err != nil {
		return err
	}
	return w.Close()
}

func (m *peerMailer) take() (*smtp.Client, error) {
	select {
	case c := <-m.idle:
		return c, nil
	default:
		return smtp.Dial(m.addr)
	}
}

func compose(c confirmedEvent) []byte {
	letter := email.Confirmation(schemas.OrderConfirmed{OrderID: c.OrderID, TotalCents: c.TotalCents, Currency: c.Currency})
	const boundary = "keyline-alternative"
	return []byte(strings.ReplaceAll(fmt.Sprintf(`From: "Keyline Shop" <shop@keyline.example>
To: <%s>
Subject: %s
Message-ID: <%s@keyline.example>
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=%[6]s

--%[6]s
Content-Type: text/plain; charset=UTF-8

%[4]s
--%[6]s
Content-Type: text/html; charset=UTF-8

%[5]s
--%[6]s--
`, c.CustomerEmail, letter.Subject(), c.OrderID, letter.Text(), letter.HTML(), boundary), "\n", "\r\n"))
}
