package pebble

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"licensed/persistence"
)

var discard = slog.New(slog.DiscardHandler)

// diskErrors are errors that a disk gives in operation, by when.
var diskErrors = map[string]struct {
	err  error
	when func(errorfs.Op) bool
}{
	"log write": {syscall.EIO, func(op errorfs.Op) bool {
		return isLog(op) && op.Kind == errorfs.OpFileWrite
	}},
	"log write, disk full": {syscall.ENOSPC, func(op errorfs.Op) bool {
		return isLog(op) && op.Kind == errorfs.OpFileWrite
	}},
	"log sync":            {syscall.EIO, isLogSync},
	"log sync, disk full": {syscall.ENOSPC, isLogSync},
	"new log":             {syscall.EIO, func(op errorfs.Op) bool { return isLog(op) && isCreate(op) }},
	"new log, disk full":  {syscall.ENOSPC, func(op errorfs.Op) bool { return isLog(op) && isCreate(op) }},
	"new log gone":        {syscall.ENOENT, func(op errorfs.Op) bool { return isLog(op) && isCreate(op) }},
	"table create":        {syscall.EIO, func(op errorfs.Op) bool { return isTable(op) && isCreate(op) }},
	"table write, disk full": {syscall.ENOSPC, func(op errorfs.Op) bool {
		return isTable(op) && op.Kind == errorfs.OpFileWrite
	}},
	"table sync": {syscall.EIO, func(op errorfs.Op) bool { return isTable(op) && isSync(op) }},
	"manifest write": {syscall.EIO, func(op errorfs.Op) bool {
		return isManifest(op) && op.Kind == errorfs.OpFileWrite
	}},
	"manifest sync": {syscall.ENOSPC, func(op errorfs.Op) bool { return isManifest(op) && isSync(op) }},
	"every write": {syscall.EROFS, func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFilePreallocate
	}},
}

func isTable(op errorfs.Op) bool    { return strings.HasSuffix(op.Path, ".sst") }
func isManifest(op errorfs.Op) bool { return strings.Contains(op.Path, "MANIFEST") }
func isSync(op errorfs.Op) bool {
	return op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
}
func isCreate(op errorfs.Op) bool {
	return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite
}

// outcomes collects what writers were told.
type outcomes struct {
	mu    sync.Mutex
	acked map[string]uint64 // sequence acknowledged last, by aggregate
	told  int
}

func TestDiskErrorStopsTheStore(t *testing.T) {
	for name, fault := range diskErrors {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
				if fault.when(op) {
					return fault.err
				}
				return nil
			})}
			fatal := make(chan error, 2)
			o := testOptions(errorfs.Wrap(disk, broken))
			o.MemTableSize, o.MaxMutation = 1<<20, 200<<10 // so that logs and tables are made often
			o.Logger = discard
			o.Listener.Failed = func(err error) { fatal <- err }
			s, err := Open(testDir, o)
			if err != nil {
				t.Fatal(err)
			}
			out := &outcomes{acked: make(map[string]uint64)}
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() { out.writeUntilRefused(t, s, fmt.Sprint("customer-", i), func() { broken.On() }) })
			}
			wg.Wait()
			cause := <-fatal
			if !errors.Is(cause, fault.err) || !errors.Is(cause, persistence.ErrClosed) ||
				!strings.Contains(cause.Error(), testDir) {
				t.Errorf("Failed(%v), want ErrClosed, %v and the directory", cause, fault.err)
			}
			wantStopped(t, s, fault.err)
			// What was acknowledged is on the disk.
			after := openTest(t, disk.CrashClone(vfs.CrashCloneCfg{}))
			for id, sequence := range out.acked {
				got, err := after.ReadRecords(t.Context(), testPartition(id), 0, 1<<20)
				if err != nil || uint64(len(got)) < sequence {
					t.Errorf("%s: acknowledged up to %d, there are %d, %v", id, sequence, len(got), err)
				}
			}
			if len(fatal) > 0 {
				t.Errorf("Failed was called again: %v", <-fatal)
			}
		})
	}
}

