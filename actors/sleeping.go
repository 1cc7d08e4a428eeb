package actors

import (
	"context"
	"errors"
	"fmt"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Sleeping finds where the history of an aggregate ends that is not in memory, without loading it. It reads as
// recovery does, and asks the functions after the last read, in this order; each may be asked once.
type Sleeping struct {
	Journal     persistence.Journal
	Incarnation persistence.Incarnation
	Epoch       uint64 // under which the shard was held before
	Page        int    // records read at once

	// Asleep says whether the aggregate was not in memory at any moment since before the first read.
	Asleep func() bool
	// Floor is that of the process ([R6]).
	Floor func() uint64
	// Held is the authority's answer for the shard and Epoch ([R9]).
	Held func() bool
}

// Head returns where the history of the aggregate ("Bayley:LicenseAggregate") ends; false if what was read is not
// decided ([R5]), or is not certain to be all: then only the aggregate itself can tell. Errors: those of the journal.
func (s *Sleeping) Head(ctx context.Context, aggregate string) (persistence.Head, bool, error) {
	// The rest of the answer is in the records, and decided rejects what they cannot
	// tell.
	top, err := topOf(ctx, s.Journal, aggregate)
	if err != nil {
		return persistence.Head{}, false, err
	}
	head := persistence.Head{}
	if top != nil {
		if top.Key.Epoch > s.Epoch || top.Key.Epoch == s.Epoch && top.Incarnation != s.Incarnation {
			return persistence.Head{}, false, nil // not the owner's
		}
		if head, err = headBelow(ctx, s.Journal, top, s.Page); err != nil {
			return persistence.Head{}, false, err
		}
	}
	// In this order: asleep says that nobody wrote meanwhile, and the lease is asked last
	// ([R9]).
	if !s.Asleep() && !planted.Bug(planted.VouchWhileLoaded) ||
		!decided(head.Sequence, head.Partition.RootKey, s.Epoch, s.Floor()) || !s.Held() {
		return persistence.Head{}, false, nil
	}
	return head, true, nil
}

// StoredHead returns where the history of an aggregate ("Bayley:LicenseAggregate") ends in the store, the zero head if
// there is none, without asking its owner: all that was acknowledged before the call is below it, and perhaps commands
// that nobody acknowledged and that will not be in the history ([R5]). page is the number of records read at once.
// Errors: those of the journal, ErrImporting, ErrCorrupt.
func StoredHead(ctx context.Context, j persistence.Journal, aggregate string, page int) (persistence.Head, error) {
	top, err := topOf(ctx, j, aggregate)
	if err != nil || top == nil {
		return persistence.Head{}, err
	}
	if len(top.Snapshot) > 0 && top.Snapshot[0] == frameImporting {
		return persistence.Head{}, ErrImporting
	}
	return headBelow(ctx, j, top, page)
}

// topOf returns the top root of an aggregate, nil if there is none. Not by TopRoot: that may read a snapshot from the
// archive.
func topOf(ctx context.Context, j persistence.Journal, aggregate string) (*persistence.Root, error) {
	roots, err := j.ReadRoots(ctx, aggregate, persistence.RootKey{}, 1)
	if err != nil || len(roots) == 0 {
		return nil, err
	}
	return &roots[0], nil
}

// headBelow returns the end of the history whose top root is given.
func headBelow(
	ctx context.Context, j persistence.Journal, top *persistence.Root, page int,
) (persistence.Head, error) {
	end, err := endBelow(ctx, j, top, page)
	return persistence.Head{
		Partition:         top.Partition(),
		Bare:              top.IsBare(),
		Base:              top.Base,
		Parent:            top.Parent,
		ParentIncarnation: top.ParentIncarnation,
		Sequence:          end,
	}, err
}

// endBelow returns the sequence of the last whole command below a root.
func endBelow(ctx context.Context, j persistence.Journal, root *persistence.Root, page int) (uint64, error) {
	at, end := root.Base, root.Base
	for {
		rows, err := j.ReadRecords(ctx, root.Partition(), at, page)
		if err != nil {
			return 0, err
		}
		for i := range rows {
			r := &rows[i]
			if r.Sequence != at+1 {
				return end, nil
			}
			if r.Index >= r.Count || uint64(r.Index) != at-end {
				return 0, fmt.Errorf("%w: record %d is number %d of %d of its command",
					ErrCorrupt, r.Sequence, r.Index, r.Count)
			}
			if at++; r.Index+1 == r.Count { // [R4]
				end = at
			}
		}
		if len(rows) < page {
			return end, nil
		}
	}
}

// decided reports whether no root that is still in flight can end a history before its last event, which was read below
// that root by a process that holds the shard at that epoch ([R5]). It cannot where there is no event. Nor can it
// under a root of this process and epoch, unless something was in progress when an activation ended: all who know of
// fewer events have lower epochs.
func decided(sequence uint64, root persistence.RootKey, epoch, floor uint64) bool {
	own := root.Epoch == epoch || planted.Bug(planted.EarlierEpochIsDecided)
	settled := root.Version > floor || planted.Bug(planted.EarlierActivationIsDecided)
	return sequence == 0 || own && settled || planted.Bug(planted.AnswerUndecided)
}

// Head returns where the history of the aggregate of that id ends; the zero head if there is none. The answer is
// linearizable, as that of Query. An aggregate that is not in memory is not loaded, unless what the store has is not
// decided ([R5]). Errors are those of Query.
func (r *Runtime) Head(ctx context.Context, id string) (persistence.Head, error) {
	head, ok, err := r.sleepingHead(ctx, id)
	if ok || err != nil {
		return head, err
	}
	a, err := r.Query(ctx, id, HeadQuery{})
	return a.Head, err
}

// sleepingHead returns the head of an aggregate that is not in memory; false if the aggregate itself is to be asked.
func (r *Runtime) sleepingHead(ctx context.Context, id string) (persistence.Head, bool, error) {
	aggregate := AggregateID(id, r.env.Kind)
	shard := r.authority.Shard(aggregate)
	epoch, held := r.authority.Epoch(shard)
	if !held {
		return persistence.Head{}, false, nil
	}
	w := r.registry.watch(id)
	if w == nil {
		return persistence.Head{}, false, nil
	}
	defer r.registry.unwatch(w)
	if err := r.admit(); err != nil {
		return persistence.Head{}, false, err
	}
	defer r.inFlight.Add(-1)
	s := Sleeping{
		Journal: r.journal, Incarnation: r.env.Incarnation, Epoch: epoch, Page: r.env.Config.ReadPage,
		Asleep: func() bool { return r.registry.asleep(w) }, Floor: r.floor.Load,
		Held: func() bool { return r.authority.Holds(shard, epoch) },
	}
	head, ok, err := s.Head(ctx, aggregate)
	switch {
	case err == nil:
		return head, ok, nil
	case ctx.Err() != nil:
		return persistence.Head{}, false, ctx.Err()
	case errors.Is(err, persistence.ErrCorrupt) && !errors.Is(err, ErrCorrupt):
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrForgotten) {
		return persistence.Head{}, false, err
	}
	return persistence.Head{}, false, nil // the actor tries again, with patience
}
