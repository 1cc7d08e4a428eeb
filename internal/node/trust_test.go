package node_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"licensed/internal/forge"
	"licensed/internal/harness"
	"licensed/internal/node"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// crew is a company of two nodes and a gateway, with what is said about them.
type crew struct {
	*company
	log    *harness.Log
	n1, n2 *node.Node
	g      *node.Node
}

func newCrew(t *testing.T, ttl time.Duration) *crew {
	c := &crew{company: newCompany(t), log: new(harness.Log)}
	c.with = func(config *node.Config) {
		config.Cluster.LeaseTTL = ttl
		config.Logger = slog.New(slog.NewTextHandler(c.log, nil)).With("member", config.Name)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.log.String())
		}
	})
	return c
}

// noFalseVotes fails the test if somebody voted against an incarnation that has no lease, and thus does not exist.
func (c *crew) noFalseVotes() {
	c.t.Helper()
	exists := map[string]bool{}
	for _, l := range c.leases() {
		exists[l.Incarnation.String()] = true
	}
	for line := range strings.Lines(c.log.String()) {
		if _, rest, ok := strings.Cut(line, "voting against it"); ok {
			_, i, _ := strings.Cut(rest, " incarnation=")
			if i, _, _ = strings.Cut(i, " "); !exists[i] {
				c.t.Errorf("a vote against an incarnation without a lease: %s", line)
				return
			}
		}
	}
}

// begin starts the crew and waits until it serves.
func (c *crew) begin(prefix string) *crew {
	c.t.Helper()
	c.n1, c.n2 = c.start(prefix+"1", node.RoleNode), c.start(prefix+"2", node.RoleNode)
	c.g = c.start(prefix+"g", node.RoleGateway)
	settle(c.t, admin(c.g), prefix+"1", prefix+"2")
	return c
}

// undisturbed runs an experiment until no lease ended meanwhile, and fails the test for what the last run returns: a
// machine that is too busy to renew leases shows nothing about what else the nodes do.
func (c *crew) undisturbed(experiment func() []string) {
	c.t.Helper()
	for {
		before := c.held()
		faults := experiment()
		if after := c.held(); len(faults) > 0 && !slices.Equal(before, after) {
			c.t.Logf("a lease ended meanwhile, once more: %v", faults)
			continue
		}
		for _, fault := range faults {
			c.t.Error(fault)
		}
		return
	}
}

// serves sends a command of each of many customers to the gateway, at once, and fails the test unless all are
// acknowledged.
func (c *crew) serves(run string) {
	c.t.Helper()
	c.undisturbed(func() []string { return c.serve(run) })
}

// serve returns the number of commands of serves that were not acknowledged, and why, if there are any.
func (c *crew) serve(run string) []string {
	const customers = 90
	var wg sync.WaitGroup
	errs := make([]error, customers)
	for i := range customers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
			defer cancel()
			_, errs[i] = client(c.g).AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
				CustomerId: fmt.Sprint("c", i), DeviceId: "d", TitleId: "T", CommandId: run,
			}))
		})
	}
	wg.Wait()
	if failed := slices.DeleteFunc(errs, func(err error) bool { return err == nil }); len(failed) > 0 {
		return []string{fmt.Sprintf("%s: %d of %d customers are not served: %v",
			run, len(failed), customers, failed[0])}
	}
	return nil
}

// notResponding returns what the gateway's status of the cluster says of members that do not respond, and of shards.
func (c *crew) notResponding() (faults []string) {
	res, err := admin(c.g).GetCluster(c.t.Context(), connect.NewRequest(&licensedv1.GetClusterRequest{}))
	if err != nil {
		return []string{err.Error()}
	}
	s := res.Msg.Cluster
	for _, n := range s.Nodes {
		if n.State != licensedv1.NodeState_NODE_STATE_READY {
			faults = append(faults, fmt.Sprintf("%s is %v: %s", n.Name, n.State, n.Reason))
		}
	}
	if s.NodesRunning != 2 || s.NodesExpected != 2 || s.ShardsServed != s.Shards {
		faults = append(faults, fmt.Sprintf("%d of %d nodes running, %d of %d shards served: %v",
			s.NodesRunning, s.NodesExpected, s.ShardsServed, s.Shards, s.Warnings))
	}
	return faults
}

