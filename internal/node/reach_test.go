package node_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/cluster"
	"licensed/internal/node"
	"licensed/messages/licensedv1"
)

// newReachable is a cluster with leases that end soon and few slots for requests.
func newReachable(t *testing.T) *company {
	c := newCompany(t)
	c.with = func(config *node.Config) {
		config.Cluster.LeaseTTL = 2500 * time.Millisecond
		config.Limits.MaxInFlight, config.Limits.AddressShare = 400, 1
	}
	return c
}

// sweepDeadline is the time a customer waits for an answer.
const sweepDeadline = 5 * time.Second

// sweep asks a gateway for customers at once, and returns the number of answers, and how often each error came.
func sweep(t testing.TB, g *node.Node, customers []string) (answered int, errs map[string]int) {
	errs = map[string]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, id := range customers {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), sweepDeadline)
			defer cancel()
			_, err := client(g).AcquireLicense(ctx, connect.NewRequest(&licensedv1.AcquireLicenseRequest{
				CustomerId: id, DeviceId: "d", TitleId: "T", CommandId: fmt.Sprint("x", rand.Uint64()),
			}))
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answered++
			} else {
				errs[err.Error()]++
			}
		})
	}
	all.Wait()
	return answered, errs
}

func customerIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprint("c", i))
	}
	return ids
}

// gauge returns the line of a metric.
func gauge(t *testing.T, n *node.Node, name string) string {
	_, text := get(t, n.Admin().String(), "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no metric %s", name)
	return ""
}

// wantUnready waits until the readiness check of a node fails for a reason that has these words.
func wantUnready(t *testing.T, n *node.Node, words string) {
	t.Helper()
	until(func() bool {
		code, body := get(t, n.Admin().String(), "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, words)
	})
}

func wantReady(t *testing.T, n *node.Node) {
	t.Helper()
	until(func() bool { code, _ := get(t, n.Admin().String(), "/readyz"); return code == http.StatusOK })
}

// served fails the test unless all customers are answered.
func served(t *testing.T, when string, g *node.Node, customers []string) {
	t.Helper()
	if answered, errs := sweep(t, g, customers); answered != len(customers) {
		t.Errorf("%s: %d of %d customers were answered: %v", when, answered, len(customers), errs)
	}
}

// A node whose node port nobody reaches, as with a wrong --node-advertise, gets no shards and is not ready.
func TestUnreachableNodePort(t *testing.T) {
	for name, advertise := range map[string]func(n1 string) string{
		"nobody's address": func(string) string { return "127.0.2.1:9" },
		"another's":        func(n1 string) string { return n1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := newReachable(t)
			n1 := c.start("n1", node.RoleNode)
			c.start("n2", node.RoleNode)
			g := c.start("g", node.RoleGateway)
			settle(t, admin(g), "n1", "n2")
			served(t, "before", g, customerIDs(90))
			config := c.config("n3", node.RoleNode)
			config.Cluster.NodeAdvertise = advertise(n1.NodeAddress())
			n3 := start(t, config)
			wantUnready(t, n3, "node port")
			served(t, "n3 is there", g, customerIDs(90))
			if err := n1.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
			served(t, "n1 left", g, customerIDs(90))
			settle(t, admin(g), "n2")
			wantUnready(t, n3, "node port")
			if claimed := gauge(t, n3, `licensed_cluster_shard_changes_total{change="claimed"}`); claimed != "0" ||
				gauge(t, n3, "licensed_cluster_reachable") != "0" {
				t.Errorf("n3 took %s shards", claimed)
			}
		})
	}
}

// A node that gossip does not reach takes nothing, whichever member leaves, and is not ready.
func TestGossipIsland(t *testing.T) {
	c := newReachable(t)
	n1 := c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	settle(t, admin(g), "n1", "n2")
	config := c.config("n3", node.RoleNode)
	config.Cluster.Join, config.Cluster.Label = nil, "typo"
	others := scrapers{"n1": scraped(t, n1), "g": scraped(t, g)}
	during := rehearse(t, others, "LicensedMembersDisagree")
	n3 := start(t, config)
	wantUnready(t, n3, "--join")
	during(scrapers{"n1": others["n1"], "g": others["g"], "n3": scraped(t, n3)})
	if err := n1.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	settle(t, admin(g), "n2")
	served(t, "n1 left", g, customerIDs(90))
	c.start("n1", node.RoleNode)
	settle(t, admin(g), "n1", "n2")
	served(t, "n1 is back", g, customerIDs(90))
	if claimed := gauge(t, n3, `licensed_cluster_shard_changes_total{change="claimed"}`); claimed != "0" {
		t.Errorf("n3 took %s shards", claimed)
	}
	wantUnready(t, n3, "--join")
}

