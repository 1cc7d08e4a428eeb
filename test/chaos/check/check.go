// Package check compares what clients were told during a chaos run with what is present after it.
//
// # The model
//
// The input is what clients saw ([history.Op]), and for each customer the events that the service has
// recorded and what its members answer now ([history.Customer]). Nothing else is trusted; the rules are
// those of package model. The checks, by the names that violations carry:
//
//	acknowledged  a command with a known outcome is recorded once, at the sequence and with the content
//	              that was told, and every answer to its id is the same
//	refused       what was refused changed nothing; what was told "not executed" is missing; an unknown
//	              one is present at most once; nothing is present that nobody sent
//	linearizable  answers, in the order of real time, are those of one customer who is asked one thing
//	              after the other. A checker that runs out of time is a violation
//	limits        no accepted command raised a count above the limit then in force
//	structure     sequences dense, epochs and partitions rising, times not going back, order numbers dense,
//	              commands whole; replay equals what every member answers; the service's own verification
//	archive       history is complete over both tiers, and moving it changed nothing
//	health        faults are healed, then there is progress and nobody is stuck; processes end only if asked
//	              to; at the end all are ready, and resources return to what they were
//	faults        a run that was asked for faults had some
//
// The last two are judged by the caller: health while the service still runs, and so is some of archive and
// structure: what archiving changes, and what cannot be archived, listed or verified at all.
package check

