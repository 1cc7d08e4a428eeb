package routing

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/shardmap"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// FuzzNews feeds anything to what hears of shards and of members. Whatever it is told, it knows whom to
// ask, or that there is nobody.
func FuzzNews(f *testing.F) {
	a := incarnation("a")
	for _, m := range []*clusterv1.News{
		{}, cluster.News{Shards: []persistence.Shard{row(1, "a", "b")}, Dead: []persistence.Incarnation{a}}.Message(),
		{Dead: [][]byte{a[:], {1}}}, {Shards: []*clusterv1.Shard{{Id: 1 << 31}, {Owner: []byte{1}}, nil}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{})
	}
	for _, m := range []*clusterv1.Meta{
		{Incarnation: a[:], NodeAddress: "x:1", Capacity: -1}, {Incarnation: []byte{1}, NodeAddress: "x"},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte{}, b)
	}
	c := DefaultConfig()
	c.Name, c.Kind, c.Map, c.Leases, c.Transport = "n", "Kind", shardmap.New(shards), &leases{}, &network{}
	r, err := New(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, heard, member []byte) {
		n, m := &clusterv1.News{}, &clusterv1.Meta{}
		if proto.Unmarshal(heard, n) == nil {
			rows := cluster.NewsOf(n).Shards
			for _, row := range rows {
				c.Map.Hear(row)
			}
		}
		if proto.Unmarshal(member, m) == nil {
			r.SetMembers([]membership.Member{{Name: "n", Meta: m}, {Name: "o", Meta: m}})
		}
		for id := range uint32(shards) {
			if v := r.look(id); v.none == nil && !v.to.local && v.to.address == "" {
				t.Errorf("shard %d: nobody is asked: %+v", id, v)
			}
		}
	})
}
