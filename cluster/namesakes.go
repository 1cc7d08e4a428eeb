package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

// ErrNameTaken says that another live process of the cluster has the name of this one.
var ErrNameTaken = errors.New("the name is taken")

// namesakes returns the leases of nodes of this name that are not marked dead: former runs of the node that crashed, or
// other processes that live.
func (n *Node) namesakes(ctx context.Context) ([]persistence.Lease, error) {
	all, err := n.config.Ownership.Leases(ctx)
	if err != nil {
		return nil, fmt.Errorf("find leases of nodes of the same name: %w", err)
	}
	var named []persistence.Lease
	for _, l := range all {
		if l.Node == n.config.Name && !l.Dead {
			named = append(named, l)
		}
	}
	return named, nil
}

// AwaitName returns when no other live process has the name of the node. A node is to be told its members after that.
// It takes a TTL if a former run of the node crashed, two if that one's last renewal was late. It takes up to four if
// another process of the name starts at the same time: one of the two continues. Errors: ErrNameTaken, with the address
// of the other process, and those of the store and of ctx; it may be called again.
func (n *Node) AwaitName(ctx context.Context) error {
	ttl := n.config.Protocol.Timing.TTL
	others := rivals{node: n, admit: func(l persistence.Lease, _ bool) (time.Duration, bool) {
		// This lease was created after the start of this process: its process started at the same time. If both see
		// each other, the one of the greater incarnation gives way first. If that one does not, it has read the leases
		// before this process had one, and continues.
		patience, self := 3*ttl, n.current.Load().id
		if bytes.Compare(self[:], l.Incarnation[:]) > 0 {
			patience = 2 * ttl
		}
		return patience, l.Incarnation != n.first
	}}
	for _, l := range n.named {
		others.add(l, n.namedAt, 0)
	}
	other, err := others.await(ctx)
	if err == nil && other != nil {
		err = taken(*other)
	}
	return err
}

// claimName lets an incarnation that follows another take part if no other live process has the name, and retires it
// otherwise: an orchestrator may have started the node elsewhere while it had no lease.
//
// The other process may be one that starts at this moment: that one gives way as soon as it has seen this lease renewed
// twice. So this one gives way only if the other is still alive some time later. If both follow a former incarnation,
// the one of the greater incarnation gives way first:
//
//	0              TTL/2                    TTL                    3 TTL/2
//	lease acquired one that starts is gone  the greater gives way  the smaller gives way
func (i *incarnation) claimName(own []persistence.Incarnation) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	i.node.background.Go(func() {
		select {
		case <-i.over:
			cancel()
		case <-ctx.Done():
		}
	})
	ttl := i.node.config.Protocol.Timing.TTL
	others := rivals{node: i.node, admit: func(l persistence.Lease, first bool) (time.Duration, bool) {
		patience := 3 * ttl / 2
		if bytes.Compare(i.id[:], l.Incarnation[:]) > 0 {
			patience = ttl
		}
		return patience, first && !slices.Contains(own, l.Incarnation) // One that came later gives way to this one.
	}}
	other, err := others.await(ctx)
	for err != nil {
		if ctx.Err() != nil {
			return
		}
		other, err = others.await(ctx) // The lease ends if the store stays unavailable.
	}
	i.post(input{do: func() {
		if other != nil {
			i.taken = taken(*other)
			i.post(input{Input: ownership.Input{Kind: ownership.InputDrain}})
			return
		}
		i.named.Store(true)
		i.node.happened(Happening{Kind: Began, Incarnation: i.id})
		i.tellMembers()
	}})
}

// rivals are leases of a node's name that may be those of other live processes.
//
// A process is known to be alive once its counter moved twice. One move proves nothing: the last renewal of a process
// that crashed may reach the row late, even after its successor has read it. A second one was sent only after the
// process had heard of the first:
//
//	crashed process    send renewal ── crash
//	its successor                            read ─────────── read   one move
//	row                                           counter moves
//
// A process whose counter stood still for a TTL is dead, or has no lease any more. So each lease is decided within two
// TTLs of its first read, or within a TTL after the time that this process waits before it gives way.
type rivals struct {
	node *Node
	// admit says whether a lease that was not known is that of a rival, and how long this process waits before it
	// gives way to that one. first is set for the leases of the first read.
	admit func(l persistence.Lease, first bool) (patience time.Duration, rival bool)
	known map[persistence.Incarnation]*rival
	read  bool // the leases were read at least once
}

// rival is what reads of a lease have shown. Reads may be slow, so times are measured from the end of one to the
// beginning of another:
//
//	read                      read
//	├────┤ since, moved ─────►├────┤
type rival struct {
	first, last  uint64        // counters
	since, moved lease.Instant // ends of the reads that were the first to show them
	patience     time.Duration
}

// add adds the lease of a rival, with the end of the read that showed it.
func (r *rivals) add(l persistence.Lease, at lease.Instant, patience time.Duration) {
	if r.known == nil {
		r.known = make(map[persistence.Incarnation]*rival)
	}
	r.known[l.Incarnation] = &rival{l.Counter, l.Counter, at, at, patience}
}

// look records what a read from began to ended has shown. It returns the lease of a rival that lives and is given way
// to, or nil, and whether another read is needed.
func (r *rivals) look(leases []persistence.Lease, began, ended lease.Instant) (alive *persistence.Lease, again bool) {
	ttl := r.node.config.Protocol.Timing.TTL
	for k, l := range leases {
		o := r.known[l.Incarnation]
		if o == nil {
			if patience, ok := r.admit(l, !r.read); ok {
				r.add(l, ended, patience)
				again = true
			}
			continue
		}
		if l.Counter > o.last {
			o.last, o.moved = l.Counter, ended
		}
		if o.last >= o.first+2 && began.Sub(o.since) >= o.patience {
			return &leases[k], false
		}
		again = again || began.Sub(o.moved) < ttl
	}
	r.read = true
	return nil, again
}

// await returns the lease of a rival that lives, or nil once none does. Errors: those of the store and of ctx. It may
// be called again after one of the store.
func (r *rivals) await(ctx context.Context) (*persistence.Lease, error) {
	n := r.node
	// A lease is renewed four times a TTL.
	poll := time.NewTicker(min(n.config.Protocol.Timing.TTL/16, longestPause))
	defer poll.Stop()
	for {
		began := n.config.Clock.Now()
		leases, err := n.namesakes(ctx)
		if err == nil {
			alive, again := r.look(leases, began, n.config.Clock.Now())
			if alive != nil || !again {
				return alive, nil
			}
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("find out whether node %q runs already: %w", n.config.Name, ctx.Err())
		}
		if err != nil { // After the pause: the caller may call again at once.
			return nil, err
		}
	}
}

// taken returns the error for the process that has the lease.
func taken(l persistence.Lease) error { return NameTaken(l.Node, l.Address) }

// NameTaken returns the error of a process whose name another one has, which is reached at that address.
func NameTaken(name, address string) error {
	if address == "" {
		address = "an unknown address"
	}
	return fmt.Errorf("%w: a process named %q runs at %s already; stop it, or start this one with another --name",
		ErrNameTaken, name, address)
}
