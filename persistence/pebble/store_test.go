package pebble

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"licensed/persistence"
)

func openTest(t testing.TB, fsys vfs.FS) *Store {
	t.Helper()
	s, err := Open(testDir, testOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func testPartition(id string) persistence.Partition {
	return persistence.Partition{
		RootKey:     persistence.RootKey{Aggregate: id, Epoch: 1, Version: 1},
		Incarnation: persistence.Incarnation{1},
	}
}

func testMutation(id string, sequence uint64) *persistence.Mutation {
	return &persistence.Mutation{
		Partition: testPartition(id),
		Records:   []persistence.Record{{Sequence: sequence, Count: 1, Data: []byte("event")}},
	}
}

// startAppend appends and returns the channel of the outcome.
func startAppend(s *Store, m *persistence.Mutation) <-chan error {
	outcome := make(chan error, 2)
	s.Append(context.Background(), m, func(err error) { outcome <- err })
	return outcome
}

// gate blocks the syncs of the write-ahead log while it is shut.
type gate struct {
	mu      sync.Mutex
	opened  *sync.Cond
	shut    bool
	arrived chan struct{} // gets a value from each sync that finds the gate shut
}

func newGate() *gate {
	g := &gate{arrived: make(chan struct{}, 1000)}
	g.opened = sync.NewCond(&g.mu)
	return g
}

func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	g.opened.Broadcast()
}

func (g *gate) isShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

func (g *gate) pass(op errorfs.Op) error {
	if isLogSync(op) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.shut {
			g.arrived <- struct{}{}
		}
		for g.shut {
			g.opened.Wait()
		}
	}
	return nil
}

func isLog(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }

func isLogSync(op errorfs.Op) bool {
	return isLog(op) && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData)
}

func openGated(t *testing.T) (*Store, *gate) {
	g := newGate()
	s := openTest(t, errorfs.Wrap(vfs.NewCrashableMem(), errorfs.InjectorFunc(g.pass)))
	t.Cleanup(func() { g.set(false) }) // before Close
	return s, g
}

func TestNothingIsAcknowledgedBeforeTheSync(t *testing.T) {
	s, g := openGated(t)
	g.set(true)
	var early sync.Map
	var wg sync.WaitGroup
	wg.Add(2)
	told := func(what string) {
		if g.isShut() {
			early.Store(what, true)
		}
		wg.Done()
	}
	s.Append(t.Context(), testMutation("a", 1), func(error) { told("append") })
	<-g.arrived
	// The record is visible to the engine now, so these must wait for its sync, or for one after it.
	wg.Go(func() {
		if _, err := s.ReadRecords(t.Context(), testPartition("a"), 0, 1); err != nil || g.isShut() {
			early.Store(fmt.Sprint("read: ", err), true)
		}
	})
	shard := persistence.Shard{ID: 1, Epoch: 1, Owner: persistence.Incarnation{1}}
	swapping := make(chan struct{})
	go func() {
		close(swapping)
		applied, _, err := s.CompareAndSetShard(context.Background(), persistence.Shard{}, shard)
		told(fmt.Sprint("compare-and-set: ", applied, err))
	}()
	<-swapping
	for !s.rowsUnderWay() {
		runtime.Gosched()
	}
	ctx := newWaitContext(t.Context(), 1)
	seen := make(chan error, 1)
	go func() {
		_, err := s.Shard(ctx, 1)
		seen <- err
	}()
	select {
	case <-ctx.waited:
	case err := <-seen:
		t.Errorf("before the sync: read of a shard: %v", err)
	}
	ctx.cancel()
	if err := <-seen; !errors.Is(err, persistence.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("read of a shard under way: %v, want ErrUnavailable", err)
	}
	g.set(false)
	wg.Wait()
	early.Range(func(what, _ any) bool {
		t.Errorf("before the sync: %v", what)
		return true
	})
}

