package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"licensed/test/chaos/check"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// Files of a run's directory.
const (
	historyFile   = "history.jsonl.zst"
	customersFile = "customers.jsonl.zst"
	faultsFile    = "faults.jsonl"
	samplesFile   = "samples.jsonl"
	verdictFile   = "verdict.json"
	reportFile    = "report.html"
)

// Verdict is the result of a run.
type Verdict struct {
	Pass       bool              `json:"pass"`
	Violations []check.Violation `json:"violations"`
	// Accidents are ends of processes that nobody asked for.
	Accidents []string `json:"accidents,omitempty"`

	// Deployment is what was broken, in words.
	Deployment string        `json:"deployment"`
	Seed       uint64        `json:"seed"`
	Started    time.Time     `json:"started"`
	Length     time.Duration `json:"length"`
	// FaultsFrom and FaultsTo are the phase with faults.
	FaultsFrom time.Duration `json:"faults_from"`
	FaultsTo   time.Duration `json:"faults_to"`
	// Recovery is the longest that a customer waited for an answer after healing: after the last fault, and in
	// the Calms, the stretches without a fault that are longer than recovery may take.
	Recovery time.Duration `json:"recovery"`
	Calms    int           `json:"calms"`

	Requests     int `json:"requests"`
	Acknowledged int `json:"acknowledged"`
	Accepted     int `json:"accepted"`
	Refused      int `json:"refused"`
	// Unresolved commands never got an answer. Resolved ones got theirs after one that told nothing.
	Unresolved int `json:"unresolved"`
	Resolved   int `json:"resolved"`
	Queries    int `json:"queries"`
	Customers  int `json:"customers"`
	Events     int `json:"events"`
	Archived   int `json:"archived"`
	// Epochs is the number of changes of the epoch within a history.
	Epochs int `json:"epochs"`

	// Faults has every kind that the deployment offers and the run wanted.
	Faults map[string]fault.Count `json:"faults"`
	// HourJumps is the number of clock jumps of an hour that were met: an event bears the wrong time.
	HourJumps int                     `json:"hour_jumps"`
	Points    map[string]deploy.Point `json:"points,omitempty"`
	Missed    []string                `json:"missed,omitempty"`
	Notes     []string                `json:"notes,omitempty"`
	Resources map[string][2]Resources `json:"resources,omitempty"`
	Checked   time.Duration           `json:"checked"`

	Rules model.Rules `json:"rules"`
}

func newVerdict(c *Config) *Verdict {
	return &Verdict{Seed: c.Schedule.Seed, Started: time.Now(), Deployment: c.Deployment, Rules: c.Rules}
}

// finish writes what is left to write, checks, and writes the verdict.
func (r *run) finish() error {
	v := r.verdict
	slices.SortFunc(r.faults, func(a, b fault.Record) int { return int(a.Injected - b.Injected) })
	v.countFaults(r.faults)
	for _, name := range sortedKeys(v.Points) {
		if p := v.Points[name]; p.Passed == 0 {
			v.Missed = append(v.Missed, name)
		}
	}
	err := errors.Join(
		writeLines(filepath.Join(r.Dir, faultsFile), r.faults),
		writeLines(filepath.Join(r.Dir, samplesFile), r.samples),
	)
	if err != nil {
		return err
	}
	r.Log.Info("checking")
	if err := v.check(r.Dir, r.recorder.Ops()); err != nil {
		return err
	}
	return v.publish(r.Dir, r.recorder.Ops())
}

// plan notes which kinds of faults there are, and takes all that is planned for left out until it is counted.
func (v *Verdict) plan(kinds []fault.Kind, plan []fault.Planned) {
	v.Faults = map[string]fault.Count{}
	for _, k := range kinds {
		v.Faults[k.Name] = fault.Count{}
	}
	for _, p := range plan {
		v.Faults[p.Kind] = v.Faults[p.Kind].Plus(fault.Count{LeftOut: 1})
	}
}

// countFaults counts what became of the faults, by kind.
func (v *Verdict) countFaults(faults []fault.Record) {
	for i := range faults {
		c := v.Faults[faults[i].Kind]
		c.Add(&faults[i])
		if f := &faults[i]; f.Kind == deploy.ClockJump && f.Detail == time.Hour.String() && !f.Idle && !f.Failed {
			v.HourJumps++
		}
		c.LeftOut--
		v.Faults[faults[i].Kind] = c
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// check runs the checks on a directory and adds to the verdict what they find.
func (v *Verdict) check(dir string, ops []*history.Op) error {
	began := time.Now()
	byCustomer := v.count(ops)
	f, err := os.Open(filepath.Join(dir, customersFile))
	if err != nil {
		return err
	}
	defer f.Close()
	config := check.DefaultConfig(v.Started)
	customers := make(chan *history.Customer)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for c := range customers {
				found := check.Customer(config, &v.Rules, byCustomer[c.ID], c)
				mu.Lock()
				v.Violations = append(v.Violations, found...)
				v.recorded(c)
				mu.Unlock()
			}
		})
	}
	seen := map[string]bool{}
	err = history.ReadCustomers(f, func(c *history.Customer) error {
		seen[c.ID] = true
		customers <- c
		return nil
	})
	close(customers)
	wg.Wait()
	for id := range byCustomer {
		if !seen[id] {
			v.Violations = append(v.Violations,
				check.Violation{Check: check.Acknowledged, Customer: id, Text: "was not collected"})
		}
	}
	if len(v.Faults) > 0 && v.injected() == 0 {
		v.Violations = append(v.Violations,
			check.Violation{Check: check.Faults, Text: "none of those asked for was injected: nothing was tried"})
	}
	v.judgeClockJumps()
	slices.SortStableFunc(v.Violations,
		func(a, b check.Violation) int { return strings.Compare(a.Customer, b.Customer) })
	v.Checked, v.Pass = time.Since(began), len(v.Violations) == 0
	return err
}

