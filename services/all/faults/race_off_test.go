//go:build !race

package faults_test

// memoryCap is I7's.
const (
	memoryCap    = 160 << 20
	raceDetector = false
)
