//go:build !linux

package main

import "time"

// treeTime is known on Linux only.
func treeTime(int) time.Duration { return 0 }

// stolenTime is known on Linux only.
func stolenTime() time.Duration { return 0 }

// listener is known on Linux only.
func listener(string) int { return 0 }
