package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"licensed/cluster/lease"
	"licensed/cluster/ownership"
	"licensed/persistence"
)

// reached is who reaches the node, as last told.
type reached struct {
	// by are the incarnations of the processes that reach this node, witnesses is how
	// many try, and ever whether one has reached it since the process began.
	by        []persistence.Incarnation
	witnesses int
	ever      bool
}

// reachability is whether others reach an incarnation, by its machine.
type reachability struct {
	// state, accusers and island are as ownership.Participant returns them.
	state    ownership.Reach
	accusers []string
	island   bool // gossip shows none of those that own shards
}

// errVotesWithdrawn is why a node takes shards again.
var errVotesWithdrawn = errors.New("no majority votes against the node any more")

// SetReached says which other processes reach this node's port at this moment, and how many are expected to try. To
// be called when that changes and every second or so; the slice belongs to the node from now on.
func (n *Node) SetReached(by []persistence.Incarnation, witnesses int) {
	n.mu.Lock()
	n.reached = reached{by: by, witnesses: witnesses, ever: n.reached.ever || len(by) > 0}
	n.mu.Unlock()
	n.current.Load().tellReached()
}

// proven reports whether another process has ever reached this node: its next incarnation
// need not wait for that.
func (n *Node) proven() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.reached.ever
}

// tellReached tells the machine who reaches the node.
func (i *incarnation) tellReached() {
	i.node.mu.Lock()
	defer i.node.mu.Unlock()
	r := &i.node.reached
	i.post(
		input{Input: ownership.Input{Kind: ownership.InputReach, Reached: slices.Clone(r.by), Witnesses: r.witnesses}},
	)
}

// noteReach keeps what the machine found out about whether others reach the node.
func (i *incarnation) noteReach(now lease.Instant) {
	n := i.node
	state, accusers := i.machine.Reach(now)
	n.reach.Store(&reachability{state, accusers, i.machine.Island()})
	former := i.reach
	if i.reach = state; state == former {
		return
	}
	h := Happening{Kind: Reachable, Incarnation: i.id}
	switch {
	case state == ownership.Accused:
		h.Kind, h.Cause = Unreachable, n.Unreachable()
	case state == ownership.Unproven:
		return // it begins, or those that voted are gone
	case former == ownership.Accused:
		h.Cause = errVotesWithdrawn
	}
	n.happened(h)
}

// Reach returns whether others reach the node, and so may hand shards to it.
func (n *Node) Reach() ownership.Reach { return n.reach.Load().state }

// Unreachable returns why the node cannot be reached by others that try, or nil.
func (n *Node) Unreachable() error {
	n.mu.Lock()
	witnesses := n.reached.witnesses
	n.mu.Unlock()
	r := n.reach.Load()
	const remedy = "check --node-advertise, and whether a firewall lets the node port through"
	switch {
	case r.state == ownership.Accused && len(r.accusers) > 0:
		return fmt.Errorf("node port cannot be reached by most other processes: %s; %s",
			strings.Join(r.accusers, ", "), remedy)
	case r.state == ownership.Accused:
		return fmt.Errorf("node port could not be reached by most other processes, and none has reached it since; %s",
			remedy)
	case r.state == ownership.Unproven && witnesses > 0:
		return fmt.Errorf("none of %d other processes has reached the node port yet; %s", witnesses, remedy)
	case r.island && witnesses == 0:
		return errors.New("gossip lists no other process, but the store has other nodes with live leases; " +
			"check --join, --bind, --label and the gossip key")
	}
	return nil
}
