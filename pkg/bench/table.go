package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// line is one side in a table.
type line struct {
	row           // without a ratio if it is ours
	work   string // empty but on the first line of each
	side   string
	figure figure
}

// column is empty where it does not apply, and left out where it is empty on all lines.
type column struct {
	name string
	of   func(line) string
}

// writeTables writes a table for each part, with the columns that it needs.
func writeTables(b io.Writer, rows []row) {
	for len(rows) > 0 {
		part, _, _ := strings.Cut(rows[0].Work, " ")
		n := slices.IndexFunc(rows, func(r row) bool { return !strings.HasPrefix(r.Work, part+" ") })
		if n < 0 {
			n = len(rows)
		}
		writeTable(b, part, lines(rows[:n]))
		rows = rows[n:]
	}
}

func writeTable(b io.Writer, part string, all []line) {
	columns := slices.DeleteFunc(columnsOf(part, all), func(c column) bool {
		return !slices.ContainsFunc(all, func(l line) bool { return c.of(l) != "" })
	})
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	write := func(cell func(column) string) {
		for _, c := range columns {
			fmt.Fprintf(t, "%s\t", cell(c))
		}
		fmt.Fprintln(t)
	}
	write(func(c column) string { return c.name })
	for _, l := range all {
		write(func(c column) string { return c.of(l) })
	}
	t.Flush()
	for one := range strings.Lines(text.String()) {
		fmt.Fprintln(b, strings.TrimRight(one, " \n"))
	}
	fmt.Fprintln(b)
}

// lines are ours and then each other side, for each work. A gate that is the same beside all of them
// is ours.
func lines(rows []row) (all []line) {
	for len(rows) > 0 {
		ours := rows[0]
		n := slices.IndexFunc(rows, func(r row) bool { return r.Work != ours.Work })
		if n < 0 {
			n = len(rows)
		}
		one := !slices.ContainsFunc(rows[:n], func(r row) bool { return r.Gate != ours.Gate })
		if !one {
			ours.Gate = ""
		}
		if ours.Peer != "" {
			ours.Ratio, ours.Spread, ours.LeftOut = 0, 0, false
		}
		all = append(all, line{ours, ours.Work[strings.IndexByte(ours.Work, ' ')+1:], ours.Side, ours.Ours})
		for _, r := range rows[:n] {
			if r.Peer == "" {
				continue
			}
			if one {
				r.Gate = ""
			}
			r.Bound, r.Rounds = "", 0
			all = append(all, line{r, "", r.Peer, r.Theirs})
		}
		rows = rows[n:]
	}
	return all
}

func columnsOf(part string, all []line) []column {
	columns := []column{
		{part, func(l line) string { return l.work }},
		{"side", func(l line) string { return l.side }},
		{"result", func(l line) string {
			if l.LeftOut {
				return "wants PostgreSQL"
			}
			return l.result(l.figure)
		}},
		{"ratio", func(l line) string { return unlessZero("%.2f", l.Ratio) }},
		{"spread", func(l line) string { return unlessZero("%.0f %%", 100*l.Spread) }},
		{"p50", func(l line) string { return l.late(func(a latency) time.Duration { return a.P50 }) }},
		{"p99", func(l line) string { return l.late(func(a latency) time.Duration { return a.P99 }) }},
		{"max", func(l line) string { return l.late(func(a latency) time.Duration { return a.Max }) }},
	}
	for _, what := range names(all, func(f figure) map[string]int { return f.Faults }) {
		columns = append(columns, column{what, func(l line) string { return unlessZero("%.0f", float64(l.figure.Faults[what])) }})
	}
	columns = append(columns,
		column{"CPU us", func(l line) string { return l.micros(l.figure.whole(), len(l.figure.Others) > 0) }},
		column{"client", func(l line) string { return l.micros(l.figure.CPU, true) }})
	for _, name := range names(all, func(f figure) map[string]float64 { return f.Others }) {
		columns = append(columns, column{name, func(l line) string { return l.micros(l.figure.Others[name], true) }})
	}
	return append(columns,
		column{"allocs", func(l line) string { return l.allocated(l.figure.Allocs) }},
		column{"bytes", func(l line) string { return l.allocated(l.figure.Bytes) }},
		column{"rounds", func(l line) string { return unlessZero("%.0f", float64(l.Rounds)) }},
		column{"gate", func(l line) string { return l.Gate }},
		column{"ours is bound by", func(l line) string { return l.Bound }})
}

// names are all keys of a map in the lines' figures.
func names[V any](all []line, of func(figure) map[string]V) []string {
	found := map[string]bool{}
	for _, l := range all {
		for name := range of(l.figure) {
			found[name] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// result is that by which the sides are compared.
func (w row) result(f figure) string {
	switch w.Unit {
	case unitCPU:
		return fmt.Sprintf("%.0f ns", f.CPU)
	case unitRate, unitLate:
		if f.Rate >= 10e3 {
			return figures(f.Rate/1e3) + " k/s"
		}
		return figures(f.Rate) + "/s"
	}
	return strings.TrimSpace(figures(f.Value) + " " + w.Unit)
}

// figures are three that say something.
func figures(v float64) string {
	digits := 0
	if a := math.Abs(v); a < 100 && a != math.Trunc(a) {
		digits = min(3, 2-int(math.Floor(math.Log10(a))))
	}
	return fmt.Sprintf("%.*f", digits, v)
}

// whole is the processor's time of all but the driver.
func (f figure) whole() float64 {
	all := f.CPU
	for name, cpu := range f.Others {
		if name != driver {
			all += cpu
		}
	}
	return all
}

// micros is empty where the result is the processor's time, or a metric.
func (l line) micros(ns float64, known bool) string {
	if l.Unit == unitCPU || l.figure.Rate == 0 || !known {
		return ""
	}
	return fmt.Sprintf("%.1f", ns/1e3)
}

func (l line) late(of func(latency) time.Duration) string {
	if l.figure.Latency == nil {
		return ""
	}
	return fmt.Sprintf("%.1f ms", float64(of(*l.figure.Latency))/1e6)
}

// allocated is empty where another process does the work: nobody counts there.
func (l line) allocated(n float64) string {
	if _, another := l.figure.Others[driver]; another || l.figure.Rate == 0 {
		return ""
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

func unlessZero(format string, v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(format, v)
}
