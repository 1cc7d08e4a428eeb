package pebble

import (
	"errors"
	"fmt"
	"sync"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"licensed/persistence"
	"licensed/persistence/internal/wire"
)

// archiveFormat is the version of the archive's layout as a whole.
const archiveFormat = 1

// archiveEngine is one opening of the archive's engine. After the first error of the disk
// it is left behind, fenced, and another one takes its place. It is never closed then:
// its goroutines may hang in the disk, or in [archiveEngine.Fatalf], with its locks held.
type archiveEngine struct {
	db    *pebbledb.DB
	cache *pebbledb.Cache
	fs    *fencedFS
	// Calls in progress; Close waits for them.
	calls sync.WaitGroup
	// For stop.
	once    sync.Once
	stopped chan struct{}
	cause   error // set before stopped is closed

	slots chan struct{} // has a token for each call in progress

	synced watermark // stamped on each segment, see openReplayed

	mu      sync.Mutex
	putting map[string]bool // names being written
}

// maxCalls is the number of calls that are in progress. While the disk hangs none of them ends, though their callers
// leave, and come again.
const maxCalls = 256

// claim reserves a name for one writer, and returns false if it is taken. unclaim gives
// it back.
func (e *archiveEngine) claim(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.putting[name] {
		return false
	}
	e.putting[name] = true
	return true
}

// unclaim lets others write the name.
func (e *archiveEngine) unclaim(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.putting, name)
}

// stop gives the engine up. Like Store.stop it may be called with the engine's locks held.
func (e *archiveEngine) stop(cause error) {
	e.once.Do(func() {
		e.fs.fence()
		e.cause = cause
		close(e.stopped)
	})
}

// Infof, Errorf and Fatalf implement pebbledb.Logger. Fatalf must not return, see engineLogger.
func (e *archiveEngine) Infof(string, ...any) {}

// Errorf implements pebble.Logger.
func (e *archiveEngine) Errorf(string, ...any) {}

// Fatalf implements pebble.Logger: the engine must not end the process, and must not
// continue. The goroutine that calls it ends here.
func (e *archiveEngine) Fatalf(format string, args ...any) {
	e.stop(fmt.Errorf("engine: %w", fatalError(format, args)))
	select {}
}

