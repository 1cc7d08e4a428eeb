package cluster_test

import (
	"log/slog"
	"testing"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/persistence"
	"licensed/persistence/memory"
)

var _ actors.Authority = (*cluster.Solo)(nil)

func open(t *testing.T, store persistence.Store) *cluster.Solo {
	t.Helper()
	s, err := cluster.OpenSolo(t.Context(), store, cluster.SoloConfig{
		Cluster: "test", Node: "n1", Shards: 16, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSoloRaisesEveryEpoch(t *testing.T) {
	store := memory.New()
	first, second := open(t, store), open(t, store)
	if first.Incarnation() == second.Incarnation() {
		t.Fatal("two runs with one incarnation")
	}
	for shard := range second.Shards() {
		a, _ := first.Epoch(shard)
		b, ok := second.Epoch(shard)
		if !ok || b != a+1 || !second.Holds(shard, b) || second.Holds(shard, a) || second.Holds(shard, 0) {
			t.Fatalf("shard %d: epoch %d, then %d (%t)", shard, a, b, ok)
		}
	}
	leases, err := store.Leases(t.Context())
	if err != nil || len(leases) != 2 {
		t.Fatalf("leases %+v, %v", leases, err)
	}
	for _, l := range leases {
		if l.Dead != (l.Incarnation == first.Incarnation()) {
			t.Errorf("lease %+v", l)
		}
	}
}

func TestSoloKeepsTheNumberOfShards(t *testing.T) {
	store := memory.New()
	open(t, store)
	s, err := cluster.OpenSolo(t.Context(), store, cluster.SoloConfig{Cluster: "test", Shards: 99})
	if err != nil || s.Shards() != 16 {
		t.Fatalf("%v, %v", s, err)
	}
	if _, err := cluster.OpenSolo(t.Context(), store, cluster.SoloConfig{Cluster: "other"}); err == nil {
		t.Fatal("opened the store of another cluster")
	}
}

func TestSoloRaisesAStaleEpoch(t *testing.T) {
	s := open(t, memory.New())
	s.StaleEpoch(3, "a", 7)
	for {
		if epoch, ok := s.Epoch(3); ok {
			if epoch != 8 {
				t.Fatalf("epoch %d", epoch)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	if epoch, _ := s.Epoch(4); epoch != 1 {
		t.Errorf("another shard's epoch is %d", epoch)
	}
}

func TestSoloLoses(t *testing.T) {
	s := open(t, memory.New())
	s.Lose()
	if _, ok := s.Epoch(0); ok || s.Holds(0, 1) {
		t.Error("holds a shard of a failed store")
	}
}
