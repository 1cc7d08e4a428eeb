package persistencetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"licensed/persistence"
	"licensed/persistence/tiered"
)

// runDurability runs the cases about what a crash or damage leaves. Drivers that cannot
// do either skip them.
func runDurability(t *testing.T, d Driver) {
	for name, run := range map[string]func(*fixture){
		"AcknowledgedSurvives": testAcknowledgedSurvives,
		"SeenSurvives":         testSeenSurvives,
		"PowerLossUnderLoad":   testPowerLossUnderLoad,
		"CorruptRecord":        testCorruptRecord,
		"CorruptRoot":          testCorruptRoot,
		"DamagedSnapshot":      testDamagedSnapshot,
	} {
		t.Run(name, func(t *testing.T) { run(open(t, d)) })
	}
}

// losePower loses power and opens the store again.
func (f *fixture) losePower() {
	f.Helper()
	if f.place.PowerLoss == nil {
		f.Skip("the store cannot lose power")
	}
	f.place.PowerLoss(f)
	f.open()
}

// testAcknowledgedSurvives: what was acknowledged is present after a power loss at the
// next moment: roots, records, and the rows of ownership.
func testAcknowledgedSurvives(f *fixture) {
	p := partition(someone, 1, 1)
	f.putRoot(root(someone, 1, 1))
	for i := range uint64(10) {
		f.append(p, command(1+2*i, 2)...)
		f.losePower()
		f.wantTopRoot(root(someone, 1, 1))
		if got := f.readRecords(p, 100); len(got) != int(2+2*i) {
			f.Fatalf("after power loss %d: %s", i, describe(got))
		}
	}
	lease := persistence.Lease{Incarnation: incarnationA, Node: "n1", Counter: 1}
	shard := persistence.Shard{ID: 3, Epoch: 1, Owner: incarnationA}
	info := f.createCluster(persistence.ClusterInfo{Name: "c", Shards: 8})
	f.swapLease(persistence.Lease{}, lease)
	f.swapShard(persistence.Shard{}, shard)
	f.losePower()
	if got, err := f.store.Lease(f.ctx(), incarnationA); err != nil || got != lease {
		f.Errorf("lease: %+v, %v", got, err)
	}
	if got, err := f.store.Shard(f.ctx(), 3); err != nil || got != shard {
		f.Errorf("shard: %+v, %v", got, err)
	}
	if got := f.createCluster(persistence.ClusterInfo{Name: "other", Shards: 9}); got != info {
		f.Errorf("cluster: %+v", got)
	}
}

// testSeenSurvives: what one read saw, later reads see too, also when its write was never
// acknowledged and power was lost between the reads.
func testSeenSurvives(f *fixture) {
	for i := range uint64(30) {
		p := partition(fmt.Sprintf("customer-%d", i), 1, 1)
		r := root(p.Aggregate, 1, 1)
		f.startPutRoot(&r)
		f.startAppend(&persistence.Mutation{Partition: p, Records: command(1, 2)})
		shard := persistence.Shard{ID: uint32(i), Epoch: 1, Owner: incarnationA}
		s := f.store
		var wg sync.WaitGroup
		wg.Go(func() { _, _, _ = s.CompareAndSetShard(f.ctx(), persistence.Shard{}, shard) })

		_, rootErr := f.store.TopRoot(f.ctx(), p.Aggregate)
		seen, err := f.store.ReadRecords(f.ctx(), p, 0, 10)
		if err != nil {
			f.Fatal(err)
		}
		_, shardErr := f.store.Shard(f.ctx(), shard.ID)

		f.losePower()
		wg.Wait()
		if _, err := f.store.TopRoot(f.ctx(), p.Aggregate); rootErr == nil && err != nil {
			f.Errorf("customer %d: the root was seen and then: %v", i, err)
		}
		if got := f.readRecords(p, 10); len(got) < len(seen) {
			f.Errorf("customer %d: %d records were seen and then %d", i, len(seen), len(got))
		}
		if _, err := f.store.Shard(f.ctx(), shard.ID); shardErr == nil && err != nil {
			f.Errorf("shard %d was seen and then: %v", i, err)
		}
	}
}

// writer appends commands to one partition, one mutation after the other, and keeps what was
// acknowledged before the power went.
type writer struct {
	partition persistence.Partition
	acked     uint64 // sequence of the last acknowledged record
}

// commandRecords is the number of records of each mutation, enough for it to be torn.
const commandRecords = 4

