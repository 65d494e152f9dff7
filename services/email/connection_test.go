package email_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/emersion/go-smtp"

	"example.com/keyline/pkg/embedded"
	"example.com/keyline/pkg/eventtest"
	"example.com/keyline/pkg/inbox"
	"example.com/keyline/services/email"
)

// wires are the connections that were made, of which the last can be cut by the other end.
type wires struct {
	mu  sync.Mutex
	all []*wire
}

// wire is a connection that the mail server has closed once gone is closed.
type wire struct {
	net.Conn
	gone chan struct{}
}

func (w *wire) Read(b []byte) (int, error) {
	select {
	case <-w.gone:
		return 0, net.ErrClosed
	default:
		return w.Conn.Read(b)
	}
}

func (w *wires) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, &wire{conn, make(chan struct{})})
	return w.all[len(w.all)-1], nil
}

func (w *wires) made() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all)
}

func TestMailer_connections(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) (*rig, *wires) {
		box, w := newMailbox(t), &wires{}
		cfg := sender(box.Addr())
		cfg.Dial = w.dial
		r := newRigWith(t, cfg, inbox.Config{Attempts: 1}).work()
		r.box = box
		return r, w
	}
	t.Run("mails one after the other share one", func(t *testing.T) {
		t.Parallel()
		r, w := open(t)
		for i := range 5 {
			id := fmt.Sprint("o-", i)
			r.take(placed(id, "ada@customer.example"), confirmed(id))
			r.mails(i + 1)
		}
		if n := w.made(); n != 1 {
			t.Errorf("%d connections, want one", n)
		}
	})
	t.Run("one that the server has closed meanwhile costs no attempt and is told nobody", func(t *testing.T) {
		t.Parallel()
		r, w := open(t)
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.mails(1)
		close(w.all[0].gone)
		r.take(placed("o-2", "ada@customer.example"), confirmed("o-2"))
		r.mails(2)
		if n := w.made(); n != 2 {
			t.Errorf("%d connections, want two", n)
		}
		if n := r.Count(`select count(*) from waiting_event where attempts > 0 or reason <> ''`); n != 0 {
			t.Errorf("%d attempts were counted", n)
		}
	})
	t.Run("one that breaks once the server has heard the mail ends its attempt", func(t *testing.T) {
		t.Parallel()
		r, _ := open(t)
		var seen, first, second atomic.Int64
		r.box.Fail(func(context.Context, embedded.Mail) error {
			switch seen.Add(1) {
			case 2:
				first.Store(int64(r.Count(`select claim from waiting_key`)))
				return embedded.ErrDropTaken
			case 3:
				second.Store(int64(r.Count(`select claim from waiting_key`)))
			}
			return nil
		})
		r.take(placed("o-1", "ada@customer.example"), confirmed("o-1"))
		r.mails(1)
		r.take(placed("o-2", "ada@customer.example"), confirmed("o-2"))
		r.mails(3)
		if first.Load() == second.Load() {
			t.Errorf("it came again under the claim of the first attempt, %d", first.Load())
		}
	})
}

// stingy is a mail server that takes one mail over a connection, and refuses the next.
type stingy struct {
	refuse *smtp.SMTPError
	taken  *atomic.Int64
	mails  int
}

func (s *stingy) NewSession(*smtp.Conn) (smtp.Session, error) {
	return &stingy{refuse: s.refuse, taken: s.taken}, nil
}

func (s *stingy) Mail(string, *smtp.MailOptions) error {
	if s.mails++; s.mails > 1 {
		return s.refuse
	}
	return nil
}

func (s *stingy) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (s *stingy) Reset()                               {}
func (s *stingy) Logout() error                        { return nil }
func (s *stingy) Data(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	s.taken.Add(1)
	return err
}

// Many servers have a limit of mails or time for a connection. That one is over says nothing of the mail.
func TestMailer_limits(t *testing.T) {
	t.Parallel()
	for _, code := range []int{421, 452, 530} {
		t.Run(fmt.Sprint("a ", code, " over a used connection is no answer to the mail"), func(t *testing.T) {
			t.Parallel()
			backend := &stingy{refuse: &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 5, 3}, Message: "enough"}, taken: &atomic.Int64{}}
			server, ln := smtp.NewServer(backend), listen(t)
			served := make(chan error, 1)
			go func() { served <- server.Serve(ln) }()
			t.Cleanup(func() { _ = server.Close(); <-served })
			r := newRigWith(t, sender(ln.Addr().String()), inbox.Config{Attempts: 1}).work()
			for i := range 3 {
				id := fmt.Sprint("o-", i)
				r.take(placed(id, "ada@customer.example"), confirmed(id))
				eventtest.Until(t, "the mail was sent", func() bool { return r.Count(`select count(*) from mail where sent_at > 0`) == i+1 })
			}
			if n := backend.taken.Load(); n != 3 {
				t.Errorf("%d mails, want 3", n)
			}
		})
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// rests returns a connection to a mail server that tells how it was left.
func rests(t *testing.T, left chan string) *email.Connection {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		fmt.Fprint(theirs, "220 here\r\n")
		said := ""
		for lines := bufio.NewScanner(theirs); said != "QUIT" && lines.Scan(); {
			said = lines.Text()
			fmt.Fprint(theirs, "250 yes\r\n")
		}
		left <- said
	}()
	c, err := email.NewConnection(ours)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestIdle(t *testing.T) {
	t.Parallel()
	t.Run("a connection that rests is left after two seconds, and one that is used is not", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			idle, left := email.NewIdle(), make(chan string, 9)
			begun := time.Now()
			idle.Put(rests(t, left))
			idle.Put(rests(t, left))
			<-time.After(time.Second)
			idle.Put(idle.Take())
			if how := <-left; how != "QUIT" {
				t.Errorf("it was left with %s", how)
			}
			if took := time.Since(begun); took != 2*time.Second {
				t.Errorf("the one that nobody took was left after %v", took)
			}
			<-left
			if took := time.Since(begun); took != 3*time.Second {
				t.Errorf("the other one was left after %v", took)
			}
			if idle.Take() != nil {
				t.Error("one is there still")
			}
		})
	})
	t.Run("one that has carried a hundred mails is left", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			idle, left := email.NewIdle(), make(chan string, 9)
			idle.Put(rests(t, left))
			for range 98 {
				idle.Put(idle.Take())
			}
			if len(left) > 0 {
				t.Error("it was left before")
			}
			idle.Put(idle.Take())
			<-left
			idle.Close()
		})
	})
	t.Run("at the end all are left", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			idle, left := email.NewIdle(), make(chan string, 9)
			idle.Put(rests(t, left))
			idle.Close()
			<-left
			idle.Put(rests(t, left)) // by a mail that was under way
			idle.Close()
			<-left
		})
	})
}
