package cluster

import (
	"context"
	"log/slog"
	"math"
	"testing"
	"time"
	"unsafe"

	"licensed/actors"
	"licensed/cluster/ownership"
	"licensed/messages/clusterv1"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// TestGateFillsACacheLine: counters of different shards must not share one.
func TestGateFillsACacheLine(t *testing.T) {
	if size := unsafe.Sizeof(gate{}); size != 64 {
		t.Errorf("%d bytes", size)
	}
}

// TestGateIsQuietOnce: of the requests in progress when a gate closes, the last one out reports it.
func TestGateIsQuietOnce(t *testing.T) {
	g := &gate{}
	g.set(ownership.GateOpen, 7)
	for range 3 {
		if ok, _ := g.enter(); !ok {
			t.Fatal("open, and does not let in")
		}
	}
	g.set(ownership.GateClosing, 7)
	if ok, quiet := g.enter(); ok || quiet {
		t.Error("closing, and lets in")
	}
	for range 2 {
		if g.leave() || g.quiet() {
			t.Error("quiet with requests under way")
		}
	}
	if !g.leave() || !g.quiet() {
		t.Error("not quiet without requests")
	}
	if ok, quiet := g.enter(); ok || !quiet {
		t.Error("one that is turned away may be the last out")
	}
	g.set(ownership.GateOpen, 7)
	if g.quiet() || g.raise(6) || g.kind() != ownership.GateOpen {
		t.Error("raised above an epoch that is below its own")
	}
	if !g.raise(7) || g.kind() != ownership.GateExpected || g.epoch.Load() != 0 || g.raise(9) {
		t.Error("not raised")
	}
}

// idleHost answers at once.
type idleHost struct{}

func (idleHost) Execute(context.Context, string, actors.Command) (actors.Reply, error) {
	return actors.Reply{}, nil
}
func (idleHost) Query(context.Context, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}
func (idleHost) Operate(context.Context, string, any) (actors.Answer, error) {
	return actors.Answer{}, nil
}
func (idleHost) Drop(func(string) bool)      {}
func (idleHost) Close(context.Context) error { return nil }

// Hear tells the node what others say.
func (n *Node) Hear(news News) {
	for _, row := range news.Shards {
		n.rows.Hear(row)
	}
	for _, i := range news.Dead {
		n.Suspect(i)
	}
}

// single returns a node that holds all shards.
func single(tb testing.TB) *Node {
	store := memory.New()
	info, err := Open(tb.Context(), store, "test", 0)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := StartNode(tb.Context(), NodeConfig{
		Ownership: store, Cluster: info, Name: "a", Kind: "Ledger",
		NewHost: func(actors.Authority) (Host, error) { return idleHost{}, nil }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	n.SetMembers([]ownership.Member{{Name: "a", Eligible: true}})
	for n.Status().Open < DefaultShards {
		time.Sleep(time.Millisecond)
	}
	return n
}

// TestGateCostsNoMemory: passing the gate allocates nothing.
func TestGateCostsNoMemory(t *testing.T) {
	n := single(t)
	ctx := t.Context()
	if a := testing.AllocsPerRun(100, func() { _, _ = n.Execute(ctx, "Bayley", actors.Command{}) }); a > 0 {
		t.Errorf("%v allocations", a)
	}
}

// BenchmarkGate measures what a node adds to a request, with all processors at it.
func BenchmarkGate(b *testing.B) {
	n := single(b)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := n.Execute(ctx, "Bayley", actors.Command{}); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkHolds measures what every reply costs to be confirmed by the clock.
func BenchmarkHolds(b *testing.B) {
	n := single(b)
	i := n.current.Load()
	for b.Loop() {
		if !i.Holds(3, 1) {
			b.Fatal("not held")
		}
	}
}

// TestImpossibleRows: messages can bring no row after which a shard could not be claimed.
func TestImpossibleRows(t *testing.T) {
	owner := persistence.NewIncarnation()
	for epoch, possible := range map[uint64]bool{
		persistence.MaxEpoch - 1: true, persistence.MaxEpoch: false, math.MaxUint64: false,
	} {
		m := &clusterv1.Shard{Id: 1, Epoch: epoch, Owner: owner[:]}
		_, err := ShardRow(m)
		news := NewsOf(&clusterv1.News{Shards: []*clusterv1.Shard{m}})
		if (err == nil) != possible || (len(news.Shards) == 1) != possible {
			t.Errorf("epoch %d: %v, %+v, want a row: %t", epoch, err, news, possible)
		}
	}
}

// FuzzHear: what others say may be anything.
func FuzzHear(f *testing.F) {
	n := single(f)
	f.Add(uint32(1), uint64(2), []byte(nil), []byte("0123456789abcdef"), []byte{1})
	f.Add(uint32(1<<31), uint64(1<<63), []byte("0123456789abcdef"), []byte("0123"), []byte("0123456789abcdef"))
	f.Fuzz(func(t *testing.T, id uint32, epoch uint64, owner, successor, dead []byte) {
		held, _ := n.Epoch(id % n.Shards())
		n.Hear(NewsOf(&clusterv1.News{
			Shards: []*clusterv1.Shard{{Id: id, Epoch: epoch, Owner: owner, Successor: successor}, nil},
			Dead:   [][]byte{dead},
		}))
		if now, ok := n.Epoch(id % n.Shards()); !ok || now != held {
			t.Errorf("shard %d is held at %d, %t after rumours", id, now, ok)
		}
		row := n.Row(id)
		back, err := ShardRow(ShardMessage(row))
		if err != nil || back != row {
			t.Errorf("%+v became %+v, %v", row, back, err)
		}
	})
}
