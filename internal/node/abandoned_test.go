package node_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/transport"
	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/messages/licensedv1/licensedv1connect"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

// customersOf returns customers of one of 32 shards.
func customersOf(shard uint32, n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		if id := fmt.Sprint("stuck", i); cluster.ShardOf(id+":LicenseAggregate", 32) == shard {
			ids = append(ids, id)
		}
	}
	return ids
}

// Clients of one shard, whose writes have no outcome, send more requests than a node accepts of a gateway, and leave.
// The node withdraws the requests of clients that left, and serves the customers of other shards.
func TestClientsThatLeave(t *testing.T) {
	// together more than transport.Config.MaxInFlight; a wave is less than one shard may have
	const waves, wave = 9, 1000
	c := newCompany(t)
	store := faulty.New(memory.New(), nil)
	c.store = store
	c.with = func(config *node.Config) {
		config.Limits.AddressShare, config.MaxDeadline = 1, time.Hour
	}
	n1 := c.start("n1", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1")
	customers := customerIDs(45)
	served(t, "before", g, customers)
	store.SetScript(func(c faulty.Call) faulty.Fault {
		if strings.HasPrefix(c.Key, "stuck") && c.Op.IsWrite() {
			return faulty.Fault{Kind: faulty.LoseRequest}
		}
		return faulty.Fault{}
	})
	defer store.SetScript(nil)

	stuck := customersOf(7, 16)
	clients := make([]licensedv1connect.LicenseServiceClient, 8)
	for i := range clients {
		clients[i] = licensedv1connect.NewLicenseServiceClient(harness.HTTP2(t), "http://"+g.API().String(),
			connect.WithGRPC())
	}
	waiting := func() int64 {
		n, err := strconv.ParseInt(gauge(t, n1, "licensed_requests_waiting"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for w := range waves {
		ctx, leave := context.WithCancel(t.Context())
		var returned atomic.Int64 // refused
		var all sync.WaitGroup
		for i := range wave {
			all.Go(func() {
				_, _ = clients[i%len(clients)].AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
					CustomerId: stuck[i%len(stuck)], DeviceId: "d", TitleId: "T", CommandId: fmt.Sprint(w, "-", i),
				}))
				returned.Add(1)
			})
		}
		until(func() bool { return waiting()+returned.Load() >= wave })
		left := time.Now()
		leave()
		all.Wait()
		until(func() bool { return waiting() == 0 })
		if took := time.Since(left); took > 30*time.Second { // The node would end them after a minute.
			t.Fatalf("the node worked %v for clients that had left", took)
		}
	}
	served(t, "after the clients left", g, customers)
}

// One shard gets at most half of what a node accepts of one gateway.
func TestOneShardLeavesRoom(t *testing.T) {
	if shard, session := actors.DefaultConfig().MaxPerShard, transport.DefaultConfig().MaxInFlight; 2*shard > session {
		t.Errorf("%d requests may wait for one shard, more than half of the %d of one process", shard, session)
	}
}
