package db

import "syscall"

// tcpUserTimeout is TCP_USER_TIMEOUT of linux/tcp.h, which package syscall lacks.
const tcpUserTimeout = 0x12

// setUserTimeout makes a connection fail once what was sent is not acknowledged in time. The
// kernel would go on for a quarter of an hour.
func setUserTimeout(fd uintptr) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deafAfter.Milliseconds()))
}
