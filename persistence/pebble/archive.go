package pebble

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// ErrWrongArchive says that a directory does not hold the archive that was asked for.
var ErrWrongArchive = errors.New("not the archive that this history is in")

// ArchiveOptions of an archive. The zero ArchiveOptions are the defaults.
type ArchiveOptions struct {
	// ID, if not empty, is that of the archive that must be in the directory. An empty directory is
	// refused then: it may be the mount point of a disk that is missing.
	ID string

	// CacheSize is the memory for blocks read, in bytes, 8 MiB if zero. Segments are rarely read twice.
	CacheSize int64

	// MemTableSize is the memory that segments fill before they are sorted onto the disk, in bytes,
	// 16 MiB if zero.
	MemTableSize int64

	// MaxOpenFiles bounds the files open at a time, 200 if zero.
	MaxOpenFiles int

	// MinFree is the space on the disk below which no more segments are taken, in bytes, 256 MiB if
	// zero, so that the engine can still tidy up and everything can be read.
	MinFree int64

	// SweepEvery is the interval at which expired segments are dropped, every 10 minutes if zero. They are kept
	// for Grace longer than they must, an hour if zero: the clocks of the callers may be behind.
	SweepEvery, Grace time.Duration

	// Steady is for how long sweeps must have found the wall clock to go with the monotonic one before what it
	// says counts, 6 hours if zero: that long after the start, or after a jump forward, nothing more is dropped.
	Steady time.Duration

	// RetryMin and RetryMax bound the growing pause before the archive is opened again after its disk
	// failed, 1 s and 1 min if zero.
	RetryMin, RetryMax time.Duration

	// Now is the wall clock, time.Now if nil.
	Now func() time.Time

	// Monotonic is a clock that nobody sets, from any beginning; if nil that of this process.
	Monotonic func() time.Duration

	// Logger gets failures and recoveries. Nil means slog.Default().
	Logger *slog.Logger

	// FS is the file system, for tests; nil is the operating system's.
	FS vfs.FS
}

