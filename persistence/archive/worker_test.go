package archive_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/archive"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
	"licensed/persistence/tiered"
)

// owner stands for the runtime: some histories, asleep or in memory.
type owner struct {
	t    *testing.T
	mu   sync.Mutex
	ours map[string]*persistencetest.History
	// resident aggregates, and how often each was woken and released.
	resident        map[string]bool
	woken, released map[string]int
	forgot          map[string]int
	archived        map[string]uint64
	lost            string // an aggregate whose shard is held no more
	silent          error
}

func (o *owner) Owns(aggregate string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ours[aggregate] != nil && o.lost != aggregate
}

func (o *owner) Resident(aggregate string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.resident[aggregate]
}

func (o *owner) Head(_ context.Context, aggregate string) (persistence.Head, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent != nil {
		return persistence.Head{}, o.silent
	}
	if !o.resident[aggregate] {
		o.woken[aggregate]++
		o.resident[aggregate] = true
		o.ours[aggregate].Roll(false)
	}
	return o.ours[aggregate].Head(), nil
}

func (o *owner) Holds(_ context.Context, head persistence.Head) bool {
	return o.lost != head.Partition.Aggregate
}

func (o *owner) Archived(aggregate string, through uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.archived[aggregate] = through
}

func (o *owner) Release(_ context.Context, aggregate string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.released[aggregate]++
	o.resident[aggregate] = false
}

func (o *owner) Forget(_ context.Context, aggregate string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.forgot[aggregate]++
	return nil
}

// count returns a count of an aggregate.
func (o *owner) count(of map[string]int, aggregate string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return of[aggregate]
}

// flaky is an archive that is down at times.
type flaky struct {
	persistence.Archive
	down  atomic.Bool
	calls atomic.Int64
	// Calls above this many, if not 0, wait for up while it is down.
	patient int64
	up      chan struct{}
}

func (f *flaky) PutSegment(ctx context.Context, name string, data []byte, expires time.Time) error {
	if n := f.calls.Add(1); f.down.Load() {
		if f.patient > 0 && n > f.patient {
			select {
			case <-f.up:
			case <-ctx.Done():
			}
		}
		return fmt.Errorf("put: %w", persistence.ErrUnavailable)
	}
	return f.Archive.PutSegment(ctx, name, data, expires)
}

type site struct {
	*testing.T
	hot    *memory.Store
	listed archive.WorkerHotTier // for the worker, if not hot
	cold   *flaky
	owner  *owner
	config archive.WorkerConfig
	now    atomic.Int64 // Unix milliseconds

	position       string
	saved          atomic.Pointer[string]
	archived, fail chan any
	scans          atomic.Int64
	due            atomic.Int64
}

func newSite(t *testing.T) *site {
	s := &site{
		T: t, hot: memory.New(), cold: &flaky{Archive: memory.NewArchive()}, config: archive.DefaultWorkerConfig(),
		owner: &owner{
			t: t, ours: map[string]*persistencetest.History{}, resident: map[string]bool{},
			woken: map[string]int{}, released: map[string]int{},
			forgot: map[string]int{}, archived: map[string]uint64{},
		},
		archived: make(chan any, 1000), fail: make(chan any, 1000),
	}
	s.config.ScanEvery = time.Millisecond
	s.config.ScanRate = 1e6
	s.config.RetryMin, s.config.RetryMax = time.Millisecond, 5*time.Millisecond
	s.config.SegmentBytes = 4096 // 32 events
	return s
}

// add makes a history with this many partitions of this many events, and has time pass.
func (s *site) add(id string, partitions, events int, age time.Duration) *persistencetest.History {
	h := persistencetest.NewHistory(s, s.hot, id)
	for range partitions {
		h.Roll(false).Append(events)
	}
	s.owner.ours[id] = h
	s.now.Store(max(s.now.Load(), h.Now().Add(age).UnixMilli()))
	return h
}

