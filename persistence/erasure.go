package persistence

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"licensed/persistence/internal/wire"
)

// ErrForgotten says that the aggregate has a tombstone: it has no history, and never will have one again. See
// [ForgottenError].
var ErrForgotten = errors.New("the aggregate was forgotten")

// ForgottenError is an ErrForgotten with the time of the tombstone.
type ForgottenError struct {
	// At is Tombstone.Time.
	At time.Time
}

// Error has the day; the id is not repeated.
func (e *ForgottenError) Error() string {
	return fmt.Sprintf("%v on %s", ErrForgotten, e.At.UTC().Format(time.DateOnly))
}

// Unwrap returns ErrForgotten.
func (*ForgottenError) Unwrap() error { return ErrForgotten }

// TombstoneKey names a forgotten aggregate without its id: an HMAC of the id under the id of the cluster. A reader of
// the store can test whether a known id was forgotten, and cannot list the ids.
type TombstoneKey [sha256.Size]byte

// TombstoneKeyOf returns the key of an aggregate in a cluster.
func TombstoneKeyOf(c ClusterID, aggregate string) (key TombstoneKey) {
	h := hmac.New(sha256.New, c[:])
	_, _ = h.Write([]byte("licensed tombstone\x00" + aggregate))
	h.Sum(key[:0])
	return key
}

// String returns the key in hexadecimal digits.
func (k TombstoneKey) String() string { return hex.EncodeToString(k[:]) }

// Compare orders keys by their bytes.
func (k TombstoneKey) Compare(o TombstoneKey) int { return bytes.Compare(k[:], o[:]) }

// Tombstone says that an aggregate was forgotten. It is written before anything is deleted, and it stays forever.
type Tombstone struct {
	Key TombstoneKey
	// Time is when the aggregate was forgotten, in milliseconds precision.
	Time time.Time
	// Erased is when all that was found of the aggregate was deleted, in milliseconds precision; zero while that is
	// in progress, or was interrupted.
	Erased time.Time
}

// Validate returns an error wrapping ErrRejected if no store accepts the tombstone.
func (t *Tombstone) Validate() error {
	if t.Key == (TombstoneKey{}) || t.Time.IsZero() {
		return fmt.Errorf("%w: a tombstone needs a key and a time", ErrRejected)
	}
	return nil
}

// Erased counts what EraseAggregate deleted.
type Erased struct {
	// Roots with their snapshots, and Records of events.
	Roots, Records int
	// Segments of the archive.
	Segments int
}

// Add adds other counts.
func (e *Erased) Add(o Erased) {
	e.Roots += o.Roots
	e.Records += o.Records
	e.Segments += o.Segments
}

// Erasure keeps the tombstones of forgotten aggregates, and deletes what is left of these. It is safe for concurrent
// use. docs/design/write-path.md says in which order its calls are safe ([R13]).
//
// A tombstone outlives everything else: nothing deletes it. Tombstones are plain writes, durable when they are
// acknowledged, and a tombstone that was read once is as good as acknowledged ([Journal]). From then on TopRoot,
// ReadRoot and ReadRoots of the aggregate fail with a *ForgottenError, whatever rows are left of it, also rows that are
// written later.
type Erasure interface {
	// TombstoneKey returns the key of an aggregate. It is the same for all processes of a cluster. Errors: ErrNotFound
	// if the store has no cluster yet, so that nothing can have been forgotten; ErrUnavailable.
	TombstoneKey(ctx context.Context, aggregate string) (TombstoneKey, error)
	// PutTombstone makes a tombstone durable. One that has no time of erasure does not take away that of an earlier
	// one with its key. Errors: ErrRejected, ErrUnknownOutcome.
	PutTombstone(ctx context.Context, t Tombstone) error
	// Tombstone returns a tombstone. Errors: ErrNotFound, ErrUnavailable, ErrCorrupt.
	Tombstone(ctx context.Context, key TombstoneKey) (Tombstone, error)
	// Tombstones returns up to limit tombstones with keys above after, in the order of keys.
	Tombstones(ctx context.Context, after TombstoneKey, limit int) ([]Tombstone, error)
	// EraseAggregate deletes the roots and records of an aggregate whose tombstone is durable, and counts what it
	// found. Records go before the roots that lead to them, so that a call that was interrupted can be repeated.
	// Rows that are written after it may stay; another call deletes them. When it returns, no file that the store
	// reads has the deleted rows, as far as the store controls that. Errors: ErrUnknownOutcome, ErrUnavailable; the
	// counts are then of no meaning.
	EraseAggregate(ctx context.Context, aggregate string) (Erased, error)
}

// EraseSegmentsOneByOne is [Archive.EraseSegments] for an archive whose DeleteSegment leaves nothing else to do.
func EraseSegmentsOneByOne(ctx context.Context, a Archive, aggregate string) (int, error) {
	const page = 256
	prefix, n := SegmentPrefix(aggregate), 0
	for after := prefix; ; {
		names, err := a.Segments(ctx, after, page)
		for _, name := range names {
			if err != nil || !strings.HasPrefix(name, prefix) {
				break
			}
			if err = a.DeleteSegment(ctx, name); err == nil {
				after, n = name, n+1
			}
		}
		if err != nil {
			return 0, fmt.Errorf("erase segments of %s: %w", aggregate, err)
		}
		if len(names) < page || !strings.HasPrefix(names[page-1], prefix) {
			return n, nil
		}
	}
}

const layoutTombstone = 0x61

// AppendTombstone appends the encoding of t without its key: 0x61, 0, time, erased (0: zero), CRC-32C. Times are
// varints of Unix milliseconds.
func AppendTombstone(dst []byte, t *Tombstone) []byte {
	start := len(dst)
	dst = append(dst, layoutTombstone, 0)
	dst = binary.AppendVarint(dst, t.Time.UnixMilli())
	erased := int64(0)
	if !t.Erased.IsZero() {
		erased = t.Erased.UnixMilli()
	}
	dst = binary.AppendVarint(dst, erased)
	return wire.Seal(dst, start)
}

// DecodeTombstone returns the tombstone that AppendTombstone wrote, without its key. Errors: ErrCorrupt.
func DecodeTombstone(b []byte) (Tombstone, error) {
	rd, _, err := open(b, layoutTombstone, 0)
	if err != nil {
		return Tombstone{}, fmt.Errorf("tombstone: %w", err)
	}
	t := Tombstone{Time: fromMillis(rd.Varint())}
	if erased := rd.Varint(); erased != 0 {
		t.Erased = fromMillis(erased)
	}
	if err := rd.Close(); err != nil {
		return Tombstone{}, corrupt("tombstone", err)
	}
	return t, nil
}
