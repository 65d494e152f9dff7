package main

import (
	"cmp"
	"math"
	"runtime"
	"slices"
)

// metric is what the sides of a work measure by themselves, in its own unit.
type metric struct {
	name string // behind the work's
	unit string // s, ms, MiB, …
	gate string // what ours has to be
	more bool   // more is better
}

// tell notes a run's value of each of its work's metrics, in their order; NaN is none.
func (w *watch) tell(values ...float64) { w.values = values }

// comparison is one thing by which the sides of a work are compared, round by round.
type comparison struct {
	name, unit, gate string
	of               func(sample) float64
	more             bool // more is better
	told             bool // the sides have told it, and nothing else is known
}

// comparisons are one, or one for each metric.
//
// What one goroutine does in memory is compared by the processor's time, which says the same
// on a machine that others use as well. What waits for a broker is compared by the clock.
func (w work) comparisons() (all []comparison) {
	for i, m := range w.metrics {
		all = append(all, comparison{m.name, m.unit, m.gate, func(s sample) float64 { return s.values[i] }, m.more, true})
	}
	if len(all) > 0 {
		return all
	}
	c := comparison{unit: cmp.Or(w.unit, unitCPU), of: func(s sample) float64 { return s.wall }}
	switch c.unit {
	case unitCPU:
		c.of = func(s sample) float64 { return s.cpu }
	case unitLate:
		c.of = func(s sample) float64 { return float64(s.latency.P99) }
	}
	return []comparison{c}
}

// rows compares the first side with each of the others; alone it has a row without a peer. samples
// has each side's rounds.
func (w work) rows(samples [][]sample, accounts []account) (rows []row) {
	for _, c := range w.comparisons() {
		rows = append(rows, w.compare(c, samples, accounts)...)
	}
	return rows
}

func (w work) compare(c comparison, samples [][]sample, accounts []account) (rows []row) {
	ours := c.values(samples[0])
	if math.IsNaN(median(ours)) {
		return nil
	}
	first := row{
		Work: w.name, Unit: c.unit, Side: w.sides[0].name, Ours: c.figure(samples[0], accounts),
		Gate: cmp.Or(c.gate, w.sides[0].gate), Rounds: len(ours),
	}
	if c.name != "" {
		first.Work += ": " + c.name
	}
	if !c.told {
		first.Bound = first.Ours.bound(runtime.GOMAXPROCS(0))
	}
	for i, s := range w.sides[1:] {
		r := first
		r.Peer, r.Gate = s.name, cmp.Or(s.gate, first.Gate)
		if s.run == nil && len(samples[1+i]) == 0 {
			r.LeftOut = true
			rows = append(rows, r)
			continue
		}
		theirs := c.values(samples[1+i])
		if math.IsNaN(median(theirs)) {
			continue
		}
		r.Theirs = c.figure(samples[1+i], accounts)
		r.Ratio, r.Spread = c.ratio(ours, theirs)
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		first.Spread = orZero(spread(ours))
		rows = append(rows, first)
	}
	return rows
}

func (c comparison) values(samples []sample) (v []float64) {
	for _, s := range samples {
		v = append(v, c.of(s))
	}
	return v
}

// figure is what is known of one side.
func (c comparison) figure(samples []sample, accounts []account) figure {
	if c.told {
		return figure{Value: median(c.values(samples))}
	}
	return medians(samples, accounts)
}

// ratio is how many times as good ours is: the median of the rounds, and its spread.
func (c comparison) ratio(ours, theirs []float64) (ratio, wide float64) {
	ratios := make([]float64, len(ours))
	for round := range ours {
		ratios[round] = theirs[round] / ours[round]
		if c.more {
			ratios[round] = 1 / ratios[round]
		}
	}
	return orZero(median(ratios)), orZero(spread(ratios))
}

// orZero leaves out what a report cannot hold.
func orZero(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

// meanValues are those of two runs of one round.
func meanValues(a, b []float64) []float64 {
	m := slices.Clone(a)
	for i := range m {
		m[i] = (a[i] + b[i]) / 2
	}
	return m
}
