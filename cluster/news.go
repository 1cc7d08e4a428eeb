package cluster

import (
	"fmt"

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
	// A greater one would take the last epoch from the shard: a message must not be able
	// to do that.
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

// News is what other processes should hear of shards and incarnations. All of it is a hint.
type News struct {
	// Shards are rows as the sender knows them.
	Shards []persistence.Shard
	// Dead are incarnations that were found to be marked dead.
	Dead []persistence.Incarnation
}

// Message returns the news as they travel. Shards without a row are left out.
func (n News) Message() *clusterv1.News {
	m := &clusterv1.News{}
	for _, row := range n.Shards {
		if row.Epoch > 0 {
			m.Shards = append(m.Shards, ShardMessage(row))
		}
	}
	for _, i := range n.Dead {
		m.Dead = append(m.Dead, i[:])
	}
	return m
}

// NewsOf returns the news in a message. Rows and incarnations that cannot exist are left out.
func NewsOf(m *clusterv1.News) (n News) {
	for _, s := range m.GetShards() {
		if row, err := ShardRow(s); err == nil {
			n.Shards = append(n.Shards, row)
		}
	}
	for _, b := range m.GetDead() {
		if i, err := IncarnationOf(b); err == nil && !i.IsZero() {
			n.Dead = append(n.Dead, i)
		}
	}
	return n
}
