package pebble

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"licensed/persistence"
	"licensed/persistence/internal/ownership"
)

// ErrFormat says that a directory holds something else than a store, or a store of a format that this
// program does not know.
var ErrFormat = errors.New("not a store of a known format")

// Options of a store. The zero Options are the defaults.
type Options struct {
	// CacheSize is the memory for blocks read from disk, in bytes, 64 MiB if zero. More makes waking
	// aggregates and reading history faster; writing needs none.
	CacheSize int64

	// MemTableSize is the memory that writes fill before they are sorted onto the disk, in bytes, 64 MiB
	// if zero. Up to three times as much is in use while the disk is behind. More means fewer, larger
	// files and less rewriting, and a longer replay when a process that was killed starts again.
	MemTableSize int64

	// MaxMutation is the size of a mutation or root, in bytes, from which on it is rejected, 8 MiB if
	// zero. It must stay below a quarter of MemTableSize.
	MaxMutation int

	// MaxOpenFiles bounds the files open at a time, 1,000 if zero.
	MaxOpenFiles int

	// Listener hears what happens.
	Listener Listener

	// Logger gets warnings: a slow or nearly full disk, damaged files. Nil means slog.Default().
	Logger *slog.Logger

	// FS is the file system, for tests; nil is the operating system's, watched for slowness.
	FS vfs.FS
}

// Listener hears what happens. Functions that are nil are not called.
type Listener struct {
	// Failed is told once, from a goroutine of its own, why the store stopped itself, after the writes
	// in progress were told. The process should end: it holds the directory's lock until then.
	Failed func(error)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Failed == nil {
		l.Failed = func(error) {}
	}
	return l
}

// The defaults of Options, in bytes and as a number of files.
const (
	defaultCacheSize    = 64 << 20
	defaultMemTableSize = 64 << 20
	defaultMaxMutation  = 8 << 20
	defaultMaxOpenFiles = 1000

	// memTables is the number of memtables that may be in use: one is filled, the others
	// are being flushed.
	memTables = 3

	// slowDisk is the time an operation may take without a warning.
	slowDisk = 5 * time.Second
)

// withDefaults replaces zero values, and returns an error for sizes that do not fit
// together.
func (o Options) withDefaults() (Options, error) {
	o.CacheSize = cmp.Or(o.CacheSize, defaultCacheSize)
	o.MemTableSize = cmp.Or(o.MemTableSize, defaultMemTableSize)
	o.MaxMutation = cmp.Or(o.MaxMutation, min(defaultMaxMutation, int(o.MemTableSize/4)-1))
	o.MaxOpenFiles = cmp.Or(o.MaxOpenFiles, defaultMaxOpenFiles)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	o.Listener = o.Listener.withDefaults()
	if o.CacheSize < 0 || o.MemTableSize < 1<<20 || o.MaxMutation < 0 || int64(o.MaxMutation) >= o.MemTableSize/4 {
		return o, fmt.Errorf("cache of %d, memtable of %d, mutations of %d bytes are no sensible sizes",
			o.CacheSize, o.MemTableSize, o.MaxMutation)
	}
	return o, nil
}

// Store is an embedded store. It is safe for concurrent use.
type Store struct {
	dir  string
	opts Options
	// Other processes, and other stores of this one, are kept out for as long as it is
	// held.
	lock  *pebbledb.Lock
	cache *pebbledb.Cache
	db    *pebbledb.DB
	// watcher warns of a slow disk until it is closed.
	watcher io.Closer

	// stopped is closed when the store stopped itself.
	stopped chan struct{}
	// syncing carries groups from the committer to the acknowledger.
	syncing chan *group
	// workers are those two, reads are the reads in progress.
	workers, reads sync.WaitGroup

	// Guards what follows. It is held to encode rows into a batch, never while the disk
	// is read or written.
	mu sync.Mutex
	// work tells the committer that pending or err changed.
	work *sync.Cond
	// err is why calls are refused: closed, or stopped by an error (then failed is set).
	err    error
	failed bool
	// opened is set when Open succeeded; before, it reports failures itself.
	opened bool
	// pending are groups to commit, the last one open for more writes. flying are those that the
	// engine was given and that are not known to be durable, first come first.
	pending, flying             []*group
	pendingWrites, flyingWrites int
	// lastNumber is the number of the last group opened, durable that of the last one known to be durable.
	lastNumber, durable uint64
	touched             touched
	// rows has leases and shards as they will be once rowsIn, if any, is durable.
	rows   ownership.Table
	rowsIn *group
	// tombstones says that the store has a tombstone, durable or not.
	tombstones atomic.Bool
	// freshLogs is above 0 while files are rewritten because rows were erased: see purge.
	freshLogs atomic.Int32
	// key and value are where rows are encoded, idle are groups to use again.
	key, value []byte
	idle       []*group
	stats      Stats

	// synced is stamped on each batch, see openReplayed.
	synced watermark
}

