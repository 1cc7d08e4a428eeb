package lease

import (
	"errors"

	"licensed/persistence"
)

// InputKind says which input a machine gets.
type InputKind uint8

// The inputs of Holder and Watch.
const (
	// InputTick says that Outputs.Wake has come. A tick too many does no harm.
	InputTick InputKind = iota
	// InputSwapped answers Outputs.Swap: Applied and Row, or Err.
	InputSwapped
	// InputRead answers Outputs.Read: Row (zero if there is none), or Err.
	InputRead
	// InputPeeked answers Outputs.Peek: Row (zero if none was shown), or Err.
	InputPeeked
)

// Input is what happens to a machine.
type Input struct {
	Kind InputKind
	// Now is the clock; for an answer, read after it arrived.
	Now Instant
	// Applied and Row are what the compare-and-set returned; Row also what a read did.
	Applied bool
	Row     persistence.Lease
	// Err says that the operation failed: a compare-and-set then has an unknown outcome, unless it is
	// persistence.ErrRejected. Each operation is answered exactly once, be it by a timeout.
	Err error
}

// Outputs is what a step asks for: at most one of Swap, Read and Peek, and only while none is in progress. What
// is asked for is to be sent after the clock reading that the step was given, never before.
type Outputs struct {
	// Swap asks for a compare-and-set of the row.
	Swap *Swap
	// Read asks for a read of the row, linearizable with the compare-and-sets.
	Read bool
	// Peek asks for a plain read of the row, as persistence.Ownership.PeekLease. Only a Watch does.
	Peek bool
	// Wake asks for a tick at that instant; Never for none.
	Wake Instant
}

// Swap is a compare-and-set; an Old that is zero means that there must be no row.
type Swap struct{ Old, Next persistence.Lease }

// ErrEnded says that an incarnation has ended: it was marked dead, or its row is not what it wrote.
var ErrEnded = errors.New("lease has ended")

// ErrRetired says that an incarnation marked itself dead, having been asked to.
var ErrRetired = errors.New("lease was given up")

// flight is what is in progress.
type flight uint8

const (
	flightNone flight = iota
	flightSwap
	flightRead
)
