package main

import (
	"context"
	"go/parser"
	"go/token"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		of           []float64
		want, spread float64
	}{
		{"one value", []float64{3}, 3, 0},
		{"the middle of an odd number", []float64{9, 1, 2}, 2, 4},
		{"between the two in the middle of an even number", []float64{4, 1, 2, 100}, 3, 33},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := median(tt.of); got != tt.want {
				t.Errorf("median(%v) = %v, want %v", tt.of, got, tt.want)
			}
			if got := spread(tt.of); got != tt.spread {
				t.Errorf("spread(%v) = %v, want %v", tt.of, got, tt.spread)
			}
		})
	}
	t.Run("nothing has none", func(t *testing.T) {
		t.Parallel()
		if m, s := median(nil), spread(nil); !math.IsNaN(m) || !math.IsNaN(s) {
			t.Errorf("median and spread of nothing: %v, %v, want NaN", m, s)
		}
	})
	t.Run("the values keep their order", func(t *testing.T) {
		t.Parallel()
		v := []float64{3, 1, 2}
		median(v)
		if diff := cmp.Diff([]float64{3, 1, 2}, v); diff != "" {
			t.Errorf("median changed its argument (-want +got):\n%s", diff)
		}
	})
}

// Rounds in which the machine was 2 and 10 times as slow, for both sides alike.
var samples = [][]sample{
	{{wall: 100, cpu: 10, allocs: 1, bytes: 8}, {wall: 200, cpu: 20, allocs: 1, bytes: 8}, {wall: 1000, cpu: 100, allocs: 2, bytes: 8}},
	{{wall: 400, cpu: 20, allocs: 5, bytes: 80}, {wall: 800, cpu: 40, allocs: 5, bytes: 80}, {wall: 4000, cpu: 200, allocs: 5, bytes: 80}},
}

