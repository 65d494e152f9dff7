//go:build !linux

package db

// setUserTimeout leaves it to keep-alive probes and to the deadline of a transaction.
func setUserTimeout(uintptr) error { return nil }