// withDefaults replaces zero values. The monotonic clock starts here, so that it is that
// of one archive.
func (o ArchiveOptions) withDefaults() ArchiveOptions {
	o.CacheSize = cmp.Or(o.CacheSize, 8<<20)
	o.MemTableSize = cmp.Or(o.MemTableSize, 16<<20)
	o.MaxOpenFiles = cmp.Or(o.MaxOpenFiles, 200)
	o.MinFree = cmp.Or(o.MinFree, 256<<20)
	o.SweepEvery = cmp.Or(o.SweepEvery, 10*time.Minute)
	o.Grace = cmp.Or(o.Grace, time.Hour)
	o.Steady = cmp.Or(o.Steady, 6*time.Hour)
	o.RetryMin, o.RetryMax = cmp.Or(o.RetryMin, time.Second), cmp.Or(o.RetryMax, time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Monotonic == nil {
		start := time.Now()
		o.Monotonic = func() time.Duration { return time.Since(start) }
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	return o
}

// Archive is an embedded archive in a directory of its own, best on another disk than the store. It
// is safe for concurrent use.
//
// A write is acknowledged when it is synced. The first error of the disk makes all calls fail with
// ErrUnavailable, or ErrUnknownOutcome for those in progress; the archive then tries by itself to open
// again, for as long as it takes. Nothing else of the process is touched.
type Archive struct {
	dir  string
	opts ArchiveOptions
	// Held for as long as the archive is open, whatever happens to its engines: no other
	// process may take the directory in between.
	lock *pebbledb.Lock

	// What the wall clock is believed to be, for expiry.
	clock steadyClock

	// Guards the fields down to closed. It is not held during a call of the engine: the
	// disk may hang.
	mu      sync.Mutex
	id      string
	engine  *archiveEngine // nil while there is none
	left    *archiveEngine // the last one that failed
	failure error          // why there is none
	closed  bool

	// freshLogs is above 0 while files are rewritten because segments were erased: see purge.
	freshLogs atomic.Int32

	// closing is closed by Close; workers are supervise and sweep.
	closing chan struct{}
	workers sync.WaitGroup
}

var _ persistence.Archive = (*Archive)(nil)

// OpenArchive opens the archive in dir, which is created if need be. Errors: ErrLocked, ErrFormat,
// ErrWrongArchive, or those of a disk on which the directory cannot be made and locked. An archive
// that cannot be read otherwise is unavailable until it can.
func OpenArchive(dir string, o ArchiveOptions) (*Archive, error) {
	a, err := openArchive(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open archive %s: %w", dir, err)
	}
	return a, nil
}

// openArchive is OpenArchive, without the directory in its errors.
func openArchive(dir string, o ArchiveOptions) (*Archive, error) {
	var err error
	if o.FS == nil {
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	a := &Archive{dir: dir, opts: o.withDefaults(), id: o.ID, closing: make(chan struct{})}
	// The lock is held over all engines of this archive: it is opened once, and given
	// back by Close.
	if a.lock, err = lockDirectory(dir, a.opts.FS); err != nil {
		return nil, err
	}
	e, err := a.openEngine()
	// Another's directory is the operator's mistake, and does not pass by waiting. All
	// other errors may.
	if errors.Is(err, ErrFormat) || errors.Is(err, ErrWrongArchive) {
		return nil, firstError(err, a.lock.Close())
	}
	if a.engine, a.failure = e, err; err != nil {
		a.opts.Logger.Error("archive not opened", "dir", dir, "error", err)
	}
	a.workers.Go(a.supervise)
	a.workers.Go(a.sweep)
	return a, nil
}

// ID returns the archive's id, made when its directory was first used; empty while that is not known.
func (a *Archive) ID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.id
}

// use runs f on the engine, on a goroutine of its own: a disk that hangs must not hold
// the caller longer than its context. The engine that f gets may stop while f runs; f
// continues then, without effect on the disk ([fencedFS]). Verdict is the error if the
// outcome is not known when waiting ends: ErrUnknownOutcome for a write, ErrUnavailable
// for a read. Errors: also ErrClosed, and those of f.
func (a *Archive) use(ctx context.Context, verdict error, f func(*archiveEngine) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", verdict, err)
	}
	a.mu.Lock()
	e, failure, closed := a.engine, a.failure, a.closed
	if e != nil && !closed {
		// Counted under mu, so that Close does not release an engine that a call is about
		// to use.
		e.calls.Add(1)
	}
	a.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("%w: archive %s", persistence.ErrClosed, a.dir)
	case e == nil:
		return fmt.Errorf("%w: archive %s: %w", persistence.ErrUnavailable, a.dir, failure)
	}
	// A slot bounds the calls that run at a time, and so the goroutines that hang with a
	// disk.
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		e.calls.Done()
		return fmt.Errorf("%w: archive %s: %d calls are in progress: %w",
			persistence.ErrUnavailable, a.dir, maxCalls, ctx.Err())
	case <-e.stopped:
		e.calls.Done()
		return fmt.Errorf("%w: archive %s: %w", persistence.ErrUnavailable, a.dir, e.cause)
	}
	result := make(chan error, 1)
	go func() {
		defer e.calls.Done()
		// Only now: while f hangs, its slot stays taken, which bounds the goroutines that
		// hang.
		defer func() { <-e.slots }()
		result <- f(e)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", verdict, ctx.Err())
	case <-e.stopped:
		return fmt.Errorf("%w: archive %s: %w", verdict, a.dir, e.cause)
	}
}

// PutSegment implements persistence.Archive.
func (a *Archive) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	if err := a.put(ctx, name, data, expires); err != nil {
		return fmt.Errorf("put segment %s: %w", name, err)
	}
	return nil
}

