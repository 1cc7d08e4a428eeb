package chaos

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"licensed/test/chaos/fault"
)

// injected is the number of faults that were done, of all kinds.
func (v *Verdict) injected() (n int) {
	for _, c := range v.Faults {
		n += c.Injected
	}
	return n
}

// kindsInjected is of how many kinds these were.
func (v *Verdict) kindsInjected() (n int) {
	for _, c := range v.Faults {
		if c.Injected > 0 {
			n++
		}
	}
	return n
}

// faultRows are the kinds of faults with their counts, and the sum.
func (v *Verdict) faultRows() (rows [][5]string) {
	var sum fault.Count
	row := func(name string, c fault.Count) {
		rows = append(rows, [5]string{name, thousands(c.Injected), blank(c.Idle), blank(c.Failed), blank(c.LeftOut)})
	}
	for _, kind := range sortedKeys(v.Faults) {
		c := v.Faults[kind]
		row(kind, c)
		sum = sum.Plus(c)
	}
	row("all", sum)
	return rows
}

// blank is a number, or nothing for none.
func blank(n int) string {
	if n == 0 {
		return ""
	}
	return thousands(n)
}

func thousands(i int) string {
	if i < 0 {
		return "-" + thousands(-i)
	}
	if i < 1000 {
		return fmt.Sprint(i)
	}
	return thousands(i/1000) + fmt.Sprintf(",%03d", i%1000)
}

// word is the verdict in short.
func (v *Verdict) word() string {
	if v.Pass {
		return "PASS"
	}
	return fmt.Sprintf("FAIL: %d violations", len(v.Violations))
}

// Print tells the verdict to people.
func (v *Verdict) Print(w io.Writer) {
	fmt.Fprintf(w, "%s  seed %d, %v\n", v.word(), v.Seed, v.Length.Round(time.Second))
	fmt.Fprintf(w, "  %s requests of %s customers: %s commands acknowledged (%s accepted, %s refused), "+
		"%s resolved by repeating, %s never; %s questions\n",
		thousands(v.Requests), thousands(v.Customers), thousands(v.Acknowledged), thousands(v.Accepted),
		thousands(v.Refused),
		thousands(v.Resolved), thousands(v.Unresolved), thousands(v.Queries))
	fmt.Fprintf(w, "  %s events, %s of them archived; %s changes of epoch seen by customers\n",
		thousands(v.Events), thousands(v.Archived), thousands(v.Epochs))
	fmt.Fprintf(w, "  longest wait after healing %v, judged after the last fault and in %d stretches without one; "+
		"checked in %v\n", v.Recovery.Round(time.Millisecond), v.Calms, v.Checked.Round(time.Millisecond))
	for _, n := range v.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	v.printFaults(w)
	v.printPoints(w)
	for i, x := range v.Violations {
		if i == 20 {
			fmt.Fprintf(w, "  and %d more, see %s\n", len(v.Violations)-i, verdictFile)
			break
		}
		fmt.Fprintf(w, "  %v\n", x)
	}
}

func (v *Verdict) printFaults(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight|tabwriter.TabIndent)
	fmt.Fprint(t, "injected\tmet nothing\tfailed\tleft out\t  fault\n")
	for _, row := range v.faultRows() {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t  %s\n", row[1], row[2], row[3], row[4], row[0])
	}
	_ = t.Flush() // As with the lines around it, nobody could be told.
}

// printPoints says the number of points that were passed and died at, and names those that were not.
func (v *Verdict) printPoints(w io.Writer) {
	if len(v.Points) == 0 {
		return
	}
	crashes, died := 0, 0
	var alive []string
	for _, name := range sortedKeys(v.Points) {
		if n := v.Points[name].Crashes; n > 0 {
			crashes += n
			died++
		} else {
			alive = append(alive, name)
		}
	}
	fmt.Fprintf(w, "  failpoints: %d of %d passed, %d died at, %d times in all\n",
		len(v.Points)-len(v.Missed), len(v.Points), died, crashes)
	if len(v.Missed) > 0 {
		fmt.Fprintf(w, "  not passed: %s\n", strings.Join(v.Missed, ", "))
	}
	if len(alive) > 0 {
		fmt.Fprintf(w, "  not died at: %s\n", strings.Join(alive, ", "))
	}
}
