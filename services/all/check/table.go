package check

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Row is what a fault test tells of its run, as a row of a table.
type Row struct {
	Fault  string // such as F12
	Parts  string // that it ran on, by their letters
	Rounds int
	Orders int
	Seen   string // on the wire, and of the fault
	Lost   string
}

// The table stands between these lines of its file.
const (
	tableBegin = "<!-- made by make faults: begin -->"
	tableEnd   = "<!-- made by make faults: end -->"
	tableHead  = "| fault | on | rounds | orders | seen | lost |\n| --- | --- | --- | --- | --- | --- |\n"
)

var tableMu sync.Mutex

// WriteRow puts a row into the table of a file, in place of that of an earlier run of the same
// fault on the same parts, and says above it which seed came last. It may be called by several
// goroutines, but by one process at a time.
func WriteRow(file string, seed uint64, row Row) error {
	tableMu.Lock()
	defer tableMu.Unlock()
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), tableBegin)
	old, foot, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q", file, tableBegin, tableEnd)
	}
	rows := readRows(old)
	rows[row.key()] = row
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s\n\nSeed %d, %s, %d processors.\n\n%s", head, tableBegin, seed, runtime.Version(), runtime.NumCPU(), tableHead)
	for _, r := range slices.SortedFunc(maps.Values(rows), func(a, b Row) int { return cmp.Or(cmp.Compare(a.number(), b.number()), cmp.Compare(a.Parts, b.Parts)) }) {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %s | %s |\n", r.Fault, r.Parts, r.Rounds, r.Orders, r.Seen, r.Lost)
	}
	return os.WriteFile(file, []byte(b.String()+"\n"+tableEnd+foot), 0o644)
}

func readRows(table string) map[string]Row {
	rows := map[string]Row{}
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if len(cells) != 6 || !strings.HasPrefix(cells[0], "F") {
			continue
		}
		r := Row{Fault: cells[0], Parts: cells[1], Seen: cells[4], Lost: cells[5]}
		r.Rounds, _ = strconv.Atoi(cells[2])
		r.Orders, _ = strconv.Atoi(cells[3])
		rows[r.key()] = r
	}
	return rows
}

func (r Row) key() string { return r.Fault + " " + r.Parts }

func (r Row) number() int {
	n, _ := strconv.Atoi(r.Fault[1:])
	return n
}

// Wire says what came to the wire or into mailboxes again.
func (f *Facts) Wire() string {
	duplicates := f.Duplicates()
	var seen []string
	for _, source := range slices.Sorted(maps.Keys(duplicates)) {
		if source != "" { // records that others have forged have no IDs
			seen = append(seen, fmt.Sprintf("%d of %s", duplicates[source], strings.TrimPrefix(source, "/")))
		}
	}
	text := "no duplicates"
	if seen != nil {
		text = "duplicates: " + strings.Join(seen, ", ")
	}
	if n := f.MailRepeats(); n > 0 {
		text += fmt.Sprintf("; %d mails twice", n)
	}
	return text
}
