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
	"text/tabwriter"
)

// results is the folder of what was measured.
const results = "results"

// report is one run of the program.
type report struct {
	Date       string  `json:"date"`
	Machine    machine `json:"machine"`
	LoadBefore string  `json:"load_before"`
	LoadAfter  string  `json:"load_after"`
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
	fmt.Fprintf(&b, "%s  commit %s  %s, %d processors, %s, %s  fsync %s  load %s before, %s after\n",
		r.Date, m.Commit, m.Processor, m.Processors, m.System, m.Go, m.Fsync, r.LoadBefore, r.LoadAfter)
	var libraries []string
	for path, version := range m.Versions {
		libraries = append(libraries, path+" "+version)
	}
	slices.Sort(libraries)
	fmt.Fprintf(&b, "%s\n\n", strings.Join(libraries, ", "))

	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "work\tours\tpeer\ttheirs\tratio\tallocs\ttheirs\tbytes\ttheirs\trounds\tspread\tgate\tours is bound by")
	for _, w := range r.Rows {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t%s\t%s\t%s\t%s\t%d\t%.0f %%\t%s\t%s\n",
			w.Work, w.told(w.Ours), w.Peer, w.told(w.Theirs), w.Ratio,
			w.count(w.Ours.Allocs), w.count(w.Theirs.Allocs), w.count(w.Ours.Bytes), w.count(w.Theirs.Bytes), w.Rounds, 100*w.Spread, w.Gate, w.Bound)
	}
	t.Flush()
	b.WriteString("\nbound by: each process's share of all processors while ours ran; what is idle waited, for answers or for the disk.")
	b.WriteString("\nratio: how many times as fast ours is, the median of the rounds; spread: from the lowest round to the highest.\n")
	if len(r.Shops) > 0 {
		b.WriteString("orders to mails: p50 / p99 / max, from when an order had to be placed; their ratio is that of the p99. driver: the customers and the mail server.\n")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Shops)) {
		fmt.Fprintf(&b, "%s: %s.\n", name, r.Shops[name])
	}
	if before != nil {
		b.WriteString(r.changes(*before))
	}
	return b.String()
}

// told is a rate with the processor's time beside it, or that time alone.
func (w row) told(f figure) string {
	switch w.Unit {
	case unitRate:
		return fmt.Sprintf("%.0f k/s, %.1f us", f.Rate/1e3, f.CPU/1e3)
	case unitSagas:
		return fmt.Sprintf("%.0f/s, %s", f.Rate, f.perThousand()) + f.Sagas.faults()
	case unitLate:
		return fmt.Sprintf("%.1f / %.1f / %.0f ms", f.Sagas.P50, f.Sagas.P99, f.Sagas.Max) + f.Sagas.faults()
	}
	return fmt.Sprintf("%.0f ns", f.CPU)
}

// perThousand is the processor's time of a thousand operations, in all and by process; that of the
// customers is none of it.
func (f figure) perThousand() string {
	all, parts := f.CPU, fmt.Sprintf("shop %.2f", f.CPU/1e6)
	for _, name := range slices.Sorted(maps.Keys(f.Others)) {
		if name != driver {
			all += f.Others[name]
		}
		parts += fmt.Sprintf(", %s %.2f", name, f.Others[name]/1e6)
	}
	return fmt.Sprintf("%.2f CPU s per 1,000 (%s)", all/1e6, parts)
}

// faults is what went wrong; empty if nothing did.
func (s sagas) faults() (said string) {
	for _, one := range []struct {
		n    int
		what string
	}{{s.Lost, "lost"}, {s.Doubled, "doubled"}, {s.Refused, "refused"}} {
		if one.n > 0 {
			said += fmt.Sprintf(", %d %s", one.n, one.what)
		}
	}
	return said
}

// count is - where another process allocates.
func (w row) count(n float64) string {
	if w.Ours.Sagas != nil {
		return "-"
	}
	return count(n)
}

// count drops what one-time costs add to a figure per operation.
func count(n float64) string {
	if n >= 20 || math.Abs(n-math.Round(n)) < 0.05 {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.1f", n)
}

// changes lists what moved since the report before: allocations that differ at all, ratios by
// more than both spreads.
func (r report) changes(before report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nsince %s, commit %s:\n", before.Date, before.Machine.Commit)
	none := b.Len()
	for _, now := range r.Rows {
		i := slices.IndexFunc(before.Rows, func(w row) bool { return w.Work == now.Work && w.Peer == now.Peer })
		if i < 0 {
			fmt.Fprintf(&b, "  %s, %s: new\n", now.Work, now.Peer)
			continue
		}
		then := before.Rows[i]
		if a, b0 := now.Ours.Allocs, then.Ours.Allocs; math.Abs(a-b0) > max(0.1, b0/50) {
			fmt.Fprintf(&b, "  %s: %s allocations, were %s\n", now.Work, count(a), count(b0))
		}
		if math.Abs(now.Ratio/then.Ratio-1) > max(now.Spread, then.Spread, 0.05) {
			fmt.Fprintf(&b, "  %s, %s: ratio %.2f, was %.2f\n", now.Work, now.Peer, now.Ratio, then.Ratio)
		}
	}
	if b.Len() == none {
		b.WriteString("  no allocation more or less, no ratio moved by more than its spread\n")
	}
	return b.String()
}
