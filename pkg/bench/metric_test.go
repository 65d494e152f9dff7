package main

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWork_rows_metrics(t *testing.T) {
	t.Parallel()
	told := [][]sample{
		{{values: []float64{2, 100, 1}}, {values: []float64{4, 100, 1}}},
		{{values: []float64{4, 50, math.NaN()}}, {values: []float64{6, 100, math.NaN()}}},
	}
	w := work{
		name: "work", sides: []side{{name: "ours"}, {name: "theirs"}},
		metrics: []metric{{"gap", "ms", "<= 3", false}, {"rate", "rec/s", "", true}, {"table", "B", "", false}},
	}
	want := []row{
		{Work: "work: gap", Unit: "ms", Gate: "<= 3", Side: "ours", Ours: figure{Value: 3}, Peer: "theirs", Theirs: figure{Value: 5}, Ratio: 1.75, Spread: 0.5 / 1.75, Rounds: 2},
		{Work: "work: rate", Unit: "rec/s", Side: "ours", Ours: figure{Value: 100}, Peer: "theirs", Theirs: figure{Value: 75}, Ratio: 1.5, Spread: 1 / 1.5, Rounds: 2},
		{Work: "work: table", Unit: "B", Side: "ours", Ours: figure{Value: 1}, Rounds: 2},
	}
	if diff := cmp.Diff(want, w.rows(told, nil)); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
	t.Run("a metric that is zero can be saved", func(t *testing.T) {
		t.Parallel()
		none := [][]sample{{{values: []float64{0, 0, 0}}}, {{values: []float64{0, 0, 0}}}}
		if _, err := json.Marshal(w.rows(none, nil)); err != nil {
			t.Error(err)
		}
	})
}