// engineOptions returns the engine's options: segments are compressed and checksummed
// already, are read one at a time, by name, and are a few dozen KiB. So blocks are large
// and not compressed, and a Bloom filter of 10 bits per key spares most tables a read.
func (o ArchiveOptions) engineOptions() *pebbledb.Options {
	eo := &pebbledb.Options{
		// Pinned, as in Options.engineOptions.
		FormatMajorVersion:          pebbledb.FormatTableFormatV6,
		MemTableSize:                uint64(o.MemTableSize),
		MemTableStopWritesThreshold: 2,
		L0CompactionThreshold:       4,
		LBaseMaxBytes:               64 << 20,
		BytesPerSync:                1 << 20,
		WALBytesPerSync:             1 << 20,
		MaxOpenFiles:                o.MaxOpenFiles,
	}
	eo.TargetFileSizes[0] = 32 << 20
	eo.ApplyCompressionSettings(func() pebbledb.DBCompressionSettings { return pebbledb.DBCompressionNone })
	for i := range eo.Levels {
		eo.Levels[i].BlockSize = 64 << 10
		eo.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return eo
}

// openEngine opens the engine and checks that the directory holds this archive. Errors:
// ErrFormat, ErrWrongArchive, ErrUnavailable, ErrCorrupt.
func (a *Archive) openEngine() (*archiveEngine, error) {
	e := &archiveEngine{
		fs:      &fencedFS{FS: a.opts.FS},
		stopped: make(chan struct{}),
		slots:   make(chan struct{}, maxCalls),
		putting: map[string]bool{},
	}
	// The engine takes its memtables off the cache's size.
	e.cache = pebbledb.NewCache(a.opts.CacheSize + 2*a.opts.MemTableSize)
	eo := a.opts.engineOptions()
	eo.FS = &logFS{watch(&patientFS{FS: e.fs, log: a.opts.Logger, dir: a.dir}, a.dir, e.stop), &a.freshLogs}
	eo.Cache, eo.Logger = e.cache, e
	eo.EventListener = &pebbledb.EventListener{
		BackgroundError: func(err error) {
			if !tooManyFiles(err) { // The engine tries again.
				e.stop(fmt.Errorf("in the background: %w", err))
			}
		},
	}
	err := e.guard(func() (err error) {
		if e.db, err = openReplayed(a.dir, eo); err != nil {
			return err
		}
		return a.checkMarker(e.db)
	})
	if err != nil {
		// Closing an engine that was given up would wait for its goroutines.
		select {
		case <-e.stopped: // its goroutines may still be at it
			return nil, err
		default:
		}
		return nil, firstError(err, e.guard(e.close))
	}
	return e, nil
}

// guard runs f on a goroutine of its own and returns its error, or why the engine was given up.
func (e *archiveEngine) guard(f func() error) error {
	result := make(chan error, 1)
	go func() { result <- f() }()
	select {
	case err := <-result:
		return err
	case <-e.stopped:
		return fmt.Errorf("%w: %w", persistence.ErrUnavailable, e.cause)
	}
}

// close releases the engine and its memory. The directory stays locked.
func (e *archiveEngine) close() error {
	var err error
	if e.db != nil {
		err = classify(e.db.Close())
	}
	e.cache.Unref()
	return err
}

// checkMarker compares the archive's id, or marks an empty directory.
func (a *Archive) checkMarker(db *pebbledb.DB) error {
	value, closer, err := db.Get([]byte{kindMarker})
	if errors.Is(err, pebbledb.ErrNotFound) {
		return a.mark(db)
	}
	if err != nil {
		return classify(err)
	}
	format, id, err := decodeArchiveMarker(value)
	if err := errors.Join(err, closer.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if format != archiveFormat {
		return fmt.Errorf("%w: it has format %d, this program knows %d", ErrFormat, format, archiveFormat)
	}
	if want := a.ID(); want != "" && want != id {
		return fmt.Errorf("%w: it is %s, wanted %s", ErrWrongArchive, id, want)
	}
	// The first directory that is opened is the archive's from now on: after a failure,
	// another one is refused.
	a.identify(id)
	return nil
}

// identify sets the archive's id, once it was read or made.
func (a *Archive) identify(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id = id
}

// mark writes the marker of a new archive, with a random id. It refuses a directory that
// has rows: it belongs to something else.
func (a *Archive) mark(db *pebbledb.DB) error {
	if want := a.ID(); want != "" {
		// An archive was expected: an empty directory is most likely a disk that is not
		// mounted.
		return fmt.Errorf("%w: it is empty, wanted %s; is its disk mounted?", ErrWrongArchive, want)
	}
	names, err := scanSegments(db, "", 1)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: it has rows but no marker", ErrFormat)
	}
	id := uuid.NewString()
	if err := db.Set([]byte{kindMarker}, encodeArchiveMarker(archiveFormat, id), pebbledb.Sync); err != nil {
		return classify(err)
	}
	a.identify(id)
	return nil
}

// encodeArchiveMarker returns layout, format, id, checksum.
func encodeArchiveMarker(format uint64, id string) []byte {
	b := appendNumber([]byte{layoutArchiveMarker}, format)
	return wire.Seal(wire.AppendString(b, id), 0)
}

// decodeArchiveMarker returns what encodeArchiveMarker wrote. What follows the id is left
// to later formats.
func decodeArchiveMarker(b []byte) (format uint64, id string, err error) {
	rd, err := openRow(b, layoutArchiveMarker)
	if err != nil {
		return 0, "", err
	}
	format, rest, ok := takeNumber(rd.Rest())
	if !ok {
		return 0, "", fmt.Errorf("%w: archive marker", persistence.ErrCorrupt)
	}
	rest2 := wire.NewReader(rest)
	id = rest2.String()
	rest2.Rest() // left to later formats
	return format, id, closeRow(&rest2)
}

// supervise opens the archive again when its disk failed, until it closes. It runs on one
// goroutine.
func (a *Archive) supervise() {
	for {
		a.mu.Lock()
		e := a.engine
		a.mu.Unlock()
		// Without an engine from the start, the first attempt failed: try again like
		// after a failure.
		if e != nil {
			select {
			case <-a.closing:
				return
			case <-e.stopped:
			}
			a.mu.Lock()
			a.engine, a.left, a.failure = nil, e, e.cause
			a.mu.Unlock()
			a.opts.Logger.Error("archive: its disk failed; archiving waits, archived history cannot be read",
				"dir", a.dir, "error", e.cause)
		}
		if !a.reopen() {
			return
		}
		a.opts.Logger.Info("archive available again", "dir", a.dir)
	}
}

// reopen tries until there is an engine again, or the archive closes, which it reports by
// false. The pause between attempts doubles from RetryMin to RetryMax.
func (a *Archive) reopen() bool {
	for pause := a.opts.RetryMin; ; pause = min(2*pause, a.opts.RetryMax) {
		select {
		case <-a.closing:
			return false
		case <-time.After(pause):
		}
		// Two engines that write into one directory would destroy it.
		if a.haunted() {
			continue
		}
		err := a.probe()
		var e *archiveEngine
		if err == nil {
			e, err = a.openEngine()
		}
		a.mu.Lock()
		a.engine, a.failure = e, err
		a.mu.Unlock()
		if err == nil {
			return true
		}
		a.opts.Logger.Debug("archive: still unavailable", "dir", a.dir, "error", err)
	}
}

// haunted reports whether a write of an engine that was left behind is still in progress.
// Such a write is in the kernel, where no fence stops it.
func (a *Archive) haunted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left != nil && !a.left.fs.idle()
}

// probe sees whether the disk takes writes, before an engine is opened that may have to
// be left behind. Each engine that is left costs its memory and goroutines until the
// process ends.
func (a *Archive) probe() error {
	const size = 1 << 20
	name := a.opts.FS.PathJoin(a.dir, "probe")
	f, err := a.opts.FS.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, size))
	return errors.Join(err, f.Sync(), f.Close(), a.opts.FS.Remove(name))
}

// Close releases the directory. Calls in progress are waited for, unless the disk failed; while a write
// hangs in it the directory stays locked until the process ends.
func (a *Archive) Close() error {
	a.mu.Lock()
	if a.closed {
		defer a.mu.Unlock()
		return fmt.Errorf("close archive %s: %w", a.dir, persistence.ErrClosed)
	}
	a.closed = true
	close(a.closing)
	a.mu.Unlock()
	a.workers.Wait()
	a.mu.Lock()
	e := a.engine
	a.mu.Unlock()
	var err error
	if e != nil {
		// A disk that hangs must not keep Close.
		err = e.guard(func() error {
			e.calls.Wait()
			return e.close()
		})
	}
	if e != nil && err != nil {
		// The engine still runs: the directory stays locked.
		a.mu.Lock()
		a.left = e
		a.mu.Unlock()
	}
	if !a.haunted() {
		err = errors.Join(err, a.lock.Close())
	}
	if err != nil {
		return fmt.Errorf("close archive %s: %w", a.dir, err)
	}
	return nil
}
