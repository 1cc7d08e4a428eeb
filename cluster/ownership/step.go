package ownership

import (
	"fmt"
	"time"

	"licensed/cluster/lease"
	"licensed/internal/planted"
	"licensed/persistence"
)

// Config of a machine. DefaultConfig gives all but who it is for.
type Config struct {
	// Incarnation of this run, and the name of the node, which stays over restarts.
	Incarnation persistence.Incarnation
	Node        string
	// Address is where other processes reach the node, written to its lease.
	Address string
	// Namesakes are incarnations of this node's name whose lease was not dead when the process started: watched until
	// it is, though they may own nothing.
	Namesakes []persistence.Incarnation
	// Former incarnations of this very process, known to be over: marked dead without waiting.
	Former []persistence.Incarnation
	// Shards of the cluster.
	Shards uint32
	// Timing of leases.
	Timing lease.Timing
	// MovesPerSecond bounds planned hand-overs begun by this node (default 100). More: a change of the
	// members settles faster, and more customers wait a moment at the same time.
	MovesPerSecond float64
	// DrainWithin is the time for handing over all shards when the node drains: if it holds more than
	// MovesPerSecond allows for, both it and MaxMoves rise, the latter to MaxClaims at most (0, the default:
	// they stay).
	DrainWithin time.Duration
	// MaxMoves bounds the hand-overs in progress at a time (default 16); MaxClaims the claims (default 256:
	// Cassandra takes those of a group together).
	MaxMoves, MaxClaims int
	// Groups of shards, as the store has them (default persistence.ShardGroups): those of one, whose ids are
	// equal modulo Groups, are handed over together, a tenth of a second's worth of MovesPerSecond at once.
	Groups uint32
	// CloseTimeout is the time a shard that is handed over waits for requests in progress (default 1 s);
	// what is then left gets an unknown outcome.
	CloseTimeout time.Duration
	// Settle is the time a member must have been seen before shards are handed to it, and how long a shard
	// is held before it is handed on (default 1 s): time for gossip to tell who is about to leave.
	Settle time.Duration
	// ScanEvery is the time between plain reads of all shard rows while nothing is amiss (default 10 s).
	ScanEvery time.Duration
	// Witnessed says that other processes try to reach the node and vote in the store if they cannot (InputReach,
	// OpReadVotes). Without it the node takes itself for reachable. Proven says that somebody reached this process
	// before, in a former incarnation.
	Witnessed, Proven bool
	// Watchers is the number of members that watch the lease of one that seems to be alive (default 3); all
	// watch one that does not.
	Watchers int
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Timing:         lease.DefaultTiming(),
		MovesPerSecond: 100,
		MaxMoves:       16,
		MaxClaims:      256,
		Groups:         persistence.ShardGroups,
		CloseTimeout:   time.Second, Settle: time.Second, ScanEvery: 10 * time.Second, Watchers: 3,
	}
}

// Validate returns an error that names what cannot work.
func (c *Config) Validate() error {
	if err := c.Timing.Validate(); err != nil {
		return err
	}
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"Incarnation", !c.Incarnation.IsZero()}, {"Node", c.Node != ""}, {"Shards", c.Shards > 0},
		{"MovesPerSecond", c.MovesPerSecond > 0}, {"MaxMoves", c.MaxMoves > 0}, {"MaxClaims", c.MaxClaims > 0},
		{"Groups", c.Groups > 0}, {"DrainWithin", c.DrainWithin >= 0},
		{"CloseTimeout", c.CloseTimeout > 0}, {"Settle", c.Settle >= 0}, {"ScanEvery", c.ScanEvery > 0},
		{"Watchers", c.Watchers > 0},
	} {
		if !f.ok {
			return fmt.Errorf("ownership configuration: %s is missing or out of range", f.name)
		}
	}
	return nil
}

// Member is a node as gossip shows it.
type Member struct {
	Name        string
	Incarnation persistence.Incarnation
	Capacity    float64
	// Eligible says that it can be given shards: it is not draining, and its clock is right. Who has no lease
	// has no Incarnation to tell of, and gets none whatever this says.
	Eligible bool
	// Unreachable says that the member tells that nobody reaches it: see Reach. It gets no shards while another
	// member can. What is said of this node itself is not regarded.
	Unreachable bool
}

// OpKind says what an operation does.
type OpKind uint8

// The operations on the store.
const (
	OpSwapLease OpKind = iota
	OpReadLease
	OpPeekLease // by a plain read
	OpSwapShard
	OpReadShards // all rows
	OpPeekShards // all rows, by a plain read
	OpReadShard
	OpReadVotes // all of them
)