// portal forwards connections to a node port, until it is shut. Then it is silent, as a firewall is.
type portal struct {
	net.Listener
	to   string
	shut atomic.Bool
	mu   sync.Mutex
	all  []net.Conn
}

func newPortal(t *testing.T, to string) *portal {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &portal{Listener: l, to: to}
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.all {
			_ = c.Close()
		}
	})
	go p.run()
	return p
}

func (p *portal) run() {
	for {
		from, err := p.Accept()
		if err != nil {
			return
		}
		p.keep(from)
		if p.shut.Load() {
			continue // it is not answered
		}
		to, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = from.Close()
			continue
		}
		p.keep(to)
		go p.copy(to, from)
		go p.copy(from, to)
	}
}

func (p *portal) keep(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, c)
}

// copy drops what comes while the portal is shut, so that a connection of that time is useless afterwards.
func (p *portal) copy(to, from net.Conn) {
	_, _ = io.Copy(writer(func(b []byte) (int, error) {
		if p.shut.Load() {
			return len(b), nil
		}
		return to.Write(b)
	}), from)
	_ = to.Close()
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.1:0", 1+rand.IntN(250), rand.IntN(250)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A node whose node port is cut off from everybody hands its shards over, though it reaches the store and everybody
// else: its customers are served again, on a quiet machine in 10 s, and nobody else's notice. It gets shards again when
// it is reached.
func TestNodePortCut(t *testing.T) {
	c := newReachable(t)
	c.start("n1", node.RoleNode)
	c.start("n2", node.RoleNode)
	g := c.start("g", node.RoleGateway)
	config := c.config("n3", node.RoleNode)
	config.Cluster.NodeListen = freeAddress(t)
	p := newPortal(t, config.Cluster.NodeListen)
	config.Cluster.NodeAdvertise = p.Addr().String()
	n3 := start(t, config)
	settle(t, admin(g), "n1", "n2", "n3")
	wantReady(t, n3)

	var theirs, others []string
	s := status(t, admin(g))
	var incarnation string
	for _, n := range s.Nodes {
		if n.Name == "n3" {
			incarnation = n.Incarnation
		}
	}
	for _, id := range customerIDs(90) {
		if s.ShardMap[cluster.ShardOf(id+":LicenseAggregate", 32)].Owner == incarnation {
			theirs = append(theirs, id)
		} else {
			others = append(others, id)
		}
	}
	began := time.Now()
	served(t, "before", g, customerIDs(90))
	usual := time.Since(began)

	p.shut.Store(true)
	cut := time.Now()
	stopped := make(chan struct{})
	go func() { // more of its customers than may wait for one node
		defer close(stopped)
		sweep(t, g, slices.Repeat(theirs, 12)[:min(330, 12*len(theirs))])
	}()
	for range 5 {
		served(t, "n3 is cut off: the others", g, others)
		time.Sleep(50 * time.Millisecond)
	}
	for _, id := range theirs {
		until(func() bool { answered, _ := sweep(t, g, []string{id}); return answered == 1 })
	}
	took := time.Since(cut)
	t.Logf("its customers were served again after %v; before, all were served in %v", took, usual)
	if took > max(10*time.Second, 20*usual) { // On a busy machine all takes long.
		t.Error("its customers waited too long")
	}
	<-stopped
	wantUnready(t, n3, "cannot be reached by most other processes: g, n1, n2")
	until(func() bool { return gauge(t, n3, "licensed_cluster_shards_held") == "0" })
	served(t, "n3 has handed over", g, customerIDs(90))

	p.shut.Store(false)
	settle(t, admin(g), "n1", "n2", "n3")
	wantReady(t, n3)
	served(t, "n3 is reached again", g, customerIDs(90))
}
