package db

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"time"
)

// deafAfter is how long a server may leave what was sent unacknowledged.
const deafAfter = 10 * time.Second

// dialer makes connections that notice soon when nobody is at the other end any more, such as
// after a failover or behind a firewall that has forgotten them: whoever holds partitions must
// not wait for TCP to give up by itself.
var dialer = &net.Dialer{
	KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3},
	Control: func(network, _ string, c syscall.RawConn) (err error) {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		failed := c.Control(func(fd uintptr) { err = setUserTimeout(fd) })
		return errors.Join(failed, err)
	},
}
