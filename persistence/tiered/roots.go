package tiered

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/persistence"
)

// rootsPage is the number of roots that are read at once: few, since each has a snapshot.
const rootsPage = 32

// Chain calls yield with the roots of the history that ends at the head, newest first, the head's own
// included, until it returns an error, which is returned. Roots that fenced writers left are not among
// them. Errors: persistence.ErrCorrupt if a root is missing, persistence.ErrUnavailable.
func (r *Reader) Chain(ctx context.Context, head persistence.Head, yield func(*persistence.Root) error) error {
	// The head names its root: it is read by its key, and those below it in pages.
	root, err := r.hot.ReadRoot(ctx, head.Partition.RootKey)
	if errors.Is(err, persistence.ErrNotFound) {
		err = fmt.Errorf("root %s is missing: %w", head.Partition.RootKey, persistence.ErrCorrupt)
	}
	if err != nil {
		return err
	}
	if err := yield(&root); err != nil {
		return err
	}
	parent, below := root.Parent, root.Key
	for !parent.IsZero() {
		page, last, err := r.roots(ctx, below, parent, rootsPage)
		if err != nil {
			return err
		}
		for i := range page {
			// Roots between two of the chain are those of fenced writers.
			if below = page[i].Key; below != parent {
				continue
			}
			if err := yield(&page[i]); err != nil {
				return err
			}
			parent = page[i].Parent
		}
		if last && !parent.IsZero() {
			return fmt.Errorf("root %s is missing: %w", parent, persistence.ErrCorrupt)
		}
	}
	return nil
}

// roots reads a page of roots below a key, and reports whether it is the last. If a root
// of the page is damaged, which need not be one of the chain, it reads only the one that
// the chain continues with. Errors: persistence.ErrCorrupt, persistence.ErrUnavailable.
func (r *Reader) roots(
	ctx context.Context, below, parent persistence.RootKey, limit int,
) (_ []persistence.Root, last bool, _ error) {
	roots, err := r.hot.ReadRoots(ctx, below.Aggregate, below, limit)
	if !errors.Is(err, persistence.ErrCorrupt) {
		if err != nil {
			err = fmt.Errorf("roots of %s: %w", below.Aggregate, err)
		}
		return roots, len(roots) < limit, err
	}
	root, err := r.hot.ReadRoot(ctx, parent)
	if errors.Is(err, persistence.ErrNotFound) {
		err = fmt.Errorf("it is missing: %w", persistence.ErrCorrupt)
	}
	if err != nil {
		return nil, true, fmt.Errorf("root %s: %w", parent, err)
	}
	return []persistence.Root{root}, false, nil
}

// errFound ends a search in the chain. No caller outside sees it.
var errFound = errors.New("found")

// find returns the newest root of the history that matches, or false. Errors: as Chain.
func (r *Reader) find(
	ctx context.Context, head persistence.Head, match func(*persistence.Root) bool,
) (persistence.Root, bool, error) {
	var found persistence.Root
	err := r.Chain(ctx, head, func(root *persistence.Root) error {
		if match(root) {
			found = *root
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		return found, true, nil
	}
	return found, false, err
}

// SnapshotBefore returns the newest root of the history whose base is below a sequence and whose
// snapshot is at hand, to replay from; false if that is only before the first event. Where the chain is
// broken below what was asked for, that is no error here.
func (r *Reader) SnapshotBefore(
	ctx context.Context, head persistence.Head, sequence uint64,
) (persistence.Root, bool, error) {
	root, ok, err := r.find(ctx, head,
		func(root *persistence.Root) bool { return root.Base < sequence && root.Damage == nil && !root.IsBare() })
	if errors.Is(err, persistence.ErrCorrupt) {
		return root, false, nil
	}
	// Roots are stripped oldest first: below one that is, all are.
	return root, ok && !root.Stripped, err
}

// Between returns the range of a history that events in a span of time, at or after from and before to,
// can be in; a zero time bounds nothing. It goes by the times of roots, so it is exact only up to a
// partition.
func (r *Reader) Between(
	ctx context.Context, head persistence.Head, from, to time.Time,
) (after, through uint64, err error) {
	through = head.Sequence
	if from.IsZero() && to.IsZero() {
		return 0, through, nil
	}
	root, ok, err := r.find(ctx, head, func(root *persistence.Root) bool {
		// No event of a partition is earlier than its root, and none before the root is later. The first
		// root of an imported history is the exception, which bounds nothing.
		if !to.IsZero() && root.Base > 0 && !root.Time.Before(to) {
			through = root.Base
		}
		if from.IsZero() {
			return !to.IsZero() && root.Time.Before(to)
		}
		return root.Time.Before(from)
	})
	if ok && !from.IsZero() {
		after = root.Base
	}
	if errors.Is(err, persistence.ErrCorrupt) {
		err = nil // The reading meets the broken chain and names it.
	}
	return after, through, err
}
