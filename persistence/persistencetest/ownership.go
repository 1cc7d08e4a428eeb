package persistencetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"licensed/persistence"
)

// runOwnership runs the cases about rows that are compared and set.
func runOwnership(t *testing.T, d Driver) {
	for name, run := range map[string]func(*fixture){
		"CreateCluster":           testCreateCluster,
		"ConcurrentCreateCluster": testConcurrentCreateCluster,
		"Lease":                   testLease,
		"PeekLease":               testPeekLease,
		"Shard":                   testShard,
		"OneWinner":               testOneWinner,
		"Linearizable":            testLinearizable,
		"RejectedSwap":            testRejectedSwap,
		"ManyRows":                testManyRows,
	} {
		t.Run(name, func(t *testing.T) { run(open(t, d)) })
	}
}

// createCluster creates the cluster, or returns the one that exists.
func (f *fixture) createCluster(info persistence.ClusterInfo) persistence.ClusterInfo {
	f.Helper()
	now, err := f.store.CreateCluster(f.ctx(), info)
	if err != nil {
		f.Fatalf("create cluster: %v", err)
	}
	return now
}

// swapLease compares and sets a lease, which must succeed.
func (f *fixture) swapLease(old, next persistence.Lease) {
	f.Helper()
	if applied, now, err := f.store.CompareAndSetLease(f.ctx(), old, next); err != nil || !applied || now != next {
		f.Fatalf("lease %+v → %+v: %v, %+v, %v", old, next, applied, now, err)
	}
}

// swapShard compares and sets a shard, which must succeed.
func (f *fixture) swapShard(old, next persistence.Shard) {
	f.Helper()
	if applied, now, err := f.store.CompareAndSetShard(f.ctx(), old, next); err != nil || !applied || now != next {
		f.Fatalf("shard %+v → %+v: %v, %+v, %v", old, next, applied, now, err)
	}
}

// testCreateCluster: the first call decides, also after a restart, and adds a random id.
func testCreateCluster(f *fixture) {
	info := f.createCluster(persistence.ClusterInfo{Name: "licences", Shards: 512})
	if info.ID.IsZero() || info.Name != "licences" || info.Shards != 512 {
		f.Errorf("created %+v, want 512 shards, a random id and the name licences", info)
	}
	for range 2 {
		if got := f.createCluster(
			persistence.ClusterInfo{Name: "other", Shards: 7, ID: persistence.NewClusterID()},
		); got != info {
			f.Errorf("created again: %+v, want %+v", got, info)
		}
		f.reopen()
	}
}

// testConcurrentCreateCluster: all callers hear of the same cluster, that of one of them
// as a whole.
func testConcurrentCreateCluster(f *fixture) {
	got := make([]persistence.ClusterInfo, 16)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			info := persistence.ClusterInfo{
				Name: fmt.Sprint("c", i), Shards: uint32(i + 1), ID: persistence.ClusterID{byte(i + 1)},
			}
			var err error
			if got[i], err = f.store.CreateCluster(f.ctx(), info); err != nil {
				f.Errorf("create cluster: %v", err)
			}
		})
	}
	wg.Wait()
	for _, info := range got {
		if info != got[0] || info.Name != fmt.Sprint("c", info.Shards-1) || info.ID.IsZero() {
			f.Errorf("one was told %+v, another %+v", got[0], info)
		}
	}
}

