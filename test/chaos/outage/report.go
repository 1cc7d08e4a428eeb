package outage

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Report is what a run saw. Its fields are complete when Run has returned it.
type Report struct {
	Config string
	// Requests by kind, of those that were due while the store was unavailable.
	Requests map[string]*Requests
	// InTime is the share of renewals and releases that were answered within Config.Within.
	InTime float64
	// Late is the number of renewals and releases that were not, by the second of the outage in which they were due.
	Late map[int]int
	// Deferred commands when the store came back, and how long it took until there were none.
	Deferred int
	Settled  time.Duration
	Kills    int
	// Checked commands, and what was wrong: at most maxViolations of them.
	Checked    int
	Violations []string
	// Loads are load averages of the machine.
	Loads []string

	mu     sync.Mutex
	config *Config
	began  time.Time // of the outage
}

// Requests of one kind.
type Requests struct {
	Number, InTime int
	// Answers by what they said.
	Answers map[string]int
	// P50, P99, P999 and Max of the time until the answer.
	P50, P99, P999, Max time.Duration

	took []time.Duration
}

const maxViolations = 100

func newReport(c *Config) *Report {
	return &Report{
		Config: fmt.Sprintf("%d customers, %g requests/s, store away for %v, gateways killed every %v",
			c.Customers, c.Rate, c.Length, c.KillEvery),
		Requests: map[string]*Requests{}, Late: map[int]int{}, config: c,
	}
}

// fail notes what is wrong.
func (r *Report) fail(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.Violations) < maxViolations {
		r.Violations = append(r.Violations, fmt.Sprintf(format, args...))
	}
}

// load notes the load of the machine.
func (r *Report) load(when string) {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Loads = append(r.Loads, fmt.Sprintf("%s: %s", when, strings.Join(strings.Fields(string(b))[:3], " ")))
}

// begin notes the beginning of the outage.
func (r *Report) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = time.Now()
}

// note notes a request, if it was due during the outage.
func (r *Report) note(kind string, judged bool, due time.Time, took time.Duration, answered bool, words string) {
	if !judged {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.Requests[kind]
	if of == nil {
		of = &Requests{Answers: map[string]int{}}
		r.Requests[kind] = of
	}
	of.Number++
	of.Answers[words]++
	of.took = append(of.took, took)
	switch {
	case answered && took <= r.config.Within:
		of.InTime++
	case kind == renew || kind == release:
		r.Late[int(due.Sub(r.began)/time.Second)]++
	}
}

// finish reckons, and judges.
func (r *Report) finish() {
	r.mu.Lock()
	number, inTime := 0, 0
	for kind, of := range r.Requests {
		slices.Sort(of.took)
		at := func(q float64) time.Duration { return of.took[int(q*float64(len(of.took)-1))] }
		of.P50, of.P99, of.P999, of.Max = at(.5), at(.99), at(.999), at(1)
		if kind == renew || kind == release {
			number, inTime = number+of.Number, inTime+of.InTime
		}
	}
	if number > 0 {
		r.InTime = float64(inTime) / float64(number)
	}
	r.mu.Unlock()
	if r.InTime < r.config.Share {
		r.fail("%.3f %% of %d renewals and releases were answered within %v, want %.1f %%",
			100*r.InTime, number, r.config.Within, 100*r.config.Share)
	}
}

// Pass says whether nothing was wrong.
func (r *Report) Pass() bool { return len(r.Violations) == 0 }

// Print writes the report as text.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintf(w, "%s\n\n", r.Config)
	fmt.Fprintf(w, "| request | number | within %v | median | 99 %% | 99.9 %% | longest | answers |\n", r.config.Within)
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|")
	ms := func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }
	for _, kind := range slices.Sorted(maps.Keys(r.Requests)) {
		of := r.Requests[kind]
		var answers []string
		for _, words := range slices.Sorted(maps.Keys(of.Answers)) {
			answers = append(answers, fmt.Sprintf("%s %d", words, of.Answers[words]))
		}
		fmt.Fprintf(w, "| %s | %d | %.3f %% | %s | %s | %s | %s | %s |\n", kind, of.Number,
			100*float64(of.InTime)/float64(of.Number), ms(of.P50), ms(of.P99), ms(of.P999), ms(of.Max),
			strings.Join(answers, ", "))
	}
	fmt.Fprintf(w, "\nrenewals and releases within %v: %.3f %%\n", r.config.Within, 100*r.InTime)
	var late []string
	for _, second := range slices.Sorted(maps.Keys(r.Late)) {
		late = append(late, fmt.Sprintf("%d: %d", second, r.Late[second]))
	}
	if len(late) > 0 {
		fmt.Fprintf(w, "later, by the second of the outage: %s\n", strings.Join(late, ", "))
	}
	fmt.Fprintf(w, "deferred at the end of the outage: %d; settled %v after the store was back\n",
		r.Deferred, r.Settled)
	fmt.Fprintf(w, "gateways killed: %d; commands checked in histories: %d\n", r.Kills, r.Checked)
	fmt.Fprintf(w, "load of the machine: %s\n", strings.Join(r.Loads, "; "))
	for _, v := range r.Violations {
		fmt.Fprintf(w, "VIOLATION: %s\n", v)
	}
	if r.Pass() {
		fmt.Fprintln(w, "PASS")
	} else {
		fmt.Fprintf(w, "FAIL: %d violations\n", len(r.Violations))
	}
}
