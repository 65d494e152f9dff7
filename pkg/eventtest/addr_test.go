package eventtest_test

import (
	"net"
	"testing"

	"example.com/keyline/pkg/eventtest"
)

func TestFreeAddr(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 50 {
		addr, _ := eventtest.FreeAddr(t)
		if seen[addr] {
			t.Errorf("%s was given out twice", addr)
		}
		seen[addr] = true
		if held, err := net.ListenPacket("udp", addr); err == nil {
			held.Close()
			t.Errorf("nothing keeps another process from taking %s", addr)
		}
		for range 2 {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			l.Close()
		}
	}
}
