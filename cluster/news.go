package cluster

import (
	"fmt"
	"sync"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// ShardMessage returns a row as it travels between nodes.
func ShardMessage(row persistence.Shard) *clusterv1.Shard {
	m := &clusterv1.Shard{Id: row.ID, Epoch: row.Epoch}
	if !row.Owner.IsZero() {
		m.Owner = row.Owner[:]
	}
	if !row.Successor.IsZero() {
		m.Successor = row.Successor[:]
	}
	return m
}

// ShardRow returns the row in a message. It is an error if there can be no such row.
func ShardRow(m *clusterv1.Shard) (persistence.Shard, error) {
	row := persistence.Shard{ID: m.GetId(), Epoch: m.GetEpoch()}
	var err error
	if row.Owner, err = IncarnationOf(m.GetOwner()); err == nil {
		row.Successor, err = IncarnationOf(m.GetSuccessor())
	}
	if err == nil && row.Epoch >= persistence.MaxEpoch {
		err = fmt.Errorf("epoch %d, fewer than %d are counted", row.Epoch, uint64(persistence.MaxEpoch))
	}
	if err != nil {
		return persistence.Shard{}, fmt.Errorf("shard %d: %w", row.ID, err)
	}
	return row, nil
}

// IncarnationOf returns the incarnation in a message; that of no bytes is zero.
func IncarnationOf(b []byte) (i persistence.Incarnation, err error) {
	if len(b) != 0 && len(b) != len(i) {
		return i, fmt.Errorf("incarnation of %d bytes, want %d", len(b), len(i))
	}
	copy(i[:], b)
	return i, nil
}

// rows are the rows of all shards as last heard of, from the store or from others: hints.
type rows struct {
	mu  sync.RWMutex
	row []persistence.Shard
	at  []lease.Instant // when each was heard of
}

func newRows(shards uint32) *rows {
	r := &rows{row: make([]persistence.Shard, shards), at: make([]lease.Instant, shards)}
	for id := range r.row {
		r.row[id].ID = uint32(id)
	}
	return r
}

func (r *rows) get(id uint32) persistence.Shard {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.row[id]
}

// since returns when the row was heard of.
func (r *rows) since(id uint32) lease.Instant {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.at[id]
}

func (r *rows) all() []persistence.Shard {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return append([]persistence.Shard(nil), r.row...)
}

// hear takes in a row unless a later one is known. It reports whether it was news.
func (r *rows) hear(row persistence.Shard, now lease.Instant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if uint64(row.ID) >= uint64(len(r.row)) || !ownership.Later(r.row[row.ID], row) {
		return false
	}
	r.row[row.ID], r.at[row.ID] = row, now
	return true
}

// read takes in a row that a read begun at that instant showed. Unlike hear it corrects what was heard
// before and is wrong.
func (r *rows) read(row persistence.Shard, began lease.Instant) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at[row.ID] < began || ownership.Later(r.row[row.ID], row) {
		r.row[row.ID], r.at[row.ID] = row, began
	}
}
