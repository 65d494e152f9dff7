package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWriteTables(t *testing.T) {
	t.Parallel()
	served := func(rate float64) figure {
		return figure{
			Rate: rate, CPU: 4e5, Others: map[string]float64{"broker": 1e5, driver: 2e5}, Latency: &latency{P50: 1e6, P99: 25 * time.Millisecond, Max: 3e8},
			Faults: faults{lost: 2},
		}
	}
	var got strings.Builder
	writeTables(&got, []row{
		{Work: "B1 one", Unit: unitCPU, Side: "ours", Ours: figure{Rate: 1e6, CPU: 120}, Peer: "theirs", Theirs: figure{Rate: 1e6, CPU: 240, Allocs: 2}, Ratio: 2, Spread: 0.1, Rounds: 5, Gate: ">= 1", Bound: "client"},
		{Work: "B1 two", Unit: unitRate, Side: "ours", Ours: served(1234), Peer: "theirs", Theirs: served(500_000), Ratio: 0.5, Rounds: 3, Gate: ">= 1"},
		{Work: "B1 two", Unit: unitRate, Side: "ours", Ours: served(1234), Peer: "else", LeftOut: true, Rounds: 3, Gate: ">= 2"},
		{Work: "B10 one: gap", Unit: "ms", Side: "ours", Ours: figure{Value: 12.34}, Rounds: 1, Spread: 0.2, Gate: "<= 20"},
	})
	want := `
B1   side    result           ratio  spread  p50     p99      max       lost  CPU us   client  broker  driver  allocs  bytes  rounds  gate  ours is bound by
one  ours    120 ns                                                                                           0       0      5       >= 1  client
     theirs  240 ns           2.00   10 %                                                                     2       0
two  ours    1234/s                          1.0 ms  25.0 ms  300.0 ms  2     500.0    400.0   100.0   200.0                  3
     theirs  500 k/s          0.50           1.0 ms  25.0 ms  300.0 ms  2     500.0    400.0   100.0   200.0                        >= 1
     else    wants PostgreSQL                                                                                                       >= 2

B10       side  result   spread  rounds  gate
one: gap  ours  12.3 ms  20 %    1       <= 20

`
	trim := func(text string) (lines []string) {
		for line := range strings.Lines(text) {
			if strings.TrimRight(line, " \n")+"\n" != line {
				t.Errorf("a line ends with spaces: %q", line)
			}
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return lines
	}
	if diff := cmp.Diff(trim(want)[1:], trim(got.String())); diff != "" {
		t.Errorf("tables (-want +got):\n%s\n%s", diff, got.String())
	}
}

func TestFigures(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.0123: "0.012", 1.234: "1.23", 12.34: "12.3", 1234.5: "1234", 3: "3"} {
		if got := figures(v); got != want {
			t.Errorf("figures(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestChosen(t *testing.T) {
	t.Parallel()
	sides := []side{{name: "keyline"}, {name: "keyline, 256 workers"}, {name: "raw kgo"}}
	for list, want := range map[string]int{"": 3, "keyline": 2, "raw": 1, "raw,keyline": 3, "else": 0} {
		if got := chosen(sides, list); len(got) != want {
			t.Errorf("chosen(%q): %d sides, want %d", list, len(got), want)
		}
	}
}