// testLease: a lease changes only if all its fields are as expected, and a refusal
// returns the row. A lease without an address is one that an earlier release wrote.
func testLease(f *fixture) {
	for name, read := range f.leaseReads() {
		if _, err := read(f.ctx(), incarnationA); !errors.Is(err, persistence.ErrNotFound) {
			f.Errorf("%s of none: %v, want ErrNotFound", name, err)
		}
	}
	first := persistence.Lease{Incarnation: incarnationA, Node: "node one", Address: "n1.example.com:7947", Counter: 1}
	renewed, dead := first, first
	renewed.Counter = 2
	dead.Counter, dead.Dead = 2, true
	refused := func(old, next, want persistence.Lease) {
		f.Helper()
		if applied, now, err := f.store.CompareAndSetLease(f.ctx(), old, next); err != nil || applied || now != want {
			f.Errorf("lease %+v → %+v: %v, %+v, %v; want it refused with %+v", old, next, applied, now, err, want)
		}
	}
	refused(first, renewed, persistence.Lease{}) // there is no row
	f.swapLease(persistence.Lease{}, first)
	refused(persistence.Lease{}, first, first) // there is a row
	for name, change := range map[string]func(*persistence.Lease){
		"counter": func(l *persistence.Lease) { l.Counter++ },
		"dead":    func(l *persistence.Lease) { l.Dead = true },
		"node":    func(l *persistence.Lease) { l.Node = "node two" },
	} {
		other := first
		change(&other)
		f.Log("another", name)
		refused(other, renewed, first)
	}
	f.swapLease(first, renewed)
	refused(first, renewed, renewed)
	f.swapLease(renewed, dead)
	refused(renewed, renewed, dead)
	f.swapLease(dead, dead)
	bare := persistence.Lease{Incarnation: incarnationB, Node: "of an earlier release", Counter: 1}
	bareDead := bare
	bareDead.Counter, bareDead.Dead = 2, true
	f.swapLease(persistence.Lease{}, bare)
	refused(bareDead, bareDead, bare)
	f.swapLease(bare, bareDead)
	f.reopen()
	for name, read := range f.leaseReads() {
		if got, err := read(f.ctx(), incarnationA); err != nil || got != dead {
			f.Errorf("%s: %+v, %v, want %+v", name, got, err, dead)
		}
	}
}

// leaseReads returns the reads of one lease, by name.
func (f *fixture) leaseReads() map[string]func(context.Context, persistence.Incarnation) (persistence.Lease, error) {
	return map[string]func(context.Context, persistence.Incarnation) (persistence.Lease, error){
		"Lease": f.store.Lease, "PeekLease": f.store.PeekLease,
	}
}

// testPeekLease renews a lease while others peek at it: each sees a row that was asked for, none older than what was
// known to be applied before.
func testPeekLease(f *fixture) {
	const renewals, readers = 60, 4
	l := persistence.Lease{Incarnation: incarnationA, Node: "node one", Address: "n1.example.com:7947", Counter: 1}
	f.swapLease(persistence.Lease{}, l)
	var asked, applied atomic.Uint64
	asked.Store(l.Counter)
	applied.Store(l.Counter)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer applied.Store(renewals)
	for range readers {
		wg.Go(func() {
			for known := applied.Load(); known < renewals; known = applied.Load() {
				got, err := f.store.PeekLease(f.ctx(), incarnationA)
				want := l
				want.Counter = got.Counter
				if err != nil || got != want || got.Counter < known || got.Counter > asked.Load() {
					f.Errorf("peeked %+v, %v where %d was applied and %d asked for", got, err, known, asked.Load())
					return
				}
			}
		})
	}
	for now := l; now.Counter < renewals; applied.Store(now.Counter) {
		next := now
		next.Counter++
		asked.Store(next.Counter)
		f.swapLease(now, next)
		now = next
	}
}

// testShard: the same for shards, which are taken, released to a successor, and taken
// again.
func testShard(f *fixture) {
	if _, err := f.store.Shard(f.ctx(), 0); !errors.Is(err, persistence.ErrNotFound) {
		f.Errorf("no shard: %v, want ErrNotFound", err)
	}
	first := persistence.Shard{ID: 0, Epoch: 1, Owner: incarnationA}
	released := persistence.Shard{ID: 0, Epoch: 1, Successor: incarnationB}
	second := persistence.Shard{ID: 0, Epoch: 2, Owner: incarnationB}
	refused := func(old, next, want persistence.Shard) {
		f.Helper()
		if applied, now, err := f.store.CompareAndSetShard(f.ctx(), old, next); err != nil || applied || now != want {
			f.Errorf("shard %+v → %+v: %v, %+v, %v; want it refused with %+v", old, next, applied, now, err, want)
		}
	}
	refused(first, second, persistence.Shard{})
	f.swapShard(persistence.Shard{}, first)
	refused(persistence.Shard{}, second, first)
	refused(persistence.Shard{ID: 0, Epoch: 1, Owner: incarnationB}, second, first)
	refused(persistence.Shard{ID: 0, Epoch: 2, Owner: incarnationA}, second, first)
	refused(released, second, first)
	f.swapShard(first, released)
	refused(first, second, released)
	f.swapShard(released, second)
	// an old of epoch 0: no row
	f.swapShard(persistence.Shard{ID: 7}, persistence.Shard{ID: 7, Epoch: 1, Owner: incarnationA})
	f.reopen()
	if got, err := f.store.Shard(f.ctx(), 0); err != nil || got != second {
		f.Errorf("shard: %+v, %v, want %+v", got, err, second)
	}
}

