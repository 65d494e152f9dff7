//go:build unix

package faults_test

import (
	"fmt"
	"os"
	"strings"
	"time"

	"example.com/keyline/services/all/check"
)

// summarize notes the figures of a run that was judged.
func (r *rig) summarize(facts *check.Facts, healed time.Duration, wrong int) {
	r.Helper()
	lost := "nothing"
	if wrong > 0 {
		lost = fmt.Sprintf("**%d complaints**", wrong)
	}
	orders, status := map[string]bool{}, map[string]int{}
	for _, q := range facts.Requests {
		orders[q.OrderID] = true
	}
	for _, o := range facts.Orders {
		status[o.Status]++
	}
	r.row.Orders, r.row.Seen, r.row.Lost = len(orders), facts.Wire(), lost
	r.Logf("seed %d: %d orders %v, answers %v, %d without, %d records, %s, quiet after %v, memory %s, %v in all",
		r.seed, len(orders), status, r.answers, r.silent, len(facts.Records), r.row.Seen, healed.Round(time.Millisecond), mebibytes(facts.Memory), time.Since(r.begun).Round(time.Millisecond))
}

func mebibytes(memory map[string]int64) string {
	most := int64(0)
	for _, m := range memory {
		most = max(most, m)
	}
	return fmt.Sprintf("%d MiB at most", most>>20)
}

// note makes the run a row of the table: how often the fault was done, and what was seen of
// it beside duplicates. It is written at once, since a run of an hour may be broken off.
func (r *rig) note(rounds int, format string, args ...any) {
	r.Helper()
	var on []string
	for _, p := range r.parts {
		on = append(on, strings.TrimSuffix(string(p), " apart"))
	}
	row := r.row
	row.Fault, _, _ = strings.Cut(strings.TrimPrefix(r.Name(), "Test"), "_")
	row.Parts, row.Rounds = strings.Join(on, " "), rounds
	seen := fmt.Sprintf(format, args...)
	r.Logf("%s on %s: %d rounds, %s", row.Fault, row.Parts, rounds, seen)
	if row.Seen = strings.TrimPrefix(row.Seen+"; "+seen, "; "); r.Failed() {
		row.Lost = "**failed**"
	}
	if file := os.Getenv(tableVar); file != "" {
		if err := check.WriteRow(file, r.seed, row); err != nil {
			r.Error(err)
		}
	}
}
