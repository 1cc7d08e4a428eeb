package customers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/doctor"
)

// Verifier checks customers that a running process serves.
type Verifier struct {
	// Query asks a customer, whichever process is the owner.
	Query func(ctx context.Context, customer string, query any) (actors.Answer, error)
	Hot   persistence.Store
	Cold  persistence.Archive // nil: there is none
	Kind  *license.Kind
	Now   func() time.Time
}

// Verify checks a customer, and reports progress now and then. With repair it deletes what no history needs. Errors:
// persistence.ErrNotFound, those of the customer's owner and of the store, and that of progress.
func (v *Verifier) Verify(
	ctx context.Context, customer string, repair bool, progress func(checked, total uint64) error,
) (*licensedv1.CustomerReport, error) {
	answer, err := v.Query(ctx, customer, actors.SnapshotQuery{InMemory: true})
	// What is stored can be examined, also if the customer cannot be loaded, or its snapshot is larger than a message
	// between processes.
	if errors.Is(err, actors.ErrCorrupt) || errors.Is(err, actors.ErrRejected) {
		answer, err = v.Query(ctx, customer, actors.HeadQuery{})
	}
	if errors.Is(err, actors.ErrCorrupt) { // Not even where its history ends can be told.
		answer.Head, err = doctor.Recover(ctx, v.Hot, Aggregate(customer))
	}
	if errors.Is(err, persistence.ErrCorrupt) {
		return Unreadable(customer, err), nil
	}
	if err != nil {
		return nil, err
	}
	if answer.Head.Sequence == 0 {
		return nil, fmt.Errorf("history of %s: %w", customer, persistence.ErrNotFound)
	}
	snapshot, inMemory := answer.Value.(actors.Snapshot)
	if answer.Value != nil && !inMemory {
		return nil, fmt.Errorf("snapshot of %s: its node answered with a %T", customer, answer.Value)
	}
	live := func(r doctor.Replay, root *persistence.Root) error {
		return r.(*actors.Replay).CheckSnapshot(snapshot, root.Time)
	}
	if !inMemory {
		live = nil
	}
	d := NewDoctor(v.Hot, v.Cold, v.Kind)
	d.Now = v.Now
	if repair {
		d.Housekeeping = v.Hot
	}
	report, err := d.Examine(ctx, answer.Head, live, func(checked uint64) error {
		return progress(checked, answer.Head.Sequence)
	})
	if err != nil {
		return nil, err
	}
	return Report(customer, &report), nil
}