// run appends until the power is off. stopped calls its argument for an acknowledgement
// that arrived before, and reports whether the power is off.
func (w *writer) run(f *fixture, s persistence.Store, stopped func(ack func()) bool) {
	for seq := uint64(1); ; seq += commandRecords {
		m := &persistence.Mutation{Partition: w.partition, Records: command(seq, commandRecords)}
		err := <-f.start(func(done func(error)) { s.Append(f.ctx(), m, done) })
		if stopped(func() {
			if err != nil {
				f.Errorf("append to %v: %v", w.partition, err)
			}
			w.acked = seq + commandRecords - 1
		}) {
			return
		}
	}
}

// testPowerLossUnderLoad loses power at arbitrary moments while many aggregates append.
func testPowerLossUnderLoad(f *fixture) {
	if f.place.PowerLoss == nil {
		f.Skip("the store cannot lose power")
	}
	rng := rand.New(rand.NewPCG(7, 7))
	for round := range 15 {
		writers := make([]writer, 16)
		var mu sync.Mutex
		var off bool
		var acks int
		var wg sync.WaitGroup
		s := f.store
		for i := range writers {
			w := &writers[i]
			w.partition = partition(fmt.Sprintf("customer-%d", i), uint64(round+1), 1)
			wg.Go(func() {
				w.run(f, s, func(ack func()) bool {
					mu.Lock()
					defer mu.Unlock()
					if !off {
						ack()
						acks++
					}
					return off
				})
			})
		}
		for enough, target := false, 50+rng.IntN(500); !enough; {
			runtime.Gosched()
			mu.Lock()
			if acks >= target {
				enough, off = true, true // an acknowledgement from here on counts as unheard
			}
			mu.Unlock()
		}
		f.losePower()
		wg.Wait()
		for i := range writers {
			f.checkAfterPowerLoss(&writers[i])
		}
	}
}

// checkAfterPowerLoss demands that the acknowledged records are present and right, that
// what is beyond them was written, and that no mutation is torn where the driver promises
// that.
func (f *fixture) checkAfterPowerLoss(w *writer) {
	f.Helper()
	got := f.readRecords(w.partition, 1000)
	var sequence uint64
	for i, r := range got {
		first := r.Sequence - uint64(r.Index)
		if !reflect.DeepEqual(r, command(first, commandRecords)[r.Index]) {
			f.Errorf("%v: record %d is not what was written: %+v", w.partition, i, r)
		}
		if r.Sequence == sequence+1 {
			sequence++
		}
	}
	if sequence < w.acked {
		f.Errorf("%v: acknowledged up to %d, there up to %d", w.partition, w.acked, sequence)
	}
	if f.driver.AtomicMutations && (uint64(len(got)) != sequence || sequence%commandRecords != 0) {
		f.Errorf("%v: a mutation is torn: %s", w.partition, describe(got))
	}
	if extra := uint64(len(got)); extra > w.acked+commandRecords {
		f.Errorf("%v: %d records, more than were ever written", w.partition, extra)
	}
}

// testCorruptRecord: a damaged record fails the reads that contain it, and no others:
// what is before and after it can be read, and the partition can be written to.
func testCorruptRecord(f *fixture) {
	if f.place.CorruptRecord == nil {
		f.Skip("the store's records cannot be damaged")
	}
	p, healthy := partition(someone, 1, 1), partition("Matt:LicenseAggregate", 1, 1)
	f.putRoot(root(someone, 1, 1), root(healthy.Aggregate, 1, 1))
	f.append(p, records(1, 5)...)
	f.append(healthy, records(1, 5)...)
	f.close()
	f.place.CorruptRecord(f, p, 3)
	f.open()

	got, err := f.store.ReadRecords(f.ctx(), p, 0, 10)
	f.wantOnlyCorrupt(err)
	if len(got) != 0 {
		f.Errorf("records beside the error: %s", describe(got))
	}
	before, err := f.store.ReadRecords(f.ctx(), p, 0, 2)
	if err != nil || !reflect.DeepEqual(before, records(1, 2)) {
		f.Errorf("records before the corrupt one: %s, %v", describe(before), err)
	}
	after, err := f.store.ReadRecords(f.ctx(), p, 3, 10)
	if err != nil || !reflect.DeepEqual(after, records(4, 5)) {
		f.Errorf("records after the corrupt one: %s, %v", describe(after), err)
	}
	f.wantTopRoot(root(someone, 1, 1))
	f.wantRecords(healthy, 10, records(1, 5))
	f.append(healthy, record(6))
}

