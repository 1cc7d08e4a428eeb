package fault_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"licensed/test/chaos/fault"
)

func kinds() []fault.Kind {
	var out []fault.Kind
	for _, name := range []string{"kill", "pause", "cut"} {
		out = append(out, fault.Kind{Name: name, Weight: 2, Make: func(r *rand.Rand) *fault.Fault {
			return &fault.Fault{
				Kind:    name,
				Targets: []string{[]string{"n1", "n2", "n3"}[r.IntN(3)]},
				Hold:    time.Duration(1+r.IntN(5)) * time.Second,
			}
		}})
	}
	return out
}

func describe(plan []fault.Planned) (s []string) {
	for _, p := range plan {
		s = append(s, p.At.String()+" "+p.String()+" "+p.Hold.String())
	}
	return s
}

func TestPlan(t *testing.T) {
	s := fault.Schedule{Seed: 3, Length: 5 * time.Minute, Gap: 2 * time.Second, Calm: 5 * time.Second}
	plan := s.Plan(kinds())
	if !reflect.DeepEqual(describe(plan), describe(s.Plan(kinds()))) {
		t.Error("a seed gives two plans")
	}
	if s.Plan(nil) != nil {
		t.Error("there are faults of no kind")
	}
	seen, overlapping := map[string]bool{}, 0
	for i, p := range plan {
		seen[p.Kind] = true
		if p.At+p.Hold > s.Length {
			t.Errorf("%v lasts longer than the run", p)
		}
		for _, q := range plan[:i] {
			if q.At+q.Hold > p.At {
				overlapping++
				if slices.Equal(q.Targets, p.Targets) {
					t.Errorf("%v at %v while %v since %v for %v", p, p.At, q, q.At, q.Hold)
				}
			}
		}
	}
	if last := plan[len(plan)-1]; last.At < s.Length-10*time.Second {
		t.Errorf("nothing after %v", last.At)
	}
	if len(seen) != 3 || overlapping == 0 || len(plan) < 30 {
		t.Errorf("%d faults of kinds %v, %d overlap", len(plan), seen, overlapping)
	}
}

// TestRun heals everything, also what failed and what is cut short.
func TestRun(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	var log []string
	step := func(name string, err error) func(context.Context) error {
		return func(ctx context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			log = append(log, name)
			return errors.Join(err, ctx.Err())
		}
	}
	plan := []fault.Planned{
		{Fault: &fault.Fault{
			Kind:    "broken",
			Targets: []string{"n1"},
			Inject:  step("a", errors.New("no such process")),
			Heal:    step("A", nil),
		}},
		{Fault: &fault.Fault{Kind: "long", Targets: []string{"n2"}, Also: []string{"n2>n1"}, Hold: time.Hour,
			Inject: func(ctx context.Context) error {
				defer cancel()
				return step("b", nil)(ctx)
			}, Heal: step("B", nil)}},
		{Fault: &fault.Fault{Kind: "busy", Targets: []string{"n2>n1"}, Inject: step("x", nil), Heal: step("X", nil)}},
		{Fault: &fault.Fault{Kind: "never", Inject: step("c", nil), Heal: step("C", nil)}, At: time.Hour},
	}
	var records []fault.Record
	start := time.Now()
	fault.Run(ctx, plan, func() time.Duration { return time.Since(start) }, func(r fault.Record) {
		mu.Lock()
		defer mu.Unlock()
		records = append(records, r)
	})
	slices.Sort(log)
	if got := strings.Join(log, ""); got != "ABab" {
		t.Errorf("did %s", got)
	}
	if len(records) != 2 {
		t.Fatalf("records %+v", records)
	}
	for _, r := range records {
		if (r.Error != "") != (r.Kind == "broken") || r.Healed < r.Injected {
			t.Errorf("record %+v", r)
		}
	}
}

// TestOutcomes tells what met nothing, what could not be injected and what the service did not get over.
func TestOutcomes(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		inject, heal error
		want         fault.Record
		healed       bool
	}{
		"done":       {nil, nil, fault.Record{}, true},
		"idle":       {fmt.Errorf("n1 is down: %w", fault.ErrIdle), broken, fault.Record{Idle: true}, false},
		"failed":     {broken, nil, fault.Record{Failed: true}, true},
		"not healed": {nil, broken, fault.Record{Unhealed: true}, true},
		"service failed": {
			fmt.Errorf("%w: hangs", fault.ErrService), nil, fault.Record{Failed: true, Unhealed: true}, true,
		},
		"failed for good": {broken, broken, fault.Record{Failed: true, Unhealed: true}, true},
	} {
		healed := false
		plan := []fault.Planned{{Fault: &fault.Fault{
			Kind: name, Inject: func(context.Context) error { return c.inject },
			Heal: func(context.Context) error { healed = true; return c.heal },
		}}}
		fault.Run(t.Context(), plan, func() time.Duration { return 0 }, func(r fault.Record) {
			if r.Idle != c.want.Idle || r.Failed != c.want.Failed || r.Unhealed != c.want.Unhealed ||
				healed != c.healed {
				t.Errorf("%s: healed %t, record %+v", name, healed, r)
			}
		})
	}
}
