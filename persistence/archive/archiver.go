package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"licensed/internal/planted"
	"licensed/persistence"
)

// Errors of an archiver.
var (
	// ErrShortfall says that a closed partition does not have exactly the records that it must have:
	// another archiver is active, or the store lost some. Nothing was changed.
	ErrShortfall = errors.New("closed partition is not whole")
	// ErrMismatch says that the archive gave back other bytes than it was given. Nothing was changed.
	ErrMismatch = errors.New("archive returned other bytes than were written")
	// ErrNotHeld says that the shard is not held any more. Nothing was changed.
	ErrNotHeld = errors.New("shard is not held")
)

// Config of an archiver.
type Config struct {
	// SegmentBytes is what a segment should have before compression (default 256 KiB, which zstd
	// brings to about 64 KiB). Larger ones are read with fewer requests; a reader of one event reads a
	// whole segment.
	SegmentBytes int
	// After is the age from which closed partitions are archived though they are less than a
	// segment (default 30 days).
	After time.Duration
	// Retention is the time the archive keeps events (default 0: forever), where Options.Retention does
	// not say otherwise.
	Retention time.Duration
	// Page is the number of roots or records that are read at once (default 256).
	Page int
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{SegmentBytes: 256 << 10, After: 30 * 24 * time.Hour, Page: 256}
}

// HotTier is what an archiver needs of the hot tier; [persistence.Store] has it.
type HotTier interface {
	ReadRoot(ctx context.Context, key persistence.RootKey) (persistence.Root, error)
	ReadRoots(ctx context.Context, aggregate string, below persistence.RootKey, limit int) ([]persistence.Root, error)
	ReadRecords(ctx context.Context, p persistence.Partition, after uint64, limit int) ([]persistence.Record, error)
	persistence.Housekeeping
}

// Archiver archives aggregates, one call at a time each. It is safe for concurrent use.
type Archiver struct {
	hot    HotTier
	cold   persistence.Archive
	config Config
	now    func() time.Time
	name   func() string
	// limit waits until that many bytes may be copied; see Options.Limit.
	limit func(ctx context.Context, bytes int) error

	// retention returns the time to keep what is written now; see Options.Retention.
	retention func() (time.Duration, bool)

	// mu guards copied.
	mu sync.Mutex
	// copied has, by aggregate, the segment that waits to be named by a root.
	copied map[string]segment
}

// segment is one that was written and verified, and may not be named by a root yet: marking failed, and may
// have to be tried many times.
type segment struct {
	name    string
	sum     [sha256.Size]byte
	expires time.Time
}

// serves reports whether the segment does for one of those bytes that is to expire then.
// It was written some attempts ago, so that its expiry is a little earlier; if the
// retention was changed meanwhile, it is written again.
func (s *segment) serves(sum [sha256.Size]byte, expires time.Time) bool {
	const attempts = 24 * time.Hour
	return s.sum == sum && s.expires.IsZero() == expires.IsZero() && expires.Sub(s.expires).Abs() <= attempts
}

// maxCopied bounds how many such segments are remembered. Those that are forgotten take space, and nothing else.
const maxCopied = 10_000

// Options of an archiver; Hot and Cold must be given.
type Options struct {
	Hot    HotTier
	Cold   persistence.Archive
	Config Config
	// Retention returns the time the archive keeps what is written now, 0 forever, or false where
	// Config.Retention holds (default: always false). It may change.
	Retention func() (time.Duration, bool)
	// Now is the clock (default time.Now).
	Now func() time.Time
	// Name returns a name that was never used before (default: a UUID of version 7, which tells the age of
	// a segment that no root names).
	Name func() string
	// Limit waits until this many bytes, before compression, may be copied (default: at once).
	Limit func(ctx context.Context, bytes int) error
}

