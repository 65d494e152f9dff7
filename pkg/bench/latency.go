package main

import (
	"math"
	"slices"
	"time"
)

// latency is how long the operations of a run took, each.
type latency struct {
	P50 time.Duration `json:"p50"`
	P99 time.Duration `json:"p99"`
	Max time.Duration `json:"max"`
}

// percentiles are zero of nothing.
func percentiles(took []time.Duration) latency {
	if len(took) == 0 {
		return latency{}
	}
	took = slices.Sorted(slices.Values(took))
	return latency{P50: rank(took, 50), P99: rank(took, 99), Max: took[len(took)-1]}
}

// rank is the value that percent of all do not exceed: the nearest rank, so that it is one of them.
func rank(sorted []time.Duration, percent float64) time.Duration {
	return sorted[max(0, int(math.Ceil(percent/100*float64(len(sorted))))-1)]
}

// and is two runs of one round.
func (l latency) and(o latency) latency {
	return latency{P50: (l.P50 + o.P50) / 2, P99: (l.P99 + o.P99) / 2, Max: max(l.Max, o.Max)}
}

// typical is the medians of the rounds, and the longest time of any; nil if none was taken.
func typical(samples []sample) *latency {
	var p50, p99 []float64
	var most time.Duration
	for _, s := range samples {
		p50, p99 = append(p50, float64(s.latency.P50)), append(p99, float64(s.latency.P99))
		most = max(most, s.latency.Max)
	}
	if most == 0 {
		return nil
	}
	return &latency{P50: time.Duration(median(p50)), P99: time.Duration(median(p99)), Max: most}
}

// faults is how often something went wrong, such as a mail that was lost.
type faults map[string]int

// and is both; nil if nothing went wrong.
func (f faults) and(o faults) faults {
	var sum faults
	for _, all := range []faults{f, o} {
		for what, n := range all {
			if n == 0 {
				continue
			}
			if sum == nil {
				sum = faults{}
			}
			sum[what] += n
		}
	}
	return sum
}
