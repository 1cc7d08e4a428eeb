package node_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/persistence"
)

// swaps counts the compare-and-sets of leases and shards.
type swaps struct {
	persistence.Store
	leases, shards atomic.Int64
}

func (s *swaps) CompareAndSetLease(ctx context.Context, old, next persistence.Lease) (bool, persistence.Lease, error) {
	s.leases.Add(1)
	return s.Store.CompareAndSetLease(ctx, old, next)
}

func (s *swaps) CompareAndSetShard(ctx context.Context, old, next persistence.Shard) (bool, persistence.Shard, error) {
	s.shards.Add(1)
	return s.Store.CompareAndSetShard(ctx, old, next)
}

// BenchmarkFiftyNodes has fifty nodes in one process, with gossip, leases and 512 shards on a store in memory, form a
// cluster, until each holds the shards that it should. One iteration is enough.
func BenchmarkFiftyNodes(b *testing.B) {
	const members = 50
	for b.Loop() {
		c := newCompany(b)
		store := &swaps{Store: c.store}
		c.store = store
		c.with = func(config *node.Config) {
			config.Cluster.Shards, config.Admin, config.Logger = 512, "", slog.New(slog.DiscardHandler)
		}
		began, used := time.Now(), cpuTime(b)
		var all []*node.Node
		for k := range members {
			n, err := node.Start(b.Context(), c.config(fmt.Sprintf("n%02d", k), node.RoleNode))
			if err != nil {
				b.Fatal(err)
			}
			if all = append(all, n); k == 0 {
				c.join = []string{n.Gossip()}
			}
		}
		started := time.Since(began)
		for ; ; time.Sleep(100 * time.Millisecond) {
			s, err := node.ClusterStatus(b.Context(), all[0])
			if err != nil {
				b.Fatal(err)
			}
			if _, err := harness.SettledOwners(s, members); err == nil {
				break
			}
		}
		b.ReportMetric(started.Seconds(), "s-to-start")
		b.ReportMetric(time.Since(began).Seconds(), "s-to-settle")
		b.ReportMetric((cpuTime(b) - used).Seconds(), "cpu-s")
		b.ReportMetric(float64(store.leases.Load()), "lease-swaps")
		b.ReportMetric(float64(store.shards.Load()), "shard-swaps")
		hurried, cancel := context.WithCancel(context.Background())
		cancel()
		var stopping sync.WaitGroup
		for _, n := range all {
			stopping.Go(func() { _ = n.Stop(hurried) })
		}
		stopping.Wait()
	}
	b.ReportMetric(0, "ns/op")
}
