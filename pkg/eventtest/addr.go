package eventtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// The ports of FreeAddr lie below the range that systems give to connections and to listeners
// on port 0: nobody gets one of them by chance.
const (
	firstPort = 12_000
	ports     = 15_000
)

var nextPort atomic.Uint32

func init() { nextPort.Store(rand.Uint32N(ports)) }

// FreeAddr is an address on loopback where nobody listens, for a part that comes late or comes
// back. Until the end of the test no other caller gets it, in this process or another.
func FreeAddr(tb testing.TB) (addr string, port int) {
	tb.Helper()
	for range ports {
		port = firstPort + int(nextPort.Add(1)%ports)
		addr = fmt.Sprintf("127.0.0.1:%d", port)
		// What is held is the UDP port of the same number, which is of no use to anybody else.
		held, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			tb.Cleanup(func() { held.Close() })
			return addr, port
		}
		held.Close()
	}
	tb.Fatal("no free port")
	return "", 0
}
