package node_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"

	"licensed/internal/node"
)

// BenchmarkScrape measures what one scrape of the metrics costs, with some thousand customers in memory:
// processor time and what is left for the collector, the client's part included.
func BenchmarkScrape(b *testing.B) {
	n := busyNode(b)
	request, err := http.NewRequestWithContext(b.Context(), http.MethodGet,
		"http://"+n.Admin().String()+"/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	before, size := cpuTime(b), int64(0)
	for b.Loop() {
		res, err := http.DefaultClient.Do(request)
		if err != nil {
			b.Fatal(err)
		}
		if size, err = io.Copy(io.Discard, res.Body); err != nil {
			b.Fatal(err)
		}
		res.Body.Close()
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(size), "bytes/op")
}

// BenchmarkClusterStatus measures what it costs to say how a cluster does, which one gateway is asked
// every second while somebody looks: a node of its own, and three that have 512 shards. Those are in
// this process; what each of them spends is in the figure.
func BenchmarkClusterStatus(b *testing.B) {
	b.Run("alone", func(b *testing.B) { benchmarkClusterStatus(b, busyNode(b)) })
	b.Run("three", func(b *testing.B) {
		c := newCompany(b)
		c.with = func(config *node.Config) { config.Cluster.Shards, config.Logger = 512, slog.New(slog.DiscardHandler) }
		g := c.start("n1", node.RoleNode|node.RoleGateway)
		c.start("n2", node.RoleNode|node.RoleGateway)
		c.start("n3", node.RoleNode|node.RoleGateway)
		settle(b, admin(g), "n1", "n2", "n3")
		benchmarkClusterStatus(b, g)
	})
}

func benchmarkClusterStatus(b *testing.B, n *node.Node) {
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if _, err := node.ClusterStatus(b.Context(), n); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// busyNode starts a node of its own and sends it commands for 5,000 customers.
func busyNode(b *testing.B) *node.Node {
	b.Helper()
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = b.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	c.Logger = slog.New(slog.DiscardHandler)
	n, err := node.Start(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := n.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	})
	client, done := grpcClient(n)
	defer done()
	new(commands).send(b, client, 64, 10_000)
	return n
}
