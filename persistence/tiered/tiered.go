// Package tiered presents the hot tier and the archive tier as one: roots whose snapshots moved to
// the archive are read from there, and history is one uninterrupted stream.
//
// # The model
//
// History follows parents back from the owner's current root; of each partition it takes exactly the
// records up to the base of its child ([R11]). A root that has an archive mark sends the reader to a
// segment of the archive; its records in the hot tier, if there are any, are never looked at again.
// What cannot be read is a gap with a reason and a range, never silence.
package tiered

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/internal/planted"
	"licensed/persistence"
	"licensed/persistence/archive"
)

// Journal is a hot journal whose stripped roots are completed from the archive. It is safe for
// concurrent use.
type Journal struct {
	persistence.Journal
	// Patience is the time the archive has for a snapshot (default 10 s); then it is unavailable. Set it before use.
	Patience time.Duration

	archive persistence.Archive
}

// defaultPatience is the time that an archive has for a snapshot.
const defaultPatience = 10 * time.Second

// NewJournal returns a journal on both tiers. Cold is nil where there is no archive: a root whose
// snapshot is present cannot be read then.
func NewJournal(hot persistence.Journal, cold persistence.Archive) *Journal {
	return &Journal{Journal: hot, Patience: defaultPatience, archive: cold}
}

// TopRoot implements persistence.Journal. ErrNotFound always means that the aggregate has no root: a
// snapshot that the archive ought to have and has not is damage of the root, or an aggregate whose snapshot
// was lost would be taken for a new one.
func (j *Journal) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	r, err := j.Journal.TopRoot(ctx, aggregate)
	// Each further round begins with another root or another stub, so the loop follows
	// the owners and ends with them.
	for err == nil && r.Stripped {
		whole, completeErr := complete(ctx, j.archive, j.Patience, r)
		if completeErr == nil && planted.Bug(planted.DeleteSnapshotEarly) {
			_ = j.archive.DeleteSegment(ctx, r.SnapshotAt)
		}
		if !errors.Is(completeErr, persistence.ErrCorrupt) || planted.Bug(planted.DeletedIsLost) {
			return whole, completeErr
		}
		// A snapshot is deleted when another owner has put a root on top of its stub.
		stub := r
		if r, err = j.Journal.TopRoot(ctx, aggregate); err == nil && r.Key == stub.Key &&
			r.SnapshotAt == stub.SnapshotAt {
			return r.Damaged(completeErr), nil
		}
	}
	return r, err
}

// complete returns the root as it was before it was stripped. cold is nil if there is no archive. Errors:
// persistence.ErrCorrupt if the snapshot is missing or another's,
// persistence.ErrUnavailable if the archive does not answer with patience.
func complete(
	ctx context.Context, cold persistence.Archive, patience time.Duration, r persistence.Root,
) (persistence.Root, error) {
	if r.SnapshotAt == "" {
		return r, fmt.Errorf("root %s has no snapshot: %w", r.Key, persistence.ErrCorrupt)
	}
	if cold == nil {
		return r, fmt.Errorf("snapshot of root %s: there is no archive: %w", r.Key, persistence.ErrUnavailable)
	}
	// The disk of an archive may hang, and the runtime's reads have no end of their own.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	data, err := cold.ReadSegment(ctx, r.SnapshotAt)
	if errors.Is(err, persistence.ErrNotFound) {
		err = fmt.Errorf("%w: segment %s is missing", persistence.ErrCorrupt, r.SnapshotAt)
	}
	if err != nil {
		return r, fmt.Errorf("snapshot of root %s: %w", r.Key, err)
	}
	whole, err := archive.DecodeSnapshot(data)
	if err != nil {
		return r, fmt.Errorf("snapshot of root %s: %w", r.Key, err)
	}
	// A segment of that name with another root in it: the archive was restored from
	// another cluster, for example.
	if whole.Key != r.Key || whole.Incarnation != r.Incarnation || whole.Base != r.Base {
		return r, fmt.Errorf("snapshot of root %s is that of %s: %w", r.Key, whole.Key, persistence.ErrCorrupt)
	}
	return whole, nil
}
