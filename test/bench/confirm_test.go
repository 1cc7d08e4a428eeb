package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/cluster"
	"licensed/cluster/ownership"
	"licensed/persistence/cassandra"
	"licensed/test/bench/meter"
)

// BenchmarkConfirm holds commands on Cassandra whose replies are confirmed by a read of the lease against
// those confirmed by the clock.
func BenchmarkConfirm(b *testing.B) {
	r := newCassandraRig(b)
	byClock, byRead := r.confirming(cluster.ConfirmLease), r.confirming(cluster.ConfirmRead)
	rounds, turn := pace(b)
	var contenders []meter.Contender
	for _, n := range []int{1, 16, 256} {
		contenders = append(contenders, toNode(byClock, "lease", n), toNode(byRead, "read", n))
	}
	for b.Loop() {
		results, err := r.meter.Rounds(b.Context(), rounds, turn, contenders...)
		if err != nil {
			b.Fatal(err)
		}
		meter.Print(os.Stdout, results)
		for k := 0; k < len(results); k += 2 {
			fmt.Printf("%s over %s: %v in rate\n",
				results[k+1].Name, results[k].Name, meter.Over(results[k+1], results[k], meter.Rate))
		}
	}
	b.ReportMetric(0, "ns/op")
}

// confirming returns a node on a keyspace of its own.
func (r *cassandraRig) confirming(how cluster.Confirm) *cluster.Node {
	store, err := cassandra.Open(r.Context(), r.keyspace(r.options))
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = store.Close() })
	c := actors.DefaultConfig()
	c.Window.MinAge = 0
	info, err := cluster.Open(r.Context(), store, "bench", 0)
	if err != nil {
		r.Fatal(err)
	}
	n, err := cluster.StartNode(r.Context(), cluster.NodeConfig{
		Ownership: store, Cluster: info, Name: "n1", Kind: actorstest.Ledger{}.Name(), Confirm: how, Log: quiet(),
		NewHost: func(a actors.Authority) (cluster.Host, error) {
			return ledgers(actors.Options{
				Kind:      actorstest.Ledger{},
				Journal:   store,
				Authority: a,
				Config:    c,
				System:    actors.NewActorSystem(quiet()),
			})
		},
	})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		if err := n.Close(context.Background()); err != nil {
			r.Error(err)
		}
	})
	n.SetMembers([]ownership.Member{{Name: "n1", Eligible: true}})
	for n.Status().Open < int(n.Shards()) {
		time.Sleep(time.Millisecond)
	}
	return n
}

// toNode returns a contender that adds to ledgers of a node.
func toNode(n *cluster.Node, name string, inFlight int) meter.Contender {
	suffix := "-" + strconv.FormatInt(contenders.Add(1), 36)
	return counted(name, inFlight, func(worker, i int) error {
		_, err := n.Execute(context.Background(), ledger(worker*7919+i), add(worker, i, suffix))
		return err
	})
}
