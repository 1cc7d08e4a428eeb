package cassandra

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// lanes has one lane for each set of replicas: what one set does not answer keeps nothing
// back for the others. Lanes are made when they are first needed, and stay: with few
// nodes there are few sets. It is safe for concurrent use.
type lanes[L any] struct {
	start func() *L
	mu    sync.RWMutex
	bySet map[uint64]*L // by hostPolicy.replicaSet
}

// newLanes returns lanes that start makes, under a lock; it must be short.
func newLanes[L any](start func() *L) *lanes[L] {
	return &lanes[L]{start: start, bySet: map[uint64]*L{}}
}

// of returns the lane of a set.
func (l *lanes[L]) of(set uint64) *L {
	l.mu.RLock()
	lane := l.bySet[set]
	l.mu.RUnlock()
	if lane != nil {
		return lane
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Another goroutine may have been faster between the two locks.
	if lane = l.bySet[set]; lane == nil {
		lane = l.start()
		l.bySet[set] = lane
	}
	return lane
}

// leastReads is the number of reads of one set of replicas that may be in progress, however many sets there are.
const leastReads = 8

// reads bounds the reads in progress. Each set of replicas has an equal share of them.
// The share is made by weight: the semaphore of each lane has room for most, and a read
// takes as much of it as there are sets. So the share follows the number of sets, which
// changes while nodes come and go, without a change of the semaphores.
type reads struct {
	most        int                              // in progress
	replicaSet  func(partitionKey []byte) uint64 // hostPolicy.replicaSet
	replicaSets func() int                       // hostPolicy.replicaSets
	lanes       *lanes[semaphore.Weighted]
}

// newReads returns the bounds; set and sets are methods of the host policy.
func newReads(most int, set func([]byte) uint64, sets func() int) *reads {
	return &reads{most, set, sets, newLanes(func() *semaphore.Weighted { return semaphore.NewWeighted(int64(most)) })}
}

// allRows stands for the key of a read of all partitions, which is of no one set.
var allRows []byte

// with runs a read of a partition when it is its turn, or returns errNotSent when ctx
// ends before that. The weight is taken once: a change in between must not release
// another amount.
func (r *reads) with(ctx context.Context, partitionKey []byte, read func() error) error {
	set := ^uint64(0)
	if partitionKey != nil {
		set = r.replicaSet(partitionKey)
	}
	lane := r.lanes.of(set)
	weight := r.weight()
	if err := lane.Acquire(ctx, weight); err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	defer lane.Release(weight)
	return read()
}

// weight is what a read takes of the room of its lane. With more sets it is more, so that fewer of a set have room.
func (r *reads) weight() int64 { return int64(max(1, min(r.replicaSets(), r.most/leastReads))) }
