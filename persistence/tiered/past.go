package tiered

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Past returns what the state at the base of a root is built from, other than its own snapshot: the newest root below
// it whose snapshot can be read and is usable, and all events since. Usable may be nil. Errors:
// persistence.ErrCorrupt if events are missing or there is no way back, persistence.ErrUnavailable.
func (r *Reader) Past(
	ctx context.Context, top persistence.Root, usable func(*persistence.Root) bool,
) (persistence.Past, error) {
	head := persistence.Head{
		Partition:         top.Partition(),
		Base:              top.Base,
		Parent:            top.Parent,
		ParentIncarnation: top.ParentIncarnation,
		Sequence:          top.Base,
	}
	var past persistence.Past
	// first becomes the lowest root that was reached.
	after, first := uint64(0), top
	err := r.Chain(ctx, head, func(root *persistence.Root) error {
		if root.Key == top.Key {
			return nil
		}
		first = *root
		if whole, err := r.whole(ctx, root); err != nil {
			return err
		} else if whole != nil && (usable == nil || usable(whole)) {
			past.Start, after = whole, root.Base
			return errFound
		}
		// Snapshots are large, and these are not needed.
		bare := root.Strip("")
		past.Above = append(past.Above, bare)
		return nil
	})
	if err != nil && !errors.Is(err, errFound) {
		return past, err
	}
	// Without a snapshot the replay begins at event 1, so that the chain must reach the
	// first root.
	if past.Start == nil && (first.Base > 0 || !first.Parent.IsZero()) {
		return past, fmt.Errorf("root %s has base %d and no parent: %w", first.Key, first.Base, persistence.ErrCorrupt)
	}
	// The caller applies them from the oldest to the newest.
	slices.Reverse(past.Above)
	err = r.ReadAll(ctx, head, persistence.HistoryRange{After: after}, func(rec *persistence.Record) error {
		past.Records = append(past.Records, *rec)
		return nil
	})
	// A gap is damage here, unless the archive is unavailable: without every event the
	// state cannot be built.
	var gap *persistence.HistoryGap
	if errors.As(err, &gap) {
		if planted.Bug(planted.RebuildWithoutCount) {
			return past, nil
		}
		err = gap
		if !gap.Expired.IsZero() {
			err = fmt.Errorf("%w: %w", persistence.ErrCorrupt, gap)
		}
	}
	return past, err
}

// whole returns a root with its snapshot, which may be in the archive, or nil if it has none that can be read. Errors:
// persistence.ErrUnavailable.
func (r *Reader) whole(ctx context.Context, root *persistence.Root) (*persistence.Root, error) {
	switch {
	case root.Damage != nil, root.IsBare():
		return nil, nil
	case !root.Stripped:
		return root, nil
	}
	whole, err := complete(ctx, r.cold, defaultPatience, *root)
	if errors.Is(err, persistence.ErrCorrupt) {
		return nil, nil
	}
	return &whole, err
}
