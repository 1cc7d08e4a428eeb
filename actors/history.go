package actors

import (
	"context"
	"errors"
	"fmt"

	"licensed/persistence"
)

// historyPage is how many roots or records a reader of history asks for at once.
const historyPage = 512

// HistoryReader is the part of a journal that history is read from.
type HistoryReader interface {
	ReadRoots(ctx context.Context, aggregate string, below persistence.RootKey, limit int) ([]persistence.Root, error)
	ReadRecords(ctx context.Context, p persistence.Partition, after uint64, limit int) ([]persistence.Record, error)
}

// ReadHistory calls yield with the records after the given sequence up to the head's, oldest first,
// until it returns an error, which is returned. The head comes from the owner ([Answer]), so what it
// covers is durable; the records are not kept by the reader.
//
// History follows parents back from the head's root: of each partition exactly the records up to the
// base of its child, base+1 … base′, and no others ([R11]). Roots off that chain and records past a
// base are leftovers of writers that were fenced: they do not exist. If anything is missing,
// ReadHistory returns an error that says what (ErrCorrupt), after the records before the gap.
func ReadHistory(ctx context.Context, j HistoryReader, h Head, after uint64, yield func(*persistence.Record) error) error {
	if after >= h.Sequence {
		return nil
	}
	chain, err := readChain(ctx, j, h, after)
	if err != nil {
		return err
	}
	for i := len(chain) - 1; i >= 0; i-- {
		if err := readStretch(ctx, j, chain[i], yield); err != nil {
			return err
		}
	}
	return nil
}

// stretch is the part of a partition that belongs to the history: after < sequence ≤ through.
type stretch struct {
	partition      persistence.Partition
	after, through uint64
}

// readChain returns the stretches that hold the history after a sequence, newest first.
func readChain(ctx context.Context, j HistoryReader, h Head, after uint64) ([]stretch, error) {
	var chain []stretch
	add := func(p persistence.Partition, base, through uint64) {
		if s := (stretch{p, max(base, after), through}); s.after < s.through {
			chain = append(chain, s)
		}
	}
	add(h.Partition, h.Base, h.Sequence)
	base, parent, below := h.Base, h.Parent, h.Partition.RootKey
	for base > after {
		if parent.IsZero() {
			return nil, fmt.Errorf("%w: history of %s begins after %d", ErrCorrupt, h.Aggregate, base)
		}
		page, err := j.ReadRoots(ctx, h.Aggregate, below, historyPage)
		if err != nil {
			return nil, historyError(err)
		}
		for i := range page {
			r := &page[i]
			below = r.Key
			if base > after && r.Key == parent {
				if r.Base > base {
					return nil, fmt.Errorf("%w: root %s at %d follows one at %d", ErrCorrupt, r.Key, r.Base, base)
				}
				add(r.Partition(), r.Base, base)
				base, parent = r.Base, r.Parent
			}
		}
		if len(page) < historyPage && base > after {
			return nil, fmt.Errorf("%w: root %s is missing", ErrCorrupt, parent)
		}
	}
	return chain, nil
}

func readStretch(ctx context.Context, j HistoryReader, s stretch, yield func(*persistence.Record) error) error {
	for s.after < s.through {
		page, err := j.ReadRecords(ctx, s.partition, s.after, int(min(historyPage, s.through-s.after)))
		if err != nil {
			return historyError(err)
		}
		if len(page) == 0 {
			return fmt.Errorf("%w: %s has no records %d to %d", ErrCorrupt, s.partition.RootKey, s.after+1, s.through)
		}
		for i := range page {
			if page[i].Sequence != s.after+1 {
				return fmt.Errorf("%w: %s has no record %d", ErrCorrupt, s.partition.RootKey, s.after+1)
			}
			if err := yield(&page[i]); err != nil {
				return err
			}
			s.after++
		}
	}
	return nil
}

// historyError translates a store's error into one of this package.
func historyError(err error) error {
	if errors.Is(err, persistence.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// ReadHistory reads the history of the aggregate of that id after a sequence, as its owner vouches
// for it; see the function of that name. The query is asked at the same moment, and answered first.
func (r *Runtime) ReadHistory(ctx context.Context, id string, query any, after uint64, yield func(Event, *persistence.Record) error) (Answer, error) {
	a, err := r.Query(ctx, id, query)
	if err != nil {
		return Answer{}, err
	}
	return a, ReadHistory(ctx, r.journal, a.Head, after, func(rec *persistence.Record) error {
		v, err := r.env.Kind.DecodeEvent(rec.Mapper, rec.Header, rec.Data)
		if err != nil {
			return fmt.Errorf("%w: %s record %d: %w", ErrCorrupt, a.Head.Aggregate, rec.Sequence, err)
		}
		return yield(eventOf(rec, v), rec)
	})
}