// mostUnmet is the number of clock jumps that may have met nothing in a run where none was met: a jump meets nothing
// if its node is down.
const mostUnmet = 2

// hourJumpWithin is the length of the phase with faults from which on a jump of an hour must have been met.
const hourJumpWithin = 30 * time.Minute

// judgeClockJumps fails a run in which clocks jumped and no event bears a wrong time. If there were too few jumps for
// that, it notes it. It also fails a long run in which no jump of an hour was met, however many there were.
func (v *Verdict) judgeClockJumps() {
	c, wanted := v.Faults[deploy.ClockJump]
	if !wanted {
		return
	}
	if faults := v.FaultsTo - v.FaultsFrom; v.HourJumps == 0 && faults >= hourJumpWithin {
		v.Violations = append(v.Violations, check.Violation{Check: check.Faults, Text: fmt.Sprintf(
			"no clock jump of an hour was met in %v with faults: no event bears a time that is wrong by that much",
			faults.Round(time.Second))})
	}
	if c.Injected > 0 {
		return
	}
	text := fmt.Sprintf("no clock jump was met: of %d that were tried, no event bears the wrong time", c.Idle+c.Failed)
	if c.Idle > mostUnmet {
		v.Violations = append(v.Violations, check.Violation{Check: check.Faults, Text: text})
	} else if !slices.Contains(v.Notes, text) {
		v.Notes = append(v.Notes, text)
	}
}

// count adds up what clients saw, and sorts it by customer.
func (v *Verdict) count(ops []*history.Op) map[string][]*history.Op {
	byCustomer := map[string][]*history.Op{}
	type fate struct{ unknown, known, refused bool }
	commands := map[string]fate{}
	for _, o := range ops {
		byCustomer[o.Input.Customer] = append(byCustomer[o.Input.Customer], o)
		v.Length = max(v.Length, time.Duration(max(o.Call, o.Return)))
		v.Requests++
		if !o.Input.Records() {
			v.Queries++
			continue
		}
		id := o.Input.Customer + "/" + o.Input.Command
		c := commands[id]
		switch {
		case o.Output.Known():
			c.known, c.refused = true, o.Output.Outcome == history.Refused
		case o.Output.Outcome == history.Unknown:
			c.unknown = true
		}
		commands[id] = c
	}
	for _, c := range commands {
		switch {
		case c.known && c.refused:
			v.Refused++
		case c.known:
			v.Accepted++
		case c.unknown:
			v.Unresolved++
		}
		if c.known && c.unknown {
			v.Resolved++
		}
	}
	v.Acknowledged = v.Accepted + v.Refused
	return byCustomer
}

// recorded adds up what is recorded of a customer.
func (v *Verdict) recorded(c *history.Customer) {
	v.Customers++
	v.Events += len(c.Events)
	for i := range c.Events {
		if c.Events[i].Archived {
			v.Archived++
		}
		if i > 0 && c.Events[i].Epoch != c.Events[i-1].Epoch {
			v.Epochs++
		}
	}
}

// publish writes the page and the verdict, this last: where it is, all of the run is.
func (v *Verdict) publish(dir string, ops []*history.Op) error {
	if err := v.report(dir, ops); err != nil {
		return err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, verdictFile), append(b, '\n'), 0o644)
}

// Recheck judges a run's directory again, by today's checks. What only the running service could show
// is taken from the former verdict.
func Recheck(dir string) (*Verdict, error) {
	var old Verdict
	if err := readJSON(filepath.Join(dir, verdictFile), &old); err != nil {
		return nil, err
	}
	v := old
	v.Violations, v.Requests, v.Queries, v.Accepted, v.Refused, v.Unresolved, v.Resolved = nil, 0, 0, 0, 0, 0, 0
	v.Customers, v.Events, v.Archived, v.Epochs = 0, 0, 0, 0
	for _, x := range old.Violations {
		if x.Live || x.Check == check.Health { // Verdicts of earlier releases do not report health.
			v.Violations = append(v.Violations, x)
		}
	}
	f, err := os.Open(filepath.Join(dir, historyFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ops, err := history.Read(f)
	if err != nil {
		return nil, err
	}
	if err := v.check(dir, ops); err != nil {
		return nil, err
	}
	return &v, v.publish(dir, ops)
}
