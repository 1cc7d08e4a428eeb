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

// AwaitName returns when no other live process has the name of the node: the leases of that name that were present
// when the node started are dead, or were not renewed for a TTL. A node is to be told its members after that. Errors:
// ErrNameTaken, with the address of the other process, and those of the store and of ctx. Of two that start at the
// same time one continues.
func (n *Node) AwaitName(ctx context.Context) error {
	ttl := n.config.Protocol.Timing.TTL
	for _, former := range n.named {
		if err := n.awaitSilence(ctx, former, n.namedAt.Add(ttl)); err != nil {
			return err
		}
	}
	now, err := n.namesakes(ctx)
	if err != nil {
		return err
	}
	// A lease that is in none of these lists was created after the start of this process:
	// its process started at the same time. The one of the smaller incarnation continues;
	// both compare the same two numbers.
	self := n.current.Load().id
	for _, l := range now {
		known := l.Incarnation == n.first || l.Incarnation == self
		for _, former := range n.named {
			known = known || former.Incarnation == l.Incarnation
		}
		if !known && bytes.Compare(self[:], l.Incarnation[:]) > 0 { // it started at the same time
			return taken(l)
		}
	}
	return nil
}

// awaitSilence returns an error if a lease is renewed before it is marked dead or the time has ended. Both reads that
// it compares may be slow, so that the time is measured from the end of the first to the beginning of the last:
//
//	first read        TTL                        last read
//	├────────┤ namedAt ───────────────────► until ├────────┤
func (n *Node) awaitSilence(ctx context.Context, l persistence.Lease, until lease.Instant) error {
	// A lease is renewed several times a TTL, so 16 reads a TTL miss none for long.
	poll := time.NewTicker(min(n.config.Protocol.Timing.TTL/16, longestPause))
	defer poll.Stop()
	for {
		began := n.config.Clock.Now()
		now, err := n.config.Ownership.Lease(ctx, l.Incarnation)
		switch {
		case err == nil && now.Dead, errors.Is(err, persistence.ErrNotFound):
			return nil
		case err == nil && now.Counter > l.Counter:
			return taken(now)
		case err == nil && began >= until:
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("find out whether node %q runs already: %w", l.Node, ctx.Err())
		}
	}
}

// claimName lets an incarnation that follows another take part if no other live process has the name, and retires it
// otherwise: an orchestrator may have started the node elsewhere while it had no lease.
func (i *incarnation) claimName(own []persistence.Incarnation) {
	other, done := i.awaitNamesakes(own)
	if !done {
		return
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

// awaitNamesakes returns the lease of another live process of the name, or nil once all such leases are dead or were
// not renewed for a TTL. It is not done if the incarnation ended first.
//
// The other process may be one that starts at this moment: that one gives way as soon as it sees this lease renewed.
// So this one gives way only if the other is still alive some time later. If both follow a former incarnation, the one
// of the greater incarnation gives way first:
//
//	0              TTL/4                   TTL/2                    TTL
//	lease acquired one that starts is gone the greater gives way    the smaller gives way
func (i *incarnation) awaitNamesakes(own []persistence.Incarnation) (other *persistence.Lease, done bool) {
	n, ttl := i.node, i.node.config.Protocol.Timing.TTL
	poll := time.NewTicker(min(ttl/16, longestPause))
	defer poll.Stop()
	var seen map[persistence.Incarnation]uint64 // counters of the others when they were first read
	var since lease.Instant
	for {
		// Measured around the read as in awaitSilence.
		now := n.config.Clock.Now()
		ctx, cancel := context.WithTimeout(context.Background(), ttl)
		all, err := n.namesakes(ctx)
		cancel()
		others := slices.DeleteFunc(all, func(l persistence.Lease) bool { return slices.Contains(own, l.Incarnation) })
		switch {
		case err != nil: // The lease ends if the store stays unavailable.
		case seen == nil:
			seen, since = map[persistence.Incarnation]uint64{}, n.config.Clock.Now()
			for _, l := range others {
				seen[l.Incarnation] = l.Counter
			}
			if len(others) == 0 {
				return nil, true
			}
		default:
			waited, waiting := now.Sub(since), false
			for k, l := range others {
				counter, known := seen[l.Incarnation]
				patience := ttl
				if bytes.Compare(i.id[:], l.Incarnation[:]) > 0 {
					patience = ttl / 2
				}
				if known && l.Counter > counter && waited >= patience {
					return &others[k], true
				}
				waiting = waiting || known && waited < ttl // One that came later sees this lease and gives way.
			}
			if !waiting {
				return nil, true
			}
		}
		select {
		case <-i.over:
			return nil, false
		case <-poll.C:
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
