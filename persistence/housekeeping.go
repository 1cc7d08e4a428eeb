package persistence

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"licensed/persistence/internal/wire"
)

// ErrExists says that a segment of that name is present already.
var ErrExists = errors.New("already exists")

// ArchiveMark says where the archive has the records of a closed partition.
type ArchiveMark struct {
	// Segment names the segment; empty if the partition has no record that belongs to the history.
	Segment string
	// Through is the sequence of the last record that belongs to the history, the base of the
	// partition's child.
	Through uint64
	// Time is when the mark was made, in milliseconds precision.
	Time time.Time
	// Expires is when the archive may drop the segment; zero for never.
	Expires time.Time
}

// Housekeeping is what the archiver does to closed partitions and their roots, and nobody else does.
// A partition is closed when a child of its root is durable and known to be final ([Head]); it does
// not change any more; its root exists. Every call may be repeated, and two archivers may do the same at the same
// time. An error of any kind means that it may or may not have happened. Safe for concurrent use.
//
// Neither call writes what PutRoot wrote: a late repeat of that write does not undo them.
type Housekeeping interface {
	// MarkArchived makes the mark durable. The partition's records are in the archive, verified.
	MarkArchived(ctx context.Context, key RootKey, m ArchiveMark) error

	// DeleteRecords deletes all records of a partition. The mark is durable.
	DeleteRecords(ctx context.Context, p Partition) error

	// StripRoot drops what the chain does not need from a root. SnapshotAt names where the archive has
	// the whole root, empty if none is needed: a child is durable.
	StripRoot(ctx context.Context, key RootKey, snapshotAt string) error
}

// Archive keeps segments: bytes under names. It is safe for concurrent use.
type Archive interface {
	// PutSegment keeps data under a name that was never used before, durably, until it expires (zero:
	// forever; the archive may keep it longer). Errors: ErrExists, ErrUnknownOutcome; the name must
	// not be used again after any error.
	PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error
	// ReadSegment returns the data. Errors: ErrNotFound, ErrUnavailable, ErrCorrupt.
	ReadSegment(ctx context.Context, name string) ([]byte, error)
	// DeleteSegment deletes a segment that no mark names, nor a root that anything is recovered from.
	// One that does not exist is no error.
	DeleteSegment(ctx context.Context, name string) error
	// EraseSegments deletes the segments of an aggregate, whose names begin with [SegmentPrefix], and returns their
	// number. When it returns, no file that the archive reads has them, as far as the archive controls that. Errors:
	// ErrUnknownOutcome, ErrUnavailable; it may be repeated.
	EraseSegments(ctx context.Context, aggregate string) (int, error)
	// Segments returns up to limit names above after, in order of the names' bytes.
	Segments(ctx context.Context, after string, limit int) ([]string, error)
	// Close releases the archive.
	Close() error
}

// SegmentPrefix returns what the names of an aggregate's segments begin with, and no others.
func SegmentPrefix(aggregate string) string { return aggregate + "/" }

const layoutMark = 0x51

// AppendArchiveMark appends the encoding of m: 0x51, 0, segment, through, time, expires, CRC-32C.
func AppendArchiveMark(dst []byte, m *ArchiveMark) []byte {
	start := len(dst)
	dst = append(dst, layoutMark, 0)
	dst = wire.AppendString(dst, m.Segment)
	dst = binary.AppendUvarint(dst, m.Through)
	dst = binary.AppendVarint(dst, m.Time.UnixMilli())
	expires := int64(0)
	if !m.Expires.IsZero() {
		expires = m.Expires.UnixMilli()
	}
	dst = binary.AppendVarint(dst, expires)
	return wire.Seal(dst, start)
}

// DecodeArchiveMark returns the mark that AppendArchiveMark wrote. Errors: ErrCorrupt.
func DecodeArchiveMark(b []byte) (ArchiveMark, error) {
	rd, _, err := open(b, layoutMark, 0)
	if err != nil {
		return ArchiveMark{}, fmt.Errorf("archive mark: %w", err)
	}
	m := ArchiveMark{Segment: rd.String(), Through: rd.Uvarint(), Time: fromMillis(rd.Varint())}
	if expires := rd.Varint(); expires != 0 {
		m.Expires = fromMillis(expires)
	}
	if err := rd.Close(); err != nil {
		return ArchiveMark{}, corrupt("archive mark", err)
	}
	return m, nil
}

// Strip returns the root with only what is left of it after StripRoot.
func (r Root) Strip(snapshotAt string) Root {
	r.Mapper, r.Header, r.Snapshot = "", Header{}, nil
	r.Stripped, r.SnapshotAt = true, snapshotAt
	return r
}
