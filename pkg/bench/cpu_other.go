//go:build !unix

package main

import "time"

// cpuTime is wall time where nobody tells the process what it uses.
func cpuTime() time.Duration { return time.Since(started) }
