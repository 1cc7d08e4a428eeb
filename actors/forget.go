package actors

import (
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Forgetting removes an aggregate for good, at its owner ([R13]). Every step may be repeated, by this owner or the
// next: what a crash leaves undone, another call does.
type Forgetting struct {
	Store persistence.Erasure
	// Archive of closed history; nil for none.
	Archive persistence.Archive
	// Now is the wall clock.
	Now func() time.Time
	// End ends whatever works on the aggregate in this process, for that cause, and returns when that has ended.
	End func(ctx context.Context, cause error) error
	// Held is the authority's answer for the shard, under the epoch at which it was held before the first step ([R9]).
	Held func(context.Context) bool
}

// Forgotten is the result of a Forgetting.
type Forgotten struct {
	persistence.Tombstone
	// Before says that the aggregate had been forgotten before.
	Before bool
	// Erased is what this run deleted.
	Removed persistence.Erased
}

// Forget removes the aggregate ("Bayley:LicenseAggregate"). An aggregate without a history can be forgotten as well: it
// never gets one. After an error the aggregate may be forgotten or not, and nothing, a part or all of it deleted.
// Errors: ErrNotOwner, also if the tombstone was written, which the next owner then finds; ErrUnknownOutcome,
// ErrUnavailable.
func (f *Forgetting) Forget(ctx context.Context, aggregate string) (Forgotten, error) {
	if planted.Bug(planted.TombstoneLast) {
		if _, err := f.erase(ctx, aggregate); err != nil {
			return Forgotten{}, err
		}
	}
	done, err := f.bury(ctx, aggregate)
	if err != nil {
		return done, err
	}
	// Another owner that began before the tombstone was durable may not have seen it. Only if there was none may
	// anybody be told.
	if !planted.Bug(planted.ForgetUnconfirmed) && !f.Held(ctx) {
		return done, ErrNotOwner
	}
	// What began earlier in this process may not have seen it either. What begins from now on reads it first.
	if !planted.Bug(planted.ForgetWithoutEnd) {
		if err := f.End(ctx, &persistence.ForgottenError{At: done.Time}); err != nil {
			return done, err
		}
	}
	if done.Removed, err = f.erase(ctx, aggregate); err != nil {
		return done, fmt.Errorf("%w; the customer is forgotten, and not all is deleted: repeat the request", err)
	}
	// Late: it only says that there is nothing left to repeat.
	done.Erased = f.now()
	if err := f.Store.PutTombstone(ctx, done.Tombstone); err != nil {
		return done, storeError(err)
	}
	return done, nil
}

// now returns the time in the precision of tombstones.
func (f *Forgetting) now() time.Time { return f.Now().UTC().Truncate(time.Millisecond) }

// bury makes the tombstone durable, unless there is one.
func (f *Forgetting) bury(ctx context.Context, aggregate string) (done Forgotten, err error) {
	key, err := f.Store.TombstoneKey(ctx, aggregate)
	if err != nil {
		return done, storeError(err)
	}
	done.Tombstone, err = f.Store.Tombstone(ctx, key)
	if err == nil {
		done.Before = true
		return done, nil
	}
	if !errors.Is(err, persistence.ErrNotFound) {
		return done, storeError(err)
	}
	done.Tombstone = persistence.Tombstone{Key: key, Time: f.now()}
	if err := f.Store.PutTombstone(ctx, done.Tombstone); err != nil {
		return done, storeError(err)
	}
	return done, nil
}

// erase deletes what both tiers have. The archive first: its segments are found by their names in any case, and the
// roots, from which a scan learns that something is left, go last.
func (f *Forgetting) erase(ctx context.Context, aggregate string) (persistence.Erased, error) {
	segments := 0
	if f.Archive != nil {
		var err error
		if segments, err = f.Archive.EraseSegments(ctx, aggregate); err != nil {
			return persistence.Erased{}, storeError(err)
		}
	}
	erased, err := f.Store.EraseAggregate(ctx, aggregate)
	if err != nil {
		return persistence.Erased{}, storeError(err)
	}
	erased.Segments = segments
	return erased, nil
}

// storeError returns an error of a store as one of this package.
func storeError(err error) error {
	switch {
	case errors.Is(err, persistence.ErrUnknownOutcome):
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	case errors.Is(err, persistence.ErrUnavailable), errors.Is(err, persistence.ErrNotFound):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// End ends the activation of an aggregate at once, if there is one, and returns when that is not in memory any more.
// Requests that wait are answered with the cause. What the activation has in progress has an unknown outcome, and no
// head is told that was read before ([R11]). Another activation may have begun by then. Errors: that of ctx, as
// ErrUnavailable.
func (r *Runtime) End(ctx context.Context, id string, cause error) error {
	r.registry.disturb(id)
	e := r.registry.find(id)
	if e == nil {
		return nil
	}
	e.act.deliver(halt{cause})
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for r.registry.find(id) == e {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		}
	}
	return nil
}
