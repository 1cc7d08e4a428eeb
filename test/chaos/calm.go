package chaos

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"licensed/test/chaos/check"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
)

// calm is a stretch of a run without any fault, from the heal of the last before it.
type calm struct{ from, to time.Duration }

// calms returns those that are longer than that, up to the end of the load. Before the first fault there is
// nothing to recover from.
func calms(faults []fault.Record, end, longer time.Duration) (all []calm) {
	sorted := slices.SortedFunc(slices.Values(faults),
		func(a, b fault.Record) int { return cmp.Compare(a.Injected, b.Injected) })
	add := func(c calm) {
		if c.to-c.from > longer {
			all = append(all, c)
		}
	}
	var healed time.Duration
	for i, f := range sorted {
		if i > 0 {
			add(calm{healed, f.Injected})
		}
		healed = max(healed, f.Healed)
	}
	if len(sorted) > 0 {
		add(calm{healed, end})
	}
	return all
}

// decided are the reasons by which the service answers for good that it does not execute a command.
var decided = map[string]bool{"RATE_LIMITED": true, "INVALID_REQUEST": true, "COMMAND_TOO_OLD": true}

// moment of a customer: a command was answered, or one was called that was not.
type moment struct {
	at     time.Duration
	served bool
}

// unserved looks for customers for whom commands were sent again and again during a calm, and none was answered for
// longer than recovery. It counts from the first that was sent in the calm, and where nothing was sent
// for half of recovery nobody was waiting. It returns the longest wait, and a violation for each that is too long.
func unserved(ops []*history.Op, all []calm, recovery time.Duration) (longest time.Duration, found []check.Violation) {
	if len(all) == 0 {
		return 0, nil
	}
	moments := map[string][]moment{}
	for _, o := range ops {
		if !o.Input.Records() {
			continue
		}
		m := moment{time.Duration(o.Call), false}
		if o.Output.Known() || decided[o.Output.Reason] {
			m = moment{time.Duration(o.Return), true}
		}
		moments[o.Input.Customer] = append(moments[o.Input.Customer], m)
	}
	for _, id := range sortedKeys(moments) {
		ms := moments[id]
		slices.SortStableFunc(ms, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
		for _, c := range all {
			first, _ := slices.BinarySearchFunc(ms, c.from,
				func(m moment, t time.Duration) int { return cmp.Compare(m.at, t) })
			last, _ := slices.BinarySearchFunc(ms, c.to,
				func(m moment, t time.Duration) int { return cmp.Compare(m.at, t) })
			waited := longestWait(ms[first:last], recovery/2)
			longest = max(longest, waited)
			if waited > recovery {
				found = append(found, check.Violation{Check: check.Health, Customer: id, Text: fmt.Sprintf(
					"no answer for %v while there was no fault, from %v to %v of the run",
					waited.Round(time.Millisecond), c.from.Round(time.Millisecond), c.to.Round(time.Millisecond))})
			}
		}
	}
	return longest, found
}

// longestWait is from the first of several commands without an answer to the answer, or to the last of them.
func longestWait(ms []moment, apart time.Duration) (longest time.Duration) {
	waiting := false
	var since, last time.Duration
	for _, m := range ms {
		if waiting && m.at-last > apart {
			waiting = false
		}
		switch {
		case waiting:
			longest = max(longest, m.at-since)
		case !m.served:
			since = m.at
		}
		waiting, last = !m.served, m.at
	}
	return longest
}

// judgeCalms judges recovery in the midst of the run, wherever the plan left time enough.
func (r *run) judgeCalms() {
	all := calms(r.faults, r.loaded, r.Recovery)
	longest, found := unserved(r.recorder.Ops(), all, r.Recovery)
	r.verdict.Calms, r.verdict.Recovery = len(all), max(r.verdict.Recovery, longest)
	for _, v := range found {
		r.fail(v)
	}
}
