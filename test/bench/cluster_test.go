package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/ownership"
	"licensed/cluster/roster"
	"licensed/cluster/routing"
	"licensed/cluster/shardmap"
	"licensed/cluster/transport"
	"licensed/messages/clusterv1"
	"licensed/persistence"
	"licensed/persistence/memory"
	"licensed/test/bench/meter"
)

// BenchmarkCluster holds three nodes against one on a journal that is done at once, so that what remains is
// what it costs to be several: two of three requests reach a node that has to ask another. Then the same
// with all requests by way of a gateway, which has no customers. All are in this process, with transports
// over the loopback device between them, and share its processors.
func BenchmarkCluster(b *testing.B) {
	one, three := newCrew(b, "n1"), newCrew(b, "n1", "n2", "n3")
	ways := []struct {
		name    string
		routers []*routing.Router
	}{
		{"one node", one.nodes}, {"three nodes", three.nodes},
		{"a gateway, one node", one.gateway}, {"a gateway, three nodes", three.gateway},
	}
	rounds, turn := pace(b)
	var contenders []meter.Contender
	for _, n := range []int{16, 128, 512} {
		for _, w := range ways {
			contenders = append(contenders, routed(w.routers, w.name, n))
		}
	}
	for b.Loop() {
		results, err := new(meter.Meter).Rounds(b.Context(), rounds, turn, contenders...)
		if err != nil {
			b.Fatal(err)
		}
		meter.Print(os.Stdout, results)
		best := make([]meter.Result, len(ways))
		for k := range ways {
			best[k] = meter.Best(results[k], results[k+len(ways)], results[k+2*len(ways)])
		}
		for _, of := range [][2]int{{1, 0}, {3, 2}, {2, 0}, {3, 0}} {
			ours, base := best[of[0]], best[of[1]]
			fmt.Printf("%s over %s: %v in rate, %v in CPU time\n",
				ours.Name, base.Name, meter.Over(ours, base, meter.Rate), meter.Over(ours, base, meter.CPU))
		}
		b.ReportMetric(meter.Over(best[1], best[0], meter.Rate).Median, "three/one")
		b.ReportMetric(meter.Over(best[3], best[2], meter.Rate).Median, "gateway-three/one")
	}
	b.ReportMetric(0, "ns/op")
}

// routed returns a contender that adds to ledgers, through any of the routers.
func routed(routers []*routing.Router, name string, inFlight int) meter.Contender {
	suffix := "-" + strconv.FormatInt(contenders.Add(1), 36)
	return counted(name, inFlight, func(worker, i int) error {
		_, err := routers[worker%len(routers)].Execute(context.Background(), ledger(worker*7919+i),
			add(worker, i, suffix))
		return err
	})
}

// crew is the processes of a cluster, without gossip: all know all.
type crew struct {
	nodes   []*routing.Router // of the nodes
	gateway []*routing.Router // of one gateway
}

// newCrew starts nodes and a gateway, and brings the ledgers to memory.
func newCrew(b *testing.B, names ...string) crew {
	store := memory.New()
	b.Cleanup(func() { _ = store.Close() })
	rows := shardmap.New(cluster.DefaultShards)
	var crew crew
	var nodes []*cluster.Node
	var members []membership.Member
	var owners []ownership.Member
	for _, name := range names {
		n := ledgerNode(b, store, name)
		t := wire(b, crewMember{n})
		i := n.Incarnation()
		nodes = append(nodes, n)
		owners = append(owners, ownership.Member{Name: name, Incarnation: i, Capacity: 1, Eligible: true})
		members = append(members,
			membership.Member{Name: name, Meta: &clusterv1.Meta{Incarnation: i[:], NodeAddress: t.Address()}})
		crew.nodes = append(crew.nodes, newRouter(b, name, t, n, rows))
	}
	crew.gateway = []*routing.Router{newRouter(b, "g1", wire(b, nil), nil, rows)}
	for held := 0; held < cluster.DefaultShards; time.Sleep(10 * time.Millisecond) {
		held = 0
		for _, n := range nodes {
			n.SetMembers(owners)
			held += n.Status().Open
		}
	}
	for _, n := range nodes {
		for _, row := range n.Status().Held {
			rows.Hear(row)
		}
	}
	for _, r := range append(crew.gateway, crew.nodes...) {
		r.SetMembers(members)
	}
	each(b, aggregates, func(i int) {
		if _, err := crew.gateway[0].Query(b.Context(), ledger(i), actorstest.Total{}); err != nil {
			b.Error(err)
		}
	})
	return crew
}

