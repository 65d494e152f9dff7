package main

import (
	"math"
	"slices"
)

// row is ours beside one other side.
type row struct {
	Work   string `json:"work"`
	Unit   string `json:"unit"`
	Ours   figure `json:"ours"`
	Peer   string `json:"peer"`
	Theirs figure `json:"theirs"`
	// Ratio is how many times as fast ours is: the median of the rounds.
	Ratio float64 `json:"ratio"`
	// Spread is the distance of the lowest from the highest ratio of a round, as a part of
	// the median.
	Spread float64 `json:"spread"`
	Rounds int     `json:"rounds"`
	Gate   string  `json:"gate"`
}

// figure is the medians of one side, per operation.
type figure struct {
	Rate   float64 `json:"rate"` // operations per second of the clock
	CPU    float64 `json:"cpu"`  // ns of the processor, all threads of the process
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
}

// Units in which the sides of a work are compared.
const (
	unitRate = "rec/s"
	unitCPU  = "ns"
)

// rows compares the first side with each of the others. samples has each side's rounds.
//
// What one goroutine does in memory is compared by the processor's time, which says the same
// on a machine that others use as well. What waits for a broker is compared by the clock.
func (w work) rows(samples [][]sample) (rows []row) {
	unit, time := unitCPU, func(s sample) float64 { return s.cpu }
	if w.rate {
		unit, time = unitRate, func(s sample) float64 { return s.wall }
	}
	for i := 1; i < len(samples); i++ {
		ratios := make([]float64, len(samples[i]))
		for round, s := range samples[i] {
			ratios[round] = time(s) / time(samples[0][round])
		}
		rows = append(rows, row{
			Work: w.name, Unit: unit, Peer: w.sides[i].name, Gate: w.sides[i].gate,
			Ours: medians(samples[0]), Theirs: medians(samples[i]),
			Ratio: median(ratios), Spread: spread(ratios), Rounds: len(ratios),
		})
	}
	return rows
}

func medians(samples []sample) figure {
	of := func(part func(sample) float64) float64 {
		var v []float64
		for _, s := range samples {
			v = append(v, part(s))
		}
		return median(v)
	}
	return figure{
		Rate:   1e9 / of(func(s sample) float64 { return s.wall }),
		CPU:    of(func(s sample) float64 { return s.cpu }),
		Allocs: of(func(s sample) float64 { return s.allocs }),
		Bytes:  of(func(s sample) float64 { return s.bytes }),
	}
}

// median is NaN of nothing.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	half := len(v) / 2
	if len(v)%2 == 1 {
		return v[half]
	}
	return (v[half-1] + v[half]) / 2
}

func spread(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	return (slices.Max(v) - slices.Min(v)) / median(v)
}

func mean(a, b sample) sample {
	return sample{wall: (a.wall + b.wall) / 2, cpu: (a.cpu + b.cpu) / 2, allocs: (a.allocs + b.allocs) / 2, bytes: (a.bytes + b.bytes) / 2}
}
