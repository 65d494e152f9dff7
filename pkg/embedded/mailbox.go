package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	maxMailBytes = 1 << 20
	keptMails    = 1000
	idleTimeout  = 5 * time.Minute // what RFC 5321 asks of a server
)

// What a fault function returns to lose a connection.
var (
	// ErrDrop cuts the connection; the mail is not kept.
	ErrDrop = errors.New("connection dropped before the mail was taken")
	// ErrDropTaken cuts the connection after the mail was kept, so that the sender cannot
	// know it.
	ErrDropTaken = errors.New("connection dropped after the mail was taken")
)

// MailboxConfig says where the mailbox listens and how much it keeps.
type MailboxConfig struct {
	// Port on 127.0.0.1; 0 is a free one.
	Port int
	// Keep is how many mails are kept, the newest; 0 is 1000.
	Keep int
}

// Mailbox is an SMTP server that delivers to nobody and keeps what it got. Its methods are safe
// for concurrent use.
type Mailbox struct {
	listener *loopback
	server   *smtp.Server
	keep     int
	served   chan struct{} // closed when the listener's loop has ended
	ctx      context.Context
	cancel   context.CancelFunc

	mu      sync.Mutex
	mails   []Mail
	changed chan struct{} // closed and replaced whenever a mail was kept
	fault   func(context.Context, Mail) error
}

// StartMailbox starts a mailbox that accepts mail when it returns.
func StartMailbox(cfg MailboxConfig) (*Mailbox, error) {
	listener, err := listen("tcp", fmt.Sprintf("127.0.0.1:%d", cfg.Port))
	if err != nil {
		return nil, fmt.Errorf("start the embedded mailbox: %w", err)
	}
	m := &Mailbox{
		listener: listener,
		keep:     cmp.Or(cfg.Keep, keptMails),
		served:   make(chan struct{}),
		changed:  make(chan struct{}),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.server = newSMTPServer(m)
	go func() {
		defer close(m.served)
		m.server.Serve(listener) // ends with the listener, which only Close closes
	}()
	return m, nil
}

func newSMTPServer(m *Mailbox) *smtp.Server {
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{box: m, conn: c}, nil
	}))
	s.Domain = "mailbox.localhost"
	s.MaxRecipients = 50
	s.MaxMessageBytes = maxMailBytes
	s.ReadTimeout, s.WriteTimeout = idleTimeout, idleTimeout
	s.EnableSMTPUTF8 = true
	s.ErrorLog = log.New(io.Discard, "", 0) // a broken connection is the client's to report
	return s
}

// Addr is the mailbox's host and port.
func (m *Mailbox) Addr() string { return m.listener.Addr().String() }

// Messages returns the kept mails, the oldest first. They are shared: do not change them.
func (m *Mailbox) Messages() []Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mails)
}

// Count tells how many of the kept mails have this Message-ID.
func (m *Mailbox) Count(id string) int {
	n := 0
	for _, mail := range m.Messages() {
		if mail.ID == id {
			n++
		}
	}
	return n
}

// Wait blocks until done approves of the kept mails, and returns ctx's error if that ends
// first.
func (m *Mailbox) Wait(ctx context.Context, done func([]Mail) bool) error {
	for {
		m.mu.Lock()
		mails, changed := slices.Clone(m.mails), m.changed
		m.mu.Unlock()
		if done(mails) {
			return nil
		}
		select {
		case <-changed:
		case <-m.ctx.Done():
			return fmt.Errorf("wait for mail: the mailbox was closed with %d mails in it", len(mails))
		case <-ctx.Done():
			return fmt.Errorf("wait for mail with %d in the mailbox: %w", len(mails), ctx.Err())
		}
	}
}

// Fail lets fault decide over every mail from now on, before it is kept: nil keeps it, an
// *smtp.SMTPError is the answer given, ErrDrop and ErrDropTaken cut the connection, any other
// error is a 554. The function may block to be slow; its context ends with the mailbox. A nil
// fault ends the faults.
func (m *Mailbox) Fail(fault func(context.Context, Mail) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = fault
}

// Close cuts all connections and returns when nothing of the mailbox runs any more. The mails
// can still be read. Closing again does nothing.
func (m *Mailbox) Close() error {
	m.cancel()
	m.listener.Close()
	<-m.served // no connection is added after this
	m.listener.cut()
	// Its only error is that the listener is closed already.
	m.server.Shutdown(context.Background())
	return nil
}

// take keeps the mail, or tells why not.
func (m *Mailbox) take(mail Mail) error {
	m.mu.Lock()
	fault := m.fault
	m.mu.Unlock()
	var err error
	if fault != nil {
		err = fault(m.ctx, mail)
	}
	if err == nil || errors.Is(err, ErrDropTaken) {
		m.add(mail)
	}
	return err
}

func (m *Mailbox) add(mail Mail) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, mail)
	if over := len(m.mails) - m.keep; over > 0 {
		m.mails = slices.Delete(m.mails, 0, over)
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// session is one connection; go-smtp calls it from one goroutine at a time.
type session struct {
	box  *Mailbox
	conn *smtp.Conn
	from string
	to   []string
}

// Mail starts a mail.
func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.from = from
	return nil
}

// Rcpt adds a recipient.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.to = append(s.to, to)
	return nil
}

// Data reads the mail and hands it to the mailbox.
func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r) // to the end: a mail that breaks off was never sent
	if err != nil {
		return err
	}
	mail, err := readMail(raw)
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: "unreadable mail: " + err.Error()}
	}
	mail.From, mail.To = s.from, s.to
	err = s.box.take(mail)
	if errors.Is(err, ErrDrop) || errors.Is(err, ErrDropTaken) {
		s.conn.Conn().Close()
	}
	return err
}

// Reset forgets the mail that was begun.
func (s *session) Reset() { s.from, s.to = "", nil }

// Logout ends the session.
func (s *session) Logout() error { return nil }
