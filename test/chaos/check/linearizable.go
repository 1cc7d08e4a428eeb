package check

import (
	"math"
	"reflect"
	"time"

	"github.com/anishathalye/porcupine"

	"licensed/test/chaos/history"
	"licensed/test/chaos/model"
)

// Config of the checks.
type Config struct {
	// Timeout of the search for an order of one customer's operations. Running out of it is a violation.
	Timeout time.Duration
	// Now is a time within the run, unix milliseconds, for requests that leave no event.
	Now int64
}

// DefaultConfig gives every customer a minute, about a thousand times what it takes.
func DefaultConfig(start time.Time) Config {
	return Config{Timeout: time.Minute, Now: start.UnixMilli()}
}

// input is an operation as porcupine's model takes it.
type input struct {
	*history.Input
	at int64
}

// linearizable asks whether the answers could be those of one customer who is asked one thing after the
// other, each between its call and its return.
func (k *checker) linearizable() {
	var ops []porcupine.Operation
	for _, o := range k.ops {
		if o.Input.Records() || o.Output.Outcome != history.Accepted && o.Output.Outcome != history.Refused {
			continue
		}
		ops = append(ops, porcupine.Operation{
			ClientId: max(0, o.Client),
			Input:    input{&o.Input, k.config.Now},
			Output:   &o.Output,
			Call:     o.Call,
			Return:   o.Return,
		})
	}
	for _, c := range k.order {
		ops = append(ops, c.operation())
	}
	switch porcupine.CheckOperationsTimeout(porcupineModel(k.rules), ops, k.config.Timeout) {
	case porcupine.Ok:
	case porcupine.Illegal:
		k.fail(Linearizable, "no order of %d operations explains all answers", len(ops))
	case porcupine.Unknown:
		k.fail(Linearizable, "not decided within %v, for %d operations", k.config.Timeout, len(ops))
	}
}

// operation is a recorded command with all its attempts: it happened after the first call that may have
// executed it, which none that was told "not executed" can, and before its first answer. One that was never
// answered may happen at any time. Commands that are not recorded did not happen; an answer that shows their
// effect has no explanation.
func (c *command) operation() porcupine.Operation {
	op := porcupine.Operation{
		ClientId: max(0, c.attempts[0].Client),
		Input:    input{&c.in, c.events[0].Time},
		Call:     math.MaxInt64,
		Return:   math.MaxInt64,
	}
	for _, o := range c.attempts {
		if o.Output.Outcome != history.NotExecuted {
			op.Call = min(op.Call, o.Call)
		}
	}
	if c.known == nil {
		op.Output = &history.Output{Sequence: c.last()}
		return op
	}
	op.Output, op.Return = &c.known.Output, c.known.Return
	return op
}

func porcupineModel(r *model.Rules) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return model.New(r) },
		Step: func(state, in, out any) (bool, any) {
			return step(state.(*model.State), in.(input), out.(*history.Output))
		},
		Equal: func(a, b any) bool { return a.(*model.State).Equal(b.(*model.State)) },
		Hash:  func(s any) uint64 { return s.(*model.State).Sequence },
	}
}

// step says whether a state answers so, and what follows it.
func step(s *model.State, in input, out *history.Output) (bool, any) {
	if in.Kind.Query() {
		return out.Sequence == s.Sequence && reflect.DeepEqual(s.Answer(in.Input), *out), s
	}
	if !in.ValidateOnly && out.Sequence <= s.Sequence {
		return false, s // Cheap, and most wrong orders are of this kind.
	}
	next, want, _ := s.Apply(in.Input, in.at)
	switch {
	case in.ValidateOnly:
		before := s.License(in.Device, in.Title)
		return reflect.DeepEqual(timeless(*out, before, &want, in), timeless(want, before, &want, in)), s
	case out.Outcome == history.Unknown: // Never answered; recorded up to this sequence.
		return want.Sequence == out.Sequence, next
	}
	return reflect.DeepEqual(told(out), want), next
}

// timeless is the answer of a validation without the times that would be those of its moment: both where the
// licence would begin now, which want shows, the expiry where it would be renewed, or where a first playback would
// change that of the licence before.
func timeless(o history.Output, before *history.License, want *history.Output, in input) history.Output {
	if o.License == nil || want.License == nil {
		return o
	}
	l := *o.License
	if in.Kind == history.Acquire && want.License.Acquired == in.at {
		l.Acquired, l.Expires = 0, 0
	}
	if in.Kind == history.Renew ||
		in.Kind == history.Play && before != nil && before.Expires != want.License.Expires {
		l.Expires = 0
	}
	o.License = &l
	return o
}
