package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/fault"
	"licensed/test/chaos/history"
)

func TestCalms(t *testing.T) {
	const s = time.Second
	faults := []fault.Record{
		{Injected: 40 * s, Healed: 45 * s},                           // 15 s after the ones before
		{Injected: 8 * s, Healed: 25 * s},                            // overlapped by the next, and outlasting it
		{Injected: 10 * s, Healed: 12 * s, Failed: true},             // may have done something all the same
		{Injected: 50 * s, Healed: 51 * s, Idle: true},               // too soon
		{Injected: 61 * s, Healed: 70 * s, Failed: true, Error: "x"}, // exactly as long as is allowed
	}
	if got, want := calms(faults, 85*s, 10*s), []calm{{25 * s, 40 * s}, {70 * s, 85 * s}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := calms(nil, time.Hour, 10*s); got != nil {
		t.Errorf("without faults there are %v", got)
	}
}

// TestUnserved sends commands for one customer during a calm from 100 s to 130 s of the run.
func TestUnserved(t *testing.T) {
	const s = time.Second
	var ops []*history.Op
	send := func(at, took time.Duration, out history.Output) {
		ops = append(ops, &history.Op{
			Call:   int64(at),
			Return: int64(at + took),
			Input:  history.Input{Kind: history.Play, Customer: "c", Command: "x"},
			Output: out,
		})
	}
	accepted, lost := history.Output{Outcome: history.Accepted}, history.Output{Reason: "unavailable"}
	not, limited := history.Output{Outcome: history.NotExecuted, Reason: "NOT_EXECUTED"}, history.Output{
		Outcome: history.NotExecuted,
		Reason:  "RATE_LIMITED",
	}
	every := func(from, to, step time.Duration, out history.Output) {
		for at := from; at < to; at += step {
			send(at, time.Millisecond, out)
		}
	}
	for name, c := range map[string]struct {
		send    func()
		longest time.Duration
		found   bool
	}{
		"all is well":        {func() { every(90*s, 140*s, s, accepted) }, 0, false},
		"recovers":           {func() { every(90*s, 108*s, s, not); send(108*s, s, accepted) }, 9 * s, false},
		"too late":           {func() { every(90*s, 111*s, s, not); send(111*s, s, accepted) }, 12 * s, true},
		"never":              {func() { every(90*s, 140*s, s, lost) }, 29 * s, true},
		"fails again":        {func() { every(90*s, 115*s, s, accepted); every(115*s, 128*s, s, lost) }, 12 * s, true},
		"until the next":     {func() { every(121*s, 200*s, s, lost) }, 8 * s, false},
		"only by a fault":    {func() { every(60*s, 100*s, s, lost); every(130*s, 190*s, s, lost) }, 0, false},
		"nobody waited":      {func() { send(101*s, s, lost); send(115*s, s, lost); send(129*s, s, lost) }, 0, false},
		"told for good":      {func() { every(100*s, 130*s, s, limited) }, 0, false},
		"questions are none": {func() { every(100*s, 130*s, s, lost); answerQuestions(&ops) }, 29 * s, true},
	} {
		ops = nil
		c.send()
		longest, found := unserved(ops, []calm{{100 * s, 130 * s}}, 10*s)
		if longest != c.longest || (len(found) == 1) != c.found {
			t.Errorf("%s: %v, %v", name, longest, found)
		}
		for _, v := range found {
			if v.Customer != "c" || !strings.Contains(v.Text, "from 1m40s to 2m10s") {
				t.Errorf("%s: %v", name, v)
			}
		}
	}
}

// answerQuestions adds an answer to a question for each command.
func answerQuestions(ops *[]*history.Op) {
	for _, o := range slices.Clone(*ops) {
		*ops = append(*ops, &history.Op{
			Call:   o.Call,
			Return: o.Return,
			Input:  history.Input{Kind: history.ListDevices, Customer: "c"},
			Output: history.Output{Outcome: history.Accepted},
		})
	}
}