var _ persistence.Store = (*Store)(nil)

// Open opens the store in dir, which is created if need be. Errors: ErrLocked if another process (or
// another Store of this one) has it open, ErrCorrupt if the store's files or ownership rows are
// damaged, ErrFormat.
func Open(dir string, o Options) (*Store, error) {
	s, err := openStore(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

// openStore is Open, without the directory in its errors. It leaves nothing open if it
// fails, unless an engine's goroutine hangs.
func openStore(dir string, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if o.FS == nil {
		// One name for each directory: the lock tells other processes by the file, but other stores of
		// this one by the name.
		if dir, err = filepath.Abs(dir); err != nil {
			return nil, err
		}
	}
	s := &Store{dir: dir, opts: o, stopped: make(chan struct{}), syncing: make(chan *group, maxFlying)}
	s.work = sync.NewCond(&s.mu)
	disk, watcher := s.disk()
	s.watcher = watcher
	if s.lock, err = lockDirectory(dir, disk); err != nil {
		return nil, errors.Join(err, watcher.Close())
	}
	// The engine takes its memtables off the cache's size.
	s.cache = pebbledb.NewCache(o.CacheSize + memTables*o.MemTableSize)
	if err := s.guard(func() error { return s.openEngine(disk) }); err != nil {
		if !s.isFailed() { // else the engine's goroutines may still be at it
			err = firstError(err, s.guard(s.release))
		}
		return nil, err
	}
	// From here on the caller has the store, and Failed is told.
	s.mu.Lock()
	s.opened = true
	s.mu.Unlock()
	s.workers.Go(s.commit)
	s.workers.Go(s.acknowledge)
	return s, nil
}

// guard runs f on a goroutine of its own and returns its error, or why the store stopped itself: the
// engine's fatal errors park the goroutine that meets them.
func (s *Store) guard(f func() error) error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err := <-result:
		return err
	case <-s.stopped:
		return s.refusal()
	}
}

// disk returns the file system, and what stops the watch for its slowness.
func (s *Store) disk() (vfs.FS, io.Closer) {
	if s.opts.FS != nil {
		return s.opts.FS, io.NopCloser(nil)
	}
	return vfs.WithDiskHealthChecks(vfs.Default, slowDisk, nil, func(i vfs.DiskSlowInfo) {
		// A goroutine of its own: this one watches the disk and must not wait for a logger on it.
		go s.opts.Logger.Warn("store: slow disk", "dir", s.dir, "file", i.Path, "operation", i.OpType.String(),
			"duration", i.Duration)
	})
}

// lockDirectory creates the directory and locks it. Errors: ErrLocked, and those of the
// file system.
func lockDirectory(dir string, fsys vfs.FS) (*pebbledb.Lock, error) {
	if err := makeDirectory(dir, fsys); err != nil {
		return nil, err
	}
	lock, err := pebbledb.LockDirectory(dir, fsys)
	// The file system's errors are PathErrors; the lock itself, and the engine's list of
	// locks of this process, have others.
	if pathErr := (*fs.PathError)(nil); err != nil && !errors.As(err, &pathErr) {
		return nil, fmt.Errorf("%w: is another licensed running on this directory? (%w)", persistence.ErrLocked, err)
	}
	return lock, err
}