// waitContext tells when its end was asked for this many times.
type waitContext struct {
	context.Context
	cancel context.CancelFunc
	asked  atomic.Int64
	times  int64
	waited chan struct{}
}

func newWaitContext(parent context.Context, times int64) *waitContext {
	ctx, cancel := context.WithCancel(parent)
	return &waitContext{Context: ctx, cancel: cancel, times: times, waited: make(chan struct{})}
}

func (c *waitContext) Done() <-chan struct{} {
	if c.asked.Add(1) == c.times {
		close(c.waited)
	}
	return c.Context.Done()
}

func (s *Store) rowsUnderWay() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rowsIn != nil
}

// A read waits for the sync of what it may have seen, and not for that of others.
func TestReadWaitsForItsAggregateOnly(t *testing.T) {
	s, g := openGated(t)
	g.set(true)
	done := make(chan error, 1)
	s.Append(t.Context(), testMutation("a", 1), func(err error) { done <- err })
	<-g.arrived
	if _, err := s.ReadRecords(t.Context(), testPartition("b"), 0, 1); err != nil {
		t.Error(err)
	}
	if _, err := s.TopRoot(t.Context(), "b"); !errors.Is(err, persistence.ErrNotFound) {
		t.Error(err)
	}
	for what, read := range map[string]func(context.Context) error{
		"records of the aggregate": func(ctx context.Context) error {
			_, err := s.ReadRecords(ctx, testPartition("a"), 0, 1)
			return err
		},
		"all aggregates": func(ctx context.Context) error {
			_, err := s.Aggregates(ctx, "", 1)
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := read(ctx); !errors.Is(err, persistence.ErrUnavailable) {
			t.Errorf("read of %s before the sync: %v, want ErrUnavailable", what, err)
		}
		cancel()
	}
	g.set(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Partitions around the number up to which records are deleted one by one leave, and their neighbours stay.
func TestDeleteRecordsOfAnyNumber(t *testing.T) {
	s := openTest(t, vfs.NewMem())
	for _, records := range []uint64{1, maxSingleDeletes, maxSingleDeletes + 1} {
		for _, id := range []string{"a", "b", "c"} {
			m := &persistence.Mutation{Partition: testPartition(id)}
			for i := range records {
				m.Records = append(m.Records, persistence.Record{Sequence: i + 1, Count: 1, Data: []byte("event")})
			}
			if err := <-startAppend(s, m); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.DeleteRecords(t.Context(), testPartition("b")); err != nil {
			t.Fatal(err)
		}
		for id, want := range map[string]uint64{"a": records, "b": 0, "c": records} {
			left, err := s.ReadRecords(t.Context(), testPartition(id), 0, 1<<20)
			if err != nil || uint64(len(left)) != want {
				t.Errorf("%s has %d records, %v, want %d", id, len(left), err, want)
			}
		}
	}
}

func TestAggregatesShareSyncs(t *testing.T) {
	s, g := openGated(t)
	g.set(true)
	const writes = 1000
	first := startAppend(s, testMutation("first", 1))
	<-g.arrived
	var outcomes []<-chan error
	for i := range writes {
		outcomes = append(outcomes, startAppend(s, testMutation(fmt.Sprint("customer-", i), 1)))
	}
	g.set(false)
	for _, outcome := range append(outcomes, first) {
		if err := <-outcome; err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.Metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.Writes != writes+1 || m.Groups > 20 {
		t.Errorf("%d writes in %d groups", m.Writes, m.Groups)
	}
	if m.Engine == nil || m.Engine.WAL.BytesWritten == 0 {
		t.Errorf("engine metrics: %+v", m.Engine)
	}
}

func TestLargeGroupsAreSplit(t *testing.T) {
	s, g := openGated(t)
	g.set(true)
	var outcomes []<-chan error
	for i := range 40 {
		m := testMutation(fmt.Sprint("customer-", i), 1)
		m.Records[0].Data = make([]byte, 200<<10)
		outcomes = append(outcomes, startAppend(s, m))
	}
	g.set(false)
	for _, outcome := range outcomes {
		if err := <-outcome; err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		got, err := s.ReadRecords(t.Context(), testPartition(fmt.Sprint("customer-", i)), 0, 10)
		if err != nil || len(got) != 1 || len(got[0].Data) != 200<<10 {
			t.Fatalf("customer %d: %d records, %v", i, len(got), err)
		}
	}
}

func TestReadGivesUpWithItsContext(t *testing.T) {
	s, g := openGated(t)
	g.set(true)
	startAppend(s, testMutation("a", 1))
	<-g.arrived
	ctx := newWaitContext(t.Context(), 3) // whether it has one, while it reads, and while it waits for the sync
	failed := make(chan error)
	go func() {
		_, err := s.ReadRecords(ctx, testPartition("a"), 0, 1)
		failed <- err
	}()
	<-ctx.waited
	ctx.cancel()
	if err := <-failed; !errors.Is(err, persistence.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want ErrUnavailable and context.Canceled", err)
	}
}

func TestLock(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"memory": vfs.NewMem(), "disk": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir() + "/not/yet/there"
			s, err := Open(dir, testOptions(fsys))
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open(dir, testOptions(fsys))
			if !errors.Is(err, persistence.ErrLocked) || !strings.Contains(err.Error(), dir) {
				t.Errorf("second Open: %v, want ErrLocked with the directory", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := Open(dir, testOptions(fsys))
			if err != nil {
				t.Fatal(err)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestFormat(t *testing.T) {
	tests := []struct {
		name   string
		change func(*pebbledb.DB) error
		want   error
	}{
		{"as it is", func(*pebbledb.DB) error { return nil }, nil},
		{"emptied, as if creation was cut short", func(db *pebbledb.DB) error {
			return db.Delete([]byte{kindMarker}, pebbledb.Sync)
		}, nil},
		{"newer", func(db *pebbledb.DB) error {
			return db.Set([]byte{kindMarker}, encodeMarker(format+1), pebbledb.Sync)
		}, ErrFormat},
		{"damaged", func(db *pebbledb.DB) error {
			return db.Set([]byte{kindMarker}, []byte("1"), pebbledb.Sync)
		}, persistence.ErrCorrupt},
		{"foreign", func(db *pebbledb.DB) error {
			return errors.Join(db.Delete([]byte{kindMarker}, pebbledb.Sync), db.Set([]byte("key"), nil, pebbledb.Sync))
		}, ErrFormat},
		{"damaged lease", func(db *pebbledb.DB) error {
			return db.Set([]byte("l?"), []byte("?"), pebbledb.Sync)
		}, persistence.ErrCorrupt},
		{"damaged shard", func(db *pebbledb.DB) error {
			return db.Set([]byte("s?"), []byte("?"), pebbledb.Sync)
		}, persistence.ErrCorrupt},
		{"damaged cluster", func(db *pebbledb.DB) error {
			return db.Set([]byte("c"), []byte("?"), pebbledb.Sync)
		}, persistence.ErrCorrupt},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fsys := vfs.NewMem()
			if err := openTest(t, fsys).Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, fsys, func(db *pebbledb.DB) {
				if err := tt.change(db); err != nil {
					t.Fatal(err)
				}
			})
			for range 2 { // a refused store is released
				s, err := Open(testDir, testOptions(fsys))
				if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), testDir) {
					t.Fatalf("Open: %v, want %v with the directory", err, tt.want)
				}
				if err == nil {
					err = s.Close()
				}
				if !errors.Is(err, tt.want) {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestMisplacedRows(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	for sequence := range uint64(3) {
		if err := <-startAppend(s, testMutation("a", sequence+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p := testPartition("a")
	edit(t, fsys, func(db *pebbledb.DB) {
		root := persistence.Root{Key: p.RootKey, Incarnation: p.Incarnation}
		other := persistence.RootKey{Aggregate: "b", Epoch: 1, Version: 1}
		moved := persistence.AppendRecord(nil, &persistence.Record{Sequence: 7, Count: 1})
		err := errors.Join(
			db.Set(appendNumber(appendPartition(nil, &p), 2), moved, pebbledb.Sync),
			db.Set(appendRootKey(nil, other), appendChain(nil, &root), pebbledb.Sync),
		)
		if err != nil {
			t.Fatal(err)
		}
	})
	s = openTest(t, fsys)
	if _, err := s.ReadRecords(t.Context(), p, 0, 10); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("record under another's key: %v, want ErrCorrupt", err)
	}
	if _, err := s.TopRoot(t.Context(), "b"); !errors.Is(err, persistence.ErrCorrupt) {
		t.Errorf("root under another's key: %v, want ErrCorrupt", err)
	}
}

func TestCheckpoint(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	shard := persistence.Shard{ID: 1, Epoch: 1, Owner: persistence.Incarnation{1}}
	if _, _, err := s.CompareAndSetShard(t.Context(), persistence.Shard{}, shard); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := <-startAppend(s, testMutation(fmt.Sprint(i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Checkpoint(t.Context(), "backup"); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint(t.Context(), "backup"); err == nil {
		t.Error("a checkpoint overwrote another")
	}
	if err := <-startAppend(s, testMutation("0", 2)); err != nil {
		t.Fatal(err)
	}
	copied, err := Open("backup", testOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	for i := range 100 {
		got, err := copied.ReadRecords(t.Context(), testPartition(fmt.Sprint(i)), 0, 10)
		if err != nil || len(got) != 1 {
			t.Errorf("customer %d: %d records, %v", i, len(got), err)
		}
	}
	if got, err := copied.Shard(t.Context(), 1); err != nil || got != shard {
		t.Errorf("shard: %+v, %v", got, err)
	}
}

func TestUnsoundOptions(t *testing.T) {
	for _, o := range []Options{
		{CacheSize: -1}, {MemTableSize: 1000}, {MaxMutation: -1}, {MemTableSize: 4 << 20, MaxMutation: 1 << 20},
	} {
		o.FS = vfs.NewMem()
		if s, err := Open(testDir, o); err == nil {
			t.Errorf("%+v were accepted", o)
			_ = s.Close()
		}
	}
}

// TestDamagedFiles flips bytes in the files of a closed store. What was stored must come back or be
// reported, never be missing or different in silence.
func TestDamagedFiles(t *testing.T) {
	fsys := vfs.NewMem()
	s := openTest(t, fsys)
	want := fillAndFlush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fsys.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	var reported int
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") {
			continue
		}
		data, err := fsys.UnsafeGetFileDataBuffer(testDir + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 100; at < len(data); at += 1 + len(data)/12 {
			data[at] ^= 0x04
			if !checkDamaged(t, fsys, want) {
				reported++
			}
			data[at] ^= 0x04
		}
	}
	if reported == 0 {
		t.Error("no damage was met")
	}
	if !checkDamaged(t, fsys, want) {
		t.Error("the repaired store reports damage")
	}
}

func fillAndFlush(t *testing.T, s *Store) []string {
	t.Helper()
	var ids []string
	for i := range 150 {
		id := fmt.Sprintf("customer-%03d", i)
		ids = append(ids, id)
		p := testPartition(id)
		outcome := make(chan error, 1)
		r := &persistence.Root{Key: p.RootKey, Incarnation: p.Incarnation, Snapshot: make([]byte, 2000)}
		for j := range r.Snapshot {
			r.Snapshot[j] = byte(i * j * j) // so that it does not shrink to nothing
		}
		s.PutRoot(t.Context(), r, func(err error) { outcome <- err })
		if err := errors.Join(<-outcome, <-startAppend(s, testMutation(id, 1))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// checkDamaged reads all and returns false if damage was reported.
func checkDamaged(t *testing.T, fsys vfs.FS, ids []string) (whole bool) {
	t.Helper()
	o := testOptions(fsys)
	o.Logger = discard
	s, err := Open(testDir, o)
	if err != nil {
		if !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("Open: %v, want ErrCorrupt", err)
		}
		return false
	}
	defer func() { _ = s.Close() }()
	whole = true
	for _, id := range ids {
		_, rootErr := s.TopRoot(t.Context(), id)
		records, err := s.ReadRecords(t.Context(), testPartition(id), 0, 10)
		for _, err := range []error{rootErr, err} {
			if err == nil {
				continue
			}
			whole = false
			if errors.Is(err, persistence.ErrNotFound) ||
				!errors.Is(err, persistence.ErrCorrupt) && !errors.Is(err, persistence.ErrClosed) {
				t.Errorf("%s: %v, want ErrCorrupt", id, err)
			}
		}
		if err == nil && (len(records) != 1 || string(records[0].Data) != "event") {
			t.Errorf("%s: %+v", id, records)
		}
	}
	if got, err := s.Aggregates(t.Context(), "", 1000); err == nil && !slices.Equal(got, ids) {
		t.Errorf("%d aggregates", len(got))
	}
	return whole
}

// TestDamagedLog flips bytes in the log of a store that was not closed. The engine cannot tell damage
// to the last blocks of a log, of 32 KiB each, from a write that a crash cut short; all before is.
func TestDamagedLog(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openTest(t, disk)
	for i := range uint64(180) {
		m := testMutation("a", i+1)
		m.Records[0].Data = make([]byte, 1000)
		if err := <-startAppend(s, m); err != nil {
			t.Fatal(err)
		}
	}
	tail := 2 * 32 << 10
	var log string
	names, err := disk.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		if strings.HasSuffix(name, ".log") {
			log = testDir + "/" + name // the last one
		}
	}
	for at := 50; ; at += 10_000 {
		crashed := disk.CrashClone(vfs.CrashCloneCfg{})
		data, err := crashed.UnsafeGetFileDataBuffer(log)
		if err != nil {
			t.Fatal(err)
		}
		if at >= len(data)-tail {
			if at < 100_000 {
				t.Errorf("the log has only %d bytes", len(data))
			}
			return
		}
		data[at] ^= 0x10
		o := testOptions(crashed)
		o.Logger = discard
		if s, err := Open(testDir, o); !errors.Is(err, persistence.ErrCorrupt) {
			t.Errorf("byte %d of %d: Open: %v, want ErrCorrupt", at, len(data), err)
			if err == nil {
				_ = s.Close()
			}
		}
	}
}

// TestCloseLeavesNothingToTheLog: see TestDamagedLog.
func TestCloseLeavesNothingToTheLog(t *testing.T) {
	disk := vfs.NewMem()
	s := openTest(t, disk)
	if err := <-startAppend(s, testMutation("a", 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := disk.List(testDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		if err := disk.Remove(testDir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	s = openTest(t, disk)
	if got, err := s.ReadRecords(t.Context(), testPartition("a"), 0, 10); err != nil || len(got) != 1 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

// TestClusterOfEarlierRelease: a cluster that was created without an id gets one, and keeps it.
func TestClusterOfEarlierRelease(t *testing.T) {
	fsys := vfs.NewMem()
	s, err := Open(testDir, testOptions(fsys))
	if err != nil {
		t.Fatal(err)
	}
	want := persistence.ClusterInfo{Name: "c", Shards: 8}
	if err := s.db.Set([]byte{kindCluster}, encodeCluster(want), pebbledb.Sync); err != nil {
		t.Fatal(err)
	}
	want.ID = persistence.NewClusterID()
	for _, id := range []persistence.ClusterID{want.ID, persistence.NewClusterID()} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(testDir, testOptions(fsys)); err != nil {
			t.Fatal(err)
		}
		got, err := s.CreateCluster(t.Context(), persistence.ClusterInfo{Name: "other", Shards: 9, ID: id})
		if err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
