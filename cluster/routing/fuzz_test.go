package routing

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
)

// FuzzNews feeds anything to what hears of shards and of members. Whatever it is told, it knows whom to
// ask, or that there is nobody.
func FuzzNews(f *testing.F) {
	a := incarnation("a")
	for _, m := range []*clusterv1.News{
		{}, news(row(1, "a", "b")), {Dead: [][]byte{a[:], {1}}}, {Shards: []*clusterv1.Shard{{Id: 1 << 31}, {Owner: []byte{1}}, nil}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{})
	}
	for _, m := range []*clusterv1.Meta{{Incarnation: a[:], NodeAddress: "x:1", Capacity: -1}, {Incarnation: []byte{1}, NodeAddress: "x"}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte{}, b)
	}
	r, err := New(Config{
		Name: "n", Kind: "Kind", Shards: shards, Transport: &network{}, MaxTime: 1, Patience: 1, MaxAttempts: 1, MaxWaiting: 1, MaxPerNode: 1, MaxPerShard: 1, PauseMin: 1,
		PauseMax: 1, StatusTimeout: 1,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, heard, member []byte) {
		n, m := &clusterv1.News{}, &clusterv1.Meta{}
		if proto.Unmarshal(heard, n) == nil {
			r.Hear(n)
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
