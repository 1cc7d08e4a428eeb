package cassandra_test

import (
	"errors"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/cassandra"
)

// TestDamageSnapshot: a root whose snapshot was overwritten is read with its chain, and says why; roots below it are
// as they were.
func TestDamageSnapshot(t *testing.T) {
	o := keyspace(t)
	s := open(t, quiet(t, o))
	const aggregate = "Bayley:LicenseAggregate"
	inc := persistence.NewIncarnation()
	first := persistence.Root{
		Key: persistence.RootKey{Aggregate: aggregate, Epoch: 1, Version: 1}, Incarnation: inc,
		Time: time.UnixMilli(1_700_000_000_000).UTC(), Mapper: "LicenseSnapshot/1", Snapshot: []byte("one"),
	}
	second := first
	second.Key.Version, second.Base, second.Parent, second.ParentIncarnation = 2, 5, first.Key, inc
	for _, r := range []*persistence.Root{&first, &second} {
		done := make(chan error, 1)
		s.PutRoot(t.Context(), r, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if err := cassandra.DamageSnapshot(t.Context(), o, aggregate); err != nil {
		t.Fatal(err)
	}
	top, err := s.TopRoot(t.Context(), aggregate)
	if err != nil || !errors.Is(top.Damage, persistence.ErrCorrupt) || top.Key != second.Key || top.Base != 5 ||
		top.Parent != first.Key {
		t.Errorf("top root: %+v, %v", top, err)
	}
	roots, err := s.ReadRoots(t.Context(), aggregate, persistence.RootKey{}, 10)
	if err != nil || len(roots) != 2 || roots[1].Damage != nil || string(roots[1].Snapshot) != "one" {
		t.Errorf("roots: %+v, %v", roots, err)
	}
	if err := cassandra.DamageSnapshot(t.Context(), o, "Matt:LicenseAggregate"); err == nil {
		t.Error("a snapshot of nobody was damaged")
	}
}
