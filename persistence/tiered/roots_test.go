package tiered_test

import (
	"errors"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/tiered"
)

func (f *fixture) reader() *tiered.Reader { return tiered.NewReader(f.hot, f.cold, f.Now) }

// TestChain follows the history's roots through pages of strays.
func TestChain(t *testing.T) {
	f := newFixture(t)
	var want []persistence.RootKey
	for i := range 100 {
		f.Roll(i%7 == 0).Append(1)
		want = append([]persistence.RootKey{f.Head().Partition.RootKey}, want...)
	}
	var got []persistence.RootKey
	if err := f.reader().Chain(t.Context(), f.Head(), func(r *persistence.Root) error {
		got = append(got, r.Key)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d roots, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("root %d is %s, want %s", i, got[i], want[i])
		}
	}
	enough := errors.New("enough")
	if err := f.reader().Chain(t.Context(), f.Head(),
		func(*persistence.Root) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("got %v", err)
	}
	missing := f.Head()
	missing.Partition.Version += 5
	if err := f.reader().Chain(t.Context(), missing,
		func(*persistence.Root) error { return nil }); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("a missing root: %v", err)
	}
}

func TestSnapshotBefore(t *testing.T) {
	f := mixed(t) // stripped up to 40; roots at 0, 10, 20, 30, 40, 50, 50
	for sequence, want := range map[uint64]uint64{1: 0, 10: 0, 40: 0, 41: 40, 50: 40, 51: 50, 70: 50, 1000: 50} {
		root, ok, err := f.reader().SnapshotBefore(t.Context(), f.Head(), sequence)
		if err != nil {
			t.Fatal(err)
		}
		if ok != (want > 0) || ok && (root.Base != want || len(root.Snapshot) == 0) {
			t.Errorf("before %d: base %d, %t, want %d", sequence, root.Base, ok, want)
		}
	}
}

// TestBetween: whatever the span, the range has all events in it, and not more than a partition too many
// at either end.
func TestBetween(t *testing.T) {
	f := mixed(t)
	first, last := f.Records[0].Time, f.Records[len(f.Records)-1].Time
	var times []time.Time
	for _, r := range f.Records {
		times = append(times, r.Time, r.Time.Add(time.Millisecond))
	}
	times = append(times, time.Time{}, first.Add(-time.Hour), last.Add(time.Hour))
	for _, from := range times {
		for _, to := range times {
			after, through, err := f.reader().Between(t.Context(), f.Head(), from, to)
			if err != nil {
				t.Fatal(err)
			}
			extra := 0
			for _, r := range f.Records {
				wanted := !r.Time.Before(from) && (to.IsZero() || r.Time.Before(to))
				inside := r.Sequence > after && r.Sequence <= through
				if wanted && !inside {
					t.Fatalf("from %v to %v: event %d is not in %d to %d", from, to, r.Sequence, after+1, through)
				}
				if inside && !wanted {
					extra++
				}
			}
			if extra > 2*20 {
				t.Errorf("from %v to %v: %d of %d to %d are not in it", from, to, extra, after+1, through)
			}
		}
	}
}