// put writes a segment and, in the same batch, the row by which it is found when it
// expires.
func (a *Archive) put(ctx context.Context, name string, data []byte, expires time.Time) error {
	return a.use(ctx, persistence.ErrUnknownOutcome, func(e *archiveEngine) error {
		// Refused before the disk is full: an engine that cannot write stops.
		if err := a.room(len(data)); err != nil {
			return err
		}
		// Between the look whether the name exists and the write, nobody else may write
		// it.
		if !e.claim(name) {
			return fmt.Errorf("%w, in progress", persistence.ErrExists)
		}
		defer e.unclaim(name)
		switch _, closer, err := e.db.Get(segmentKey(name)); {
		case err == nil:
			return errors.Join(persistence.ErrExists, closer.Close())
		case !errors.Is(err, pebbledb.ErrNotFound):
			return classify(err)
		}
		b := e.db.NewBatch()
		defer b.Close()
		if err := b.Set(segmentKey(name), encodeSegment(data, expires), nil); err != nil {
			return classify(err)
		}
		if !expires.IsZero() {
			if err := b.Set(expiryKey(expires, name), nil, nil); err != nil {
				return classify(err)
			}
		}
		e.synced.stamp(b)
		if err := b.Commit(pebbledb.Sync); err != nil {
			return fmt.Errorf("%w: %w", persistence.ErrUnknownOutcome, err)
		}
		e.synced.raise(b)
		return nil
	})
}

// room returns an error if the disk has too little left for another segment.
func (a *Archive) room(size int) error {
	usage, err := a.opts.FS.GetDiskUsage(a.dir)
	if err != nil || usage.AvailBytes >= uint64(a.opts.MinFree)+uint64(size) {
		return nil // a disk that cannot tell is found out when it is written to
	}
	return fmt.Errorf("%w: archive %s: the disk is nearly full, %d bytes are left",
		persistence.ErrUnavailable, a.dir, usage.AvailBytes)
}

// ReadSegment implements persistence.Archive.
func (a *Archive) ReadSegment(ctx context.Context, name string) ([]byte, error) {
	found := make(chan []byte, 1)
	err := a.use(ctx, persistence.ErrUnavailable, func(e *archiveEngine) error {
		value, closer, err := e.db.Get(segmentKey(name))
		if errors.Is(err, pebbledb.ErrNotFound) {
			return persistence.ErrNotFound
		}
		if err != nil {
			return classify(err)
		}
		data, _, err := decodeSegment(value)
		found <- append([]byte(nil), data...)
		return errors.Join(err, closer.Close())
	})
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", name, err)
	}
	return <-found, nil
}

// DeleteSegment implements persistence.Archive.
func (a *Archive) DeleteSegment(ctx context.Context, name string) error {
	err := a.use(ctx, persistence.ErrUnknownOutcome, func(e *archiveEngine) error {
		return classify(e.db.Delete(segmentKey(name), pebbledb.Sync))
	})
	if err != nil {
		return fmt.Errorf("delete segment %s: %w", name, err)
	}
	return nil
}

// Segments implements persistence.Archive.
func (a *Archive) Segments(ctx context.Context, after string, limit int) ([]string, error) {
	found := make(chan []string, 1)
	err := a.use(ctx, persistence.ErrUnavailable, func(e *archiveEngine) error {
		names, err := scanSegments(e.db, after, limit)
		found <- names
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("segments after %q: %w", after, err)
	}
	return <-found, nil
}

// scanSegments returns up to limit names above after, in order.
func scanSegments(db *pebbledb.DB, after string, limit int) ([]string, error) {
	lower := segmentKey(after)
	if after != "" {
		lower = append(lower, 0) // just above that name
	}
	iter, err := db.NewIter(&pebbledb.IterOptions{LowerBound: lower, UpperBound: []byte{kindSegment + 1}})
	if err != nil {
		return nil, classify(err)
	}
	var names []string
	// Names are the keys behind the first byte, so that the scan reads no segment's
	// content.
	for ok := len(names) < limit && iter.First(); ok; ok = len(names) < limit && iter.Next() {
		names = append(names, string(iter.Key()[1:]))
	}
	return names, firstError(classify(iter.Error()), classify(iter.Close()))
}

// Size returns the space that the archive takes on its disk, in bytes.
func (a *Archive) Size(ctx context.Context) (uint64, error) {
	found := make(chan uint64, 1)
	err := a.use(ctx, persistence.ErrUnavailable, func(e *archiveEngine) error {
		found <- e.db.Metrics().DiskSpaceUsage()
		return nil
	})
	if err != nil {
		return 0, err
	}
	return <-found, nil
}

// Compact rewrites the archive so that what was deleted takes no space.
func (a *Archive) Compact(ctx context.Context) error {
	return a.use(ctx, persistence.ErrUnavailable, func(e *archiveEngine) error {
		return classify(e.db.Compact(ctx, []byte{0}, []byte{0xff}, false))
	})
}

// sweep drops expired segments until the archive closes.
func (a *Archive) sweep() {
	tick := time.NewTicker(a.opts.SweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-a.closing:
			return
		case <-tick.C:
			if _, err := a.Expire(context.Background()); err != nil && !errors.Is(err, persistence.ErrClosed) {
				a.opts.Logger.Warn("archive: expired segments are kept for now", "dir", a.dir, "error", err)
			}
		}
	}
}

