package ownership

import (
	"encoding/binary"
	"testing"

	"licensed/persistence"
)

// TestForget: the dead are kept in mind as long as anything names them, and not forever.
func TestForget(t *testing.T) {
	c := DefaultConfig()
	c.Incarnation, c.Node, c.Shards = persistence.Incarnation{1}, "a", 4
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	dead := func(k int) (i persistence.Incarnation) {
		binary.BigEndian.PutUint32(i[1:], uint32(k+1))
		return i
	}
	for k := range maxDead {
		m.dead[dead(k)] = true
	}
	m.shards[2].row = persistence.Shard{ID: 2, Epoch: 1, Owner: dead(0)}
	m.shards[3].row = persistence.Shard{ID: 3, Epoch: 1, Successor: dead(1)}
	m.told = []Member{{Name: "b", Incarnation: dead(2)}}
	scan := Input{Kind: InputDone, Op: Op{Kind: OpReadShards}}
	m.readAll(scan)
	if len(m.dead) != maxDead {
		t.Errorf("%d of %d are left", len(m.dead), maxDead)
	}
	m.dead[dead(maxDead)] = true
	m.readAll(scan)
	if len(m.dead) != 3 || !m.dead[dead(0)] || !m.dead[dead(1)] || !m.dead[dead(2)] {
		t.Errorf("%d are left, want the three that are named", len(m.dead))
	}
}
