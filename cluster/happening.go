package cluster

import (
	"fmt"
	"time"

	"licensed/persistence"
)

// HappeningKind says what happened.
type HappeningKind uint8

// What happens to a node.
const (
	// Began: Incarnation has a lease, and no other process was found that has the node's name.
	Began HappeningKind = iota
	// Ended: Incarnation has ended, for Cause: lease.ErrRetired after a drain; ErrNameTaken if another process has the
	// node's name, and then none follows.
	Ended
	// Claimed: Shard is held at Epoch; it had no owner. Took is the time since it was expected.
	Claimed
	// TakenOver: as Claimed, from Other, which is dead.
	TakenOver
	// Released: Shard was given away, to Other if not zero. Took is the time since its intake was closed.
	Released
	// Lost: the row of Shard shows another owner, though it was not released. The end of a lease is not that.
	Lost
	// Raised: the epoch of Shard is raised, since history has a higher one: an alarm.
	Raised
	// Died: Other was found to be marked dead.
	Died
	// ClockWrong: the wall clock is off its peers' by more than is tolerated. ClockRight: not any more.
	ClockWrong
	ClockRight
	// Unreachable: others do not reach the node, for Cause. Reachable: they do, for the first time if there is no
	// Cause.
	Unreachable
	Reachable
	// Lapsed: the lease ran out, since the store did not renew it. Resumed: it was renewed after Took, and the node has
	// what it had.
	Lapsed
	Resumed
)

// happenings are the kinds in words, as logs show them, in the order of the constants.
var happenings = [...]string{
	"began", "ended", "claimed", "taken over", "released", "lost", "epoch raised", "died", "clock wrong", "clock right",
	"unreachable", "reachable", "lapsed", "resumed",
}

// String returns the kind in words.
func (k HappeningKind) String() string {
	if int(k) < len(happenings) {
		return happenings[k]
	}
	return fmt.Sprintf("happening %d", uint8(k))
}

// Happening is something that happened to a node.
type Happening struct {
	Kind HappeningKind
	// Incarnation of the node when it happened.
	Incarnation persistence.Incarnation
	Shard       uint32
	Epoch       uint64
	// Other incarnation it has to do with.
	Other persistence.Incarnation
	Took  time.Duration
	Cause error
}
