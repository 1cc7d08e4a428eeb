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

// NewsOf returns rows and dead incarnations as they travel. Shards without a row are left out.
func NewsOf(rows []persistence.Shard, dead []persistence.Incarnation) *clusterv1.News {
	news := &clusterv1.News{}
	for _, row := range rows {
		if row.Epoch > 0 {
			news.Shards = append(news.Shards, ShardMessage(row))
		}
	}
	for _, i := range dead {
		news.Dead = append(news.Dead, i[:])
	}
	return news
}

// ReadNews returns what news say. Rows and incarnations that cannot exist are left out.
func ReadNews(news *clusterv1.News) (rows []persistence.Shard, dead []persistence.Incarnation) {
	for _, m := range news.GetShards() {
		if row, err := ShardRow(m); err == nil {
			rows = append(rows, row)
		}
	}
	for _, b := range news.GetDead() {
		if i, err := IncarnationOf(b); err == nil && !i.IsZero() {
			dead = append(dead, i)
		}
	}
	return rows, dead
}