// forger of what a process hears.
func (c *crew) forger(victim *node.Node) *forge.Forger {
	c.t.Helper()
	f, err := forge.New(victim.Gossip(), "licensed")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = f.Close() })
	return f
}

// held returns the incarnations of the nodes of the crew, in order.
func (c *crew) held() []persistence.Incarnation {
	c.t.Helper()
	var all []persistence.Incarnation
	for _, l := range c.leases() {
		if !l.Dead {
			all = append(all, l.Incarnation)
		}
	}
	slices.SortFunc(all, func(a, b persistence.Incarnation) int { return bytes.Compare(a[:], b[:]) })
	return all
}

func (c *crew) leases() []persistence.Lease {
	c.t.Helper()
	leases, err := c.store.Leases(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return leases
}

// TestTwoClustersOneName: two clusters of the default name, on two stores, one of which is told to join the other.
// Both continue to serve, and say once who the other is.
func TestTwoClustersOneName(t *testing.T) {
	prod, staging := newCrew(t, 5*time.Second), newCrew(t, 5*time.Second)
	prod.begin("p")
	// a typo, or an address that was given to another machine
	staging.join = []string{prod.g.Gossip(), prod.n1.Gossip()}
	staging.begin("s")
	for _, c := range []*crew{prod, staging} {
		until(func() bool { return strings.Contains(c.log.String(), "process of another cluster") })
		c.serves("while they are joined")
	}
	for _, c := range []*crew{prod, staging} {
		if leases := c.leases(); len(leases) != 2 {
			t.Errorf("leases: %+v", leases)
		}
		if nodes := status(t, admin(c.g)).Nodes; len(nodes) != 3 {
			t.Errorf("members: %v", nodes)
		}
	}
	for _, n := range []*node.Node{staging.n1, staging.n2, staging.g} {
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}
	prod.serves("after the other is gone")
	for name, n := range map[string]int{
		"prod":    countLines(prod.log, "process of another cluster"),
		"staging": countLines(staging.log, "process of another cluster"),
	} {
		if n > 3 { // once by each process
			t.Errorf("%s logged the other cluster %d times", name, n)
		}
	}
}

func countLines(l *harness.Log, text string) int { return strings.Count(l.String(), text) }

// TestForgedDeath: a single packet to a gateway says that all nodes are dead. Nobody notices.
func TestForgedDeath(t *testing.T) {
	c := newCrew(t, 5*time.Second).begin("n")
	for _, victim := range []*node.Node{c.g, c.n1, c.n2} {
		f := c.forger(victim)
		if err := f.Dead(append(c.held(), persistence.NewIncarnation())...); err != nil {
			t.Fatal(err)
		}
	}
	c.serves("after the packet")
	for _, l := range c.leases() {
		if l.Dead || l.Counter == 0 {
			t.Errorf("lease %+v", l)
		}
	}
}

// TestForgedAlive: a packet with the highest incarnation of memberlist's says that a member is another process, which
// nobody runs, another that it has no lease. Requests go to the holder of the lease, at the address in the lease.
func TestForgedAlive(t *testing.T) {
	c := newCrew(t, 5*time.Second).begin("n")
	f := c.forger(c.g)
	for _, victim := range []string{"n1", "n2"} {
		meta := proto.CloneOf(c.g.Gossiped(victim))
		meta.NodeAddress = "127.0.2.1:9"
		if victim == "n2" {
			i := persistence.NewIncarnation()
			meta.Incarnation = i[:]
		}
		if err := f.Alive(
			forge.Alive{Name: c.g.GossipID(victim), Gossip: c.g.GossipAddress(victim), Meta: meta},
		); err != nil {
			t.Fatal(err)
		}
		until(func() bool { m := c.g.Gossiped(victim); return m == nil || m.NodeAddress == "127.0.2.1:9" })
	}
	// So does one that nobody knows, and that would get shards.
	stranger := proto.CloneOf(c.g.Gossiped("n1"))
	i := persistence.NewIncarnation()
	stranger.Incarnation, stranger.NodeAddress, stranger.Capacity = i[:], "127.0.2.1:9", 1000
	for _, victim := range []*node.Node{c.g, c.n1, c.n2} {
		if err := c.forger(victim).Alive(forge.Alive{Name: "n3", Gossip: "127.0.2.1:7", Meta: stranger}); err != nil {
			t.Fatal(err)
		}
	}
	until(func() bool { return c.n1.Gossiped("n3") != nil && c.g.Gossiped("n3") != nil })
	c.serves("after the packets")
	c.noFalseVotes()
	if s := status(t, admin(c.g)); slices.ContainsFunc(s.Nodes,
		func(n *licensedv1.NodeStatus) bool { return n.Name == "n3" }) {
		t.Errorf("the stranger is a node: %v", s.Nodes)
	}
}

// TestForgedGateways: gateways that forged messages invent are not reported once gossip has dropped them: one at an
// address where nobody answers, and one at the address of a node. A gateway that existed is.
func TestForgedGateways(t *testing.T) {
	c := newCrew(t, 5*time.Second).begin("n")
	const nowhere, alias = "nowhere", "alias"
	crew := []*node.Node{c.g, c.n1, c.n2}
	for name, address := range map[string]string{nowhere: "127.0.2.1:9", alias: c.n1.NodeAddress()} {
		meta := proto.CloneOf(c.n1.Gossiped("ng"))
		meta.NodeAddress = address
		for _, victim := range crew {
			if err := c.forger(victim).Alive(forge.Alive{Name: name, Gossip: "127.0.2.1:7", Meta: meta}); err != nil {
				t.Fatal(err)
			}
		}
	}
	shown := func(name string) bool {
		return slices.ContainsFunc(status(t, admin(c.g)).Nodes, func(n *licensedv1.NodeStatus) bool {
			return n.Name == name
		})
	}
	until(func() bool { return shown(nowhere) && shown(alias) })
	real := c.start("ng2", node.RoleGateway)
	until(func() bool { // A reading has its answer.
		return slices.ContainsFunc(status(t, admin(c.g)).Nodes, func(n *licensedv1.NodeStatus) bool {
			return n.Name == "ng2" && n.State == licensedv1.NodeState_NODE_STATE_READY
		})
	})
	real.Crash()
	for _, n := range crew {
		until(func() bool { return n.Gossiped(nowhere) == nil && n.Gossiped(alias) == nil && n.Gossiped("ng2") == nil })
	}
	until(func() bool { return !shown(nowhere) && !shown(alias) })
	until(func() bool {
		return slices.ContainsFunc(status(t, admin(c.g)).Warnings, func(w *licensedv1.ClusterWarning) bool {
			return strings.HasPrefix(w.Text, "Gateway ng2 not responding since")
		})
	})
}

// TestForgedClocks: five members that are none have wrong clocks. Nobody gives up shards for it.
func TestForgedClocks(t *testing.T) {
	c := newCrew(t, 5*time.Second).begin("n")
	metas := map[string]*clusterv1.Meta{}
	for k := range 5 {
		meta := proto.CloneOf(c.g.Gossiped("n1")) // its incarnation too
		if k%2 == 0 {
			i := persistence.NewIncarnation()
			meta.Incarnation = i[:]
		}
		metas[fmt.Sprint("n1@0000000", k)] = meta
	}
	stop, err := c.forger(c.n1).Clocks(t.Context(), "127.0.0.1", time.Hour, metas)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stop() }()
	for _, n := range []*node.Node{c.n1, c.n2} {
		until(func() bool { return n.Clocks() >= 5 }) // All were asked.
		if ahead := n.ClockAhead(); ahead.Abs() > 500*time.Millisecond {
			t.Errorf("a node takes its clock to be %v ahead", ahead)
		}
	}
	c.serves("with wrong clocks around")
	c.noFalseVotes()
	if n := countLines(c.log, "wall clock"); n != 0 {
		t.Error("a node doubts its clock")
	}
	for _, n := range []string{"n1", "n2"} {
		if c.g.Gossiped(n).ClockWrong {
			t.Errorf("%s doubts its clock", n)
		}
	}
}

