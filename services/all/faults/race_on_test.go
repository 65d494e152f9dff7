//go:build race

package faults_test

// memoryCap is I7's: the race detector multiplies what a process needs.
const (
	memoryCap    = 1200 << 20
	raceDetector = true
)