func (s *site) start() *archive.Worker {
	if s.listed == nil {
		s.listed = s.hot
	}
	w := archive.NewWorker(archive.WorkerOptions{
		Hot: s.listed, Cold: s.cold, Owner: s.owner, Config: s.config,
		Now:      func() time.Time { return time.UnixMilli(s.now.Load()) },
		Position: s.position, SavePosition: func(p string) { s.saved.Store(&p) },
		Listener: archive.WorkerListener{
			Archived: func(i archive.ArchivedInfo) { s.archived <- i },
			Failed:   func(i archive.FailedInfo) { s.put(s.fail, i) },
			Scanned:  func(i archive.ScannedInfo) { s.due.Add(int64(i.Due)); s.scans.Add(1) },
		},
	})
	w.Start()
	s.Cleanup(func() {
		if err := w.Close(context.Background()); err != nil {
			s.Error(err)
		}
	})
	return w
}

// put does not wait for room: failures repeat.
func (s *site) put(to chan any, v any) {
	select {
	case to <- v:
	default:
	}
}

func (s *site) wait(what string, condition func() bool) {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.Fatalf("waited in vain until %s", what)
		}
	}
}

// scanned waits for two scans more: one that began afterwards is among them.
func (s *site) scanned() {
	s.Helper()
	n := s.scans.Load()
	s.wait("all was scanned", func() bool { return s.scans.Load() >= n+2 })
}

// wantArchived demands that a history is whole and how far it is in the archive.
func (s *site) wantArchived(h *persistencetest.History, through uint64) {
	s.Helper()
	var got []persistence.Record
	last := uint64(0)
	err := tiered.NewReader(s.hot, s.cold, nil).Read(s.Context(), h.Head(), persistence.HistoryRange{},
		func(i *persistence.HistoryItem) error {
			if i.Gap != nil {
				return i.Gap
			}
			if got = append(got, i.Record); i.Tier == persistence.TierArchive {
				last = i.Record.Sequence
			}
			return nil
		})
	if err != nil || !reflect.DeepEqual(got, h.Records) || last != through {
		s.Errorf("%d events of %d, archived through %d, want %d: %v", len(got), len(h.Records), last, through, err)
	}
}

// TestPassivatedIsArchived: an aggregate that leaves with enough history is archived without a waking,
// and a small one costs nothing.
func TestPassivatedIsArchived(t *testing.T) {
	s := newSite(t)
	s.config.ScanEvery = time.Hour
	h := s.add("a:K", 10, 10, 0)
	small := s.add("b:K", 3, 10, 0)
	w := s.start()
	w.Passivated("b:K", small.Head(), 0)
	w.Passivated("a:K", h.Head(), 70) // little since then
	if st := w.Stats(); st.Waiting > 0 {
		t.Errorf("small history waits: %+v", st)
	}
	w.Passivated("a:K", h.Head(), 0)
	i := (<-s.archived).(archive.ArchivedInfo)
	s.wait("the owner was told",
		func() bool { s.owner.mu.Lock(); defer s.owner.mu.Unlock(); return s.owner.archived["a:K"] > 0 })
	if i.Aggregate != "a:K" || i.Snapshot || i.Through != s.owner.archived["a:K"] || i.Through < 60 {
		t.Errorf("%+v, the owner was told %d", i, s.owner.archived["a:K"])
	}
	s.wantArchived(h, i.Through)
	s.wantArchived(small, 0)
	if n := s.owner.count(s.owner.woken, "a:K"); n != 0 {
		t.Errorf("it was woken %d times", n)
	}
	// The same again: nothing to do, and the worker knows.
	w.Passivated("a:K", h.Head(), 0)
	if st := w.Stats(); st.Waiting > 0 || st.Failing > 0 {
		t.Errorf("%+v", st)
	}
}