// TestForgedRows: rows at epochs that no cluster reaches stall nobody, and rows ahead of the store's are forgotten.
func TestForgedRows(t *testing.T) {
	c := newCrew(t, 2500*time.Millisecond).begin("n")
	held := c.held()
	for _, epoch := range []uint64{1<<64 - 1, persistence.MaxEpoch - 1, 1000} {
		var rows []persistence.Shard
		for id := range uint32(32) {
			row := persistence.Shard{ID: id, Epoch: epoch, Owner: persistence.NewIncarnation()}
			switch id % 3 {
			case 0:
				row.Owner = held[id/3%2]
			case 1:
				row.Owner, row.Successor = persistence.Incarnation{}, held[id/3%2]
			}
			rows = append(rows, row)
		}
		forgers := []*forge.Forger{c.forger(c.g), c.forger(c.n1), c.forger(c.n2)}
		c.undisturbed(func() (faults []string) {
			began := time.Now()
			faults = c.serve(fmt.Sprint("before epoch ", epoch))
			usual := time.Since(began)
			for _, f := range forgers {
				if err := f.Rows(rows...); err != nil {
					return []string{err.Error()}
				}
			}
			began = time.Now()
			faults = append(faults, c.serve(fmt.Sprint("at epoch ", epoch))...)
			took := time.Since(began).Round(time.Millisecond)
			t.Logf("epoch %d: served in %v, in %v before", epoch, took, usual)
			if took > max(4*time.Second, 10*usual) { // On a busy machine all takes long.
				faults = append(faults, fmt.Sprintf("epoch %d: customers waited %v, %v before", epoch, took, usual))
			}
			return faults
		})
	}
	until(func() bool { // Each hint expires.
		for _, row := range c.g.Rows() {
			if row.Epoch >= 1000 {
				return false
			}
		}
		return true
	})
	c.noFalseVotes()
	shards, err := c.store.Shards(t.Context())
	if err != nil || slices.ContainsFunc(shards, func(s persistence.Shard) bool { return s.Epoch > 100 }) {
		t.Errorf("shards %v, %v", shards, err)
	}
}

