package tiered

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"licensed/internal/planted"
	"licensed/persistence"
	"licensed/persistence/archive"
)

// HotTier is the part of a journal that history is read from; [persistence.Store] and
// [Journal] have it.
type HotTier interface {
	ReadRoot(ctx context.Context, key persistence.RootKey) (persistence.Root, error)
	ReadRoots(ctx context.Context, aggregate string, below persistence.RootKey, limit int) ([]persistence.Root, error)
	ReadRecords(ctx context.Context, p persistence.Partition, after uint64, limit int) ([]persistence.Record, error)
}

// Reader reads history of both tiers. It is safe for concurrent use.
type Reader struct {
	hot  HotTier
	cold persistence.Archive // nil: nothing was ever archived
	now  func() time.Time
}

// NewReader returns a reader. Cold is nil where there is no archive; now is the clock (nil: time.Now).
func NewReader(hot HotTier, cold persistence.Archive, now func() time.Time) *Reader {
	if now == nil {
		now = time.Now
	}
	return &Reader{hot: hot, cold: cold, now: now}
}

// page is the number of roots or records that are read at once.
const page = 512

// Read calls yield with the items of a range of the history that ends at the head, until yield
// returns an error, which is returned. Items belong to the caller. The head comes from the owner, so
// what it covers is durable. Errors: persistence.ErrUnavailable if the chain of roots cannot be read.
func (r *Reader) Read(
	ctx context.Context, head persistence.Head, rng persistence.HistoryRange,
	yield func(*persistence.HistoryItem) error,
) error {
	if rng.Through == 0 || rng.Through > head.Sequence {
		rng.Through = head.Sequence
	}
	if rng.After >= rng.Through {
		return nil
	}
	chain, err := r.chain(ctx, head, rng)
	if err != nil {
		return err
	}
	if !rng.Newest {
		slices.Reverse(chain)
	}
	run := run{Reader: r, rng: rng, yield: yield}
	for i := range chain {
		if err := run.stretch(ctx, &chain[i]); err != nil {
			return err
		}
	}
	return nil
}

// ReadAll is Read for callers that need every event: a gap is returned as an error.
func (r *Reader) ReadAll(
	ctx context.Context, head persistence.Head, rng persistence.HistoryRange, yield func(*persistence.Record) error,
) error {
	return r.Read(ctx, head, rng, func(i *persistence.HistoryItem) error {
		if i.Gap != nil {
			return i.Gap
		}
		return yield(&i.Record)
	})
}

// stretch is the part of a partition that belongs to the history and the range.
type stretch struct {
	// The part of the partition: after < sequence ≤ through.
	partition      persistence.Partition
	after, through uint64
	// Where the archive has the records; nil if the hot tier has them.
	mark *persistence.ArchiveMark
	gap  error // the chain is broken here
}

// chain returns the stretches of a range, newest first. It reads roots only, so that the
// records of each partition are read while they are yielded. A root that is missing,
// damaged or does not fit makes the rest a stretch with a gap. Errors:
// persistence.ErrUnavailable.
func (r *Reader) chain(ctx context.Context, head persistence.Head, rng persistence.HistoryRange) ([]stretch, error) {
	var chain []stretch
	// Cuts the stretch to the range, and drops it if nothing is left.
	add := func(s stretch) {
		s.after, s.through = max(s.after, rng.After), min(s.through, rng.Through)
		if s.after < s.through {
			chain = append(chain, s)
		}
	}
	add(stretch{partition: head.Partition, after: head.Base, through: head.Sequence})
	// A partition ends where the root above it begins: base is that root's, or the head's.
	base, parent, below := head.Base, head.Parent, head.Partition.RootKey
	for base > rng.After {
		// A base above 0 without a parent is reported below, as a missing root.
		roots, last, broken := []persistence.Root(nil), true, error(nil)
		if !parent.IsZero() {
			roots, last, broken = r.roots(ctx, below, parent, page)
		}
		switch {
		case errors.Is(broken, persistence.ErrCorrupt):
			add(stretch{through: base, gap: broken})
			return chain, nil
		case broken != nil:
			return nil, broken
		}
		for i := range roots {
			root := &roots[i]
			// The page has all roots of the customer, those of fenced writers among them;
			// the chain goes from parent to parent.
			below = root.Key
			if root.Key == parent && root.Base > base {
				add(stretch{through: base, gap: fmt.Errorf("root %s has base %d, above that of its child: %w",
					parent, root.Base, persistence.ErrCorrupt)})
				return chain, nil
			}
			if root.Key == parent {
				add(stretch{partition: root.Partition(), after: root.Base, through: base, mark: root.Archive})
				base, parent = root.Base, root.Parent
			}
		}
		if last && base > rng.After {
			add(stretch{through: base, gap: fmt.Errorf("root %s is missing: %w", parent, persistence.ErrCorrupt)})
			return chain, nil
		}
	}
	return chain, nil
}

