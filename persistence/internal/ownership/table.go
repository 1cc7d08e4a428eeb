// Package ownership holds lease and shard rows in memory and compares and sets them, for stores that
// live in one process. What is durable is up to the store.
package ownership

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"licensed/persistence"
)

// Table is the rows. The zero Table is empty. It is not safe for concurrent use. Rows are values
// without pointers: what is returned shares no memory with the table.
type Table struct {
	// The zero value while there is no cluster.
	cluster persistence.ClusterInfo
	leases  map[persistence.Incarnation]persistence.Lease
	shards  map[uint32]persistence.Shard
	votes   map[voteKey]persistence.Vote
}

// voteKey is what a vote is found by: a process has one vote for each node.
type voteKey struct{ accused, voter persistence.Incarnation }

// PutVote is as persistence.Votes.PutVote.
func (t *Table) PutVote(v persistence.Vote) {
	if t.votes == nil {
		t.votes = make(map[voteKey]persistence.Vote)
	}
	t.votes[voteKey{v.Accused, v.Voter}] = v
}

// WithdrawVote is as persistence.Votes.WithdrawVote.
func (t *Table) WithdrawVote(accused, voter persistence.Incarnation) {
	delete(t.votes, voteKey{accused, voter})
}

// Votes returns all votes, in the order of the accused and the voters.
func (t *Table) Votes() []persistence.Vote {
	return slices.SortedFunc(maps.Values(t.votes), func(a, b persistence.Vote) int {
		return cmp.Or(bytes.Compare(a.Accused[:], b.Accused[:]), bytes.Compare(a.Voter[:], b.Voter[:]))
	})
}

// ClusterID returns the id of the cluster; zero while it has none.
func (t *Table) ClusterID() persistence.ClusterID { return t.cluster.ID }

// CreateCluster sets the cluster unless there is one, or the ID of one that has none, and returns the one that
// there then is, and whether it changed.
func (t *Table) CreateCluster(info persistence.ClusterInfo) (now persistence.ClusterInfo, changed bool) {
	switch {
	case t.cluster == (persistence.ClusterInfo{}):
		t.cluster = info
	case t.cluster.ID.IsZero() && !info.ID.IsZero():
		t.cluster.ID = info.ID
	default:
		return t.cluster, false
	}
	return t.cluster, true
}

// Leases returns all leases, in the order of their incarnations, so that a simulation repeats itself.
func (t *Table) Leases() []persistence.Lease {
	return slices.SortedFunc(maps.Values(t.leases), func(a, b persistence.Lease) int {
		return bytes.Compare(a.Incarnation[:], b.Incarnation[:])
	})
}

// Lease returns one lease, or false.
func (t *Table) Lease(i persistence.Incarnation) (persistence.Lease, bool) {
	l, ok := t.leases[i]
	return l, ok
}

// PutLease writes a lease, whatever was present.
func (t *Table) PutLease(l persistence.Lease) {
	if t.leases == nil {
		t.leases = make(map[persistence.Incarnation]persistence.Lease)
	}
	t.leases[l.Incarnation] = l
}

// SwapLease is as persistence.Ownership.CompareAndSetLease. A missing row equals the zero
// lease, which no other row does, since incarnations are not zero.
func (t *Table) SwapLease(old, next persistence.Lease) (applied bool, now persistence.Lease) {
	if now := t.leases[next.Incarnation]; now != old {
		return false, now
	}
	t.PutLease(next)
	return true, next
}

// Shards returns all shards, in the order of their ids.
func (t *Table) Shards() []persistence.Shard {
	return slices.SortedFunc(maps.Values(t.shards), func(a, b persistence.Shard) int {
		return cmp.Compare(a.ID, b.ID)
	})
}

// Shard returns one shard, or false.
func (t *Table) Shard(id uint32) (persistence.Shard, bool) {
	s, ok := t.shards[id]
	return s, ok
}

// PutShard writes a shard, whatever was present.
func (t *Table) PutShard(s persistence.Shard) {
	if t.shards == nil {
		t.shards = make(map[uint32]persistence.Shard)
	}
	t.shards[s.ID] = s
}

// SwapShard is as persistence.Ownership.CompareAndSetShard.
func (t *Table) SwapShard(old, next persistence.Shard) (applied bool, now persistence.Shard) {
	now, ok := t.shards[next.ID]
	if ok != (old.Epoch != 0) || ok && now != old {
		return false, now
	}
	t.PutShard(next)
	return true, next
}