// testOneWinner has many challengers take the same shard and lease, round after round.
func testOneWinner(f *fixture) {
	const challengers = 16
	shard, lease := persistence.Shard{}, persistence.Lease{}
	for round := range uint64(20) {
		var wg sync.WaitGroup
		var won atomic.Int32
		winners := make([]persistence.Shard, challengers)
		leases := make([]persistence.Lease, challengers)
		for i := range challengers {
			wg.Go(func() {
				mine := persistence.Shard{ID: 5, Epoch: round + 1, Owner: persistence.Incarnation{byte(i + 1)}}
				applied, now, err := f.store.CompareAndSetShard(f.ctx(), shard, mine)
				if err != nil || applied != (now == mine) {
					f.Errorf("shard: %v, %+v, %v", applied, now, err)
				}
				my := persistence.Lease{Incarnation: incarnationA, Counter: round + 1, Node: fmt.Sprint(i)}
				applied2, now2, err := f.store.CompareAndSetLease(f.ctx(), lease, my)
				if err != nil || applied2 != (now2 == my) {
					f.Errorf("lease: %v, %+v, %v", applied2, now2, err)
				}
				if applied {
					won.Add(1)
				}
				if applied2 {
					won.Add(100)
				}
				winners[i], leases[i] = now, now2
			})
		}
		wg.Wait()
		if won.Load() != 101 {
			f.Fatalf("round %d: %d won the shard and %d the lease", round, won.Load()%100, won.Load()/100)
		}
		shard, lease = winners[0], leases[0]
		for i := range challengers {
			if winners[i] != shard || leases[i] != lease {
				f.Errorf("round %d: one saw %+v %+v, another %+v %+v", round, shard, lease, winners[i], leases[i])
			}
		}
	}
}

// swap is one operation on the shard of testLinearizable: a read, or a compare-and-set.
type swap struct {
	read      bool
	old, next persistence.Shard
}

// swapped is what the operation returned.
type swapped struct {
	applied bool
	now     persistence.Shard
}

