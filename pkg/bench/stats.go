package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// row is ours beside one other side.
type row struct {
	Work string `json:"work"`
	Unit string `json:"unit"`
	Side string `json:"side,omitempty"` // ours
	Ours figure `json:"ours"`
	// Peer is empty where ours is alone. LeftOut is one that cannot run here, for want of a
	// PostgreSQL.
	Peer    string `json:"peer"`
	LeftOut bool   `json:"left_out,omitempty"`
	Theirs  figure `json:"theirs"`
	// Ratio is how many times as fast or good ours is: the median of the rounds; 0 is none.
	Ratio float64 `json:"ratio"`
	// Spread is the distance of the lowest from the highest ratio of a round, as a part of
	// the median; of ours where it is alone.
	Spread float64 `json:"spread"`
	Rounds int     `json:"rounds"`
	Gate   string  `json:"gate"`
	// Bound is what our side's time is spent on: how much of the machine's processors each
	// process has, and how much nobody. Much of the latter is waiting: for answers, for fsync.
	Bound string `json:"bound"`
}

// figure is the medians of one side, per operation.
type figure struct {
	Rate   float64 `json:"rate"` // operations per second of the clock
	CPU    float64 `json:"cpu"`  // ns of the processor, all threads of the process that does the work
	Allocs float64 `json:"allocs"`
	Bytes  float64 `json:"bytes"`
	// Value is that of a metric, in the row's unit; nothing else is known then.
	Value float64 `json:"value,omitempty"`
	// Latency is of the operations, where that is measured, and Faults what went wrong with them.
	Latency *latency `json:"latency,omitempty"`
	Faults  faults   `json:"faults,omitempty"`
	// Others is ns of the processor in other processes, by the name of their account.
	Others map[string]float64 `json:"others,omitempty"`
	// Stolen is ns of the processor that other machines on the same host took.
	Stolen float64 `json:"stolen,omitempty"`
}

// driver is the account of this process where another one does the work.
const driver = "driver"

// Units in which the sides of a work are compared, if not by metrics.
const (
	unitRate = "rec/s"
	unitCPU  = "ns"
	unitLate = "p99"
)

func medians(samples []sample, accounts []account) figure {
	of := func(part func(sample) float64) float64 {
		var v []float64
		for _, s := range samples {
			v = append(v, part(s))
		}
		return median(v)
	}
	f := figure{
		Rate:   1e9 / of(func(s sample) float64 { return s.wall }),
		CPU:    of(func(s sample) float64 { return s.cpu }),
		Allocs: of(func(s sample) float64 { return s.allocs }),
		Bytes:  of(func(s sample) float64 { return s.bytes }),
		Stolen: of(func(s sample) float64 { return s.stolen }),
	}
	f.Others = map[string]float64{}
	for i, a := range accounts {
		if a.pid != 0 {
			f.Others[a.name] = of(func(s sample) float64 { return s.others[i] })
		}
	}
	if own := of(func(s sample) float64 { return s.driver }); own > 0 {
		f.Others[driver] = own
	}
	if len(f.Others) == 0 {
		f.Others = nil
	}
	f.Latency = typical(samples)
	for _, s := range samples {
		f.Faults = f.Faults.and(s.faults)
	}
	return f
}

// bound says how the processors' time was shared, in percent of all of them; what other machines took is told from one percent on.
func (f figure) bound(processors int) string {
	whole := 1e9 / f.Rate * float64(processors)
	said := fmt.Sprintf("client %.0f", 100*f.CPU/whole)
	idle := whole - f.CPU
	for _, name := range slices.Sorted(maps.Keys(f.Others)) {
		said += fmt.Sprintf(", %s %.0f", name, 100*f.Others[name]/whole)
		idle -= f.Others[name]
	}
	if stolen := fmt.Sprintf("%.0f", 100*f.Stolen/whole); stolen != "0" {
		said += ", stolen " + stolen
		idle -= f.Stolen
	}
	return said + fmt.Sprintf(", idle %.0f %%", max(0, 100*idle/whole))
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
	m := sample{wall: (a.wall + b.wall) / 2, cpu: (a.cpu + b.cpu) / 2, allocs: (a.allocs + b.allocs) / 2, bytes: (a.bytes + b.bytes) / 2}
	m.driver, m.stolen = (a.driver+b.driver)/2, (a.stolen+b.stolen)/2
	m.latency, m.faults, m.values = a.latency.and(b.latency), a.faults.and(b.faults), meanValues(a.values, b.values)
	for i := range m.others {
		m.others[i] = (a.others[i] + b.others[i]) / 2
	}
	return m
}
