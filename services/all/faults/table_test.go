//go:build unix

package faults_test

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/keyline/services/all/check"
)

// row is what a test tells of its run.
type row struct {
	fault, parts string
	rounds       string
	orders       int
	wire         string
	lost         string
}

var (
	tableMu sync.Mutex
	table   = map[string]row{} // by fault and parts
)

// summarize notes the figures of a run that was judged.
func (r *rig) summarize(facts *check.Facts, healed time.Duration, wrong int) {
	r.Helper()
	duplicates := facts.Duplicates()
	var wire []string
	for _, source := range slices.Sorted(maps.Keys(duplicates)) {
		wire = append(wire, fmt.Sprintf("%d of %s", duplicates[source], strings.TrimPrefix(source, "/")))
	}
	text := "no duplicates"
	if wire != nil {
		text = "duplicates: " + strings.Join(wire, ", ")
	}
	if n := facts.MailRepeats(); n > 0 {
		text += fmt.Sprintf("; %d mails twice", n)
	}
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
	r.table.orders, r.table.wire, r.table.lost = len(orders), text, lost
	r.Logf("seed %d: %d orders %v, answers %v, %d without, %d records, %s, quiet after %v, memory %s, %v in all",
		r.seed, len(orders), status, r.answers, r.silent, len(facts.Records), text, healed.Round(time.Millisecond), mebibytes(facts.Memory), time.Since(r.begun).Round(time.Millisecond))
}

func mebibytes(memory map[string]int64) string {
	most := int64(0)
	for _, m := range memory {
		most = max(most, m)
	}
	return fmt.Sprintf("%d MiB at most", most>>20)
}

// note makes the run a row of the table: how often the fault was done, and what was seen of
// it beside duplicates.
func (r *rig) note(rounds int, format string, args ...any) {
	r.Helper()
	name, _, _ := strings.Cut(strings.TrimPrefix(r.Name(), "Test"), "_")
	var on []string
	for _, p := range r.parts {
		on = append(on, strings.TrimSuffix(string(p), " apart"))
	}
	one := r.table
	one.fault, one.parts, one.rounds = name, strings.Join(on, " "), fmt.Sprint(rounds)
	seen := fmt.Sprintf(format, args...)
	r.Logf("%s on %s: %d rounds, %s", name, one.parts, rounds, seen)
	if one.wire = strings.TrimPrefix(one.wire+"; "+seen, "; "); r.Failed() {
		one.lost = "**failed**"
	}
	tableMu.Lock()
	defer tableMu.Unlock()
	table[one.key()] = one
	if err := writeTable(); err != nil { // now: a run of an hour may be broken off
		r.Error(err)
	}
}

func (o row) key() string { return o.fault + " " + o.parts }

// The table stands between these lines of its file.
const (
	tableBegin = "<!-- made by make faults: begin -->"
	tableEnd   = "<!-- made by make faults: end -->"
	tableHead  = "| fault | on | rounds | orders | seen | lost |\n| --- | --- | --- | --- | --- | --- |\n"
)

// writeTable puts this run's rows into the file's table; those of faults that were not run
// stay. tableMu is held.
func writeTable() error {
	file := os.Getenv(tableVar)
	if file == "" || len(table) == 0 {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), tableBegin)
	old, foot, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no line %q", file, tableBegin)
	}
	for _, line := range strings.Split(old, "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if len(cells) != 6 || !strings.HasPrefix(cells[0], "F") {
			continue
		}
		kept := row{fault: cells[0], parts: cells[1], rounds: cells[2], orders: int(atoi(cells[3])), wire: cells[4], lost: cells[5]}
		if _, again := table[kept.key()]; !again {
			table[kept.key()] = kept
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n\nSeed %d, %s, %d processors.\n\n%s", head, tableBegin, seed(), runtime.Version(), runtime.NumCPU(), tableHead)
	for _, o := range slices.SortedFunc(maps.Values(table), func(a, b row) int {
		if d := atoi(a.fault[1:]) - atoi(b.fault[1:]); d != 0 {
			return int(d)
		}
		return strings.Compare(a.parts, b.parts)
	}) {
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %s | %s |\n", o.fault, o.parts, o.rounds, o.orders, o.wire, o.lost)
	}
	return os.WriteFile(file, []byte(b.String()+"\n"+tableEnd+foot), 0o644)
}
