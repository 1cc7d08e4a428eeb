package deploy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"licensed/internal/failpoint"
	"licensed/test/chaos/fault"
	"licensed/test/chaos/network"
	"licensed/test/chaos/process"
)

// Size of a cluster.
type Size struct {
	Nodes, Gateways, Cassandra int
	// Spares are further nodes, which faults let join and leave.
	Spares int
}

// Cluster is nodes, gateways and Cassandra on this machine.
type Cluster struct {
	options Options
	tree    string
	size    Size

	cages    *cages           // nil where the machine allows none
	network  *network.Network // nil where the machine allows none
	prefix   string           // of addresses
	places   []place
	ring     ring
	nodes    []*server
	spares   []*server
	gateways []*server
	intruder *intruder
	store    string
	notes    []string
	cancel   context.CancelFunc
}

// NewCluster prepares a cluster. The tree is that of the sources, for scripts/cassandra.sh.
func NewCluster(o Options, tree string, s Size) (*Cluster, error) {
	c := &Cluster{options: o, tree: tree, size: s}
	if err := errors.Join(
		writeFile(filepath.Join(o.Dir, "policy.yaml"), o.Policy), os.MkdirAll(filepath.Join(o.Dir, "sockets"), 0o755),
	); err != nil {
		return nil, err
	}
	var err error
	if c.network, err = network.New(); err != nil {
		c.notes = append(c.notes, fmt.Sprintf("no faults of the network: %v", err))
		c.prefix = freePrefix()
	} else {
		c.prefix = c.network.Prefix()
	}
	if c.cages, err = findCages(); err != nil {
		c.notes = append(c.notes, fmt.Sprintf("no memory pressure: %v", err))
	}
	return c, c.plan()
}

// freePrefix returns the first three bytes of loopback addresses that nobody uses.
func freePrefix() string {
	for {
		prefix := fmt.Sprintf("127.%d.%d", 1+rand.IntN(254), rand.IntN(256))
		l, err := net.Listen("tcp", prefix+".1:"+cassandraPort)
		if err == nil && l.Close() == nil {
			return prefix
		}
	}
}

