package forge_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"licensed/cluster/membership"
	"licensed/internal/forge"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// TestForged: what is forged arrives. Whether it is believed is up to the members that hear it.
func TestForged(t *testing.T) {
	var mu sync.Mutex
	var dead, rows int
	c := membership.DefaultConfig()
	c.Name, c.Bind, c.Label, c.ProbeEvery = "n1", "127.0.0.1:0", "licensed", 20*time.Millisecond
	c.Log = slog.New(slog.DiscardHandler) // memberlist logs for some time after the test
	c.Listener.News = func(n *clusterv1.News) {
		mu.Lock()
		defer mu.Unlock()
		dead, rows = dead+len(n.Dead), rows+len(n.Shards)
	}
	m, err := membership.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Abandon() })
	f, err := forge.New(m.Address(), "licensed")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	await := func(what string, send func() error, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal(what, "did not arrive")
			}
			if err := send(); err != nil {
				t.Fatal(err)
			}
		}
	}
	heard := func(n *int, want int) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return *n >= want }
	}
	await("a death", func() error { return f.Dead(persistence.NewIncarnation()) }, heard(&dead, 1))
	await("rows", func() error { return f.Rows(make([]persistence.Shard, 40)...) }, heard(&rows, 40))
	lists := func(name string) func() bool {
		return func() bool {
			return slices.ContainsFunc(m.Members(),
				func(o membership.Member) bool { return o.Name == name && o.Meta.Version == "forged" })
		}
	}
	meta := &clusterv1.Meta{Version: "forged"}
	await("a member", func() error { return f.Alive(forge.Alive{Name: "x", Gossip: "127.0.0.1:9", Meta: meta}) },
		lists("x"))
	metas, addresses, err := f.Overhear("127.0.0.1")
	if err != nil || addresses[m.ID()] != m.Address() || metas[m.ID()] == nil {
		t.Errorf("overheard %v at %v, %v; want %s at %s", metas, addresses, err, m.ID(), m.Address())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stop, err := f.Clocks(ctx, "127.0.0.1", time.Hour, map[string]*clusterv1.Meta{"y": meta})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	await("a member with a clock", func() error { return nil }, lists("y"))
	await("the end of a member", func() error { return f.Gone("x") }, func() bool { return !lists("x")() })
}