// run is one reading; it keeps the last segment, since neighbouring partitions share segments.
type run struct {
	*Reader
	rng   persistence.HistoryRange
	yield func(*persistence.HistoryItem) error
	// Name and content of the last segment.
	segment string
	held    []archive.Stretch
}

// stretch yields the records of a stretch, and gaps for those that cannot be read.
func (r *run) stretch(ctx context.Context, s *stretch) error {
	if s.gap != nil {
		return r.missing(s, s.after, &persistence.HistoryGap{Err: s.gap})
	}
	if r.rng.Tier == persistence.TierHot && s.mark != nil || r.rng.Tier == persistence.TierArchive && s.mark == nil {
		return nil // What is in the other tier is not asked for, not even whether it can be read.
	}
	if s.mark == nil {
		pieces, whole := r.readHot(ctx, s)
		if whole {
			return r.pieces(s, pieces)
		}
		// The archiver may have been here since the root was read: it marks before it
		// deletes, so a second read of the root tells whether the records are missing or
		// moved ([R11]).
		again, err := r.hot.ReadRoot(ctx, s.partition.RootKey)
		if err != nil {
			return r.missing(s, s.after, unreadable("root %s: %w", s.partition.RootKey, err))
		}
		if again.Archive == nil || planted.Bug(planted.TrustFirstMark) {
			return r.pieces(s, pieces)
		}
		if s.mark = again.Archive; r.rng.Tier == persistence.TierHot {
			return nil
		}
	}
	if s.mark.Through < s.through {
		return r.missing(s, s.after, unreadable("the archive mark of %s ends at %d: %w",
			s.partition.RootKey, s.mark.Through, persistence.ErrCorrupt))
	}
	rows, gap := r.readCold(ctx, s)
	if gap != nil {
		return r.missing(s, s.after, gap)
	}
	return r.rows(s, rows, persistence.TierArchive)
}

// piece is a run of records that could be read, or a gap. Exactly one of the two is set.
type piece struct {
	rows []persistence.Record
	gap  *persistence.HistoryGap
}

// readHot reads exactly the records of a stretch. Whole reports that there is no gap.
// Nothing is yielded yet: if records turn out to have been moved, the stretch is read
// from the archive instead.
func (r *run) readHot(ctx context.Context, s *stretch) (pieces []piece, whole bool) {
	gap := func(after, through uint64, err error) {
		pieces = append(pieces, piece{gap: &persistence.HistoryGap{After: after, Through: through, Err: err}})
	}
	// The page size is halved after damage, and set back once the damaged record is
	// found.
	limit := page
	for at := s.after; at < s.through; {
		n := int(min(uint64(limit), s.through-at))
		if planted.Bug(planted.ReadPastBase) {
			n = limit
		}
		got, err := r.hot.ReadRecords(ctx, s.partition, at, n)
		switch {
		case errors.Is(err, persistence.ErrCorrupt) && limit > 1:
			// A page fails as a whole for one damaged record. Halving it finds the
			// record.
			limit /= 2 // read what is before it
			continue
		case errors.Is(err, persistence.ErrCorrupt):
			gap(at, at+1, err)
			at++
			limit = page
			continue
		case err != nil:
			gap(at, s.through, err)
			return pieces, false
		}
		// Contiguous records are a piece, and each jump in the sequence is a gap.
		for first := 0; first < len(got) && at < s.through; {
			if next := got[first].Sequence; next > at+1 {
				next = min(next-1, s.through)
				gap(at, next, s.missing(at+1))
				at = next
				continue
			}
			n := 1
			for first+n < len(got) && got[first+n].Sequence == got[first].Sequence+uint64(n) {
				n++
			}
			pieces = append(pieces, piece{rows: got[first : first+n]})
			at, first = got[first+n-1].Sequence, first+n
		}
		if len(got) == 0 {
			gap(at, s.through, s.missing(at+1))
			break
		}
	}
	return pieces, !slices.ContainsFunc(pieces, func(p piece) bool { return p.gap != nil })
}

