// Command sim runs the simulation for many seeds, on all processors, each in a process of its
// own, and adds up what they report.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

type options struct {
	seeds int
	from  uint64
	seed  uint64
	jobs  int
	rerun int
	dir   string
	bin   string
	only  string
	over  string
	limit time.Duration
	first bool
}

func main() {
	var o options
	flag.IntVar(&o.seeds, "seeds", 100, "how many seeds to run")
	flag.Uint64Var(&o.from, "from", 1, "the first of them")
	flag.Uint64Var(&o.seed, "seed", 0, "run this one alone and show its log of events")
	flag.IntVar(&o.jobs, "jobs", runtime.NumCPU(), "how many run at a time")
	flag.IntVar(&o.rerun, "rerun", 20, "one of so many runs twice, to see whether it repeats exactly; 0 is none")
	flag.StringVar(&o.dir, "dir", "bin/sim", "folder for the logs of failures, and for the binary")
	flag.StringVar(&o.bin, "bin", "", "a binary of the simulation that is there already")
	flag.StringVar(&o.over, "overlay", "", "what the go command's flag of that name takes: other code to simulate")
	flag.StringVar(&o.only, "only", "", "kinds of faults, with commas, or none; empty leaves it to the seed")
	flag.DurationVar(&o.limit, "limit", 3*time.Minute, "how long one seed may take")
	flag.BoolVar(&o.first, "first", false, "stop at the first failure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, os.Stdout, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run reports whether nothing was wrong.
func run(ctx context.Context, out io.Writer, o options) (ok bool, err error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return false, err
	}
	if o.bin == "" {
		o.bin = filepath.Join(o.dir, "sim.test")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "synctests", "-overlay", o.over, "-o", o.bin, "./services/all/sim")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		build.Stdout, build.Stderr = out, os.Stderr
		if err := build.Run(); err != nil {
			return false, fmt.Errorf("build the simulation: %w", err)
		}
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return false, err
	}
	if o.seed != 0 {
		r := o.one(ctx, o.seed, "", true)
		text, _ := os.ReadFile(o.file(o.seed, "log")) // there is none if the run did not end
		fmt.Fprintf(out, "%s%s", text, r.summary())
		return len(r.Complaints) == 0, nil
	}
	s := o.many(ctx, out)
	fmt.Fprint(out, s.text())
	return len(s.failed) == 0 && s.runs > 0, ctx.Err()
}

// report is what a run tells; sim_test.go writes it.
type report struct {
	Seed       uint64         `json:"seed"`
	Hash       string         `json:"hash"`
	Virtual    float64        `json:"virtual"`
	Orders     int            `json:"orders"`
	Faults     map[string]int `json:"faults"`
	Complaints []string       `json:"complaints"`
}

func (r report) summary() string {
	if len(r.Complaints) == 0 {
		return fmt.Sprintf("seed %d: ok, %d orders in %.0f s of virtual time\n", r.Seed, r.Orders, r.Virtual)
	}
	return fmt.Sprintf("seed %d: FAILED\n  %s\n", r.Seed, strings.Join(r.Complaints, "\n  "))
}

func (o options) file(seed uint64, kind string) string {
	return filepath.Join(o.dir, strconv.FormatUint(seed, 10)+"."+kind)
}