// TestForgottenIsFound: a scan has the owner delete what is left of an aggregate that was forgotten, and does not take
// that for a failure.
func TestForgottenIsFound(t *testing.T) {
	s := newSite(t)
	s.add("gone:K", 3, 4, 0)
	s.add("here:K", 3, 4, 0)
	if _, err := s.hot.CreateCluster(t.Context(), persistence.ClusterInfo{Name: "c", Shards: 1}); err != nil {
		t.Fatal(err)
	}
	key, err := s.hot.TombstoneKey(t.Context(), "gone:K")
	if err == nil {
		err = s.hot.PutTombstone(t.Context(), persistence.Tombstone{Key: key, Time: time.Now()})
	}
	if err != nil {
		t.Fatal(err)
	}
	w := s.start()
	s.wait("the owner was told", func() bool { return s.owner.count(s.owner.forgot, "gone:K") > 0 })
	s.scanned()
	if n := s.owner.count(s.owner.forgot, "here:K"); n != 0 {
		t.Errorf("another was forgotten %d times", n)
	}
	if st := w.Stats(); st.Failing > 0 || len(s.fail) > 0 {
		t.Errorf("%+v, %d failures", st, len(s.fail))
	}
	if err := w.Await(t.Context(), "gone:K"); err != nil {
		t.Error(err)
	}
}

// TestOldHistoryIsFound: what is closed and old is archived though it is little; what is young is not.
func TestOldHistoryIsFound(t *testing.T) {
	s := newSite(t)
	old := s.add("old:K", 3, 4, 0)
	s.add("open:K", 1, 4, s.config.After+time.Hour)
	young := persistencetest.NewHistory(t, s.hot, "young:K")
	young.Wait(s.config.After + 30*time.Minute).Roll(false).Append(4).Roll(false)
	s.owner.ours["young:K"] = young
	foreign := persistencetest.NewHistory(t, s.hot, "foreign:K")
	foreign.Roll(false).Append(4).Roll(false)
	s.start()
	i := (<-s.archived).(archive.ArchivedInfo)
	if i.Aggregate != "old:K" || i.Through != 12 || i.Segments != 1 || i.Snapshot {
		t.Errorf("%+v", i)
	}
	s.scanned()
	s.wantArchived(old, 12)
	s.wantArchived(young, 0)
	s.wantArchived(foreign, 0)
	for _, id := range []string{"old:K", "open:K", "young:K"} {
		want := 0
		if id == "old:K" {
			want = 1
		}
		if n, r := s.owner.count(s.owner.woken, id), s.owner.count(s.owner.released, id); n != want || r != want {
			t.Errorf("%s was woken %d times and released %d times, want %d", id, n, r, want)
		}
	}
	if s.owner.Resident("old:K") {
		t.Error("it stays in memory")
	}
}

// TestResidentIsNotWoken: old history of an aggregate in memory is archived where it is.
func TestResidentIsNotWoken(t *testing.T) {
	s := newSite(t)
	h := s.add("a:K", 3, 4, s.config.SnapshotAfter+time.Hour)
	s.owner.resident["a:K"] = true
	s.start()
	if i := (<-s.archived).(archive.ArchivedInfo); i.Through != 8 || i.Snapshot {
		t.Errorf("%+v", i)
	}
	s.scanned()
	s.wantArchived(h, 8)
	if s.owner.count(s.owner.woken, "a:K")+s.owner.count(s.owner.released, "a:K") > 0 || !s.owner.Resident("a:K") {
		t.Error("it was woken or released")
	}
}

// TestIdleGoesAltogether: after a long time only a stub is left, which is not looked at again.
func TestIdleGoesAltogether(t *testing.T) {
	s := newSite(t)
	h := s.add("a:K", 3, 4, s.config.SnapshotAfter+time.Hour)
	s.start()
	if i := (<-s.archived).(archive.ArchivedInfo); i.Through != 12 || !i.Snapshot {
		t.Errorf("%+v", i)
	}
	s.scanned()
	s.wantArchived(h, 12)
	top, err := s.hot.TopRoot(t.Context(), "a:K")
	if err != nil || !top.Stripped || top.SnapshotAt == "" {
		t.Errorf("top root %+v, %v", top, err)
	}
	whole, err := tiered.NewJournal(s.hot, s.cold).TopRoot(t.Context(), "a:K")
	if err != nil || string(whole.Snapshot) != "state at 12" {
		t.Errorf("woken: %q, %v", whole.Snapshot, err)
	}
	if n := s.owner.count(s.owner.woken, "a:K"); n != 1 {
		t.Errorf("it was woken %d times", n)
	}
}

