package shardmap

import (
	"math"
	"slices"
	"testing"
	"time"

	"licensed/persistence"
)

func row(epoch uint64, owner string) persistence.Shard {
	r := persistence.Shard{ID: 1, Epoch: epoch}
	copy(r.Owner[:], owner)
	return r
}

// knows fails the test unless the map has that row.
func knows(t *testing.T, m *Map, want persistence.Shard) {
	t.Helper()
	if got, _ := m.Row(want.ID); got != want {
		t.Errorf("row %+v, want %+v", got, want)
	}
}

// TestReadsReplaceWhatWasHeard: a row that was heard counts until the store was asked, however high its epoch is.
func TestReadsReplaceWhatWasHeard(t *testing.T) {
	m := New(2)
	before := time.Now()
	m.ReadAll([]persistence.Shard{row(3, "a")}, before)
	select {
	case <-m.Doubted():
		t.Error("what the store says is doubted")
	default:
	}
	forged := row(persistence.MaxEpoch-1, "nobody")
	m.Hear(forged)
	knows(t, m, forged)
	<-m.Doubted()
	m.ReadAll([]persistence.Shard{row(3, "a"), {ID: 1 << 31}}, before)
	knows(t, m, forged) // that read began before it was heard
	m.ReadAll([]persistence.Shard{row(3, "a")}, time.Now())
	knows(t, m, row(3, "a"))
	m.Hear(row(4, "b"))
	m.Read(row(5, "a"), before)
	knows(t, m, row(5, "a")) // a later row counts, whenever the read began
	m.Hear(row(6, "b"))
	m.ReadAll(nil, time.Now())
	knows(t, m, row(0, ""))
}

// TestStoredRows: what the store showed is kept beside what was heard, and changes only with a later read.
func TestStoredRows(t *testing.T) {
	m := New(2)
	shows := func(want persistence.Shard) {
		t.Helper()
		if got := m.StoredRows(); len(got) != 2 || got[0] != (persistence.Shard{}) || got[1] != want {
			t.Errorf("stored rows %+v, want %+v", got, want)
		}
	}
	shows(row(0, ""))
	m.Hear(row(9, "nobody"))
	shows(row(0, ""))
	first := time.Now()
	m.ReadAll([]persistence.Shard{row(3, "a")}, first)
	m.Hear(row(1000, "nobody"))
	m.Correct(row(1000, "nobody"), row(2, "b"), true)
	shows(row(3, "a"))
	m.Read(row(2, "b"), first.Add(-time.Second))
	shows(row(3, "a"))
	m.Read(row(4, "b"), first.Add(-time.Second)) // a later row counts, whenever the read began
	shows(row(4, "b"))
	m.Read(row(5, "c"), first.Add(time.Second))
	shows(row(5, "c"))
	m.ReadAll(nil, first.Add(2*time.Second))
	shows(row(0, ""))
}

// TestReleased: a row that was heard counts as a release if, and only if, it is of the epoch that the store showed.
func TestReleased(t *testing.T) {
	m := New(2)
	releases := func(want ...persistence.Shard) {
		t.Helper()
		if got := m.Released(); !slices.Equal(got, want) {
			t.Errorf("released %+v, want %+v", got, want)
		}
	}
	began := time.Now()
	m.ReadAll([]persistence.Shard{row(3, "a")}, began)
	m.Hear(row(2, ""))
	releases()
	m.Hear(row(3, ""))
	releases(row(3, ""))
	m.Hear(row(4, "b"))
	m.Hear(row(4, ""))
	releases()
	m.ReadAll([]persistence.Shard{row(4, "")}, began.Add(time.Hour))
	releases()
}

// TestOrder: rows are ordered by epoch, except that the owner itself may deny a row.
func TestOrder(t *testing.T) {
	m := New(2)
	var heard []uint64
	m.Listen(func(r persistence.Shard) { heard = append(heard, r.Epoch) })
	m.Hear(row(3, "a"))
	m.Hear(row(3, "a"))
	m.Hear(row(2, "b"))
	knows(t, m, row(3, "a"))
	m.Correct(row(3, "a"), row(2, "b"), false) // says somebody else than the owner
	knows(t, m, row(3, "a"))
	m.Correct(row(1, "c"), row(2, "b"), true) // another row is known since
	knows(t, m, row(3, "a"))
	m.Correct(row(3, "a"), row(2, "b"), true)
	knows(t, m, row(2, "b"))
	m.Correct(row(1, ""), row(7, "d"), false)
	knows(t, m, row(7, "d"))
	m.Read(row(8, "e"), time.Now())
	if len(heard) != 3 || heard[0] != 3 || heard[1] != 2 || heard[2] != 7 {
		t.Errorf("the listener heard epochs %d", heard)
	}
}

// TestWatch: who watches a shard is told of a change of its row, and of nothing else.
func TestWatch(t *testing.T) {
	m := New(2)
	m.Hear(row(3, "a"))
	_, changed := m.Watch(1)
	m.Hear(row(3, "a"))
	m.Read(row(3, "a"), time.Now())
	m.Hear(persistence.Shard{ID: 0, Epoch: 9})
	select {
	case <-changed:
		t.Error("told of no change")
	default:
	}
	m.Read(row(4, "b"), time.Now())
	<-changed
}

// TestOutOfRange: a shard that the cluster does not have is passed over.
func TestOutOfRange(t *testing.T) {
	m := New(2)
	for _, id := range []uint32{2, math.MaxUint32} {
		m.Hear(persistence.Shard{ID: id, Epoch: 1})
		m.Read(persistence.Shard{ID: id, Epoch: 1}, time.Now())
		knows(t, m, persistence.Shard{ID: id})
	}
	if len(m.Rows()) != 2 || m.Len() != 2 {
		t.Errorf("%d rows of %d shards", len(m.Rows()), m.Len())
	}
}