// testCorruptRoot: a damaged root fails the reads that contain it. A store must not pass
// it over: the root below it would be taken for the top one, and acknowledged events
// would be lost.
func testCorruptRoot(f *fixture) {
	if f.place.CorruptRoot == nil {
		f.Skip("the store's roots cannot be damaged")
	}
	f.putRoot(root(someone, 1, 1), root(someone, 2, 2), root("Matt:LicenseAggregate", 1, 1))
	f.append(partition(someone, 2, 2), record(1))
	f.close()
	f.place.CorruptRoot(f, root(someone, 2, 2).Key)
	f.open()

	_, err := f.store.TopRoot(f.ctx(), someone)
	f.wantOnlyCorrupt(err)
	_, err = f.store.ReadRoot(f.ctx(), root(someone, 2, 2).Key)
	f.wantOnlyCorrupt(err)
	_, err = f.store.ReadRoots(f.ctx(), someone, persistence.RootKey{}, 10)
	f.wantOnlyCorrupt(err)
	if got, err := f.store.ReadRoot(f.ctx(), root(someone, 1, 1).Key); err != nil ||
		!reflect.DeepEqual(got, root(someone, 1, 1)) {
		f.Errorf("the root below: %+v, %v", got, err)
	}
	f.wantRecords(partition(someone, 2, 2), 10, records(1, 1))
	f.wantTopRoot(root("Matt:LicenseAggregate", 1, 1))
	// An operator must be able to find the aggregate.
	if got := f.aggregates(10); len(got) != 2 {
		f.Errorf("aggregates: %q", got)
	}
}

// testDamagedSnapshot: a root whose snapshot is damaged is read with all that holds the chain together, and the
// history above it and the state below it are found through it. It can be archived and stripped, and another root put
// above it.
func testDamagedSnapshot(f *fixture) {
	if f.place.DamageSnapshot == nil {
		f.Skip("the store's snapshots cannot be damaged")
	}
	first, second, healthy := root(someone, 1, 1), root(someone, 2, 2), root("Matt:LicenseAggregate", 1, 1)
	second.Base, second.Parent, second.ParentIncarnation, second.ArchivedThrough = 2, first.Key, first.Incarnation, 1
	f.putRoot(first, second, healthy)
	f.append(first.Partition(), records(1, 2)...)
	f.append(second.Partition(), records(3, 4)...)
	f.close()
	f.place.DamageSnapshot(f, second.Key)
	f.open()

	bare := second
	bare.Mapper, bare.Snapshot = "", nil
	check := func(what string, got persistence.Root, err error) {
		f.Helper()
		f.wantOnlyCorrupt(got.Damage)
		if got.Damage = nil; err != nil || !reflect.DeepEqual(got, bare) {
			f.Errorf("%s: %+v, %v, want %+v", what, got, err, bare)
		}
	}
	top, err := f.store.TopRoot(f.ctx(), someone)
	check("top root", top, err)
	read, err := f.store.ReadRoot(f.ctx(), second.Key)
	check("root", read, err)
	roots, err := f.store.ReadRoots(f.ctx(), someone, persistence.RootKey{}, 10)
	if err != nil || len(roots) != 2 || !reflect.DeepEqual(roots[1], first) {
		f.Fatalf("roots: %+v, %v", roots, err)
	}
	check("first of all roots", roots[0], nil)
	f.wantTopRoot(healthy)

	past, err := tiered.NewReader(f.store, nil, nil).Past(f.ctx(), top, nil)
	if err != nil || past.Start == nil || !reflect.DeepEqual(*past.Start, first) ||
		!reflect.DeepEqual(past.Records, records(1, 2)) {
		f.Errorf("what the state is built from: %+v, %v", past, err)
	}
	f.wantRecords(second.Partition(), 10, records(3, 4))

	third := root(someone, 2, 3)
	third.Base, third.Parent, third.ParentIncarnation = 4, second.Key, second.Incarnation
	f.putRoot(third)
	f.wantTopRoot(third)
	mark := persistence.ArchiveMark{Segment: "s", Through: 4, Time: someTime}
	err = errors.Join(f.store.MarkArchived(f.ctx(), second.Key, mark), f.store.StripRoot(f.ctx(), second.Key, ""))
	stripped, readErr := f.store.ReadRoot(f.ctx(), second.Key)
	if err != nil || readErr != nil || stripped.Damage != nil || !stripped.IsArchived() ||
		stripped.Base != second.Base || stripped.Parent != first.Key {
		f.Errorf("stripped: %+v, %v, %v", stripped, err, readErr)
	}
}

// wantOnlyCorrupt: a corrupt row must not be taken for a missing one, nor for one worth a retry.
func (f *fixture) wantOnlyCorrupt(err error) {
	f.Helper()
	if !errors.Is(err, persistence.ErrCorrupt) {
		f.Errorf("%v, want ErrCorrupt", err)
	}
	for _, other := range []error{
		persistence.ErrNotFound, persistence.ErrUnavailable, persistence.ErrUnknownOutcome,
		persistence.ErrRejected, persistence.ErrClosed, persistence.ErrLocked,
	} {
		if errors.Is(err, other) {
			f.Errorf("%v is also %v", err, other)
		}
	}
}