// plan gives every member its place.
func (c *Cluster) plan() error {
	for i := range c.size.Cassandra {
		name := fmt.Sprintf("c%d", i+1)
		address, start, err := c.place(name, Store)
		if err != nil {
			return err
		}
		dir := filepath.Join(c.options.Dir, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		last := address[strings.LastIndexByte(address, '.')+1:]
		c.ring.nodes = append(c.ring.nodes, &cassandra{
			name:    name,
			address: address,
			dir:     dir,
			start:   start,
			script:  filepath.Join(c.tree, "scripts", "cassandra.sh"),
			env: []string{
				"DIR=" + dir, "NET=" + c.prefix, "FIRST=" + last, "SEED=" + c.prefix + ".1", "HEAP=512M",
				"PORT=" + cassandraPort, "SYNC=group", "WAIT=240",
			},
		})
	}
	copies := min(c.size.Cassandra, 3)
	c.store = "cassandra://" + strings.Join(c.ring.addresses(), ",") + "/licensed?"
	if copies == 1 {
		c.store += "accept_risk=replication-1"
	}
	for i := range c.size.Nodes + c.size.Spares {
		s, err := c.member(fmt.Sprintf("n%d", i+1), Node)
		if err != nil {
			return err
		}
		if i < c.size.Nodes {
			c.nodes = append(c.nodes, s)
		} else {
			c.spares = append(c.spares, s)
		}
	}
	for i := range c.size.Gateways {
		s, err := c.member(fmt.Sprintf("g%d", i+1), Gateway)
		if err != nil {
			return err
		}
		c.gateways = append(c.gateways, s)
	}
	if c.network == nil {
		c.intruder = &intruder{address: fmt.Sprintf("%s.%d", c.prefix, len(c.places)+1)}
		return nil
	}
	p, err := c.network.Add("intruder")
	if err == nil {
		c.intruder = &intruder{address: p.Address(), port: p}
	}
	return err
}

// place gives a member an address and a way to start commands there.
func (c *Cluster) place(name string, role Role) (address string, start func(*exec.Cmd) error, err error) {
	if c.network == nil {
		c.places = append(c.places, place{name: name, role: role})
		return fmt.Sprintf("%s.%d", c.prefix, len(c.places)), (*exec.Cmd).Start, nil
	}
	p, err := c.network.Add(name)
	if err != nil {
		return "", nil, err
	}
	c.places = append(c.places, place{name: name, role: role, port: p})
	return p.Address(), p.Start, nil
}

// member prepares a process of licensed.
func (c *Cluster) member(name string, role Role) (*server, error) {
	address, start, err := c.place(name, role)
	if err != nil {
		return nil, err
	}
	m := Member{Name: name, Role: role, Admin: "http://" + address + ":8081"}
	args := []string{
		string(role), "--name", name, "--host", address, "--admin", address + ":8081", "--store", c.store, "--join",
		c.seeds(),
		"--shards", fmt.Sprint(shardCount),
	}
	policy := filepath.Join(c.options.Dir, "policy.yaml")
	if role == Gateway {
		m.API = "http://" + address + ":8080"
		args = append(args, "--listen", address+":8080", "--max-deadline", maxDeadline, "--policy", policy,
			"--log-format", "text")
		if c.options.GatewayFlags != nil {
			args = append(args, c.options.GatewayFlags(name)...)
		}
	} else if c.options.Ordinary {
		args = append(args, "--log-format", "text", "--policy", policy, "--lease-ttl", c.options.TTL.String())
	} else {
		args = append(args, append(shared(policy), "--lease-ttl", c.options.TTL.String())...)
	}
	return newServer(m, process.Spec{
		Name: name, Path: c.options.Binary, Args: args, Log: filepath.Join(c.options.Dir, name+".log"), Start: start,
		// Nobody else is in its network. A variable, since former releases do not know the flag.
		Env: []string{"LICENSED_ACCEPT_RISK=open-api,open-admin,open-node,open-callers,open-gossip"},
	}, filepath.Join(c.options.Dir, "sockets", name), c.options.Accident), nil
}

// seeds are the addresses of the first nodes: those after Cassandra's.
func (c *Cluster) seeds() string {
	var s []string
	for i := range c.size.Nodes {
		s = append(s, fmt.Sprintf("%s.%d", c.prefix, c.size.Cassandra+i+1))
	}
	return strings.Join(s, ",")
}

func (c *Cluster) servers() []*server {
	return append(append(append([]*server{}, c.nodes...), c.spares...), c.gateways...)
}

// Start implements Deployment.
func (c *Cluster) Start(ctx context.Context) error {
	if err := c.ring.up(ctx); err != nil {
		return err
	}
	schema := exec.CommandContext(ctx, c.options.Binary, "schema", "apply", "--create-keyspace",
		fmt.Sprint(min(c.size.Cassandra, 3)), "--store", c.store)
	if out, err := schema.CombinedOutput(); err != nil {
		return fmt.Errorf("schema apply: %w\n%s", err, out)
	}
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go watch(background, c.servers())
	for _, s := range append(append([]*server{}, c.nodes...), c.gateways...) {
		if err := s.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stop implements Deployment.
func (c *Cluster) Stop(ctx context.Context) error {
	if c.cancel != nil {
		c.cancel()
	}
	var errs []error
	for _, s := range append(append(append([]*server{}, c.gateways...), c.spares...), c.nodes...) {
		errs = append(errs, s.Kill())
	}
	errs = append(errs, c.ring.down(ctx))
	if c.network != nil {
		errs = append(errs, c.network.Close())
	}
	return errors.Join(errs...)
}

// Gateways implements Deployment.
func (c *Cluster) Gateways() (urls []string) {
	for _, s := range c.gateways {
		urls = append(urls, s.API)
	}
	return urls
}

// Members implements Deployment.
func (c *Cluster) Members() (all []Member) {
	for _, s := range append(append([]*server{}, c.nodes...), c.gateways...) {
		all = append(all, s.Member)
	}
	return all
}

// Notes implements Deployment.
func (c *Cluster) Notes() []string { return c.notes }

// Coverage implements Deployment.
func (c *Cluster) Coverage() map[string]Point {
	for _, s := range c.servers() {
		s.look(context.Background())
	}
	return coverage(c.servers())
}

// KillStore kills all of Cassandra, and ReviveStore starts it again.
func (c *Cluster) KillStore(ctx context.Context) error { return c.ring.kill(ctx) }

// ReviveStore returns when each node of Cassandra accepts clients.
func (c *Cluster) ReviveStore(ctx context.Context) error { return c.ring.revive(ctx) }

// KillGateway kills a gateway, by its number from 0.
func (c *Cluster) KillGateway(_ context.Context, i int) error { return c.gateways[i].Kill() }

// ReviveGateway starts it again, and returns when it is ready: it may wait for the store.
func (c *Cluster) ReviveGateway(ctx context.Context, i int) error { return c.gateways[i].Restart(ctx) }

// Kinds implements Deployment.
func (c *Cluster) Kinds() []fault.Kind {
	ttl := c.options.TTL
	nodes, gateways := processes(c.nodes), processes(c.gateways)
	kinds := []fault.Kind{
		killKind(Node, nodes, ttl), pauseKind(Node, nodes, ttl), starveKind(Node, nodes, ttl), restartKind(Node, nodes),
		killKind(Gateway, gateways, ttl), pauseKind(Gateway, gateways, ttl), restartKind(Gateway, gateways),
		clockKind(c.nodes, ttl), gatewayClockKind(c.gateways, ttl), slowKind(c.nodes, ttl),
		crashKind(c.nodes, failpoint.Points(), ttl),
	}
	kinds = append(kinds, hostileKind(c.intruder, c.gateways, c.everything(), ttl),
		damageKind(c.victims(), "snapshots", ttl, c.damage))
	for _, what := range c.forgeries() {
		kinds = append(kinds, forgedKind(c.intruder, append(append([]*server{}, c.nodes...), c.gateways...), what, ttl))
	}
	if c.cages != nil {
		kinds = append(kinds, memoryKind(c.cages, c.nodes, ttl))
	}
	if len(c.spares) > 0 {
		kinds = append(kinds, scaleKind(processes(c.spares), ttl))
	}
	kinds = append(kinds, c.ring.kinds(ttl)...)
	if c.network != nil {
		kinds = append(kinds, linkKinds(c.network, c.places, ttl)...)
		if len(c.nodes) > 1 && len(c.gateways) > 0 {
			kinds = append(kinds, c.nodePortKind())
		}
	}
	return kinds
}

func processes(ss []*server) (ps []*process.Process) {
	for _, s := range ss {
		ps = append(ps, s.Process)
	}
	return ps
}
