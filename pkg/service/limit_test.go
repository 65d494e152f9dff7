package service

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
)

// endless hands out connections for ever.
type endless struct{ net.Listener }

func (endless) Accept() (net.Conn, error) {
	server, _ := net.Pipe()
	return server, nil
}
func (endless) Close() error { return nil }

func TestLimitListener(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &limitListener{Listener: endless{}, slots: make(chan struct{}, 2), closed: make(chan struct{})}
		accepted := make(chan net.Conn, 10)
		ended := make(chan error, 1)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				accepted <- c
			}
		}()
		synctest.Wait()
		if got := len(accepted); got != 2 {
			t.Fatalf("accepted %d connections, want 2", got)
		}
		first := <-accepted
		_ = first.Close()
		_ = first.Close() // a second close must not free a second slot
		synctest.Wait()
		if got := len(accepted); got != 2 {
			t.Errorf("after one close: %d connections are open, want 2", got)
		}
		_ = l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: got %v, want net.ErrClosed", err)
		}
	})
}