// TestArchiveIsDown: nothing is lost or harmed, and all is made up for.
func TestArchiveIsDown(t *testing.T) {
	s := newSite(t)
	old := s.add("a:K", 3, 4, s.config.SnapshotAfter+time.Hour)
	big := s.add("b:K", 10, 10, 0)
	s.owner.resident["b:K"] = true // not for the scan to wake
	// Above ten calls it hangs, lest the scan gives up for this time before the test has looked.
	s.cold.patient, s.cold.up = 10, make(chan struct{})
	s.cold.down.Store(true)
	w := s.start()
	w.Passivated("b:K", big.Head(), 0)
	s.wait("it was tried again and again", func() bool { return s.cold.calls.Load() > 10 })
	if st := w.Stats(); st.Failing <= 0 {
		t.Errorf("%+v", st)
	}
	if f := (<-s.fail).(archive.FailedInfo); !f.Retry || !errors.Is(f.Err, persistence.ErrUnavailable) {
		t.Errorf("%+v", f)
	}
	s.wantArchived(big, 0)
	s.wantArchived(old, 0)
	s.cold.down.Store(false)
	close(s.cold.up)
	s.wait("all was archived", func() bool {
		a, errA := s.hot.TopRoot(t.Context(), "a:K")
		roots, errB := s.hot.ReadRoots(t.Context(), "b:K", persistence.RootKey{}, 10)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		return a.Stripped && roots[9].Archive != nil && roots[9].Stripped && w.Stats().Failing == 0
	})
	s.scanned()
	s.wantArchived(old, 12)
	if n := s.owner.count(s.owner.woken, "a:K"); n != 1 {
		t.Errorf("it was woken %d times while the archive was down", n)
	}
}

// TestOneBadAggregate: an aggregate that cannot be archived does not hold up the others.
func TestOneBadAggregate(t *testing.T) {
	s := newSite(t)
	bad := s.add("a:K", 3, 4, 0)
	good := s.add("b:K", 3, 4, s.config.After+time.Hour)
	p := bad.Head().Parent
	if err := s.hot.DeleteRecords(t.Context(),
		persistence.Partition{RootKey: p, Incarnation: bad.Head().ParentIncarnation}); err != nil {
		t.Fatal(err)
	}
	w := s.start()
	if i := (<-s.archived).(archive.ArchivedInfo); i.Aggregate != "b:K" {
		t.Errorf("%+v", i)
	}
	if f := (<-s.fail).(archive.FailedInfo); f.Aggregate != "a:K" || f.Retry ||
		!errors.Is(f.Err, archive.ErrShortfall) {
		t.Errorf("%+v", f)
	}
	s.scanned()
	s.wantArchived(good, 12)
	if st := w.Stats(); st.Failing > 0 {
		t.Errorf("%+v", st)
	}
}

// TestLostShard: what is not ours any more is left alone.
func TestLostShard(t *testing.T) {
	s := newSite(t)
	h := s.add("a:K", 10, 10, s.config.After+time.Hour)
	next := s.add("b:K", 10, 10, 0)
	s.owner.lost, s.config.Concurrency = "a:K", 1
	w := s.start()
	w.Passivated("a:K", h.Head(), 0)
	w.Passivated("b:K", next.Head(), 0)
	s.scanned()
	if i := (<-s.archived).(archive.ArchivedInfo); i.Aggregate != "b:K" { // the one before it in the queue is done
		t.Errorf("%+v", i)
	}
	s.wantArchived(h, 0)
	if len(s.fail) > 0 {
		t.Errorf("that counts as a failure: %+v", <-s.fail)
	}
}

// TestSilentOwner: a scan continues when an aggregate does not answer.
func TestSilentOwner(t *testing.T) {
	s := newSite(t)
	s.add("a:K", 3, 4, s.config.After+time.Hour)
	s.owner.silent = errors.New("overloaded")
	s.start()
	s.scanned()
	if f := (<-s.fail).(archive.FailedInfo); f.Retry || !errors.Is(f.Err, s.owner.silent) {
		t.Errorf("%+v", f)
	}
}