// ledgerHost runs ledgers, of which operators ask nothing.
type ledgerHost struct{ *actors.Runtime }

func (ledgerHost) Operate(context.Context, string, any) (actors.Answer, error) {
	return actors.Answer{}, actors.ErrNotSupported
}

func ledgers(o actors.Options) (cluster.Host, error) {
	rt, err := actors.New(o)
	return ledgerHost{rt}, err
}

// ledgerNode returns a node of ledgers whose leases and shards are in the store, and whose journal is none.
func ledgerNode(b *testing.B, store *memory.Store, name string) *cluster.Node {
	c := actors.DefaultConfig()
	c.Window.MinAge = 0
	info, err := cluster.Open(b.Context(), store, "bench", 0)
	if err != nil {
		b.Fatal(err)
	}
	n, err := cluster.StartNode(b.Context(), cluster.NodeConfig{
		Ownership: store, Cluster: info, Name: name, Kind: actorstest.Ledger{}.Name(), Log: quiet(),
		NewHost: func(a actors.Authority) (cluster.Host, error) {
			return ledgers(actors.Options{
				Kind:      actorstest.Ledger{},
				Journal:   actorstest.Discard{},
				Authority: a,
				Config:    c,
				System:    actors.NewActorSystem(quiet()),
			})
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = n.Close(context.Background()) })
	return n
}

// wire returns a transport on the loopback device.
func wire(b *testing.B, h transport.Handler) *transport.Transport {
	c := transport.DefaultConfig()
	c.Cluster, c.Bind, c.Handler, c.Codec, c.Log = "bench", "127.0.0.1:0", h, ledgerCodec{}, quiet()
	t, err := transport.Start(c)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = t.Close(context.Background()) })
	return t
}

// allAlive are leases that none loses.
type allAlive struct{}

func (allAlive) Look(persistence.Incarnation) (persistence.Lease, roster.State) {
	return persistence.Lease{}, roster.Alive
}
func (allAlive) Suspect(persistence.Incarnation) {}

func newRouter(b *testing.B, name string, t *transport.Transport, n *cluster.Node, rows *shardmap.Map) *routing.Router {
	c := routing.DefaultConfig()
	c.Name, c.Kind, c.Map, c.Leases, c.Transport = name, actorstest.Ledger{}.Name(), rows, allAlive{}, t
	if n != nil {
		c.Node = n
	}
	r, err := routing.New(c)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// crewMember answers other processes.
type crewMember struct{ *cluster.Node }

func (m crewMember) Execute(ctx context.Context, _, id string, c actors.Command) (actors.Reply, error) {
	return m.Node.Execute(ctx, id, c)
}

func (m crewMember) Query(ctx context.Context, _, id string, query any) (actors.Answer, error) {
	return m.Node.Query(ctx, id, query)
}

func (m crewMember) Operate(ctx context.Context, _, id string, request any) (actors.Answer, error) {
	return m.Node.Operate(ctx, id, request)
}

func (crewMember) Status(context.Context) (*clusterv1.StatusResponse, error) { return nil, nil }

// ledgerCodec is of what ledgers are asked, and answer.
type ledgerCodec struct{}

func (ledgerCodec) Marshal(v any) (string, []byte, error) {
	switch v := v.(type) {
	case actorstest.Add:
		return "add", binary.AppendUvarint(binary.AppendUvarint(nil, v.Amount), uint64(v.Pad)), nil
	case actorstest.Total:
		return "total", nil, nil
	case uint64:
		return "amount", binary.AppendUvarint(nil, v), nil
	}
	return "", nil, fmt.Errorf("%T", v)
}

func (c ledgerCodec) UnmarshalRequest(name string, data []byte) (any, error) {
	return c.Unmarshal(name, data)
}

func (ledgerCodec) Unmarshal(name string, data []byte) (any, error) {
	first, n := binary.Uvarint(data)
	switch {
	case name == "total":
		return actorstest.Total{}, nil
	case n > 0 && name == "amount":
		return first, nil
	case n > 0 && name == "add":
		pad, m := binary.Uvarint(data[n:])
		if m > 0 && pad < 1<<10 {
			return actorstest.Add{Amount: first, Pad: int(pad)}, nil
		}
	}
	return nil, fmt.Errorf("%s of %d bytes", name, len(data))
}
