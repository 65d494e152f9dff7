package email

import (
	"errors"
	"net"
	"sync"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// connection is one to the mail server, which carries mails one after the other.
type connection struct {
	wire    net.Conn
	client  *gomail.Client
	session *smtp.Client
	mails   int
	since   time.Time // nothing goes over it
}

// cut ends a connection without a word.
func (c *connection) cut() {
	if c.wire != nil {
		_ = c.wire.Close()
	}
}

// leave ends a connection in which nothing is under way. A server that says no goodbye changes
// nothing.
func (c *connection) leave() {
	_ = c.wire.SetDeadline(time.Now().Add(time.Second))
	_ = c.session.Quit()
	c.cut()
}

// unheard reports whether a server has not even taken the mail's first word: over a connection that
// had rested that says nothing of the mail. The connection was closed meanwhile, or may carry no more
// mails, or for no longer.
func unheard(err error) bool {
	var answer *gomail.SendError
	return errors.As(err, &answer) && answer.Reason == gomail.ErrSMTPMailFrom
}

const (
	// restsFor is how long a connection is kept for the next mail: making one costs more than a
	// mail, but a server's connections are few.
	restsFor = 2 * time.Second
	// mailsEach is how many mails a connection carries. Many servers have a limit.
	mailsEach = 100
)

// idle are connections that wait for a mail.
type idle struct {
	mu     sync.Mutex
	all    []*connection // the one that has rested longest comes first
	timer  *time.Timer   // nil while there are none
	closed bool
	leaves sync.WaitGroup
}

// take returns the connection that has rested least, or nil.
func (i *idle) take() *connection {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(i.all)
	if n == 0 {
		return nil
	}
	c := i.all[n-1]
	i.all = i.all[:n-1]
	return c
}

// put keeps a connection that has carried a mail, or leaves it.
func (i *idle) put(c *connection) {
	c.mails++
	i.mu.Lock()
	defer i.mu.Unlock()
	if c.mails >= mailsEach || i.closed {
		i.leave(c)
		return
	}
	c.since = time.Now()
	i.all = append(i.all, c)
	if i.timer == nil {
		i.timer = time.AfterFunc(restsFor, i.sweep)
	}
}

// leave ends a connection, for which nobody who has a mail should wait. The caller holds mu.
func (i *idle) leave(c *connection) { i.leaves.Go(c.leave) }

// sweep leaves the connections that have rested for long enough.
func (i *idle) sweep() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.all) > 0 && (i.closed || time.Since(i.all[0].since) >= restsFor) {
		i.leave(i.all[0])
		i.all = i.all[1:]
	}
	if i.timer = nil; len(i.all) > 0 {
		i.timer = time.AfterFunc(restsFor-time.Since(i.all[0].since), i.sweep)
	}
}

// close leaves all connections, and waits until that is done.
func (i *idle) close() {
	i.mu.Lock()
	i.closed = true
	i.mu.Unlock()
	i.sweep()
	i.leaves.Wait()
}