import (
	"cmp"
	"fmt"
	"slices"

	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// Names of the checks.
const (
	Acknowledged = "acknowledged"
	Refused      = "refused"
	Linearizable = "linearizable"
	Limits       = "limits"
	Structure    = "structure"
	Archive      = "archive"
	Health       = "health"
	Faults       = "faults"
)

// All lists the checks in the order of the package comment.
var All = []string{Acknowledged, Refused, Linearizable, Limits, Structure, Archive, Health, Faults}

// Violation is a promise that was broken.
type Violation struct {
	Check    string `json:"check"`
	Customer string `json:"customer,omitempty"`
	Text     string `json:"text"`
	// Live says that only the running service could show it: no later check of the run's files finds it again.
	Live bool `json:"live,omitempty"`
}

func (v Violation) String() string {
	if v.Customer == "" {
		return v.Check + ": " + v.Text
	}
	return v.Check + ": " + v.Customer + ": " + v.Text
}

// command is one command with all its attempts.
type command struct {
	in       history.Input
	attempts []*history.Op
	// known is the first attempt whose outcome is known, by return.
	known *history.Op
	// unsettled says that an attempt may have been executed without an answer.
	unsettled bool

	// What is recorded of it.
	events []history.Event
}

// last is the sequence of the last event.
func (c *command) last() uint64 { return c.events[len(c.events)-1].Sequence }

// checker checks one customer.
type checker struct {
	rules    *model.Rules
	config   Config
	recorded *history.Customer
	ops      []*history.Op

	commands   map[string]*command
	order      []*command // as recorded
	violations []Violation
}

// maxViolations of a customer are reported.
const maxViolations = 20

func (k *checker) fail(check, format string, args ...any) {
	if len(k.violations) < maxViolations {
		k.violations = append(k.violations,
			Violation{Check: check, Customer: k.recorded.ID, Text: fmt.Sprintf(format, args...)})
	}
}

// Customer checks one customer: ops are all requests about it.
func Customer(c Config, r *model.Rules, ops []*history.Op, recorded *history.Customer) []Violation {
	k := &checker{rules: r, config: c, recorded: recorded, ops: ops, commands: map[string]*command{}}
	k.gather()
	k.structure()
	k.group()
	for _, id := range sortedIDs(k.commands) {
		k.answers(k.commands[id])
	}
	if len(k.violations) > 0 {
		return k.violations // What follows would say the same in more words.
	}
	k.limits()
	k.replay()
	if len(k.violations) == 0 {
		k.linearizable()
	}
	return k.violations
}

func sortedIDs(m map[string]*command) []string {
	ids := make([]string, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// gather puts the attempts of each command together.
func (k *checker) gather() {
	for _, o := range k.ops {
		if o.Output.Outcome == history.Broken {
			k.fail(Acknowledged, "%s %s: the service reports a defect of its own: %s",
				o.Input.Kind, o.Input.Command, o.Output.Reason)
		}
		if !o.Input.Records() {
			continue
		}
		c := k.commands[o.Input.Command]
		if c == nil {
			c = &command{in: o.Input}
			k.commands[o.Input.Command] = c
		}
		c.attempts = append(c.attempts, o)
		switch {
		case o.Output.Known() && (c.known == nil || o.Return < c.known.Return):
			c.known = o
		case o.Output.Outcome == history.Unknown:
			c.unsettled = true
		}
	}
}

// structure checks the recorded events by themselves.
func (k *checker) structure() {
	r := k.recorded
	for _, g := range r.Gaps {
		k.fail(Archive, "cannot be read: %s", g)
	}
	for _, f := range r.Findings {
		k.fail(Structure, "the service's verification: %s", f)
	}
	if r.Head != uint64(len(r.Events)) && len(r.Gaps) == 0 {
		k.fail(Structure, "the history ends at %d and has %d events", r.Head, len(r.Events))
	}
	orders := map[string]uint64{}
	for i := range r.Events {
		e := &r.Events[i]
		if i > 0 {
			k.follows(&r.Events[i-1], e)
		} else if e.Sequence != 1 {
			k.fail(Structure, "the first event has sequence %d", e.Sequence)
		}
		if e.Problem != "" {
			k.fail(Structure, "event %d is not whole: %s", e.Sequence, e.Problem)
		}
		if e.Order != orders[e.Aggregate] {
			k.fail(Structure, "event %d is number %d of %s, expected %d",
				e.Sequence, e.Order, e.Aggregate, orders[e.Aggregate])
		}
		orders[e.Aggregate] = e.Order + 1
	}
}

// follows checks an event against the one before.
func (k *checker) follows(a, b *history.Event) {
	if b.Sequence != a.Sequence+1 {
		k.fail(Structure, "event %d is followed by %d", a.Sequence, b.Sequence)
	}
	if b.Epoch < a.Epoch {
		k.fail(Structure, "event %d has epoch %d, the one before %d", b.Sequence, b.Epoch, a.Epoch)
	}
	if c := cmp.Compare(version(b.Row), version(a.Row)); c < 0 || c == 0 && b.Epoch != a.Epoch {
		k.fail(Structure, "event %d is in partition %s of epoch %d, the one before in %s of epoch %d",
			b.Sequence, b.Row, b.Epoch, a.Row, a.Epoch)
	}
	if b.Time < a.Time {
		k.fail(Structure, "event %d is from before the one before it", b.Sequence)
	}
	if b.Archived && !a.Archived {
		k.fail(Archive, "event %d is archived, the one before is not", b.Sequence)
	}
}

// version is the number at the end of a row id.
func version(row string) (v uint64) {
	digits := row[len(row)-countDigits(row):]
	for _, d := range digits {
		v = v*10 + uint64(d-'0')
	}
	return v
}

func countDigits(s string) (n int) {
	for n < len(s) && s[len(s)-1-n] >= '0' && s[len(s)-1-n] <= '9' {
		n++
	}
	return n
}

// group puts the events of each command together.
func (k *checker) group() {
	for _, e := range k.recorded.Events {
		c := k.commands[e.Command]
		switch {
		case c == nil:
			k.fail(Refused, "event %d is of command %q, which nobody sent", e.Sequence, e.Command)
			return
		case e.Index == 0 && len(c.events) > 0:
			k.fail(Acknowledged, "command %s is recorded twice, at %d and at %d", e.Command, c.last(), e.Sequence)
			return
		case e.Index == 0:
			k.order = append(k.order, c)
		case len(c.events) == 0 || c.last() != e.Sequence-1 || uint32(len(c.events)) != e.Index:
			k.fail(Structure, "command %s is torn at event %d", e.Command, e.Sequence)
			return
		}
		c.events = append(c.events, e)
	}
	for _, c := range k.order {
		if n := uint32(len(c.events)); n != c.events[0].Count {
			k.fail(Structure, "command %s has %d events of %d", c.in.Command, n, c.events[0].Count)
		}
	}
}
