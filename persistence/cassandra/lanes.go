package cassandra

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// lanes has one lane for each node that is asked, or set of replicas: what one does not answer keeps nothing back for
// the others. Lanes are made when they are first needed, and stay: with few nodes there are few sets. It is safe for
// concurrent use.
type lanes[L any] struct {
	start func() *L
	mu    sync.RWMutex
	byID  map[uint64]*L // by a number of hostPolicy.place
}

// newLanes returns lanes that start makes, under a lock; it must be short.
func newLanes[L any](start func() *L) *lanes[L] {
	return &lanes[L]{start: start, byID: map[uint64]*L{}}
}

// of returns the lane of a node or set.
func (l *lanes[L]) of(id uint64) *L {
	l.mu.RLock()
	lane := l.byID[id]
	l.mu.RUnlock()
	if lane != nil {
		return lane
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// Another goroutine may have been faster between the two locks.
	if lane = l.byID[id]; lane == nil {
		lane = l.start()
		l.byID[id] = lane
	}
	return lane
}

const (
	// suspectFor is the time for which a set of replicas is suspect after a write of unknown outcome.
	suspectFor = time.Minute
	// maxSuspects is the number of sets that may be suspect. Two of 34 nodes that do not answer are in 32 sets of
	// three. More say that Cassandra as a whole is too slow, and it would be slower still if writes no longer traveled
	// together.
	maxSuspects = 32
)

// suspects are sets of replicas that did not answer a write in time, or by too few of them. Writes of different sets
// travel together if the same node is asked for them, and an unknown outcome of one is that of all. So the writes of a
// suspect set travel by themselves, until one of them succeeds. It is safe for concurrent use.
type suspects struct {
	some  atomic.Bool // there are any
	mu    sync.Mutex
	until map[uint64]time.Time // by set
}

// has reports whether a set is suspect.
func (s *suspects) has(set uint64, now time.Time) bool {
	if !s.some.Load() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.Before(s.until[set])
}

// note takes down whether the writes of a request succeeded; if not, their outcomes are unknown.
func (s *suspects) note(group []*write, succeeded bool, now time.Time) {
	if succeeded && !s.some.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range group {
		if succeeded {
			delete(s.until, w.set)
			continue
		}
		if _, known := s.until[w.set]; !known && len(s.until) >= maxSuspects {
			maps.DeleteFunc(s.until, func(_ uint64, until time.Time) bool { return !now.Before(until) })
			if len(s.until) >= maxSuspects {
				break
			}
		}
		if s.until == nil {
			s.until = make(map[uint64]time.Time)
		}
		s.until[w.set] = now.Add(suspectFor)
	}
	s.some.Store(len(s.until) > 0)
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
