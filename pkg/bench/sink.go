package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"sync"
	"time"
)

// sink is an SMTP server that keeps of a mail when it came and which order it confirms. It says
// yes to everything and offers no extension, so that it costs next to nothing.
type sink struct {
	listener net.Listener
	serving  sync.WaitGroup
	patience time.Duration // after the last mail, until those that are missing count as lost

	mu      sync.Mutex
	conns   map[net.Conn]bool
	mails   map[string]*arrival // by the order
	missing map[string]bool     // orders whose mail is waited for
	last    time.Time           // when the last of those came
	settled chan struct{}       // gets a value when nothing is missing
}

// arrival is when the first mail about an order came, and how many did.
type arrival struct {
	at time.Time
	n  int
}

func startSink() (*sink, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &sink{
		listener: ln, patience: lostAfter, conns: map[net.Conn]bool{}, mails: map[string]*arrival{}, missing: map[string]bool{}, settled: make(chan struct{}, 1),
	}
	s.serving.Go(s.accept)
	return s, nil
}

func (s *sink) addr() string { return s.listener.Addr().String() }

func (s *sink) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.conns[conn] = true
		s.mu.Unlock()
		s.serving.Go(func() {
			_ = s.converse(conn) // a broken connection is the sender's to tell
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			conn.Close()
		})
	}
}

// close ends all conversations.
func (s *sink) close() error {
	err := s.listener.Close()
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
	return err
}

// converse speaks SMTP: one answer to each line, RFC 5321.
func (s *sink) converse(conn net.Conn) error {
	r := bufio.NewReader(conn)
	say := func(text string) error {
		_, err := conn.Write([]byte(text + "\r\n"))
		return err
	}
	if err := say("220 sink"); err != nil {
		return err
	}
	for {
		line, err := r.ReadSlice('\n')
		if err != nil || len(line) < 4 {
			return err
		}
		switch string(bytes.ToUpper(line[:4])) {
		case "QUIT":
			return say("221 bye")
		case "DATA":
			if err := say("354 go on"); err != nil {
				return err
			}
			if err := s.read(r); err != nil {
				return err
			}
		}
		if err := say("250 ok"); err != nil {
			return err
		}
	}
}

// The lines by which a mail is known.
var (
	confirmedSubject = []byte("Subject: Your order is confirmed")
	orderLine        = []byte("Order ")
)

// read takes a mail to its end, and notes it.
func (s *sink) read(r *bufio.Reader) error {
	confirmed, id := false, ""
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case len(line) == 1 && line[0] == '.':
			if confirmed && id != "" {
				s.note(id, time.Now())
			}
			return nil
		case bytes.Equal(line, confirmedSubject):
			confirmed = true
		case id == "" && bytes.HasPrefix(line, orderLine):
			id = string(line[len(orderLine):])
		}
	}
}

func (s *sink) note(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.mails[id]; a != nil {
		a.n++
		return
	}
	s.mails[id] = &arrival{at, 1}
	if s.missing[id] {
		s.last = at
		delete(s.missing, id)
		s.tell()
	}
}

// expect lets await wait for an order's mail, unless it has come already.
func (s *sink) expect(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mails[id] == nil {
		s.missing[id] = true
	}
}

// tell wakes await if nothing is missing.
func (s *sink) tell() {
	if len(s.missing) == 0 {
		select {
		case s.settled <- struct{}{}:
		default:
		}
	}
}

// lostAfter is the patience for mails.
const lostAfter = 20 * time.Second

// await returns once no mail is missing, or the rest is given up.
func (s *sink) await(ctx context.Context) error {
	look := time.NewTicker(s.patience / 10)
	defer look.Stop()
	began := time.Now()
	for {
		s.mu.Lock()
		n, quiet := len(s.missing), min(time.Since(s.last), time.Since(began))
		if n > 0 && quiet > s.patience {
			clear(s.missing)
		}
		s.mu.Unlock()
		if n == 0 || quiet > s.patience {
			return nil
		}
		select {
		case <-s.settled: // or were, before some order was expected
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// of returns when an order's first mail came, and how many did.
func (s *sink) of(id string) arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.mails[id]; a != nil {
		return *a
	}
	return arrival{}
}
