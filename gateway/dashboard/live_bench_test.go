package dashboard

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/messages/licensedv1"
)

// threeNodes is a cluster of three nodes with 512 shards and as much behind it as is remembered. It
// implements Cluster; what changes from reading to reading is what does in a running cluster.
type threeNodes struct {
	asked        uint64
	status, next *licensedv1.ClusterStatus
}

func newThreeNodes() *threeNodes {
	s := &licensedv1.ClusterStatus{Name: "licensed", Reporter: "n1", Shards: 512}
	for i := range 3 {
		s.Nodes = append(s.Nodes, &licensedv1.NodeStatus{
			Name: fmt.Sprintf("n%d", i+1), Incarnation: fmt.Sprintf("incarnation-%d", i+1), Version: "v1",
			ShardsOpen: 170, State: licensedv1.NodeState_NODE_STATE_READY,
			Roles:     []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE, licensedv1.NodeRole_NODE_ROLE_GATEWAY},
			StartedAt: timestamppb.New(time.Unix(1, 0)), ResidentCustomers: 3000,
			ResidentBytes: 9 << 20, MemoryBytes: 99 << 20,
			Lease: &licensedv1.LeaseStatus{
				Remaining: durationpb.New(2 * time.Second),
				Ttl:       durationpb.New(3 * time.Second),
			},
			Activity: &licensedv1.NodeActivity{
				LatencyBoundsSeconds: []float64{.001, .01, .1},
				LatencyCounts:        make([]uint64, 4),
			},
		})
	}
	for id := range s.Shards {
		s.ShardMap = append(s.ShardMap, &licensedv1.ShardStatus{
			Id: id, Epoch: 7, Owner: s.Nodes[id%3].Incarnation, State: licensedv1.ShardState_SHARD_STATE_OPEN,
		})
	}
	for i := range 200 {
		s.Happenings = append(s.Happenings, &licensedv1.Happening{
			At:   timestamppb.New(time.Unix(int64(1000-i), 0)),
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_CLAIMED,
			Node: "n1",
			Text: fmt.Sprintf("n1 took %d shards", i),
		})
	}
	c := &threeNodes{status: s}
	c.prepare()
	return c
}

func (c *threeNodes) Cluster(context.Context) (*licensedv1.ClusterStatus, error) { return c.next, nil }

// prepare makes the next answer.
func (c *threeNodes) prepare() {
	c.asked++
	s := proto.CloneOf(c.status) // Each answer is made anew.
	s.AsOf = timestamppb.New(time.Unix(2000+int64(c.asked), 0))
	for _, n := range s.Nodes {
		n.Activity.Commands = 4000 * c.asked
		n.Activity.LatencyCounts[1] = 4000 * c.asked
	}
	c.next = s
}

// BenchmarkViewers measures what one reading of a cluster costs that this many look at: the events that are
// made of it and sent. What Cluster costs is not in it.
func BenchmarkViewers(b *testing.B) {
	for _, viewers := range []int{1, 2, 8} {
		b.Run(fmt.Sprint(viewers), func(b *testing.B) { benchmarkViewers(b, viewers) })
	}
}

func benchmarkViewers(b *testing.B, viewers int) {
	cluster, now := newThreeNodes(), time.Unix(2000, 0)
	d, err := New(Config{
		Cluster: cluster, Access: NewAccess(AccessConfig{Loopback: true, Now: time.Now}),
		Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	d.Close() // Readings come when the benchmark makes them.
	d.sampler.closed, d.sampler.news = false, make(chan struct{})
	ctx, cancel := context.WithCancel(b.Context())
	flushed := make(chan struct{}, 1000)
	for range viewers {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/dashboard/live", nil)
		if err != nil {
			b.Fatal(err)
		}
		go func() { _ = d.live(&discard{header: http.Header{}, flushed: flushed}, r) }()
	}
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		now = now.Add(time.Second)
		cluster.prepare()
		b.StartTimer()
		d.sampler.sample(ctx)
		for range viewers {
			<-flushed
		}
	}
	cancel()
}

// discard is a response that nobody reads. flushed hears of each flush.
type discard struct {
	header  http.Header
	flushed chan struct{}
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return io.Discard.Write(b) }
func (d *discard) Flush()                      { d.flushed <- struct{}{} }