// Expire drops the segments that expired at least Grace ago, by a wall clock that has been Steady, and
// returns the number. The archive does this by itself every now and then.
func (a *Archive) Expire(ctx context.Context) (dropped int, err error) {
	// A wall clock that jumped must not expire segments.
	now, ok := a.clock.now(a.opts.Now(), a.opts.Monotonic(), a.opts.Steady)
	if !ok {
		return 0, nil
	}
	before := now.Add(-a.opts.Grace)
	const page = 256
	for {
		n := 0
		err := a.use(ctx, persistence.ErrUnknownOutcome, func(e *archiveEngine) (err error) {
			n, err = dropExpired(e.db, before, page)
			return err
		})
		if err != nil {
			return dropped, fmt.Errorf("drop expired segments: %w", err)
		}
		if dropped += n; n < page {
			return dropped, nil
		}
	}
}

// dropExpired deletes up to limit segments that expired before a moment, oldest first,
// with their rows of expiry, and returns the number.
func dropExpired(db *pebbledb.DB, before time.Time, limit int) (int, error) {
	iter, err := db.NewIter(&pebbledb.IterOptions{LowerBound: []byte{kindExpiry}, UpperBound: expiryKey(before, "")})
	if err != nil {
		return 0, classify(err)
	}
	b := db.NewBatch()
	defer b.Close()
	n := 0
	// Rows of expiry are in the order of time: the first that is later ends the scan.
	for ok := iter.First(); ok && n < limit && err == nil; ok = iter.Next() {
		name := iter.Key()[1+8:]
		err = errors.Join(b.Delete(segmentKey(string(name)), nil), b.Delete(iter.Key(), nil))
		n++
	}
	if err := firstError(err, classify(iter.Error()), classify(iter.Close())); err != nil || n == 0 {
		return 0, err
	}
	return n, classify(b.Commit(pebbledb.Sync))
}

// First bytes of an archive's keys, beside that of the marker.
const (
	kindSegment = 'd'
	kindExpiry  = 'x'
)

// Layouts of an archive's values.
const (
	layoutArchiveMarker = 0x42
	layoutSegment       = 0x91
)

// segmentKey returns the key of a segment: its name as it is, since nothing follows it.
func segmentKey(name string) []byte { return append([]byte{kindSegment}, name...) }

// expiryKey returns the key of a segment's expiry. It sorts by time, in milliseconds of
// eight bytes; the value is empty. A time before 1970 is as good as 1970.
func expiryKey(expires time.Time, name string) []byte {
	b := binary.BigEndian.AppendUint64([]byte{kindExpiry}, uint64(max(0, expires.UnixMilli())))
	return append(b, name...)
}

// encodeSegment returns layout, expires (milliseconds, 0 for never), data, checksum.
func encodeSegment(data []byte, expires time.Time) []byte {
	b := make([]byte, 0, 16+len(data)+wire.ChecksumLen)
	ms := int64(0)
	if !expires.IsZero() {
		ms = expires.UnixMilli()
	}
	b = binary.AppendVarint(append(b, layoutSegment), ms)
	return wire.Seal(append(b, data...), 0)
}

// decodeSegment returns what encodeSegment wrote; data shares memory with b.
func decodeSegment(b []byte) (data []byte, expires time.Time, err error) {
	rd, err := openRow(b, layoutSegment)
	if err != nil {
		return nil, expires, err
	}
	if ms := rd.Varint(); ms != 0 {
		expires = time.UnixMilli(ms).UTC()
	}
	data = rd.Rest()
	return data, expires, closeRow(&rd)
}