// testLinearizable has clients read and take a shard, and checks that there is an order of all
// operations, consistent with real time, in which each saw what it saw.
func testLinearizable(f *fixture) {
	const clients, operations = 8, 40
	var clock atomic.Int64
	var mu sync.Mutex
	var history []operation
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			var seen persistence.Shard
			for i := range operations {
				op := swap{read: i%3 == 0, old: seen, next: persistence.Shard{
					ID: 1, Epoch: seen.Epoch + 1, Owner: persistence.Incarnation{byte(client + 1), byte(i)},
				}}
				called := clock.Add(1)
				got, err := f.swapOrRead(op)
				returned := clock.Add(1)
				if err != nil {
					f.Errorf("client %d: %v", client, err)
					return
				}
				seen = got.now
				mu.Lock()
				history = append(history, operation{swap: op, swapped: got, called: called, returned: returned})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := linearizable(history); err != nil {
		f.Error(err)
	}
}

// operation is a swap with its result and the times of its call and return.
type operation struct {
	swap
	swapped
	called, returned int64
}

// linearizable returns an error if no order of the operations explains their results and agrees with real time. Each
// applied swap starts the next epoch, so only one order is possible: by epoch, each swap before the reads of its row.
func linearizable(history []operation) error {
	rows := map[uint64]persistence.Shard{0: {}}
	for _, o := range history {
		if _, taken := rows[o.next.Epoch]; o.applied && taken {
			return fmt.Errorf("two swaps to epoch %d were applied", o.next.Epoch)
		}
		if o.applied {
			rows[o.next.Epoch] = o.next
		}
	}
	for _, o := range history {
		switch {
		case o.now != rows[o.now.Epoch],
			o.applied && (o.now != o.next || o.old != rows[o.next.Epoch-1]),
			!o.applied && !o.read && o.now == o.old:
			return fmt.Errorf("no row explains %+v", o)
		}
		for _, later := range history {
			if o.returned < later.called &&
				(o.now.Epoch > later.now.Epoch || later.applied && o.now.Epoch == later.now.Epoch) {
				return fmt.Errorf("%+v returned before %+v was called", o, later)
			}
		}
	}
	return nil
}

// swapOrRead executes an operation. A shard without a row reads as zero.
func (f *fixture) swapOrRead(op swap) (swapped, error) {
	if op.read {
		now, err := f.store.Shard(f.ctx(), op.next.ID)
		if errors.Is(err, persistence.ErrNotFound) {
			err = nil
		}
		return swapped{now: now}, err
	}
	applied, now, err := f.store.CompareAndSetShard(f.ctx(), op.old, op.next)
	return swapped{applied: applied, now: now}, err
}

// testRejectedSwap: a compare-and-set never changes what a row is about, nor the address
// of a lease, nor sets an epoch that cannot be followed by another.
func testRejectedSwap(f *fixture) {
	a, b := persistence.Lease{Incarnation: incarnationA}, persistence.Lease{Incarnation: incarnationB}
	moved := a
	moved.Address = "elsewhere:7947"
	for name, swap := range map[string][2]persistence.Lease{
		"to none": {a, {}}, "to another": {a, b}, "to another address": {a, moved}, "none": {},
	} {
		if applied, _, err := f.store.CompareAndSetLease(f.ctx(), swap[0], swap[1]); applied ||
			!errors.Is(err, persistence.ErrRejected) {
			f.Errorf("lease %s: %v, %v, want ErrRejected", name, applied, err)
		}
	}
	one, two := persistence.Shard{ID: 1, Epoch: 1}, persistence.Shard{ID: 2, Epoch: 2}
	for name, swap := range map[string][2]persistence.Shard{
		"to another":            {one, two},
		"to epoch 0":            {one, {ID: 1}},
		"beyond the last epoch": {one, {ID: 1, Epoch: math.MaxUint64}},
	} {
		if applied, _, err := f.store.CompareAndSetShard(f.ctx(), swap[0], swap[1]); applied ||
			!errors.Is(err, persistence.ErrRejected) {
			f.Errorf("shard %s: %v, %v, want ErrRejected", name, applied, err)
		}
	}
	if _, err := f.store.CreateCluster(f.ctx(),
		persistence.ClusterInfo{Name: "c"}); !errors.Is(err, persistence.ErrRejected) {
		f.Errorf("cluster without shards: %v, want ErrRejected", err)
	}
}

// testManyRows: lists have every row once, after concurrent writes to all of them.
func testManyRows(f *fixture) {
	const shards = 512
	leases := make(map[persistence.Incarnation]persistence.Lease)
	want := make(map[uint32]persistence.Shard)
	var wg sync.WaitGroup
	for i := range uint32(shards) {
		s := persistence.Shard{ID: i, Epoch: 1 + uint64(i), Owner: persistence.NewIncarnation()}
		l := persistence.Lease{
			Incarnation: s.Owner, Node: fmt.Sprint("node-", i), Address: fmt.Sprint("host-", i, ":1"),
			Counter: uint64(i), Dead: i%2 == 0,
		}
		want[i], leases[s.Owner] = s, l
		wg.Go(func() {
			if applied, _, err := f.store.CompareAndSetShard(f.ctx(), persistence.Shard{}, s); !applied || err != nil {
				f.Errorf("shard %d: %v, %v", s.ID, applied, err)
			}
			if applied, _, err := f.store.CompareAndSetLease(f.ctx(), persistence.Lease{}, l); !applied || err != nil {
				f.Errorf("lease %v: %v, %v", l.Incarnation, applied, err)
			}
		})
	}
	wg.Wait()
	for range 2 {
		gotShards, err := f.store.Shards(f.ctx())
		if err != nil {
			f.Fatal(err)
		}
		peeked, err := f.store.PeekShards(f.ctx())
		if err != nil {
			f.Fatal(err)
		}
		gotLeases, err := f.store.Leases(f.ctx())
		if err != nil {
			f.Fatal(err)
		}
		byID := make(map[uint32]persistence.Shard)
		for _, s := range gotShards {
			byID[s.ID] = s
		}
		byIncarnation := make(map[persistence.Incarnation]persistence.Lease)
		for _, l := range gotLeases {
			byIncarnation[l.Incarnation] = l
		}
		if len(gotShards) != shards || !reflect.DeepEqual(byID, want) {
			f.Errorf("%d shards differ from what was written", len(gotShards))
		}
		for _, s := range peeked {
			if s != want[s.ID] {
				f.Errorf("peeked %+v, want %+v", s, want[s.ID])
			}
		}
		if len(peeked) != shards {
			f.Errorf("%d shards peeked, want %d", len(peeked), shards)
		}
		if len(gotLeases) != shards || !reflect.DeepEqual(byIncarnation, leases) {
			f.Errorf("%d leases differ from what was written", len(gotLeases))
		}
		f.reopen()
	}
}
