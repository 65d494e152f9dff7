//go:build unix

package faults_test

import (
	"bufio"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/keyline/services/all/check"
)

// sink is a mail server that keeps the Message-IDs of what it has taken, in their order, and
// can misbehave.
type sink struct {
	addr string

	mu    sync.Mutex
	l     net.Listener
	conns map[net.Conn]bool
	taken []check.Mail
	tries map[string]int
	fault func(id string, try int) reply // nil: takes everything
}

// reply is how the sink treats a mail.
type reply struct {
	delay time.Duration // before anything else
	code  string        // such as "451"; empty: it takes the mail and says 250
	cut   bool          // it hangs up in place of the answer
	after func()        // called once the mail is taken, before the answer
}

func newSink(t testing.TB) *sink {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{addr: l.Addr().String(), l: l, conns: map[net.Conn]bool{}, tries: map[string]int{}}
	var all sync.WaitGroup
	all.Go(func() { s.listen(l, &all) })
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for c := range s.conns {
			c.Close()
		}
		s.mu.Unlock()
		all.Wait()
	})
	return s
}

func (s *sink) listen(l net.Listener, all *sync.WaitGroup) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		all.Go(func() {
			s.serve(c)
			c.Close()
			s.mu.Lock()
			delete(s.conns, c)
			s.mu.Unlock()
		})
	}
}

// misbehave sets what the sink does with the mails to come; nil is what it should do.
func (s *sink) misbehave(fault func(id string, try int) reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
}

// mails are those that were taken, in their order.
func (s *sink) mails() []check.Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]check.Mail{}, s.taken...)
}

var messageID = regexp.MustCompile(`(?mi)^Message-ID:\s*<([^>]*)>`)

func (s *sink) serve(c net.Conn) {
	in := bufio.NewReader(c)
	say := func(line string) { _, _ = io.WriteString(c, line+"\r\n") } // who hangs up reads nothing
	say("220 sink")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		switch verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " "); verb {
		case "QUIT":
			say("221 bye")
			return
		case "DATA":
			say("354 go on")
			if s.data(in, say) {
				return
			}
		default:
			say("250 ok")
		}
	}
}

// data takes one mail, or not.
func (s *sink) data(in *bufio.Reader, say func(string)) (over bool) {
	var text strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return true
		}
		if line == ".\r\n" {
			break
		}
		text.WriteString(line)
	}
	id := "?"
	if m := messageID.FindStringSubmatch(text.String()); m != nil {
		id = m[1]
	}
	s.mu.Lock()
	try := s.tries[id]
	s.tries[id]++
	fault := s.fault
	s.mu.Unlock()
	var how reply
	if fault != nil {
		how = fault(id, try)
	}
	if how.delay > 0 {
		lasting(how.delay)
	}
	if how.code == "" {
		s.mu.Lock()
		s.taken = append(s.taken, check.Mail{ID: id})
		s.mu.Unlock()
		if how.after != nil {
			how.after()
		}
		how.code = "250"
	}
	if !how.cut {
		say(how.code + " so it is")
	}
	return how.cut
}
