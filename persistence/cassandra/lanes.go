package cassandra

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

// lanes has one lane for each set of replicas: what one set does not answer keeps nothing back for the others. It is
// safe for concurrent use.
type lanes[L any] struct {
	start func() *L
	mu    sync.RWMutex
	bySet map[uint64]*L // by hostPolicy.replicaSet
}

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
	if lane = l.bySet[set]; lane == nil {
		lane = l.start()
		l.bySet[set] = lane
	}
	return lane
}

// leastReads is the number of reads of one set of replicas that may be in progress, however many sets there are.
const leastReads = 8

// reads bounds the reads in progress. Each set of replicas has an equal share of them.
type reads struct {
	most        int                              // in progress
	replicaSet  func(partitionKey []byte) uint64 // hostPolicy.replicaSet
	replicaSets func() int                       // hostPolicy.replicaSets
	lanes       *lanes[semaphore.Weighted]
}

func newReads(most int, set func([]byte) uint64, sets func() int) *reads {
	return &reads{most, set, sets, newLanes(func() *semaphore.Weighted { return semaphore.NewWeighted(int64(most)) })}
}

// allRows stands for the key of a read of all partitions, which is of no one set.
var allRows []byte

// with runs a read of a partition when it is its turn, or returns errNotSent.
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