// writeUntilRefused appends to one aggregate, breaks the disk after a while and returns at the first
// error.
func (out *outcomes) writeUntilRefused(t *testing.T, s *Store, id string, breakDisk func()) {
	for sequence := uint64(1); ; sequence++ {
		m := testMutation(id, sequence)
		m.Records[0].Data = make([]byte, 10_000)
		outcome := startAppend(s, m)
		err := <-outcome
		out.mu.Lock()
		if err == nil {
			out.acked[id] = sequence
		}
		if out.told++; out.told == 100 {
			breakDisk()
		}
		out.mu.Unlock()
		if err != nil {
			if !errors.Is(err, persistence.ErrClosed) || errors.Is(err, persistence.ErrRejected) {
				t.Errorf("append: %v, want ErrClosed", err)
			}
			return
		}
	}
}

// wantStopped calls everything.
func wantStopped(t *testing.T, s *Store, cause error) {
	t.Helper()
	ctx := t.Context()
	p := testPartition("a")
	outcome := make(chan error, 2)
	s.PutRoot(ctx, &persistence.Root{Key: p.RootKey, Incarnation: p.Incarnation}, func(err error) { outcome <- err })
	errs := map[string]error{
		"PutRoot":    <-outcome,
		"Append":     <-startAppend(s, testMutation("a", 1)),
		"Checkpoint": s.Checkpoint(ctx, "elsewhere"),
	}
	_, errs["TopRoot"] = s.TopRoot(ctx, "a")
	_, errs["ReadRoot"] = s.ReadRoot(ctx, p.RootKey)
	_, errs["ReadRoots"] = s.ReadRoots(ctx, "a", persistence.RootKey{}, 1)
	_, errs["ReadRecords"] = s.ReadRecords(ctx, p, 0, 1)
	_, errs["Aggregates"] = s.Aggregates(ctx, "", 1)
	_, errs["Leases"] = s.Leases(ctx)
	_, errs["Shards"] = s.Shards(ctx)
	_, errs["CreateCluster"] = s.CreateCluster(ctx, persistence.ClusterInfo{Shards: 1})
	_, _, errs["CompareAndSetShard"] = s.CompareAndSetShard(ctx, persistence.Shard{}, persistence.Shard{Epoch: 1})
	_, errs["Metrics"] = s.Metrics(ctx)
	errs["Close"] = s.Close()
	errs["Close again"] = s.Close()
	for name, err := range errs {
		if !errors.Is(err, persistence.ErrClosed) || !errors.Is(err, cause) {
			t.Errorf("%s: %v, want ErrClosed and %v", name, err, cause)
		}
	}
}

// TestWritesUnderWayAreUnknown stops the store while writes of all kinds wait for a sync.
func TestWritesUnderWayAreUnknown(t *testing.T) {
	g := newGate()
	broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isLogSync(op) {
			return syscall.EIO
		}
		return nil
	})}
	o := testOptions(errorfs.Wrap(vfs.NewMem(), errorfs.Any(errorfs.InjectorFunc(g.pass), broken)))
	fatal := make(chan error, 1)
	told := make(chan error, 100)
	o.Listener.Failed = func(err error) { fatal <- err }
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	g.set(true)
	s.Append(t.Context(), testMutation("first", 1), func(err error) { told <- err })
	<-g.arrived
	const more = 50
	for i := range more {
		s.Append(t.Context(), testMutation(fmt.Sprint(i), 1), func(err error) { told <- err })
	}
	swapped := make(chan error)
	go func() {
		_, _, err := s.CompareAndSetShard(context.Background(), persistence.Shard{}, persistence.Shard{Epoch: 1})
		swapped <- err
	}()
	for !s.rowsUnderWay() {
		runtime.Gosched()
	}
	broken.On()
	g.set(false)
	if err := <-fatal; !errors.Is(err, syscall.EIO) {
		t.Errorf("Failed(%v)", err)
	}
	if len(told) != 1+more {
		t.Errorf("Failed was called when %d of %d writers were told", len(told), 1+more)
	}
	for range 1 + more {
		if err := <-told; !errors.Is(err, persistence.ErrUnknownOutcome) || !errors.Is(err, persistence.ErrClosed) ||
			!errors.Is(err, syscall.EIO) {
			t.Errorf("append under way: %v, want ErrUnknownOutcome, ErrClosed and the cause", err)
		}
	}
	if err := <-swapped; !errors.Is(err, persistence.ErrUnknownOutcome) || !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("compare-and-set under way: %v, want ErrUnknownOutcome and ErrClosed", err)
	}
}