// missing returns the error of a record that the hot tier does not have.
func (s *stretch) missing(sequence uint64) error {
	return fmt.Errorf("%s has no record %d: %w", s.partition.RootKey, sequence, persistence.ErrCorrupt)
}

// readCold reads a stretch from its segment. A segment that is missing after its expiry
// has expired; before that, it was lost. The records share memory with the segment that
// is kept.
func (r *run) readCold(ctx context.Context, s *stretch) ([]persistence.Record, *persistence.HistoryGap) {
	if r.cold == nil {
		return nil, unreadable("segment %s: there is no archive: %w", s.mark.Segment, persistence.ErrUnavailable)
	}
	// The segment of the stretch before is kept: several partitions share one.
	if s.mark.Segment != r.segment {
		data, err := r.cold.ReadSegment(ctx, s.mark.Segment)
		if errors.Is(err, persistence.ErrNotFound) && !s.mark.Expires.IsZero() && !r.now().Before(s.mark.Expires) {
			return nil, &persistence.HistoryGap{Expired: s.mark.Expires}
		}
		if errors.Is(err, persistence.ErrNotFound) {
			err = fmt.Errorf("%w: %w", persistence.ErrCorrupt, err)
		}
		if err != nil {
			return nil, unreadable("segment %s: %w", s.mark.Segment, err)
		}
		_, held, err := archive.DecodeSegment(data)
		if err != nil {
			return nil, unreadable("segment %s: %w", s.mark.Segment, err)
		}
		r.segment, r.held = s.mark.Segment, held
	}
	for i := range r.held {
		h := &r.held[i]
		if h.Partition == s.partition && h.Base <= s.after && h.Through >= s.through {
			return h.Records[s.after-h.Base : s.through-h.Base], nil
		}
	}
	// The mark names a segment of other content.
	return nil, unreadable("segment %s does not hold %s: %w",
		s.mark.Segment, s.partition.RootKey, persistence.ErrCorrupt)
}

// rows yields records in the order of the range, unless the range is of the other tier.
func (r *run) rows(s *stretch, rows []persistence.Record, tier persistence.Tier) error {
	if r.rng.Tier != persistence.TierBoth && r.rng.Tier != tier {
		return nil
	}
	for i := range rows {
		if r.rng.Newest {
			i = len(rows) - 1 - i
		}
		if err := r.yield(&persistence.HistoryItem{Record: rows[i], Partition: s.partition, Tier: tier}); err != nil {
			return err
		}
	}
	return nil
}

// pieces yields what was read of the hot tier, in the order of the range.
func (r *run) pieces(s *stretch, pieces []piece) error {
	if r.rng.Newest {
		slices.Reverse(pieces)
	}
	for _, p := range pieces {
		if p.gap != nil {
			if err := r.yield(&persistence.HistoryItem{Partition: s.partition, Gap: p.gap}); err != nil {
				return err
			}
		} else if err := r.rows(s, p.rows, persistence.TierHot); err != nil {
			return err
		}
	}
	return nil
}

// unreadable returns a gap with the reason, for missing to complete.
func unreadable(format string, args ...any) *persistence.HistoryGap {
	return &persistence.HistoryGap{Err: fmt.Errorf(format, args...)}
}

// missing yields a gap from after to the end of the stretch.
func (r *run) missing(s *stretch, after uint64, g *persistence.HistoryGap) error {
	g.After, g.Through = after, s.through
	return r.yield(&persistence.HistoryItem{Partition: s.partition, Gap: g})
}
