// Package reach finds out which processes of a cluster reach which nodes.
//
// # The model
//
// Gossip, the store and the port for requests are three networks, and each can fail alone. A node that the store and
// gossip reach but requests do not must not hold shards. So every process, node or gateway, pings the nodes that may
// hold some, through the port for requests: those that gossip shows, and those that own shards though gossip does not
// show them. Only a node with a live lease is pinged and voted against, at the address in the lease: no forged gossip
// adds a vote, and a process has at most as many votes as there are live leases.
//
// What a [Prober] finds goes two ways. The node hears of a ping that arrives: it counts the processes that reach it
// now ([Prober.Reached]). A node that answered none for a while is voted against in the store (persistence.Votes); the
// vote is renewed until the node answers, and then withdrawn. What the node makes of both is decided by package
// ownership. Votes are in the store and not in gossip, so that nobody who can only forge gossip can drain a node.
//
// In a large cluster a node is pinged by some of the others only, the same ones in the view of all.
package reach

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"licensed/actors"
	"licensed/cluster/placement"
	"licensed/persistence"
)

// Config of a prober. DefaultConfig gives all but Process, Name, Ping and Votes.
type Config struct {
	// Process identifies this run of the process, Name is its name as a member.
	Process persistence.Incarnation
	Name    string
	// Ping returns nil if a member answers at an address.
	Ping func(ctx context.Context, address, member string) error
	// Votes are in the store.
	Votes persistence.Votes
	// Live reports whether the store shows a live lease of an incarnation, as last read, and has the lease read again
	// soon. It is called after a failed ping; a node without a live lease is not voted against. It must not block.
	// Nil: all have one.
	Live func(persistence.Incarnation) bool
	// Every is the time between two pings of a node (default 500 ms), Timeout how long an answer may take (default
	// 1 s).
	Every, Timeout time.Duration
	// Patience is the time a node must not have answered before it is voted against, and how long a ping that arrived
	// counts (default 2.5 s, the TTL of leases). Votes are renewed that often. Less: the customers of a node that is
	// cut off are served sooner by another, and a stall moves shards more easily.
	Patience time.Duration
	// Witnesses is the number of processes ping one node, at most (default 16).
	Witnesses int
	// Listener hears what happens.
	Listener Listener
	// Log takes what an operator should know (default slog.Default).
	Log *slog.Logger
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Every: 500 * time.Millisecond, Timeout: time.Second, Patience: 2500 * time.Millisecond, Witnesses: 16,
		Log: slog.Default(),
	}
}

// Listener hears what happens. The functions must be quick and safe for concurrent use. Those that are nil are not
// called.
type Listener struct {
	// Changed is called when Reached may have changed.
	Changed func()
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Changed == nil {
		l.Changed = func() {}
	}
	return l
}

// Node may hold shards. It has a live lease.
type Node struct {
	// Name as a member.
	Name        string
	Incarnation persistence.Incarnation
	// Address of its port for requests.
	Address string
}

// Prober pings nodes and votes against those that do not answer. It is safe for concurrent use.
type Prober struct {
	config  Config
	context context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	targets map[persistence.Incarnation]*target
	heard   map[persistence.Incarnation]time.Time // when each process last reached this one
}

// target is a node that is pinged.
type target struct {
	Node
	cancel context.CancelFunc
}

// Start returns a prober that pings nobody yet. Close it after use.
func Start(c Config) *Prober {
	c.Listener = c.Listener.withDefaults()
	p := &Prober{
		config: c, targets: map[persistence.Incarnation]*target{}, heard: map[persistence.Incarnation]time.Time{},
	}
	p.context, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends all pings, and withdraws the votes for a moment at most.
func (p *Prober) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.running.Wait()
}

// Heard records that a process reached this one.
func (p *Prober) Heard(process persistence.Incarnation, _ string) {
	if process == p.config.Process || process.IsZero() {
		return
	}
	p.mu.Lock()
	_, known := p.heard[process]
	if known || len(p.heard) < maxHeard {
		p.heard[process] = time.Now()
	}
	p.mu.Unlock()
	if !known {
		p.config.Listener.Changed()
	}
}

// maxHeard bounds the processes that are remembered; pings come from any process that can connect.
const maxHeard = 1024