// TestEveryOperationFailsOnce lets each operation that changes the disk fail in turn, in a new store
// and in one that has a record. Nothing may hang or end the process, an acknowledged record is present
// after a power loss, and the store can be opened again.
func TestEveryOperationFailsOnce(t *testing.T) {
	empty, used := vfs.NewCrashableMem(), vfs.NewCrashableMem()
	s := openTest(t, used)
	if err := <-startAppend(s, testMutation("before", 1)); err != nil {
		t.Fatal(err)
	}
	for name, disk := range map[string]*vfs.MemFS{"new store": empty, "used store": used} {
		t.Run(name, func(t *testing.T) {
			n := int32(0)
			for failOnce(t, disk.CrashClone(vfs.CrashCloneCfg{}), n, disk == used) {
				n++
			}
			if n < 10 {
				t.Errorf("only %d operations were met", n)
			}
		})
	}
}

// failOnce opens a store, appends and closes it, with the operation of that index failing, and returns
// false if there were not this many.
func failOnce(t *testing.T, disk *vfs.MemFS, index int32, used bool) bool {
	t.Helper()
	injector := errorfs.OnIndex(index)
	o := testOptions(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFilePreallocate {
			return injector.MaybeError(op)
		}
		return nil
	})))
	o.Logger = discard
	s, err := Open(testDir, o)
	acked := false
	if err == nil {
		err = <-startAppend(s, testMutation("after", 1))
		acked = err == nil
		err = errors.Join(err, s.Close())
	}
	if err != nil && (!errors.Is(err, errorfs.ErrInjected) || !strings.Contains(err.Error(), testDir)) {
		t.Errorf("operation %d: %v, want the injected error and the directory", index, err)
	}
	again := openTest(t, disk.CrashClone(vfs.CrashCloneCfg{}))
	for id, want := range map[string]bool{"before": used, "after": acked} {
		got, err := again.ReadRecords(t.Context(), testPartition(id), 0, 10)
		if err != nil || want && len(got) == 0 {
			t.Errorf("operation %d: %q has %d records, %v", index, id, len(got), err)
		}
	}
	return injector.Index.Load() < 0
}

func TestReadErrorIsTheReadersAlone(t *testing.T) {
	disk := vfs.NewMem()
	s := openTest(t, disk)
	ids := fillAndFlush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if isTable(op) && op.Kind == errorfs.OpFileReadAt {
			return syscall.EIO
		}
		return nil
	})}
	o := testOptions(errorfs.Wrap(disk, broken))
	o.Listener.Failed = func(err error) { t.Errorf("Failed(%v)", err) }
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	// The engine itself has nothing to read: no compaction, no statistics of its tables.
	if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	for m := s.db.Metrics(); !m.Table.InitialStatsCollectionComplete ||
		m.Table.PendingStatsCollectionCount > 0; m = s.db.Metrics() {
		time.Sleep(time.Millisecond)
	}
	broken.On()
	if _, err := s.TopRoot(t.Context(), ids[len(ids)/2]); !errors.Is(err, persistence.ErrUnavailable) ||
		!errors.Is(err, syscall.EIO) {
		t.Errorf("%v, want ErrUnavailable and EIO", err)
	}
	broken.Off()
	if _, err := s.TopRoot(t.Context(), ids[len(ids)/2]); err != nil {
		t.Error(err)
	}
}

func TestBackgroundErrors(t *testing.T) {
	fatal := make(chan error, 1)
	o := testOptions(vfs.NewMem())
	o.Logger = discard
	o.Listener.Failed = func(err error) { fatal <- err }
	s, err := Open(testDir, o)
	if err != nil {
		t.Fatal(err)
	}
	events := s.engineEvents()
	events.BackgroundError(fmt.Errorf("table 5: %w", pebbledb.ErrCorruption))
	if err := <-startAppend(s, testMutation("a", 1)); err != nil {
		t.Errorf("append after damage was found: %v", err)
	}
	// A compaction opens the tables that it reads, and the wait for a file to read is bounded.
	for k, few := range []error{syscall.EMFILE, syscall.ENFILE} {
		events.BackgroundError(fmt.Errorf("open table 5: %w", few))
		if err := <-startAppend(s, testMutation("a", uint64(k+2))); err != nil {
			t.Errorf("append after a compaction met %v: %v", few, err)
		}
	}
	events.BackgroundError(syscall.EIO)
	if err := <-fatal; !errors.Is(err, syscall.EIO) {
		t.Errorf("Failed(%v)", err)
	}
	wantStopped(t, s, syscall.EIO)
}
