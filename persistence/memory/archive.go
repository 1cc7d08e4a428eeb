package memory

import (
	"context"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"licensed/persistence"
)

// Archive is an archive tier in memory. Like a Store it is a handle on what it keeps, which outlives
// Close. It is safe for concurrent use.
type Archive struct {
	segments *segments
	closed   atomic.Bool
}

var _ persistence.Archive = (*Archive)(nil)

// segments are what the handles of one archive share, by name.
type segments struct {
	mu     sync.RWMutex
	byName map[string]segment
}

// segment is stored as it was put, with a checksum so that a test can damage it.
type segment struct {
	data    []byte
	sum     uint32
	expires time.Time
}

// NewArchive returns an empty archive.
func NewArchive() *Archive { return &Archive{segments: &segments{byName: map[string]segment{}}} }

// Reopen returns another handle on the same segments.
func (a *Archive) Reopen() *Archive { return &Archive{segments: a.segments} }

// Close closes this handle.
func (a *Archive) Close() error {
	if a.closed.Swap(true) {
		return fmt.Errorf("close: %w", persistence.ErrClosed)
	}
	return nil
}

// usable returns why a call fails at once: ErrClosed, or verdict with the reason of a
// context that has ended.
func (a *Archive) usable(ctx context.Context, verdict error) error {
	if a.closed.Load() {
		return persistence.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", verdict, err)
	}
	return nil
}

// PutSegment implements persistence.Archive.
func (a *Archive) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	if err := a.usable(ctx, persistence.ErrUnknownOutcome); err != nil {
		return fmt.Errorf("put segment %s: %w", name, err)
	}
	s := a.segments
	s.mu.Lock()
	defer s.mu.Unlock()
	// Names are never used again ([R12]), also not after the segment expired: nothing is
	// deleted by itself here.
	if _, ok := s.byName[name]; ok {
		return fmt.Errorf("put segment %s: %w", name, persistence.ErrExists)
	}
	s.byName[name] = segment{data: slices.Clone(data), sum: crc32.ChecksumIEEE(data), expires: expires}
	return nil
}

// ReadSegment implements persistence.Archive.
func (a *Archive) ReadSegment(ctx context.Context, name string) ([]byte, error) {
	if err := a.usable(ctx, persistence.ErrUnavailable); err != nil {
		return nil, fmt.Errorf("segment %s: %w", name, err)
	}
	s := a.segments
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.byName[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("segment %s: %w", name, persistence.ErrNotFound)
	case crc32.ChecksumIEEE(found.data) != found.sum:
		return nil, fmt.Errorf("segment %s: %w", name, persistence.ErrCorrupt)
	}
	// The caller may change what it gets; what is stored stays.
	return slices.Clone(found.data), nil
}

// DeleteSegment implements persistence.Archive.
func (a *Archive) DeleteSegment(ctx context.Context, name string) error {
	if err := a.usable(ctx, persistence.ErrUnknownOutcome); err != nil {
		return fmt.Errorf("delete segment %s: %w", name, err)
	}
	a.segments.mu.Lock()
	defer a.segments.mu.Unlock()
	delete(a.segments.byName, name)
	return nil
}

// Segments implements persistence.Archive.
func (a *Archive) Segments(ctx context.Context, after string, limit int) ([]string, error) {
	if err := a.usable(ctx, persistence.ErrUnavailable); err != nil {
		return nil, fmt.Errorf("segments: %w", err)
	}
	a.segments.mu.RLock()
	defer a.segments.mu.RUnlock()
	names := slices.Sorted(maps.Keys(a.segments.byName))
	start := sort.Search(len(names), func(i int) bool { return names[i] > after })
	return firstN(names[start:], limit), nil
}

// Expire drops the segments that expired before now.
func (a *Archive) Expire(now time.Time) {
	a.segments.mu.Lock()
	defer a.segments.mu.Unlock()
	maps.DeleteFunc(a.segments.byName, func(_ string, s segment) bool {
		return !s.expires.IsZero() && !s.expires.After(now)
	})
}

// Corrupt damages a segment, which must exist, for tests.
func (a *Archive) Corrupt(name string) {
	a.segments.mu.Lock()
	defer a.segments.mu.Unlock()
	s, ok := a.segments.byName[name]
	if !ok {
		panic(fmt.Sprintf("memory: no segment %s", name))
	}
	s.data = damaged(s.data)
	a.segments.byName[name] = s
}

// EraseSegments implements persistence.Archive.
func (a *Archive) EraseSegments(ctx context.Context, aggregate string) (int, error) {
	return persistence.EraseSegmentsOneByOne(ctx, a, aggregate)
}
