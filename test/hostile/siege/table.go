package siege

import (
	"fmt"
	"strings"
)

// Table returns the page about a siege: a row for each attack, and what came of it before and after.
func Table(before, after *Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Hostile run\n\n"+
		"<!-- Generated: licensed-chaos hostile --table docs/design/hostile-run.md -->\n\n"+
		"What attacks did to a cluster on real Cassandra, by `licensed-chaos hostile`.\n"+
		"[threat-model.md](threat-model.md) has the mechanisms and the tests of each.\n\n"+
		"The siege starts a cluster with certificates on each port, an auth file and a gossip key, and attacks it "+
		"from an address of its own.\n"+
		"A good client calls the gateways meanwhile; an attack also succeeds if less than 99 %% of its requests are "+
		"served, if a process ends, or if one takes %d MiB more memory than without attacks.\n"+
		"Settings that a release does not know are left out: what that leaves open is part of its result.\n\n",
		maxGrowth>>20)
	fmt.Fprintf(&b, "| | release | cluster | date | good client alone |\n|---|---|---|---|---|\n")
	for _, one := range []struct {
		name   string
		report *Report
	}{{"before", before}, {"after", after}} {
		if one.report != nil {
			fmt.Fprintf(&b, "| %s | %s | %d nodes, %d gateways | %s | %s |\n", one.name, cell(one.report.Version),
				one.report.Nodes, one.report.Gateways, one.report.Time.Format("2006-01-02"), one.report.Alone)
		}
	}
	if before != nil && len(before.Unknown) > 0 {
		fmt.Fprintf(&b, "\nThe earlier release has no `--%s`.\n", strings.Join(before.Unknown, "`, `--"))
	}
	group := ""
	for _, a := range after.Results {
		if a.Group != group {
			group = a.Group
			fmt.Fprintf(&b, "\n## %s%s\n\n| attack | before | after | seen after | good client meanwhile |\n"+
				"|---|---|---|---|---|\n", strings.ToUpper(group[:1]), group[1:])
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell(a.Name), earlier(before, a), word(a.Outcome),
			cell(short(a.Seen)),
			a.Good)
	}
	return b.String()
}

// earlier returns what came of an attack in the report of the earlier release.
func earlier(before *Report, a Result) string {
	if before == nil {
		return "—"
	}
	for _, r := range before.Results {
		if r.Group == a.Group && r.Name == a.Name {
			if r.Breached || r.Skipped {
				return word(r.Outcome) + ": " + cell(short(r.Seen))
			}
			return word(r.Outcome)
		}
	}
	return "—"
}

func word(o Outcome) string {
	switch {
	case o.Breached:
		return "**succeeded**"
	case o.Skipped:
		return "not tried"
	}
	return "held"
}

// cell returns text for a cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<", "&lt;", "*", "\\*").Replace(text)
}
