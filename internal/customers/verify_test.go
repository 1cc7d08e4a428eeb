package customers

import (
	"context"
	"fmt"
	"testing"

	"licensed/actors"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// TestVerifyWithoutSnapshot: a customer whose owner cannot send its snapshot, or cannot load it, is examined as it is
// stored.
func TestVerifyWithoutSnapshot(t *testing.T) {
	store := memory.New()
	part := persistence.Partition{
		RootKey:     persistence.RootKey{Aggregate: Aggregate("Bayley"), Epoch: 1, Version: 1},
		Incarnation: persistence.NewIncarnation(),
	}
	written := make(chan error, 1)
	root := persistence.Root{Key: part.RootKey, Incarnation: part.Incarnation}
	store.PutRoot(t.Context(), &root, func(err error) { written <- err })
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	for _, cause := range []error{actors.ErrRejected, actors.ErrCorrupt} {
		heads := 0
		v := Verifier{Hot: store, Query: func(_ context.Context, _ string, query any) (actors.Answer, error) {
			if _, ok := query.(actors.HeadQuery); !ok {
				return actors.Answer{}, fmt.Errorf("snapshot: %w", cause)
			}
			heads++
			return actors.Answer{Head: persistence.Head{Partition: part, Sequence: 1}}, nil
		}}
		report, err := v.Verify(t.Context(), "Bayley", false, func(uint64, uint64) error { return nil })
		if err != nil || heads != 1 || report.HeadSequence != 1 || report.LiveStateCompared {
			t.Errorf("%v: %v, %v, %d queries of the head", cause, report, err, heads)
		}
	}
}