// Reached returns the processes that reached this one lately, in no order.
func (p *Prober) Reached() []persistence.Incarnation {
	p.mu.Lock()
	defer p.mu.Unlock()
	var now []persistence.Incarnation
	for process, at := range p.heard {
		if time.Since(at) > p.config.Patience {
			delete(p.heard, process)
			continue
		}
		now = append(now, process)
	}
	return now
}

// Expected returns the number of those among this many other members, all of which ping nodes, are expected to ping
// one.
func (p *Prober) Expected(others int) int { return min(others, p.config.Witnesses) }

// SetNodes says which other nodes may hold shards, and the names of all members that ping, this one among them. The
// votes against nodes that are not listed any more are withdrawn.
func (p *Prober) SetNodes(nodes []Node, members []string) {
	wanted := map[persistence.Incarnation]Node{}
	for _, n := range p.chosen(nodes, members) {
		if !n.Incarnation.IsZero() && n.Address != "" {
			wanted[n.Incarnation] = n
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.targets {
		if n, ok := wanted[i]; !ok || n != t.Node {
			t.cancel()
			delete(p.targets, i)
		}
	}
	if p.closed {
		return
	}
	for i, n := range wanted {
		if p.targets[i] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(p.context)
		p.targets[i] = &target{n, cancel}
		p.running.Go(func() { p.watch(ctx, n) })
	}
}

// Nodes returns the number of nodes that are pinged: at most as many votes may be cast.
func (p *Prober) Nodes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.targets)
}

// chosen returns the nodes that this process is to ping.
func (p *Prober) chosen(nodes []Node, members []string) []Node {
	if len(members) <= p.config.Witnesses+1 {
		return nodes
	}
	all := make([]placement.Node, len(members))
	for k, m := range members {
		all[k].Name = m
	}
	among := placement.New(all)
	return slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool {
		return !among.Among(p.config.Name, binary.BigEndian.Uint64(n.Incarnation[:]), p.config.Witnesses)
	})
}

// watch pings a node until ctx ends.
func (p *Prober) watch(ctx context.Context, n Node) {
	v := vote{prober: p, Vote: persistence.Vote{Accused: n.Incarnation, Voter: p.config.Process, Name: p.config.Name}}
	defer v.withdraw()
	answered, failed := time.Now(), 0 // it has as long as if it had
	for {
		err := p.ping(ctx, n)
		switch failed++; {
		case ctx.Err() != nil:
			return
		case err == nil:
			answered, failed = time.Now(), 0
			v.withdraw()
		case errors.Is(err, actors.ErrOverloaded): // this says nothing
			failed--
		case p.config.Live != nil && !p.config.Live(n.Incarnation):
			v.withdraw()
		case failed > 1 && time.Since(answered) >= p.config.Patience: // one failure may be this process's pause
			v.renew(ctx, n, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(p.config.Every/2 + rand.N(p.config.Every)):
		}
	}
}

func (p *Prober) ping(ctx context.Context, n Node) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	return p.config.Ping(ctx, n.Address, n.Name)
}

// vote is one that may have been cast.
type vote struct {
	persistence.Vote
	prober *Prober
	cast   bool // an attempt was made
	at     time.Time
}

// renew writes the vote if that is due. One that could not be written is tried again with the next ping.
func (v *vote) renew(ctx context.Context, n Node, cause error) {
	p := v.prober
	if v.cast && time.Since(v.at) < p.config.Patience {
		return
	}
	if !v.cast {
		p.config.Log.Warn("node found unreachable, voting against it", "node", n.Name, "incarnation", n.Incarnation,
			"address", n.Address, "error", cause)
	}
	v.cast = true
	v.Beat++
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	if err := p.config.Votes.PutVote(ctx, v.Vote); err != nil {
		p.config.Log.Debug("vote not written", "incarnation", n.Incarnation, "error", err)
		return
	}
	v.at = time.Now()
}

// withdraw deletes the vote if there may be one. One that could not be deleted is not renewed, and expires.
func (v *vote) withdraw() {
	if !v.cast {
		return
	}
	p := v.prober
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.context), p.config.Timeout)
	defer cancel()
	if err := p.config.Votes.WithdrawVote(ctx, v.Accused, v.Voter); err != nil {
		p.config.Log.Debug("vote not withdrawn", "incarnation", v.Accused, "error", err)
		return
	}
	v.cast, v.at = false, time.Time{}
	p.config.Log.Info("vote withdrawn", "incarnation", v.Accused)
}
