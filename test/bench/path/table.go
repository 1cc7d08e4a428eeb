package path

import (
	"fmt"
	"io"
	"time"

	"licensed/internal/terminal"
	"licensed/test/bench/meter"
)

// tables are the result of a run.
type tables struct {
	*Config
	rows []row
	raw  *meter.Result // nil without Cassandra
}

// print writes the figures of each contender, then ratios of them.
func (t *tables) print(w io.Writer) error {
	groups := t.rows[0].counters.groups
	titles := []string{"VARIANT", "MODE", ">IN FLIGHT", ">COMMANDS/S", ">P50 ms", ">P99 ms"}
	for _, g := range groups {
		titles = append(titles, ">"+g.name)
	}
	fmt.Fprintf(w, "\nMedians of %d turns of %v; the columns of processes are CPU time of a command, in µs\n",
		t.Rounds, t.Turn)
	if err := t.table(w, titles, func(r *row, m meter.Measure) []string {
		cells := []string{fmt.Sprintf("%.0f", m.PerSecond), milliseconds(m.P50), milliseconds(m.P99)}
		for i := range groups {
			cells = append(cells, fmt.Sprintf("%.1f", 1e6*m.Used[index(i, cpu)]))
		}
		return cells
	}); err != nil {
		return err
	}
	titles = titles[:3]
	own := 0 // those whose allocations and system calls are known
	for ; own < len(groups) && groups[own].pids == nil; own++ {
		titles = append(titles, ">ALLOCS: "+groups[own].name)
	}
	for _, g := range groups[:own] {
		titles = append(titles, ">CALLS: "+g.name)
	}
	fmt.Fprintln(w, "\nAllocated objects, and calls of read and write, of a command")
	if err := t.table(w, titles, func(_ *row, m meter.Measure) []string {
		var cells []string
		for _, kind := range []int{allocations, syscalls} {
			for i := range own {
				cells = append(cells, fmt.Sprintf("%.2f", m.Used[index(i, kind)]))
			}
		}
		return cells
	}); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nRatios: the median of all rounds (and its quarters)")
	return t.ratios(w)
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

// table writes one row for each contender.
func (t *tables) table(w io.Writer, titles []string, cells func(*row, meter.Measure) []string) error {
	table := terminal.NewTable(w, 0, titles...)
	for i := range t.rows {
		r := &t.rows[i]
		table.Add(append([]string{r.fleet.Name, r.mode, fmt.Sprint(r.inFlight)}, cells(r, r.Median())...)...)
	}
	return table.Flush()
}

// find returns the row of a variant.
func (t *tables) find(variant, mode string, inFlight int) *row {
	for i := range t.rows {
		if r := &t.rows[i]; r.fleet.Name == variant && r.mode == mode && r.inFlight == inFlight {
			return r
		}
	}
	return nil
}

// ratios writes a line for each pair of contenders that is worth a comparison.
func (t *tables) ratios(w io.Writer) error {
	table := terminal.NewTable(w, 0, "RATIO", ">IN FLIGHT", ">COMMANDS/S", ">P50", ">P99", ">CPU OF NODES AND GATEWAY")
	for i := range t.rows {
		r := &t.rows[i]
		if r.mode == session {
			over(table, r, t.find(r.fleet.Name, unary, r.inFlight), r.fleet.Name+", session ÷ unary")
		}
	}
	first := t.Variants[0].Name
	for _, v := range t.Variants[1:] {
		for i := range t.rows {
			if r := &t.rows[i]; r.fleet.Name == first {
				over(table, r, t.find(v.Name, r.mode, r.inFlight), fmt.Sprintf("%s ÷ %s, %s", first, v.Name, r.mode))
			}
		}
	}
	for i := range t.rows {
		if r := &t.rows[i]; t.raw != nil && r.inFlight == 1 {
			what := fmt.Sprintf("%s, %s ÷ raw insert of gocql (p50 %v)",
				r.fleet.Name, r.mode, t.raw.Median().P50.Round(time.Microsecond))
			table.Add(what, "1", "", meter.Over(r.Result, *t.raw, meter.P50).String(), "", "")
		}
	}
	return table.Flush()
}

// over adds a line, if there are both rows.
func over(t *terminal.Table, a, b *row, what string) {
	if b == nil {
		return
	}
	p99 := func(m meter.Measure) float64 { return float64(m.P99) }
	t.Add(what, fmt.Sprint(a.inFlight), meter.Over(a.Result, b.Result, meter.Rate).String(),
		meter.Over(a.Result, b.Result, meter.P50).String(), meter.Over(a.Result, b.Result, p99).String(),
		meter.Over(a.Result, b.Result, a.ours).String())
}

// ours is the CPU time of the processes of licensed.
func (r *row) ours(m meter.Measure) float64 {
	sum := 0.0
	for i, g := range r.counters.groups {
		if g.members != nil {
			sum += m.Used[index(i, cpu)]
		}
	}
	return sum
}

// idleTable is the result of Idle.
type idleTable struct{ rows [][]string }

func (t *idleTable) add(variant, name string, cores float64) {
	t.rows = append(t.rows, []string{variant, name, fmt.Sprintf("%.4f", cores)})
}

func (t *idleTable) print(w io.Writer) error {
	table := terminal.NewTable(w, 0, "WITH", "PROCESS", ">CORES")
	for _, r := range t.rows {
		table.Add(r...)
	}
	return table.Flush()
}