// one runs a seed; the run is the word for its files. Its log is kept if something was wrong,
// or if asked for.
func (o options) one(ctx context.Context, seed uint64, run string, keep bool) report {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer cancel()
	r, log := o.file(seed, run+"json"), o.file(seed, run+"log")
	cmd := exec.CommandContext(ctx, o.bin, "-test.run", "^TestSimulation$", "-test.timeout", o.limit.String(),
		"-seed", strconv.FormatUint(seed, 10), "-report", r, "-events", log, "-only", o.only)
	// What makes a run repeat itself: one processor, no collector, no preemption, and the same environment
	// for everybody: how many variables there are has a say in the course.
	cmd.Env = []string{"TMPDIR=" + os.TempDir(), "GOMAXPROCS=1", "GOGC=off", "GOMEMLIMIT=2GiB", "GODEBUG=asyncpreemptoff=1"}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	failed := execute(cmd, seed)
	defer os.Remove(r)
	result := report{Seed: seed}
	text, err := os.ReadFile(r)
	if err == nil {
		err = json.Unmarshal(text, &result)
	}
	if err != nil {
		result.Complaints = []string{"it did not end: " + firstLine(output.String())}
	} else if failed != nil && len(result.Complaints) == 0 {
		result.Complaints = []string{"it failed: " + firstLine(output.String())}
	}
	switch {
	case len(result.Complaints) > 0:
		f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = f.Write(output.Bytes())
			err = cmp.Or(err, f.Close())
		}
		if err != nil {
			result.Complaints = append(result.Complaints, "its log cannot be saved: "+err.Error())
		}
	case !keep:
		os.Remove(log)
	}
	return result
}

func firstLine(text string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, "panic:") || strings.Contains(line, "fatal error:") {
			return strings.TrimSpace(line)
		}
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// sums are the figures of many runs.
type sums struct {
	begun    time.Time
	runs     int
	orders   int
	virtual  float64 // seconds
	faults   map[string]int
	failed   []uint64
	reruns   int
	repeated int
}

// many runs all seeds and prints failures as they come.
func (o options) many(ctx context.Context, out io.Writer) sums {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	s := sums{begun: time.Now(), faults: map[string]int{}}
	next := make(chan uint64)
	go func() {
		defer close(next)
		for i := range o.seeds {
			select {
			case next <- o.from + uint64(i):
			case <-ctx.Done():
				return
			}
		}
	}()
	var mu sync.Mutex
	var all sync.WaitGroup
	for range max(1, o.jobs) {
		all.Go(func() {
			for seed := range next {
				twice := o.rerun > 0 && seed%uint64(o.rerun) == 0
				r := o.one(ctx, seed, "", twice)
				again := report{}
				if twice = twice && len(r.Complaints) == 0; twice {
					again = o.one(ctx, seed, "again.", true)
				}
				if ctx.Err() != nil {
					return
				}
				mu.Lock()
				s.add(r)
				if twice {
					s.reruns++
					first, second := o.file(seed, "log"), o.file(seed, "again.log")
					if again.Hash == r.Hash {
						s.repeated++
						os.Remove(first)
						os.Remove(second)
					} else {
						fmt.Fprintf(out, "seed %d: took another course the second time; where: diff %s %s\n", seed, first, second)
					}
				}
				if o.first && len(r.Complaints) > 0 {
					stop()
				}
				if len(r.Complaints) > 0 {
					fmt.Fprintf(out, "%s  log: %s; again: make sim SEED=%d\n", r.summary(), o.file(seed, "log"), seed)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return s
}

func (s *sums) add(r report) {
	s.runs++
	s.orders += r.Orders
	s.virtual += r.Virtual
	for kind, n := range r.Faults {
		s.faults[kind] += n
	}
	if len(r.Complaints) > 0 {
		s.failed = append(s.failed, r.Seed)
	}
}

func (s *sums) text() string {
	var b strings.Builder
	took := time.Since(s.begun)
	fmt.Fprintf(&b, "%d seeds in %s (%.0f a minute), %.1f hours of virtual time, %d orders; %d failed %v\n",
		s.runs, took.Round(time.Second), float64(s.runs)/took.Minutes(), s.virtual/3600, s.orders, len(s.failed), s.failed)
	if s.reruns > 0 {
		fmt.Fprintf(&b, "%d of %d reruns repeated exactly\n", s.repeated, s.reruns)
	}
	for _, kind := range slices.Sorted(maps.Keys(s.faults)) {
		fmt.Fprintf(&b, "  %-36s %d\n", kind, s.faults[kind])
	}
	return b.String()
}
