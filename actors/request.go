package actors

import (
	"sync/atomic"
	"time"

	"licensed/internal/planted"
)

// Request is a command or a query in flight through a machine, and its answer on the way back.
type Request struct {
	// Command is executed, unless Query is set.
	Command Command
	// Query, if not nil, is answered from memory.
	Query any
	// Import, if not nil, is recorded.
	Import *Import
	// Deadline, by Input.Steady, after which the request is dropped if it was not decided; zero for none.
	Deadline time.Time

	// Reply or Answer, or Err, once the request is among Outputs.Replies.
	Reply  Reply
	Answer Answer
	Err    error

	stage atomic.Uint32
	done  chan struct{} // the shell's; nil in simulation
}

// Stages of a request. The client's goroutine and the actor's race for each step, and one of them wins it:
//
//	client   ──────────── GiveUp ─────────────▶ withdrawn, or abandoned if it was decided
//	actor    queued ── decide ─▶ decided ── reply ─▶ answered
//
// A withdrawn request is never decided. An abandoned one continues: it is recorded, and replied to nobody.
const (
	stageQueued uint32 = iota
	stageDecided
	stageWithdrawn
	stageAbandoned
	stageAnswered
)

// GiveUp says that nobody waits for the request any more. It is safe for concurrent use with the machine. If
// gone is false, the request is answered, or about to be, and the answer is the caller's. Otherwise the request
// belongs to the machine, and notExecuted tells whether it was not decided, and so never will be.
func (r *Request) GiveUp() (gone, notExecuted bool) {
	if planted.Bug(planted.DecideWithdrawn) && r.stage.Load() == stageQueued ||
		r.stage.CompareAndSwap(stageQueued, stageWithdrawn) {
		return true, true
	}
	return r.stage.CompareAndSwap(stageDecided, stageAbandoned), false
}

// take begins the decision of a request. It reports whether the request is still to be decided.
func (r *Request) take() bool {
	return planted.Bug(planted.WithdrawDecided) && r.stage.Load() == stageQueued ||
		r.stage.CompareAndSwap(stageQueued, stageDecided)
}

// withdrawn reports whether the request will not be decided.
func (r *Request) withdrawn() bool { return r.stage.Load() == stageWithdrawn }

// late reports whether the deadline has passed.
func (r *Request) late(now time.Time) bool { return !r.Deadline.IsZero() && now.After(r.Deadline) }
