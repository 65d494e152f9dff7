package main

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPercentiles(t *testing.T) {
	t.Parallel()
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i) // 100 to 1
	}
	for _, tt := range []struct {
		name string
		of   []time.Duration
		want latency
	}{
		{"nothing", nil, latency{}},
		{"one value is all of them", []time.Duration{7}, latency{P50: 7, P99: 7, Max: 7}},
		{"of few values the 99th is the largest", []time.Duration{3, 1, 2}, latency{P50: 2, P99: 3, Max: 3}},
		{"many, in any order", hundred, latency{P50: 50, P99: 99, Max: 100}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, percentiles(tt.of)); diff != "" {
				t.Errorf("percentiles (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("the values keep their order", func(t *testing.T) {
		t.Parallel()
		v := []time.Duration{3, 1, 2}
		percentiles(v)
		if diff := cmp.Diff([]time.Duration{3, 1, 2}, v); diff != "" {
			t.Errorf("percentiles changed its argument (-want +got):\n%s", diff)
		}
	})
}

func TestTypical(t *testing.T) {
	t.Parallel()
	t.Run("medians of the percentiles, the longest of all", func(t *testing.T) {
		t.Parallel()
		want := &latency{P50: 2, P99: 20, Max: 300}
		got := typical([]sample{{latency: latency{P50: 1, P99: 30, Max: 200}}, {latency: latency{P50: 3, P99: 10, Max: 100}}, {latency: latency{P50: 2, P99: 20, Max: 300}}})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("typical (-want +got):\n%s", diff)
		}
	})
	t.Run("there is none of rounds that took no time of each", func(t *testing.T) {
		t.Parallel()
		if got := typical(make([]sample, 3)); got != nil {
			t.Errorf("typical = %v, want none", got)
		}
	})
}

func TestFaults_and(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		a, b     faults
		together faults
	}{
		{"none", nil, nil, nil},
		{"what did not happen is none", faults{lost: 0}, nil, nil},
		{"both", faults{lost: 1, doubled: 2}, faults{lost: 3, refused: 1}, faults{lost: 4, doubled: 2, refused: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.together, tt.a.and(tt.b)); diff != "" {
				t.Errorf("%v and %v (-want +got):\n%s", tt.a, tt.b, diff)
			}
		})
	}
}

func TestWork_rows_latency(t *testing.T) {
	t.Parallel()
	run := func(context.Context, int, *watch) error { return nil }
	w := work{name: "work", unit: unitLate, sides: []side{{name: "ours", run: run}, {name: "theirs", run: run}, {name: "else", gate: "fast"}}}
	one := sample{wall: 1000, driver: 400, others: [maxAccounts]float64{200}, latency: latency{P50: 1, P99: 10, Max: 100}}
	slow := one
	slow.latency.P99 = 30
	rows := w.rows([][]sample{{one}, {slow}, nil}, []account{{"broker", 1}})
	if len(rows) != 2 {
		t.Fatalf("%d rows, want 2", len(rows))
	}
	if got := rows[0]; got.Ratio != 3 || got.Unit != unitLate {
		t.Errorf("ratio %v of %s, want 3 of %s", got.Ratio, got.Unit, unitLate)
	}
	if diff := cmp.Diff(map[string]float64{"broker": 200, driver: 400}, rows[0].Ours.Others); diff != "" {
		t.Errorf("others (-want +got):\n%s", diff)
	}
	if got := rows[1]; !got.LeftOut || got.Peer != "else" || got.Gate != "fast" {
		t.Errorf("a side that cannot run: %+v, want it left out", got)
	}
}
