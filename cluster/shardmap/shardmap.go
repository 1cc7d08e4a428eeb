// Package shardmap keeps what one process knows of the owners of all shards.
//
// A process has one [Map]. The node in it writes what the store shows and answers requests for other shards from it;
// the router reads it to find the node to ask; gossip and the answers of other nodes add what they say. All of it is
// a hint: whether it owns a shard, a node decides by its lease and its own protocol (package ownership), never by
// this map.
//
// Two rules order what is heard. Of two rows, the one of the higher epoch counts, since epochs only rise. And a read
// of the store that began after a row was heard replaces that row, however high its epoch is: a wrong or forged row
// lasts until the store is asked, which [Map.Doubted] requests.
//
// Beside that row, the map keeps the row that the store last showed. Nobody can forge that one without the store:
// statements about the cluster are made from it ([Map.StoredRows], [Map.Released]).
package shardmap

import (
	"sync"
	"time"

	"licensed/cluster/ownership"
	"licensed/internal/planted"
	"licensed/persistence"
)

// Map holds the last known row of each shard. It is safe for concurrent use.
type Map struct {
	entries []entry
	doubted chan struct{} // capacity 1
	heard   func(persistence.Shard)
}

// entry is one shard.
type entry struct {
	mu      sync.Mutex
	row     persistence.Shard
	at      time.Time // when the row was heard, or when the read that showed it began
	stored  persistence.Shard
	read    time.Time     // when the read that showed stored began
	changed chan struct{} // closed at the next change; nil if nobody waits
}

// set replaces the row and wakes the callers that wait for that. Requires e.mu.
func (e *entry) set(row persistence.Shard, at time.Time) {
	if e.at = at; e.row == row {
		return
	}
	e.row = row
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// New returns a map that knows no owner yet.
func New(shards uint32) *Map {
	m := &Map{entries: make([]entry, shards), doubted: make(chan struct{}, 1)}
	for id := range m.entries {
		m.entries[id].row.ID, m.entries[id].stored.ID = uint32(id), uint32(id)
	}
	return m
}

// Listen has f called for each row that another process said and that was news, from the goroutine that said it. It
// must not block. Call Listen before others use the map.
func (m *Map) Listen(f func(persistence.Shard)) { m.heard = f }

// Len returns the number of shards.
func (m *Map) Len() uint32 { return uint32(len(m.entries)) }

// Row returns the row of a shard, and when it was heard; a row without epoch and owner if nothing is known of it, or
// the cluster has no such shard.
func (m *Map) Row(id uint32) (row persistence.Shard, at time.Time) {
	if id >= m.Len() {
		return persistence.Shard{ID: id}, at
	}
	e := &m.entries[id]
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.row, e.at
}

// Watch returns the row of a shard, and a channel that is closed when the row changes.
func (m *Map) Watch(id uint32) (persistence.Shard, <-chan struct{}) {
	e := &m.entries[id]
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed == nil {
		e.changed = make(chan struct{})
	}
	return e.row, e.changed
}

// Rows returns the rows of all shards, in order.
func (m *Map) Rows() []persistence.Shard {
	rows := make([]persistence.Shard, len(m.entries))
	for id := range rows {
		rows[id], _ = m.Row(uint32(id))
	}
	return rows
}

// StoredRows returns the rows of all shards as the store last showed them, in order, whatever was heard since; a row
// without epoch and owner if the store has not been read, or has none.
func (m *Map) StoredRows() []persistence.Shard {
	rows := make([]persistence.Shard, len(m.entries))
	for id := range rows {
		e := &m.entries[id]
		e.mu.Lock()
		rows[id] = e.stored
		e.mu.Unlock()
	}
	return rows
}

// Released returns, in order, rows that were heard and say that the owner by the store released its shard since. They
// may be forged.
func (m *Map) Released() (rows []persistence.Shard) {
	for id := range m.entries {
		e := &m.entries[id]
		e.mu.Lock()
		if e.row.Epoch == e.stored.Epoch && ownership.Later(e.stored, e.row) {
			rows = append(rows, e.row)
		}
		e.mu.Unlock()
	}
	return rows
}

// Hear records a row that another process said, unless a later one is known.
func (m *Map) Hear(row persistence.Shard) {
	m.hear(row, func(known persistence.Shard) bool { return ownership.Later(known, row) })
}

// Correct records a row from a node that was asked because of the row asked. A later row counts. If the node that the
// row asked names as the owner denies it, its row counts although it is earlier.
func (m *Map) Correct(asked, row persistence.Shard, deniedByOwner bool) {
	m.hear(row, func(known persistence.Shard) bool {
		return ownership.Later(known, row) || deniedByOwner && known == asked && row != known
	})
}

func (m *Map) hear(row persistence.Shard, news func(known persistence.Shard) bool) {
	if row.ID >= m.Len() {
		return
	}
	e := &m.entries[row.ID]
	e.mu.Lock()
	ok := news(e.row)
	if ok {
		e.set(row, time.Now())
	}
	e.mu.Unlock()
	if !ok {
		return
	}
	select {
	case m.doubted <- struct{}{}:
	default:
	}
	if m.heard != nil {
		m.heard(row)
	}
}

// Doubted receives a value after a row was heard that the store did not show. Read the store then, within a TTL of
// leases, and call ReadAll.
func (m *Map) Doubted() <-chan struct{} { return m.doubted }

// Read records a row that a read of the store showed which began at that time. It replaces what was heard before.
func (m *Map) Read(row persistence.Shard, began time.Time) {
	if row.ID >= m.Len() {
		return
	}
	e := &m.entries[row.ID]
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.at.Before(began) && !planted.Bug(planted.KeepHeardRow) || ownership.Later(e.row, row) {
		e.set(row, began)
	}
	if e.read.Before(began) || ownership.Later(e.stored, row) {
		e.stored, e.read = row, began
	}
}

// ReadAll does so with the rows of all shards. A shard without a row has no owner.
func (m *Map) ReadAll(rows []persistence.Shard, began time.Time) {
	shown := make([]persistence.Shard, len(m.entries))
	for _, row := range rows {
		if row.ID < m.Len() {
			shown[row.ID] = row
		}
	}
	for id, row := range shown {
		row.ID = uint32(id)
		m.Read(row, began)
	}
}
