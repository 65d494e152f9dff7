package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"
)

// work is what several sides do, ours first.
type work struct {
	name    string
	unit    string   // by what the sides are compared; ns of the processor if empty
	metrics []metric // or they are compared by these, which they tell
	n       int      // operations of one run; 0: as many as fill the plan's span
	rounds  int      // at most, of what takes long; 0: the plan's
	sides   []side
}

// side is one way to do a work.
type side struct {
	name string
	gate string // what ours has to be beside it
	run  runFunc
}

// runFunc does n operations, or w.did, between w.start and w.stop. nil is a side that is left out,
// for want of a PostgreSQL.
type runFunc func(ctx context.Context, n int, w *watch) error

// each is a side that does one operation after the other.
func each(name, gate string, op func(i int) error) side {
	return side{name, gate, func(_ context.Context, n int, w *watch) error {
		w.start()
		defer w.stop()
		for i := range n {
			if err := op(i); err != nil {
				return err
			}
		}
		return nil
	}}
}

// started is when the program was.
var started = time.Now()

// watch measures one run: what the clock, the processor and the allocator say of it.
type watch struct {
	rig           *rig // whose accounts are watched, too
	client        int  // the process that does the work; 0: this one
	did           int  // operations, if not as many as asked for
	began, ended  time.Time
	busy, done    []time.Duration // of this process, of the client, by other machines, and of each account
	before, after runtime.MemStats

	latencies []time.Duration // of the operations, if somebody has taken them
	faults    faults
	values    []float64 // of the work's metrics
}

func (w *watch) start() {
	runtime.ReadMemStats(&w.before)
	w.busy, w.began = w.times(), time.Now()
}

func (w *watch) stop() {
	w.ended, w.done = time.Now(), w.times()
	runtime.ReadMemStats(&w.after)
}

// times is what everybody has used of the processors so far, and what other machines on the same host have.
func (w *watch) times() []time.Duration {
	all := []time.Duration{cpuTime(), treeTime(w.client), stolenTime()}
	if w.rig != nil {
		for _, a := range w.rig.accounts {
			all = append(all, treeTime(a.pid))
		}
	}
	return all
}

// sample is one run, per operation; wall and cpu in ns, the latter of the process that does the
// work, driver of this one if another does, stolen what other machines took, and others those of the rig's accounts.
type sample struct {
	wall, cpu, allocs, bytes float64
	driver, stolen           float64
	others                   [maxAccounts]float64

	latency latency
	faults  faults
	values  []float64 // of the work's metrics, not per operation
}

// maxAccounts is how many processes of others are watched: a broker and a database.
const maxAccounts = 2

func (w *watch) sample(n int) sample {
	if w.did > 0 {
		n = w.did
	}
	s := sample{
		wall:    float64(w.ended.Sub(w.began)) / float64(n),
		cpu:     float64(w.done[0]-w.busy[0]) / float64(n),
		allocs:  float64(w.after.Mallocs-w.before.Mallocs) / float64(n),
		bytes:   float64(w.after.TotalAlloc-w.before.TotalAlloc) / float64(n),
		stolen:  float64(w.done[2]-w.busy[2]) / float64(n),
		latency: percentiles(w.latencies), faults: w.faults, values: w.values,
	}
	if w.client != 0 { // whose allocations nobody counts
		s.driver, s.cpu = s.cpu, float64(w.done[1]-w.busy[1])/float64(n)
		s.allocs, s.bytes = 0, 0
	}
	for i := range w.done[3:] {
		s.others[i] = float64(w.done[3+i]-w.busy[3+i]) / float64(n)
	}
	return s
}

// measure returns a row for each of the other sides. Ours runs before and after them in every
// round, so that a machine that gets slower or faster on the way favours nobody; not where one round
// is all there is time for.
func (p plan) measure(ctx context.Context, w work) ([]row, error) {
	if w.sides[0].run == nil {
		fmt.Fprintf(os.Stderr, "left out: %s: set DATABASE_URL to a PostgreSQL\n", w.name)
		return nil, nil
	}
	n := make([]int, len(w.sides))
	for i, s := range w.sides {
		var err error
		if n[i], err = p.calibrate(ctx, w, s); err != nil {
			return nil, err
		}
	}
	rounds := p.rounds
	if w.rounds > 0 {
		rounds = min(rounds, w.rounds)
	}
	samples := make([][]sample, len(w.sides)) // of each side, by round
	for range rounds {
		for i, s := range w.sides {
			if s.run == nil {
				continue
			}
			got, err := p.once(ctx, s, n[i])
			if err != nil {
				return nil, err
			}
			samples[i] = append(samples[i], got)
		}
		if len(w.sides) == 1 || w.rounds == 1 || p.short {
			continue
		}
		again, err := p.once(ctx, w.sides[0], n[0])
		if err != nil {
			return nil, err
		}
		last := &samples[0][len(samples[0])-1]
		*last = mean(*last, again)
	}
	return w.rows(samples, p.accounts()), nil
}

// calibrate finds how many operations fill the plan's span, and warms the side up.
func (p plan) calibrate(ctx context.Context, w work, s side) (int, error) {
	if w.n > 0 {
		return w.n, nil
	}
	for n := 1; ; n *= 4 {
		got, err := p.once(ctx, s, n)
		if err != nil {
			return 0, err
		}
		if took := got.wall * float64(n); took > float64(p.span)/10 {
			return max(1, int(float64(p.span)/got.wall)), nil
		}
	}
}

func (p plan) once(ctx context.Context, s side, n int) (sample, error) {
	if err := ctx.Err(); err != nil {
		return sample{}, err
	}
	runtime.GC() // what the side before left behind is not this one's to clean up
	w := watch{rig: p.rig}
	if err := s.run(ctx, n, &w); err != nil {
		return sample{}, fmt.Errorf("%s: %w", s.name, err)
	}
	return w.sample(n), nil
}

func (p plan) accounts() []account {
	if p.rig == nil {
		return nil
	}
	return p.rig.accounts
}
