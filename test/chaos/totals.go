package chaos

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"licensed/test/chaos/deploy"
	"licensed/test/chaos/fault"
)

// Totals are several runs added up.
type Totals struct {
	runs []totalled
	sum  Verdict
}

// totalled is one of them.
type totalled struct {
	dir string
	*Verdict
}

// Sum adds up the runs of several directories, by their verdicts.
func Sum(dirs []string) (*Totals, error) {
	t := &Totals{sum: Verdict{Pass: true, Faults: map[string]fault.Count{}, Points: map[string]deploy.Point{}}}
	for _, dir := range dirs {
		v := new(Verdict)
		if err := readJSON(filepath.Join(dir, verdictFile), v); err != nil {
			return nil, err
		}
		for _, other := range t.runs {
			if other.Seed == v.Seed && other.Started.Equal(v.Started) {
				return nil, fmt.Errorf("%s and %s are the same run, with seed %d", other.dir, dir, v.Seed)
			}
		}
		t.runs = append(t.runs, totalled{dir, v})
		t.sum.add(v)
	}
	for _, name := range sortedKeys(t.sum.Points) {
		if t.sum.Points[name].Passed == 0 {
			t.sum.Missed = append(t.sum.Missed, name)
		}
	}
	return t, nil
}

// Pass says whether every run passed.
func (t *Totals) Pass() bool { return t.sum.Pass }

// add adds another run's figures.
func (v *Verdict) add(o *Verdict) {
	v.Pass = v.Pass && o.Pass
	v.Violations = append(v.Violations, o.Violations...)
	v.Length += o.FaultsTo - o.FaultsFrom
	v.Recovery = max(v.Recovery, o.Recovery)
	v.Requests, v.Queries = v.Requests+o.Requests, v.Queries+o.Queries
	v.Acknowledged, v.Accepted, v.Refused = v.Acknowledged+o.Acknowledged, v.Accepted+o.Accepted, v.Refused+o.Refused
	v.Unresolved, v.Resolved = v.Unresolved+o.Unresolved, v.Resolved+o.Resolved
	v.Customers += o.Customers
	v.Events = v.Events + o.Events
	v.Archived = v.Archived + o.Archived
	v.Epochs = v.Epochs + o.Epochs
	for kind, c := range o.Faults {
		v.Faults[kind] = v.Faults[kind].Plus(c)
	}
	for name, p := range o.Points {
		sum := v.Points[name]
		v.Points[name] = deploy.Point{Passed: sum.Passed + p.Passed, Crashes: sum.Crashes + p.Crashes}
	}
}

// Print tells the totals as tables of Markdown, which go into documents as they are.
func (t *Totals) Print(w io.Writer) {
	fmt.Fprint(w, "| run | deployment | seed | with faults | faults | acknowledged | by repeating | never answered "+
		"| events | longest wait after healing | verdict |\n"+
		"|---|---|---|---|---|---|---|---|---|---|---|\n")
	row := func(name, deployment, seed string, length time.Duration, v *Verdict) {
		fmt.Fprintf(w, "| %s | %s | %s | %v | %s | %s | %s | %s | %s | %v | %s |\n",
			name, deployment, seed, length.Round(time.Second),
			thousands(v.injected()), thousands(v.Acknowledged), thousands(v.Resolved), thousands(v.Unresolved),
			thousands(v.Events), v.Recovery.Round(time.Millisecond), v.word())
	}
	for _, r := range t.runs {
		row(filepath.Base(r.dir), r.Deployment, fmt.Sprint(r.Seed), r.FaultsTo-r.FaultsFrom, r.Verdict)
	}
	row(fmt.Sprintf("all %d", len(t.runs)), "", "", t.sum.Length, &t.sum)
	fmt.Fprint(w, "\n| fault | injected | met nothing | failed | left out |\n|---|---|---|---|---|\n")
	for _, r := range t.sum.faultRows() {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", r[0], r[1], r[2], r[3], r[4])
	}
	if len(t.sum.Points) == 0 {
		return
	}
	fmt.Fprint(w, "\n| point | passed | died at |\n|---|---|---|\n")
	for _, name := range sortedKeys(t.sum.Points) {
		p := t.sum.Points[name]
		fmt.Fprintf(w, "| %s | %s | %s |\n", name, thousands(int(p.Passed)), blank(p.Crashes))
	}
}