// TestStatusUnderForgedRows: packets that say five times a second that strangers own all shards, at ever higher epochs,
// change neither the status of the cluster nor what is logged of unserved shards. A real failure still shows, and so
// does the take-over after it.
func TestStatusUnderForgedRows(t *testing.T) {
	c := newCrew(t, 2500*time.Millisecond).begin("n")
	ctx, cancel := context.WithCancel(t.Context())
	var forging sync.WaitGroup
	defer forging.Wait()
	defer cancel()
	forgers := []*forge.Forger{c.forger(c.g), c.forger(c.n1), c.forger(c.n2)}
	forging.Go(func() {
		for epoch := uint64(1000); ctx.Err() == nil; epoch += 10 {
			var rows []persistence.Shard
			for id := range uint32(32) {
				rows = append(rows, persistence.Shard{ID: id, Epoch: epoch, Owner: persistence.NewIncarnation()})
			}
			for _, f := range forgers {
				_ = f.Rows(rows...)
			}
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	until(func() bool { // The packets arrive.
		return slices.ContainsFunc(c.g.Rows(), func(row persistence.Shard) bool { return row.Epoch >= 1000 })
	})
	c.undisturbed(func() (faults []string) {
		before := countLines(c.log, "shards unserved")
		end := time.Now().Add(3 * time.Second) // some looks of the watch
		for ; time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
			faults = append(faults, c.notResponding()...)
		}
		if n := countLines(c.log, "shards unserved") - before; n > 0 {
			faults = append(faults, fmt.Sprintf("unserved shards were logged %d times", n))
		}
		return append(faults, c.serve("meanwhile")...)
	})
	c.noFalseVotes()

	c.n1.Crash()
	until(func() bool { s := status(t, admin(c.g)); return s.ShardsServed < s.Shards }) // not served, or not confirmed
	until(func() bool { s := status(t, admin(c.g)); return s.ShardsServed == s.Shards })
}

// TestHiddenMembers: each process sees nobody else in gossip for two TTLs, as after forged departures. All continue:
// gateways route by the leases of the owners, and so do pings, so nobody votes and no shard moves. The status of the
// cluster calls nobody "not responding".
func TestHiddenMembers(t *testing.T) {
	const ttl = 2500 * time.Millisecond
	c := newCrew(t, ttl).begin("n")
	before, err := c.store.Shards(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := map[*node.Node]int{c.g: 2, c.n1: 1, c.n2: 1}
	for n, want := range want { // All have read who owns shards.
		until(func() bool { n.HideMembers(); return n.Pinged() == want })
	}
	c.undisturbed(func() (faults []string) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*ttl)
		defer cancel()
		var mu sync.Mutex
		fault := func(text string) {
			mu.Lock()
			defer mu.Unlock()
			faults = append(faults, text)
		}
		var hiding sync.WaitGroup
		for _, n := range []*node.Node{c.g, c.n1, c.n2} {
			hiding.Go(func() {
				for ctx.Err() == nil {
					n.HideMembers()
					if p := n.Pinged(); p != want[n] {
						fault(fmt.Sprintf("%d nodes are pinged, want %d", p, want[n]))
					}
					select {
					case <-ctx.Done():
					case <-time.After(10 * time.Millisecond):
					}
				}
			})
		}
		for run := 0; ctx.Err() == nil; run++ {
			for _, text := range append(c.serve(fmt.Sprint("hidden ", run)), c.notResponding()...) {
				fault(text)
			}
		}
		hiding.Wait()
		after, err := c.store.Shards(t.Context())
		if err != nil || !slices.Equal(before, after) {
			fault(fmt.Sprintf("shards moved: %v, %v", after, err))
		}
		before = after
		return faults
	})
	c.noFalseVotes()
}

// TestSameNameTwice: a second process of the same name does not become ready, and says where the first one is. The
// first one notices nothing. The TTL is long: a busy machine that lets a lease end gives the name away.
func TestSameNameTwice(t *testing.T) {
	c := newCrew(t, 10*time.Second).begin("n")
	address := c.g.Gossiped("n1").NodeAddress
	_, err := node.Start(t.Context(), c.config("n1", node.RoleNode))
	if !errors.Is(err, node.ErrNameTaken) || !strings.Contains(err.Error(), address) {
		t.Errorf("a second n1: %v, want one that names %s", err, address)
	}
	_, err = node.Start(t.Context(), c.config("ng", node.RoleGateway))
	if gateway := c.n1.Gossiped("ng").NodeAddress; !errors.Is(err, node.ErrNameTaken) ||
		!strings.Contains(err.Error(), gateway) {
		t.Errorf("a second ng: %v, want one that names %s", err, gateway)
	}
	c.serves("afterwards")
	until(func() bool { return len(c.held()) == 2 }) // It gave its lease up.
}

// TestSameNameBeforeGossip: a gateway that finds the nodes by their leases, before gossip has reached anybody, waits
// for gossip to find another process of its name.
func TestSameNameBeforeGossip(t *testing.T) {
	c := newCrew(t, 10*time.Second).begin("n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	later := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	config := c.config("ng", node.RoleGateway)
	config.Cluster.Join = []string{later}
	started := make(chan error)
	go func() {
		second, err := node.Start(t.Context(), config)
		if err == nil {
			err = errors.Join(errors.New("it became ready"), second.Stop(context.Background()))
		}
		started <- err
	}()
	until(func() bool { return c.n1.ReachedBy() == 3 }) // n2, the first gateway, and the second one
	with := c.with
	c.with = func(config *node.Config) { with(config); config.Cluster.Bind = later }
	c.start("n3", node.RoleNode)
	address := c.n1.Gossiped("ng").NodeAddress
	if err := <-started; !errors.Is(err, node.ErrNameTaken) || !strings.Contains(err.Error(), address) {
		t.Errorf("a second ng: %v, want an error that names %s", err, address)
	}
}

// TestRestartElsewhere: a node that crashed comes back at another address, at once. That is no conflict.
func TestRestartElsewhere(t *testing.T) {
	c := newCrew(t, 2500*time.Millisecond).begin("n")
	before := c.g.Gossiped("n1").NodeAddress
	c.n1.Crash()
	again := c.start("n1", node.RoleNode)
	settle(t, admin(c.g), "n1", "n2")
	c.serves("afterwards")
	until(func() bool { m := c.g.Gossiped("n1"); return m != nil && m.NodeAddress != before })
	if again.Gossip() == c.n1.Gossip() {
		t.Errorf("it came back at %s", again.Gossip())
	}
	if text := strings.ToLower(c.log.String()); strings.Contains(text, "conflict") ||
		strings.Contains(text, "is taken") {
		t.Error("a conflict was logged")
	}
}

// TestStoreWithoutID: a cluster that an earlier release created gets an id, the same for all.
func TestStoreWithoutID(t *testing.T) {
	store := memory.New()
	a, err := store.CreateCluster(t.Context(), persistence.ClusterInfo{Name: "licensed", Shards: 32})
	b, err2 := store.CreateCluster(t.Context(), persistence.ClusterInfo{Name: "licensed", Shards: 32})
	if err != nil || err2 != nil || a != b || a.ID.IsZero() {
		t.Errorf("%+v, %+v, %v, %v", a, b, err, err2)
	}
}
