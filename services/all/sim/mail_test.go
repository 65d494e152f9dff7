//go:build synctests

package sim_test

import (
	"bufio"
	"fmt"
	"net"
	"net/mail"
	"strings"
	"sync"
	"time"

	"example.com/keyline/services/all/check"
)

const mailAddr = "mail:25"

// mailServer is an SMTP server that keeps what it takes.
type mailServer struct {
	w    *world
	host *host
	l    net.Listener

	mu    sync.Mutex
	mails []check.Mail
	mood  func() mood
}

// mood is what the server does with one mail.
type mood struct {
	greeting string        // in place of 220
	slow     time.Duration // before its answer to the mail
	answer   string        // in place of 250
	drop     bool          // the connection breaks before the answer
	taken    bool          // the mail is kept all the same
}

func (w *world) startMail() *mailServer {
	m := &mailServer{w: w, host: &host{name: "mail"}, mood: func() mood { return mood{} }}
	var err error
	if m.l, err = w.net.listen(m.host, mailAddr); err != nil {
		w.t.Fatal(err)
	}
	w.parts.Go(func() {
		for {
			c, err := m.l.Accept()
			if err != nil {
				return
			}
			w.parts.Go(func() { m.serve(c) })
		}
	})
	return m
}

func (m *mailServer) feel(mood func() mood) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mood = mood
}

// serve has one conversation.
func (m *mailServer) serve(c net.Conn) {
	defer c.Close()
	m.mu.Lock()
	today := m.mood()
	m.mu.Unlock()
	say := func(text string) bool {
		_, err := fmt.Fprintf(c, "%s\r\n", text)
		return err == nil
	}
	if today.greeting != "" {
		m.w.log.count("mail server closed")
		say(today.greeting)
		return
	}
	say("220 mail ready")
	in := bufio.NewReader(c)
	for {
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Minute))
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		ok := true
		switch verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(line)), " "); verb {
		case "DATA":
			if !say("354 go on") {
				return
			}
			ok = m.take(in, today, say)
		case "QUIT":
			say("221 bye")
			return
		default:
			ok = say("250 fine")
		}
		if !ok {
			return
		}
	}
}

// take reads a mail and answers as the mood is; false ends the conversation.
func (m *mailServer) take(in *bufio.Reader, today mood, say func(string) bool) bool {
	var raw strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		if line == ".\r\n" {
			break
		}
		raw.WriteString(line)
	}
	msg, err := mail.ReadMessage(strings.NewReader(raw.String()))
	if err != nil {
		m.w.complain("a mail cannot be read: %v", err)
		return false
	}
	if today.slow > 0 {
		m.w.log.count("mail server slow")
		<-time.After(today.slow)
	}
	if today.answer == "" && !today.drop || today.taken {
		id := msg.Header.Get("Message-Id")
		m.w.log.line("mail", "took %s", id)
		m.mu.Lock()
		m.mails = append(m.mails, check.Mail{ID: id})
		m.mu.Unlock()
	}
	switch {
	case today.drop:
		m.w.log.count("mail connection lost")
		return false
	case today.answer != "":
		m.w.log.count("mail refused " + today.answer[:3])
		return say(today.answer)
	}
	return say("250 taken")
}

func (m *mailServer) taken() []check.Mail {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]check.Mail{}, m.mails...)
}
