package chaos

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"licensed/test/chaos/check"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
	"licensed/test/chaos/report"
)

// promises are what the checks hold the service to, in words for the page.
var promises = map[string]string{
	check.Acknowledged: "Every acknowledged command is in the history exactly once, " +
		"at the sequence and with the content that was told.",
	check.Refused: "What was refused or not executed changed nothing; a command that was never answered was " +
		"executed at most once; nothing was executed that no client sent.",
	check.Linearizable: "Per customer, all answers are those of one who is asked one thing after the other, " +
		"in the order of real time.",
	check.Limits:    "No accepted command raised a count above the limit then in force.",
	check.Structure: "Sequences dense, epochs rising, roots chained; a replay equals what every gateway answers.",
	check.Archive:   "The history is complete over both tiers, and archiving changed nothing.",
	check.Faults:    "A run that was asked for faults had some.",
	check.Health: "After healing every customer and every command is answered in time, nobody waits on, " +
		"no process ended by itself, resources return.",
}

// shown violations of a check.
const shown = 10

// WriteReport draws the page of a run from what is in its directory.
func WriteReport(dir string) error {
	var v Verdict
	if err := readJSON(filepath.Join(dir, verdictFile), &v); err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, historyFile))
	if err != nil {
		return err
	}
	defer f.Close()
	ops, err := history.Read(f)
	if err != nil {
		return err
	}
	return v.report(dir, ops)
}

// report draws the page.
func (v *Verdict) report(dir string, ops []*history.Op) error {
	faults, err := readLines[fault.Record](filepath.Join(dir, faultsFile))
	if err != nil {
		return err
	}
	samples, err := readLines[Sample](filepath.Join(dir, samplesFile))
	if err != nil {
		return err
	}
	d := &report.Data{
		Title: fmt.Sprintf("Chaos run, seed %d, %s", v.Seed, v.Started.UTC().Format("2006-01-02 15:04 UTC")),
		Pass:  v.Pass, Facts: v.facts(), Checks: v.checks(), Length: v.Length, FaultsFrom: v.FaultsFrom,
		FaultsTo: v.FaultsTo,
		Ops:      ops, Faults: faults, Tables: v.tables(), Notes: v.Notes,
	}
	last := time.Duration(-1)
	for _, s := range samples { // Several members are asked; the first that answers in a second will do.
		if s.Up && s.Epoch > 0 && s.At-last > time.Second/2 {
			d.Holdings = append(d.Holdings, report.Holding{At: s.At, Shards: s.Shards, Epoch: s.Epoch})
			last = s.At
		}
	}
	page, err := report.Render(d)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, reportFile), page, 0o644)
}

func (v *Verdict) facts() []report.Fact {
	n := func(i int) string { return thousands(i) }
	return []report.Fact{
		{
			Name:   "commands acknowledged",
			Value:  n(v.Acknowledged),
			Detail: fmt.Sprintf("%s accepted, %s refused", n(v.Accepted), n(v.Refused)),
		},
		{
			Name:   "resolved by repeating",
			Value:  n(v.Resolved),
			Detail: fmt.Sprintf("%s never answered", n(v.Unresolved)),
		},
		{
			Name:   "faults",
			Value:  n(v.injected()),
			Detail: fmt.Sprintf("of %d kinds in %v", v.kindsInjected(), (v.FaultsTo - v.FaultsFrom).Round(time.Second)),
		},
		{Name: "events", Value: n(v.Events), Detail: fmt.Sprintf("%s archived", n(v.Archived))},
		{
			Name:   "customers",
			Value:  n(v.Customers),
			Detail: fmt.Sprintf("%s changes of epoch in their histories", n(v.Epochs)),
		},
		{
			Name:   "longest wait after healing",
			Value:  v.Recovery.Round(time.Millisecond).String(),
			Detail: "10s are allowed",
		},
		{Name: "questions, validations", Value: n(v.Queries), Detail: fmt.Sprintf("%s requests in all", n(v.Requests))},
		{
			Name:   "checked in",
			Value:  v.Checked.Round(time.Millisecond).String(),
			Detail: fmt.Sprintf("violations: %d", len(v.Violations)),
		},
	}
}

func (v *Verdict) checks() []report.Check {
	var all []report.Check
	for _, name := range check.All {
		c := report.Check{Name: name, What: promises[name]}
		for _, x := range v.Violations {
			switch {
			case x.Check != name:
			case len(c.Violations) < shown:
				c.Violations = append(c.Violations, x.String())
			default:
				c.More++
			}
		}
		all = append(all, c)
	}
	return all
}

func (v *Verdict) tables() []report.Table {
	faults := report.Table{
		Title: "Faults", Head: []string{"kind", "injected", "met nothing", "failed", "left out"},
		Note: "A crash at a point that was not reached, a limit that was not met and a node's clock jump whose time " +
			"no event bears have met nothing. Left out is what was planned while a target was still being healed.",
	}
	for _, row := range v.faultRows() {
		faults.Rows = append(faults.Rows, row[:])
	}
	resources := report.Table{
		Title: "Resources",
		Note:  "Before the faults, and after everything was collected.",
		Head:  []string{"process", "goroutines", "heap", "up for"},
	}
	for _, name := range sortedKeys(v.Resources) {
		r := v.Resources[name]
		resources.Rows = append(resources.Rows, []string{
			name, fmt.Sprintf("%.0f → %.0f", r[0].Goroutines, r[1].Goroutines),
			fmt.Sprintf("%.1f → %.1f MiB", r[0].Heap/(1<<20), r[1].Heap/(1<<20)),
			fmt.Sprintf("%.0f s", r[1].Uptime),
		})
	}
	tables := []report.Table{faults, resources}
	if len(v.Points) > 0 {
		points := report.Table{
			Title: "Failpoints", Head: []string{"point", "passed", "crashes"},
			Note: fmt.Sprintf("%d of %d were passed.", len(v.Points)-len(v.Missed), len(v.Points)),
		}
		for _, name := range sortedKeys(v.Points) {
			p := v.Points[name]
			points.Rows = append(points.Rows, []string{name, thousands(int(p.Passed)), fmt.Sprint(p.Crashes)})
		}
		tables = append(tables, points)
	}
	return tables
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// readLines reads a file of JSON lines.
func readLines[T any](path string) (lines []T, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); ; {
		if !s.Scan() {
			return lines, s.Err()
		}
		var l T
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", path, len(lines)+1, err)
		}
		lines = append(lines, l)
	}
}