// TestScanGoesOn: a scan begins where that of the former process stood.
func TestScanGoesOn(t *testing.T) {
	s := newSite(t)
	s.config.Page = 2
	s.config.ScanEvery = time.Hour
	for i := range 9 {
		s.add(fmt.Sprintf("%d:K", i), 3, 4, s.config.After+time.Hour)
	}
	s.position = "3:K"
	s.start()
	s.wait("the rest was scanned", func() bool {
		saved := s.saved.Load()
		return s.scans.Load() == 1 && saved != nil && *saved == ""
	})
	if s.due.Load() != 5 {
		t.Errorf("%d of 5 were due", s.due.Load())
	}
	for i := range 9 {
		id := fmt.Sprintf("%d:K", i)
		want := uint64(12)
		if i <= 3 {
			want = 0
		}
		s.wantArchived(s.owner.ours[id], want)
	}
}

// torn is a hot tier that cannot list what comes after an aggregate, and counts the attempts.
type torn struct {
	*memory.Store
	after  string
	failed atomic.Int64
}

func (d *torn) Aggregates(ctx context.Context, after string, limit int) ([]string, error) {
	ids, err := d.Store.Aggregates(ctx, after, limit)
	if after >= d.after {
		d.failed.Add(1)
		return nil, fmt.Errorf("block: %w", persistence.ErrCorrupt)
	}
	return ids, err
}

// TestDamagedListing: damage among the keys neither makes the scan spin nor keeps it from what lies before.
func TestDamagedListing(t *testing.T) {
	s := newSite(t)
	s.config.Page = 1
	damage := &torn{Store: s.hot, after: "1:K"}
	s.listed = damage
	s.config.RetryMax = time.Hour
	before := s.add("1:K", 1, 4, 0)
	s.start()
	s.wait("it failed", func() bool { return len(s.fail) > 0 })
	if f := (<-s.fail).(archive.FailedInfo); f.Retry || !errors.Is(f.Err, persistence.ErrCorrupt) {
		t.Errorf("%+v", f)
	}
	time.Sleep(20 * time.Millisecond) // for a loop that does not pause, time enough
	if n := damage.failed.Load(); n != 1 {
		t.Errorf("%d attempts within RetryMax", n)
	}

	again := newSite(t)
	again.config, again.listed, again.hot, again.owner, again.position = s.config, damage, s.hot, s.owner, "1:K"
	again.config.RetryMax = time.Millisecond
	before.Append(4).Roll(false)
	again.now.Store(before.Now().Add(s.config.After + time.Hour).UnixMilli())
	again.start()
	if i := (<-again.archived).(archive.ArchivedInfo); i.Aggregate != "1:K" {
		t.Errorf("%+v", i)
	}
	if n := again.scans.Load(); n > 0 {
		t.Errorf("%d scans are said to be whole", n)
	}
}

// TestBudgetOfBytes: the worker copies no faster than it may.
func TestBudgetOfBytes(t *testing.T) {
	s := newSite(t)
	s.config.BytesPerSecond = 64 << 10
	s.config.ScanEvery = time.Hour
	h := s.add("a:K", 120, 10, 0) // about 160 KiB, of which the first 64 KiB are free
	w := s.start()
	began := time.Now()
	w.Passivated("a:K", h.Head(), 0)
	<-s.archived
	if d := time.Since(began); d < 800*time.Millisecond {
		t.Errorf("it took %v", d)
	}
}

// TestFullQueue: what finds no room is counted and left to the scan.
func TestFullQueue(t *testing.T) {
	s := newSite(t)
	s.config.ScanEvery, s.config.Queue, s.config.Concurrency = time.Hour, 2, 1
	w := archive.NewWorker(archive.WorkerOptions{Hot: s.hot, Cold: s.cold, Owner: s.owner, Config: s.config})
	for i := range 5 {
		h := s.add(fmt.Sprintf("%d:K", i), 10, 10, 0)
		w.Passivated(fmt.Sprintf("%d:K", i), h.Head(), 0)
		w.Passivated(fmt.Sprintf("%d:K", i), h.Head(), 0) // is waiting already
	}
	if st := w.Stats(); st.Waiting != 2 || st.Dropped != 6 {
		t.Errorf("%+v", st)
	}
}
