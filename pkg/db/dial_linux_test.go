package db

import (
	"context"
	"net"
	"syscall"
	"testing"
)

func TestDialer_gives_up_a_server_that_acknowledges_nothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := dialer.DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	failed := raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout) })
	if failed != nil || err != nil || got != int(deafAfter.Milliseconds()) {
		t.Errorf("TCP_USER_TIMEOUT = %d ms, %v, %v; want %v", got, failed, err, deafAfter)
	}
}