// makeDirectory creates dir and its missing parents so that they survive a power loss:
// each new entry is synced in its parent.
func makeDirectory(dir string, fsys vfs.FS) error {
	parent := fsys.PathDir(dir)
	if parent == dir {
		return nil
	}
	if _, err := fsys.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := makeDirectory(parent, fsys); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// After the parents: an entry is worth nothing in a directory that is lost itself.
	f, err := fsys.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// engineOptions returns the options of the engine. Also the benchmark's raw engine has them.
func (o Options) engineOptions() *pebbledb.Options {
	eo := &pebbledb.Options{
		MaxOpenFiles: o.MaxOpenFiles,
		// Pinned, since a store never goes back: a newer engine must not raise it by itself.
		FormatMajorVersion: pebbledb.FormatTableFormatV6,
		MemTableSize:       uint64(o.MemTableSize),
		// One memtable is filled while the others are flushed.
		MemTableStopWritesThreshold: memTables,
		// A shallow level 0 keeps reads of cold aggregates cheap; writes stop only when
		// compactions are far behind.
		L0CompactionThreshold: 2,
		L0StopWritesThreshold: 32,
		LBaseMaxBytes:         o.MemTableSize,
		BytesPerSync:          1 << 20,
	}
	eo.Levels[0].BlockSize = 16 << 10
	return eo
}

// openEngine opens the engine and reads what Store keeps in memory.
func (s *Store) openEngine(disk vfs.FS) (err error) {
	eo := s.opts.engineOptions()
	eo.FS = &logFS{watch(&patientFS{FS: disk, log: s.opts.Logger, dir: s.dir}, s.dir, s.stop), &s.freshLogs}
	eo.Cache, eo.Lock = s.cache, s.lock
	eo.Logger, eo.EventListener = engineLogger{s}, s.engineEvents()
	if s.db, err = openReplayed(s.dir, eo); err != nil {
		return err
	}
	// In this order: rows of a format that is not known are not read.
	if err := firstError(s.checkFormat(), s.loadOwnership()); err != nil {
		return err
	}
	first, err := s.scanTombstones([]byte{kindTombstone}, []byte{kindTombstone + 1}, 1)
	s.tombstones.Store(len(first) > 0)
	return err
}

// release closes the engine, if it is open, and gives back the directory, in this order.
func (s *Store) release() error {
	var err error
	if s.db != nil {
		err = classify(s.db.Close())
	}
	s.cache.Unref()
	return firstError(err, s.lock.Close(), s.watcher.Close())
}

// checkFormat reads the format marker, and writes it into an empty store.
func (s *Store) checkFormat() error {
	value, closer, err := s.db.Get([]byte{kindMarker})
	if errors.Is(err, pebbledb.ErrNotFound) {
		return s.markFormat()
	}
	if err != nil {
		return classify(err)
	}
	got, err := decodeMarker(value)
	if err := errors.Join(err, closer.Close()); err != nil {
		return fmt.Errorf("format marker: %w", err)
	}
	switch {
	case got < firstFormat || got > format:
		return fmt.Errorf("%w: it has format %d, this program knows %d to %d", ErrFormat, got, firstFormat, format)
	case got < format:
		// Rows of older formats stay as they are and are read as such. From here on the store may have rows that an
		// older program does not know.
		s.opts.Logger.Info("store upgraded", "dir", s.dir, "from_format", got, "to_format", format)
		return classify(s.db.Set([]byte{kindMarker}, encodeMarker(format), pebbledb.Sync))
	}
	return nil
}

// markFormat marks an empty store with the format of this program. Errors: ErrFormat if
// it has rows.
func (s *Store) markFormat() error {
	iter, err := s.db.NewIter(nil)
	if err != nil {
		return classify(err)
	}
	foreign := iter.First()
	if err := errors.Join(iter.Error(), iter.Close()); err != nil {
		return classify(err)
	}
	if foreign {
		return fmt.Errorf("%w: it has rows but no marker", ErrFormat)
	}
	if err := s.db.Set([]byte{kindMarker}, encodeMarker(format), pebbledb.Sync); err != nil {
		return classify(err)
	}
	// The first log is in the engine's oldest format, in which damage is taken for its end.
	return classify(s.db.Flush())
}

// Close waits for writes and reads in progress, moves what only the log has into tables and releases the
// directory. If the store stopped itself, it returns why, and the directory stays locked until the
// process ends.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.err != nil {
		defer s.mu.Unlock()
		return fmt.Errorf("close: %w", s.err)
	}
	// From here on calls are refused; those in progress end first.
	s.err = fmt.Errorf("%w: %s", persistence.ErrClosed, s.dir)
	s.work.Signal()
	s.mu.Unlock()

	err := s.guard(func() error {
		s.workers.Wait()
		s.reads.Wait()
		if s.isFailed() {
			return s.refusal()
		}
		// Tables are checked block by block whenever they are read, but damage to the end of a log
		// looks like a write that a crash cut short.
		return firstError(classify(s.db.Flush()), s.release())
	})
	if err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// Checkpoint writes a consistent copy of the store, with all that was acknowledged before the call,
// to a directory that does not exist yet, while the store continues. On the same file system it mostly
// takes hard links, and no space until compactions remove what they link to. Open opens a checkpoint
// like any store. Errors: ErrUnavailable.
func (s *Store) Checkpoint(ctx context.Context, dir string) error {
	_, err := read(ctx, s, "", func() (struct{}, error) {
		return struct{}{}, s.db.Checkpoint(dir, pebbledb.WithFlushedWAL())
	})
	if err != nil {
		return fmt.Errorf("checkpoint to %s: %w", dir, err)
	}
	return nil
}

// Stats counts what was committed since the store was opened.
type Stats struct {
	// Writes were acknowledged in Groups, each one batch and one sync.
	Writes, Groups uint64
}

// Metrics are the store's figures.
type Metrics struct {
	Stats
	Engine *pebbledb.Metrics
}

// Metrics returns the figures of the store and its engine.
func (s *Store) Metrics(ctx context.Context) (Metrics, error) {
	m, err := read(ctx, s, "", func() (*pebbledb.Metrics, error) { return s.db.Metrics(), nil })
	if err != nil {
		return Metrics{}, fmt.Errorf("metrics: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Metrics{Stats: s.stats, Engine: m}, nil
}
