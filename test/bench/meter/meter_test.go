package meter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRounds(t *testing.T) {
	var order []string
	mark := func(name string) Contender {
		return Contender{Name: name, InFlight: 1, Do: func(context.Context, int) error {
			if len(order) == 0 || order[len(order)-1] != name {
				order = append(order, name)
			}
			return nil
		}}
	}
	results, err := new(Meter).Rounds(t.Context(), 3, time.Millisecond, mark("a"), mark("b"), mark("c"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "abcbcacab" { // the last of a round is first only in the next
		t.Errorf("order %s", got)
	}
	for _, r := range results {
		if m := r.Median(); len(r.Turns) != 3 || m.PerSecond <= 0 || m.P99 < m.P50 {
			t.Errorf("%s: %+v", r.Name, r.Turns)
		}
	}
	var table strings.Builder
	Print(&table, results)
	if got := strings.Count(table.String(), "\n"); got != 4 {
		t.Errorf("%d lines:\n%s", got, table.String())
	}
}

// TestCounters: what was used is that of one operation, and the progress is told after each turn.
func TestCounters(t *testing.T) {
	done, told := 0.0, 0
	c := Contender{
		InFlight: 1,
		Do:       func(context.Context, int) error { done++; return nil },
		Counters: func(context.Context, bool) ([]float64, error) { return []float64{done, 3 * done}, nil },
	}
	m := Meter{Progress: func(done, all int, _ Contender, _ Measure) {
		if told++; done != told || all != 2 {
			t.Errorf("%d of %d", done, all)
		}
	}}
	results, err := m.Rounds(t.Context(), 2, time.Millisecond, c)
	if err != nil || told != 2 {
		t.Fatal(told, err)
	}
	if got := results[0].Median().Used; !slices.Equal(got, []float64{1, 3}) {
		t.Errorf("used %v", got)
	}
	boom := errors.New("boom")
	c.Counters = func(context.Context, bool) ([]float64, error) { return nil, boom }
	if _, err := m.Drive(t.Context(), c, time.Millisecond); !errors.Is(err, boom) {
		t.Errorf("error %v", err)
	}
}

func TestFirstErrorEndsATurn(t *testing.T) {
	boom := errors.New("boom")
	cleared := 0
	c := Contender{Name: "fragile", InFlight: 1, Clear: func(context.Context, int) error { cleared++; return nil }}
	c.Do = func(context.Context, int) error {
		if cleared == 3 {
			return boom
		}
		return nil
	}
	if _, err := new(Meter).Drive(t.Context(), c, time.Hour); !errors.Is(err, boom) ||
		!strings.Contains(err.Error(), "fragile") {
		t.Errorf("error %v", err)
	}
}

func TestRatioIsTakenWithinRounds(t *testing.T) {
	turns := func(name string, rates ...float64) (r Result) {
		r.Name = name
		for _, rate := range rates {
			r.Turns = append(r.Turns, Measure{PerSecond: rate})
		}
		return r
	}
	// The machine was slow in two rounds of five; the ratio does not know.
	a, b := turns("a", 80, 8, 80, 8, 80), turns("b", 100, 10, 100, 10, 100)
	if got := Over(a, b, Rate); got.Median != 0.8 || got.Low != 0.8 || got.High != 0.8 {
		t.Errorf("ratio %v", got)
	}
	if best := Best(a, b); best.Name != b.Name {
		t.Errorf("best %v", best)
	}
}