func TestWork_rows(t *testing.T) {
	t.Parallel()
	w := work{name: "work", sides: []side{{name: "ours"}, {name: "theirs", gate: ">= 1"}}}
	want := row{
		Work: "work", Unit: unitCPU, Side: "ours", Peer: "theirs", Gate: ">= 1", Rounds: 3, Ratio: 2,
		Ours: figure{Rate: 5e6, CPU: 20, Allocs: 1, Bytes: 8}, Theirs: figure{Rate: 1.25e6, CPU: 40, Allocs: 5, Bytes: 80},
	}
	want.Bound = want.Ours.bound(runtime.GOMAXPROCS(0))
	t.Run("work in memory is compared by the processor's time, round by round", func(t *testing.T) {
		t.Parallel()
		if diff := cmp.Diff([]row{want}, w.rows(samples, nil)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	})
	t.Run("a rate is compared by the clock", func(t *testing.T) {
		t.Parallel()
		w, want := w, want
		w.unit, want.Unit, want.Ratio = unitRate, unitRate, 4
		if diff := cmp.Diff([]row{want}, w.rows(samples, nil)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
	})
}

func TestFigure_bound(t *testing.T) {
	t.Parallel()
	for stolen, want := range map[float64]string{
		9:   "client 25, broker 15, database 40, idle 20 %",
		100: "client 25, broker 15, database 40, stolen 5, idle 15 %",
	} {
		f := figure{Rate: 1e6, CPU: 500, Others: map[string]float64{"broker": 300, "database": 800}, Stolen: stolen} // of 2,000 ns
		if got := f.bound(2); got != want {
			t.Errorf("bound = %q, want %q", got, want)
		}
	}
}

func TestPlan_measure(t *testing.T) {
	t.Parallel()
	t.Run("ours runs before and after the others in every round", func(t *testing.T) {
		t.Parallel()
		var order []string
		note := func(name string) side {
			return side{name: name, run: func(_ context.Context, _ int, w *watch) error {
				w.start()
				order = append(order, name)
				w.stop()
				return nil
			}}
		}
		w := work{name: "work", unit: unitRate, n: 1, sides: []side{note("a"), note("b"), note("c")}}
		rows, err := plan{rounds: 2}.measure(t.Context(), w)
		if err != nil || len(rows) != 2 {
			t.Fatalf("measure: %d rows, %v, want 2", len(rows), err)
		}
		if got, want := strings.Join(order, " "), "a b c a a b c a"; got != want {
			t.Errorf("order of the runs: %q, want %q", got, want)
		}
	})
	t.Run("allocations are counted per operation", func(t *testing.T) {
		t.Parallel()
		var w watch
		var kept [][]byte
		s := each("ours", "", func(int) error {
			kept = append(kept[:0], make([]byte, 1024))
			return nil
		})
		if err := s.run(t.Context(), 10_000, &w); err != nil {
			t.Fatal(err)
		}
		// Other tests allocate, too.
		if got := w.sample(10_000); got.allocs < 1 || got.bytes < 1024 {
			t.Errorf("%v allocations of %v bytes, want at least 1 of 1024", got.allocs, got.bytes)
		}
	})
	t.Run("it stops when its context does", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		w := work{n: 1, sides: []side{{name: "ours", run: func(_ context.Context, _ int, w *watch) error {
			w.start()
			defer w.stop()
			cancel()
			return nil
		}}, {}}}
		if _, err := (plan{rounds: 1}).measure(ctx, w); err == nil {
			t.Error("measure went on")
		}
	})
}

func TestReport_changes(t *testing.T) {
	t.Parallel()
	before := report{Date: "then", Machine: machine{Commit: "1234567"}, Rows: []row{
		{Work: "a", Peer: "raw", Ours: figure{Allocs: 2.01}, Ratio: 0.5, Spread: 0.2},
		{Work: "b", Peer: "raw", Ours: figure{Allocs: 2}, Ratio: 0.5, Spread: 0.2},
		{Work: "B1 alone", Unit: "ms", Ours: figure{Value: 2}},
	}}
	for _, tt := range []struct {
		name string
		now  row
		want string
	}{
		{"nothing to tell", row{Work: "a", Peer: "raw", Ours: figure{Allocs: 2}, Ratio: 0.55, Spread: 0.1}, "no allocation more or less, no ratio moved by more than its spread"},
		{"one allocation more", row{Work: "b", Peer: "raw", Ours: figure{Allocs: 3}, Ratio: 0.5}, "b: 3 allocations, were 2"},
		{"a ratio beyond both spreads", row{Work: "b", Peer: "raw", Ours: figure{Allocs: 2}, Ratio: 0.7, Spread: 0.1}, "b, raw: ratio 0.70, was 0.50"},
		{"another peer", row{Work: "b", Peer: "else"}, "b, else: new"},
		{"another work", row{Work: "B1 c", Peer: "raw"}, "B1 c: new"},
		{"another part", row{Work: "B2 a", Peer: "raw"}, "B2: new"},
		{"one allocation more where the peer is left out", row{Work: "b", Peer: "raw", LeftOut: true, Ours: figure{Allocs: 3}}, "b: 3 allocations, were 2"},
		{"ours alone", row{Work: "B1 alone", Unit: "ms", Ours: figure{Value: 3}}, "B1 alone: 3 ms, was 2 ms"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := "\nsince then, commit 1234567:\n  " + tt.want + "\n"
			if diff := cmp.Diff(want, report{Rows: []row{tt.now}}.changes(before)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSignature(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "", "package p\nfunc (s *b) f(int) {}\nfunc (s *a) f(x string) error { return nil }\n", 0)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := signature(file, "*a", "f"), "func(x string) error"; got != want {
		t.Errorf("signature = %q, want %q", got, want)
	}
	if got := signature(file, "", "f"); got != "" {
		t.Errorf("signature without the receiver = %q, want none", got)
	}
	if err := checkSeams(); err != nil {
		t.Error(err)
	}
}
