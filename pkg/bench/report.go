package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// results is the folder of what was measured.
const results = "results"

// report is one run of the program.
type report struct {
	Date       string  `json:"date"`
	Machine    machine `json:"machine"`
	LoadBefore string  `json:"load_before"`
	LoadAfter  string  `json:"load_after"`
	Took       string  `json:"took,omitempty"`
	Rows       []row   `json:"rows"`
	// Shops are the settings of the shops in it, by their names.
	Shops map[string]string `json:"shops,omitempty"`
}

// lastReport is the one that was saved last; nil if there is none.
func lastReport() (*report, error) {
	names, err := filepath.Glob(filepath.Join(results, "*.json"))
	if err != nil || len(names) == 0 {
		return nil, err
	}
	text, err := os.ReadFile(slices.Max(names)) // their names begin with the date
	if err != nil {
		return nil, err
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", slices.Max(names), err)
	}
	return &r, nil
}

// save writes the report as JSON and as text.
func (r report) save(text string) error {
	name := strings.NewReplacer(":", "", "-", "").Replace(r.Date) + "-" + strings.TrimSuffix(r.Machine.Commit, "+")
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(results, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(results, name+".json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(results, name+".txt"), []byte(text), 0o644)
}

// text is the report for people, beside the one before.
func (r report) text(before *report) string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s  commit %s  %s, %d processors, %s, %s  fsync %s  load %s before, %s after  took %s\n",
		r.Date, m.Commit, m.Processor, m.Processors, m.System, m.Go, m.Fsync, r.LoadBefore, r.LoadAfter, r.Took)
	var libraries []string
	for path, version := range m.Versions {
		libraries = append(libraries, path+" "+version)
	}
	slices.Sort(libraries)
	fmt.Fprintf(&b, "%s\n\n", strings.Join(libraries, ", "))

	writeTables(&b, r.Rows)
	b.WriteString("CPU us is the time of all processors for one operation, and behind it by process, without that of the driver: this program where another one does the work.")
	b.WriteString("\nratio: how many times as fast ours is, the median of the rounds, each with its own ratio; spread: from the lowest round to the highest.")
	b.WriteString("\ngate: what ours has to reach; moonshot: where it would end.")
	b.WriteString("\nbound by: each process's share of all processors while ours ran; what is idle waited, for answers or for the disk; what is stolen, other machines on the same host had.\n")
	for _, name := range slices.Sorted(maps.Keys(r.Shops)) {
		fmt.Fprintf(&b, "%s: %s.\n", name, r.Shops[name])
	}
	if before != nil {
		b.WriteString(r.changes(*before))
	}
	return b.String()
}

// changes lists what moved since the report before: allocations that differ at all, ratios, or what
// ours is alone, by more than both spreads.
func (r report) changes(before report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nsince %s, commit %s:\n", before.Date, before.Machine.Commit)
	none := b.Len()
	told := map[string]bool{} // a work has several rows, and a new part many
	say := func(format string, args ...any) {
		if line := fmt.Sprintf("  "+format+"\n", args...); !told[line] {
			told[line] = true
			b.WriteString(line)
		}
	}
	for _, now := range r.Rows {
		then, fresh := before.find(now)
		if then == nil {
			say("%s: new", fresh)
			continue
		}
		if a, b0 := now.Ours.Allocs, then.Ours.Allocs; math.Abs(a-b0) > max(0.1, b0/50) {
			say("%s: %s allocations, were %s", now.Work, count(a), count(b0))
		}
		wide := max(now.Spread, then.Spread, 0.05)
		if now.Ratio > 0 && then.Ratio > 0 && math.Abs(now.Ratio/then.Ratio-1) > wide {
			say("%s, %s: ratio %.2f, was %.2f", now.Work, now.Peer, now.Ratio, then.Ratio)
		}
		if now.Peer == "" && math.Abs(now.Ours.Value-then.Ours.Value) > wide*then.Ours.Value {
			say("%s: %s, was %s", now.Work, now.result(now.Ours), then.result(then.Ours))
		}
	}
	if b.Len() == none {
		b.WriteString("  no allocation more or less, no ratio moved by more than its spread\n")
	}
	return b.String()
}

// find returns the row that w can be compared with; or, if there is none, what of it is new: its part,
// its work or its peer. Of one whose peer is left out there is ours to compare.
func (r report) find(w row) (then *row, fresh string) {
	fresh, _, _ = strings.Cut(w.Work, " ")
	for i := range r.Rows {
		b := &r.Rows[i]
		switch {
		case b.Work == w.Work && (w.LeftOut || b.Peer == w.Peer && !b.LeftOut):
			return b, ""
		case b.Work == w.Work && w.Peer != "":
			fresh = w.Work + ", " + w.Peer
		case strings.HasPrefix(b.Work, fresh+" "):
			fresh = w.Work
		}
	}
	return nil, fresh
}