// Op is an operation on the store. It is begun after the clock reading that the step was given, and
// answered exactly once, be it by a timeout.
type Op struct {
	Kind OpKind
	// Incarnation of a read, Lease of a compare-and-set.
	Incarnation persistence.Incarnation
	Lease       lease.Swap
	// Shard that is read, and OldShard as it was known when the read began; OldShard and NextShard of a
	// compare-and-set.
	Shard               uint32
	OldShard, NextShard persistence.Shard
}

// Confirmation is the read of its own lease that confirms what an incarnation says (lease.Confirmer). A plain read does
// not: the mark of a challenger may be accepted and not committed, and a second challenger, which saw it, takes the
// shards.
func Confirmation(self persistence.Incarnation) Op {
	if planted.Bug(planted.ConfirmByPeek) {
		return Op{Kind: OpPeekLease, Incarnation: self}
	}
	return Op{Kind: OpReadLease, Incarnation: self}
}

// InputKind says which input a machine gets.
type InputKind uint8

// The inputs of a machine.
const (
	// InputTick says that Outputs.Wake has come. A tick too many does no harm.
	InputTick InputKind = iota
	// InputDone answers one of Outputs.Ops: Op, and Applied, Lease, Shard, Shards or Err.
	InputDone
	// InputMembers says who seems to be alive: Members, this node among them.
	InputMembers
	// InputQuiet answers GateClosing: no request for Shard is in progress.
	InputQuiet
	// InputRow brings a row that another node says there is: Row. It is believed only as far as a compare-and-set on it
	// goes, and has the rows read within a TTL.
	InputRow
	// InputSuspect says that an incarnation is said to be dead: Suspect. If it is a member or owns a shard, its lease
	// row is read at once, and that decides.
	InputSuspect
	// InputStale says that the history of an aggregate in Shard has an epoch above the one held, or the same
	// one of another incarnation: Epoch.
	InputStale
	// InputReach says which processes reach this node at this moment, and how many others are expected to try:
	// Reached, Witnesses.
	InputReach
	// InputDrain asks to hand over all shards and then to end the lease.
	InputDrain
)

// Input is what happens to a machine.
type Input struct {
	Kind InputKind
	// Now is the clock; for an answer, read after it arrived.
	Now lease.Instant

	Op      Op
	Applied bool
	Lease   persistence.Lease // zero if there is no row
	Row     persistence.Shard // zero if there is no row
	Rows    []persistence.Shard
	Votes   []persistence.Vote
	Err     error

	Members []Member
	Shard   uint32
	Epoch   uint64
	Suspect persistence.Incarnation

	Reached   []persistence.Incarnation
	Witnesses int
}

// GateKind says what is to be done with requests for a shard.
type GateKind uint8

// The ways to treat requests.
const (
	// GateShut: not held. Requests are turned away, activations end.
	GateShut GateKind = iota
	// GateExpected: not held yet; requests wait a moment.
	GateExpected
	// GateOpen: held at Epoch.
	GateOpen
	// GateClosing: still held at Epoch for requests in progress; others wait. InputQuiet is awaited.
	GateClosing
)

// Gate is a change of how requests for a shard are treated. Gates are to be set before the operations of
// the same outputs are begun.
type Gate struct {
	Shard uint32
	Kind  GateKind
	Epoch uint64
	// Successor named by the release that follows; zero if there is none.
	Successor persistence.Incarnation
}

// Outputs is what a step asks for. It belongs to the machine and is valid until the next step.
type Outputs struct {
	// Gates are set first, in order.
	Gates []Gate
	// Ops are then begun.
	Ops []Op
	// Until is the end of the lease's validity; before the first renewal and after the end it is 0.
	Until lease.Instant
	// Wake asks for a tick at that instant; lease.Never for none.
	Wake lease.Instant
	// Changed are rows that others should hear of: shards gained, and released with a successor.
	Changed []persistence.Shard
	// Dead are incarnations that were found to be marked dead.
	Dead []persistence.Incarnation
	// Raised are shards whose epoch had to be raised above that of a history, or of a row that is gone: an alarm.
	Raised []uint32
	// Reach is whether others reach the node.
	Reach Reach
	// Ended says that the incarnation has ended, with Cause: ErrRetired after InputDrain. The machine
	// takes no more steps; operations in progress may be forgotten.
	Ended bool
	Cause error
}