// New returns an archiver. What the options leave out gets its default.
func New(o Options) *Archiver {
	a := &Archiver{hot: o.Hot, cold: o.Cold, config: o.Config, now: o.Now, name: o.Name, limit: o.Limit,
		retention: o.Retention, copied: map[string]segment{}}
	if a.retention == nil {
		a.retention = func() (time.Duration, bool) { return 0, false }
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.name == nil {
		a.name = func() string { return uuid.Must(uuid.NewV7()).String() }
	}
	if a.limit == nil {
		a.limit = func(context.Context, int) error { return nil }
	}
	return a
}

// Result says what a run did.
type Result struct {
	// Partitions and Records that were moved, in Segments of Bytes (compressed) altogether.
	Partitions, Records, Segments, Bytes int
	// Through is the sequence up to which the history is archived now.
	Through uint64
}

// Held says whether the shard of a head is held under the head's epoch at a moment after the call began:
// by the clock, or by a read of its own lease ([R9]). It is false also where that cannot be told.
type Held func(context.Context) bool

// Archive moves what is closed below the head, as far as it is worth segments, or all of
// it if all is set. The head comes from the owner; that it was the owner when it told the
// head, and what is below so is final, is certain only when held confirms it afterwards.
//
// Errors: ErrNotHeld, ErrShortfall, ErrMismatch, and those of the tiers. Whatever the
// error, what is left can be archived by another call. The result is valid also with an
// error.
func (a *Archiver) Archive(ctx context.Context, head persistence.Head, all bool, held Held) (Result, error) {
	var res Result
	if !held(ctx) {
		return res, ErrNotHeld
	}
	open, through, err := a.closed(ctx, head)
	res.Through = through
	if err != nil {
		return res, err
	}
	for len(open) > 0 {
		group, err := a.group(ctx, open, all)
		if err != nil || len(group) == 0 {
			return res, err
		}
		if err := a.move(ctx, group, held, &res); err != nil {
			return res, err
		}
		a.forget(head.Partition.Aggregate)
		clear(group) // its records
		open = open[len(group):]
	}
	return res, nil
}

// closed is a closed partition that is not yet trimmed. Its root is without what only a recovery needs.
type closed struct {
	root    persistence.Root
	through uint64
	rows    []persistence.Record
}

// closed returns the closed partitions that still need work, oldest first, and the
// sequence below them, up to which the archive has everything. It follows the chain from
// the head downwards; leftovers of fenced writers, which are no parents, are passed over.
// Below a bare root, those from the newest root with a snapshot on stay as they are: the
// next owner builds the state from them, which must not depend on the archive or on its
// retention.
func (a *Archiver) closed(ctx context.Context, head persistence.Head) ([]closed, uint64, error) {
	var found []closed
	base, parent, below := head.Base, head.Parent, head.Partition.RootKey
	needed := head.Bare && !planted.Bug(planted.ArchiveBelowBare)
	for !parent.IsZero() {
		page, err := a.hot.ReadRoots(ctx, below.Aggregate, below, a.config.Page)
		if err != nil {
			return nil, 0, fmt.Errorf("read roots of %s: %w", below.Aggregate, err)
		}
		for _, r := range page {
			below = r.Key
			if r.Key != parent {
				continue
			}
			if r.IsArchived() {
				// Roots are archived oldest first: below this one all is done.
				slices.Reverse(found)
				return found, base, nil
			}
			through := base
			if base, parent = r.Base, r.Parent; needed {
				needed = r.IsBare() || r.Damage != nil
				continue
			}
			r.Mapper, r.Header, r.Snapshot = "", persistence.Header{}, nil // not needed, and there may be thousands
			found = append(found, closed{root: r, through: through})
		}
		if len(page) < a.config.Page && !parent.IsZero() {
			return nil, 0, fmt.Errorf("root %s is missing: %w", parent, ErrShortfall)
		}
	}
	slices.Reverse(found)
	return found, base, nil
}

// group reads the oldest partitions that go into one segment together: none if they are not worth one
// yet. Partitions that are marked already need no segment.
func (a *Archiver) group(ctx context.Context, open []closed, all bool) ([]closed, error) {
	size, old := 0, a.now().Add(-a.config.After)
	for i := range open {
		c := &open[i]
		if c.root.Archive != nil {
			if i == 0 {
				return open[:1], nil
			}
			return open[:i], nil
		}
		if err := a.read(ctx, c); err != nil {
			return nil, err
		}
		for j := range c.rows {
			size += recordSize(&c.rows[j])
		}
		if size >= a.config.SegmentBytes {
			return open[:i+1], nil
		}
	}
	if all || open[0].root.Time.Before(old) {
		return open, nil
	}
	return nil, nil
}

// recordSize returns what a record takes before compression, roughly, in bytes.
func recordSize(r *persistence.Record) int {
	return 32 + len(r.CommandID) + len(r.AggregateID) + len(r.Mapper) + len(r.Data)
}

// read reads exactly the records of a closed partition, from its base up to that of its
// child. Records beyond that are leftovers of a fenced writer, and are never archived
// ([R12]). Errors: ErrShortfall if one is missing.
func (a *Archiver) read(ctx context.Context, c *closed) error {
	p, at := c.root.Partition(), c.root.Base
	for at < c.through {
		page, err := a.hot.ReadRecords(ctx, p, at, int(min(uint64(a.config.Page), c.through-at)))
		if err != nil {
			return fmt.Errorf("read %s: %w", p.RootKey, err)
		}
		// A gap ends what can be used of the page; the next read starts at it and shows
		// whether it stays.
		n := 0
		for n < len(page) && page[n].Sequence == at+1 {
			at, n = at+1, n+1
		}
		if c.rows = append(c.rows, page[:n]...); n == 0 {
			break
		}
	}
	if at < c.through && !planted.Bug(planted.ArchiveWithoutCount) {
		return fmt.Errorf("%s has no record %d: %w", p.RootKey, at+1, ErrShortfall)
	}
	return nil
}

// move copies, verifies, marks, trims and strips a group. Each step is durable before the
// next begins, so that a crash leaves a partition that is either whole in the hot tier or
// marked ([R12]). A group that is marked already begins with trimming.
func (a *Archiver) move(ctx context.Context, group []closed, held Held, res *Result) error {
	if group[0].root.Archive == nil {
		mark, err := a.copy(ctx, group, res)
		if err != nil {
			return err
		}
		// The copy may have taken long. Only an owner may mark: another one may have
		// ended the partition elsewhere.
		if !held(ctx) {
			return ErrNotHeld
		}
		for _, c := range group {
			m := mark
			m.Through = c.through
			// An empty partition is in no segment.
			if c.through == c.root.Base {
				m.Segment = ""
			}
			if planted.Bug(planted.TrimBeforeMark) {
				_ = a.hot.DeleteRecords(ctx, c.root.Partition())
			}
			if err := a.hot.MarkArchived(ctx, c.root.Key, m); err != nil &&
				!planted.Bug(planted.UnknownArchiveMarkIsMade) {
				return fmt.Errorf("mark %s: %w", c.root.Key, err)
			}
		}
	}
	for _, c := range group {
		if err := a.hot.DeleteRecords(ctx, c.root.Partition()); err != nil {
			return fmt.Errorf("trim %s: %w", c.root.Key, err)
		}
		if err := a.strip(ctx, &c.root); err != nil {
			return err
		}
		res.Partitions++
		res.Records += len(c.rows)
		res.Through = c.through
	}
	return nil
}

// strip leaves of a closed root what the chain needs. Its child is durable, so nothing is recovered from
// its snapshot any more, also if that is in the archive: then it goes first, or a crash in between would
// leave a segment that nothing names.
func (a *Archiver) strip(ctx context.Context, r *persistence.Root) error {
	if r.SnapshotAt != "" {
		if err := a.cold.DeleteSegment(ctx, r.SnapshotAt); err != nil {
			return fmt.Errorf("delete snapshot %s of %s: %w", r.SnapshotAt, r.Key, err)
		}
	}
	if err := a.hot.StripRoot(ctx, r.Key, ""); err != nil {
		return fmt.Errorf("strip %s: %w", r.Key, err)
	}
	return nil
}

// copy writes the group's segment and verifies it; the mark has the segment's name, or
// none if the group has no records.
func (a *Archiver) copy(ctx context.Context, group []closed, res *Result) (persistence.ArchiveMark, error) {
	mark := persistence.ArchiveMark{Time: a.now().UTC().Truncate(time.Millisecond)}
	keep, ok := a.retention()
	if !ok {
		keep = a.config.Retention
	}
	if keep > 0 {
		mark.Expires = mark.Time.Add(keep)
	}
	aggregate := group[0].root.Key.Aggregate
	var stretches []Stretch
	size := 0
	for _, c := range group {
		if planted.Bug(planted.TrimBeforeVerify) {
			_ = a.hot.DeleteRecords(ctx, c.root.Partition())
		}
		if len(c.rows) > 0 {
			stretches = append(stretches, Stretch{c.root.Partition(), c.root.Base, c.through, c.rows})
		}
		for i := range c.rows {
			size += recordSize(&c.rows[i])
		}
	}
	if len(stretches) == 0 {
		return mark, nil
	}
	if err := a.limit(ctx, size); err != nil {
		return mark, err
	}
	data := EncodeSegment(aggregate, stretches)
	s, err := a.put(ctx, aggregate, data, mark.Expires)
	if err != nil {
		return mark, err
	}
	// The segment may be one of an earlier attempt, whose expiry counts.
	mark.Segment, mark.Expires = s.name, s.expires
	if err := holds(data, aggregate, stretches); err != nil {
		return mark, fmt.Errorf("segment %s: %w", mark.Segment, err)
	}
	res.Segments++
	res.Bytes += len(data)
	return mark, nil
}

// holds decodes a segment, as a reader will when nothing else is left, and compares.
func holds(data []byte, aggregate string, want []Stretch) error {
	got, stretches, err := DecodeSegment(data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	same := func(a, b Stretch) bool {
		return a.Partition == b.Partition && a.Base == b.Base && a.Through == b.Through &&
			slices.EqualFunc(a.Records, b.Records, sameRecord)
	}
	if got != aggregate || !slices.EqualFunc(stretches, want, same) {
		return ErrMismatch
	}
	return nil
}

func sameRecord(a, b persistence.Record) bool {
	return bytes.Equal(persistence.AppendRecord(nil, &a), persistence.AppendRecord(nil, &b))
}

// put writes data under a new name and reads it back. If that was done already, and is as it was, it is not
// done again.
func (a *Archiver) put(ctx context.Context, aggregate string, data []byte, expires time.Time) (segment, error) {
	name := a.name()
	if planted.Bug(planted.ReuseSegmentName) {
		name = name[:1]
	}
	s := segment{persistence.SegmentPrefix(aggregate) + name, sha256.Sum256(data), expires}
	a.mu.Lock()
	former, ok := a.copied[aggregate]
	a.mu.Unlock()
	if ok && former.serves(s.sum, expires) {
		back, err := a.cold.ReadSegment(ctx, former.name)
		if err == nil && bytes.Equal(back, data) {
			return former, nil
		}
		if err != nil && !errors.Is(err, persistence.ErrNotFound) && !errors.Is(err, persistence.ErrCorrupt) {
			return s, fmt.Errorf("read back segment %s: %w", former.name, err)
		}
	}
	if err := a.cold.PutSegment(ctx, s.name, data, expires); err != nil {
		return s, fmt.Errorf("write segment %s: %w", s.name, err)
	}
	back, err := a.cold.ReadSegment(ctx, s.name)
	if err != nil {
		return s, fmt.Errorf("read back segment %s: %w", s.name, err)
	}
	if !bytes.Equal(back, data) && !planted.Bug(planted.ArchiveUnverified) {
		return s, fmt.Errorf("segment %s: %w", s.name, ErrMismatch)
	}
	// Remembered before the roots name it: the next attempt uses it again.
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.copied) >= maxCopied {
		clear(a.copied)
	}
	a.copied[aggregate] = s
	return s, nil
}

// forget records that the aggregate's segment is named, so that it must not serve once
// more.
func (a *Archiver) forget(aggregate string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.copied, aggregate)
}

