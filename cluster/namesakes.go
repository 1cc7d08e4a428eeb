package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"licensed/cluster/lease"
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
		if err := n.awaitSilence(ctx, former, n.started.Add(ttl)); err != nil {
			return err
		}
	}
	now, err := n.namesakes(ctx)
	if err != nil {
		return err
	}
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

// awaitSilence returns an error if a lease is renewed before it is marked dead or the time has ended.
func (n *Node) awaitSilence(ctx context.Context, l persistence.Lease, until lease.Instant) error {
	poll := time.NewTicker(n.config.Protocol.Timing.TTL / 16)
	defer poll.Stop()
	for {
		now, err := n.config.Ownership.Lease(ctx, l.Incarnation)
		switch {
		case err == nil && now.Dead, errors.Is(err, persistence.ErrNotFound):
			return nil
		case err == nil && now.Counter > l.Counter:
			return taken(now)
		case err == nil && n.config.Clock.Now() >= until:
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("find out whether node %q runs already: %w", l.Node, ctx.Err())
		}
	}
}

func taken(l persistence.Lease) error { return NameTaken(l.Node, l.Address) }

// NameTaken returns the error of a process whose name another one has, which is reached at that address.
func NameTaken(name, address string) error {
	if address == "" {
		address = "an unknown address"
	}
	return fmt.Errorf("%w: a process named %q runs at %s already; stop it, or start this one with another --name", ErrNameTaken, name, address)
}