// ArchiveSnapshot moves the head's root to the archive except for the fields of the
// chain: for an aggregate that was idle for long. The aggregate is recovered from there
// like from the hot tier, with one more read. The root must be the owner's current one.
// The segment does not expire: it is the state, and not history. Errors: as Archive, and
// ErrCorrupt for a snapshot that cannot be read.
func (a *Archiver) ArchiveSnapshot(ctx context.Context, head persistence.Head, held Held) error {
	r, err := a.hot.ReadRoot(ctx, head.Partition.RootKey)
	if err != nil {
		return fmt.Errorf("read root %s: %w", head.Partition.RootKey, err)
	}
	if r.Stripped || r.IsBare() {
		return nil
	}
	if r.Damage != nil {
		return r.Damage // its owner writes another root when it loads the aggregate
	}
	r.Archive = nil
	if err := a.limit(ctx, len(r.Snapshot)); err != nil {
		return err
	}
	s, err := a.put(ctx, r.Key.Aggregate, EncodeSnapshot(&r), time.Time{})
	if err != nil && !planted.Bug(planted.StubWithoutSnapshot) {
		return err
	}
	if !held(ctx) {
		return ErrNotHeld
	}
	if planted.Bug(planted.StripCurrentRoot) {
		s.name = ""
	}
	if err := a.hot.StripRoot(ctx, r.Key, s.name); err != nil {
		return fmt.Errorf("strip %s: %w", r.Key, err)
	}
	a.forget(r.Key.Aggregate)
	return nil
}
