package fallback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/planted"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Settlement is how a deferred command ended.
type Settlement uint8

// Settlements.
const (
	// Executed: the owner executed it, now or by another request with its id.
	Executed Settlement = iota
	// Refused: a rule refused it. The reason is in the customer's history.
	Refused
	// Superseded: the licence that it means had ended, or was acquired anew. That is in the customer's history.
	Superseded
	// Replaced: its id had been used for another command, which was executed in its place.
	Replaced
	// Lapsed: commands of its time are forgotten, so that nobody can tell whether it was executed. It is not executed.
	Lapsed
	// Gap: facts before these were not recorded, so these were not either. The device still has them.
	Gap
	// Forgotten: the customer was removed for good meanwhile. It is not executed.
	Forgotten
	// Denied: the owner does not let its caller do this. It is not executed.
	Denied
)

// String returns the value of the metrics' label.
func (s Settlement) String() string {
	switch s {
	case Executed:
		return "executed"
	case Refused:
		return "refused"
	case Superseded:
		return "superseded"
	case Replaced:
		return "replaced"
	case Lapsed:
		return "lapsed"
	case Gap:
		return "gap"
	case Forgotten:
		return "forgotten"
	case Denied:
		return "denied"
	default:
		return fmt.Sprintf("Settlement(%d)", uint8(s))
	}
}

// settleEvery is the time after which what is left in the journal is tried again.
const settleEvery = 500 * time.Millisecond

// Run hands in deferred commands until ctx ends, each as soon as its owner can be reached.
func (f *Fallback) Run(ctx context.Context) {
	defer f.stop()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	var closed time.Time
	for {
		if now := time.Now(); now.Sub(closed) >= closeEvery {
			f.closeEnded()
			closed = now
		}
		f.settleAll(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// settleAll tries each customer once. Customers of an owner that does not answer are passed over, but for those that
// try it.
func (f *Fallback) settleAll(ctx context.Context) {
	var all sync.WaitGroup
	passed := make(map[persistence.Incarnation]bool)
	for _, customer := range f.config.Journal.Customers() {
		if ctx.Err() != nil {
			break
		}
		owner := f.config.Owner(customer)
		if passed[owner] {
			continue
		}
		b := f.breakers.of(breakerKey{owner: owner})
		b.waiting()
		timeout := f.config.Timeout
		if !b.IsClosed() {
			timeout = min(timeout, probeTimeout)
		}
		if !b.TryAcquirePermit() {
			passed[owner] = true
			continue
		}
		f.pace.enter()
		all.Go(func() {
			defer f.pace.leave()
			limited, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			err := f.settle(limited, customer)
			f.record(ctx, b, err)
			if err == nil {
				b.heard()
			}
		})
	}
	all.Wait()
}

// settle hands in the commands of a customer, one after the other. An error says that one was not answered; those after
// it wait.
func (f *Fallback) settle(ctx context.Context, customer string) error {
	unlock, err := f.settling.lock(ctx, customer)
	if err != nil {
		return err
	}
	defer unlock()
	commands, err := f.config.Journal.Commands(customer)
	if err != nil {
		return fmt.Errorf("read deferred commands: %w", err)
	}
	if planted.Bug(planted.SettleLastFirst) {
		slices.Reverse(commands)
	}
	ended := make([]Command, 0, len(commands))
	defer func() { // If this fails they are handed in again, and the owner knows them by their ids.
		if failed := f.config.Journal.Remove(ended...); failed != nil {
			f.config.Logger.Error("deferred commands not removed", "customer", customer, "error", failed)
		}
	}()
	for _, c := range commands {
		if planted.Bug(planted.SettleBeforeAnswer) {
			_ = f.config.Journal.Remove(c)
		}
		started := time.Now()
		settlement, denied, err := f.settleOne(ctx, c, commands)
		f.pace.answered(started, err)
		if err != nil { // Later: the owner is unavailable, or cannot execute anything of this customer.
			return err
		}
		ended = append(ended, c)
		f.ended(c, settlement, denied)
	}
	return nil
}

// settleOne hands in a command, one of those of its customer. denied is why the owner denied it, if it did.
func (f *Fallback) settleOne(
	ctx context.Context, c Command, commands []Command,
) (s Settlement, denied *actors.DeniedError, err error) {
	s, err = f.handIn(ctx, c)
	if errors.As(err, &denied) {
		if by := f.config.Journal.lender(c, commands); by != nil {
			c.Caller = by
			s, err = f.handIn(ctx, c)
		}
	}
	switch {
	case errors.As(err, &denied): // No retry changes who gave the command.
		return Denied, denied, nil
	case errors.Is(err, actors.ErrForgotten):
		return Forgotten, nil, nil
	}
	return s, nil, err
}

// ended counts a command that ended, and logs one that was not executed.
func (f *Fallback) ended(c Command, settlement Settlement, denied *actors.DeniedError) {
	f.metrics.settled.WithLabelValues(kindOf(c.GetCommand()).name, settlement.String()).Inc()
	switch settlement {
	case Denied:
		f.config.Logger.Warn("deferred command denied by its owner; check that this gateway has --auth-file and "+
			"the release of the nodes, and have the client send the command again",
			"customer", c.CustomerId, "command", c.CommandId, "kind", kindOf(c.GetCommand()).name,
			"principal", c.GetCaller().GetPrincipal(), "accepted_at", c.AcceptedAt().UTC(), "reason", denied.Text)
	case Lapsed, Replaced, Gap:
		f.config.Logger.Warn("deferred command not executed", "customer", c.CustomerId, "command", c.CommandId,
			"accepted_at", c.AcceptedAt().UTC(), "reason", settlement)
	}
}

// handIn sends a command to its owner.
func (f *Fallback) handIn(ctx context.Context, c Command) (Settlement, error) {
	command := actors.Command{
		ID: c.CommandId, Fingerprint: c.Fingerprint, IssuedAt: time.UnixMilli(c.IssuedAtMs), Stamped: c.Stamped,
		Payload: c.GetCommand(), Principal: c.GetCaller().GetPrincipal(), Reason: c.GetCaller().GetReason(),
	}
	ctx = handedIn(ctx, c.GetCaller())
	if planted.Bug(planted.SettleUnderNewID) {
		command.ID += "'"
	}
	execute := func(command actors.Command) (actors.Reply, error) {
		return f.config.Execute(ctx, c.CustomerId, command)
	}
	var reply actors.Reply
	var err error
	if c.Sent { // It may have been executed with its first stamp: with another one it would be another command.
		reply, err = execute(command)
	} else {
		reply, err = actors.Restamp(&command, execute)
	}
	// The device has its licence, however else the id was used: the unit is settled all the same.
	redeemed := c.GetCommand().GetAcquireLicense() != nil
	switch {
	case redeemed && (errors.Is(err, actors.ErrIDReused) || err == nil && refusedElsewhere(c, reply)):
		return f.anew(ctx, c)
	case errors.Is(err, actors.ErrIDReused):
		return Replaced, nil
	case errors.Is(err, actors.ErrTooOld) &&
		(kindOf(c.GetCommand()).lasting || planted.Bug(planted.RenewAnew)):
		return f.anew(ctx, c)
	case errors.Is(err, actors.ErrTooOld):
		return Lapsed, nil
	case err != nil:
		return 0, err
	}
	return settlementOf(c, reply), nil
}

// refusedElsewhere reports whether a command within an allowance was refused as an ordinary acquisition, through
// another gateway.
func refusedElsewhere(c Command, reply actors.Reply) bool {
	o, err := license.DecodeOutcome(c.CustomerId, c.GetCommand(), reply.Time, reply.Outcome)
	return err == nil && o.Refusal != nil && o.Refusal.Rule != licensedv1.Rule_RULE_ALLOWANCE_ENDED
}

// anew hands in a command of which the owner has forgotten the id, as another command: the state of the customer tells
// whether it was executed.
func (f *Fallback) anew(ctx context.Context, c Command) (Settlement, error) {
	if planted.Bug(planted.ForgetLate) {
		return Executed, nil
	}
	reply, err := f.config.Execute(ctx, c.CustomerId, actors.Command{
		ID: fmt.Sprintf("late-%016x", xxhash.Sum64String(c.CommandId)), Fingerprint: c.Fingerprint,
		IssuedAt: f.config.Now().Truncate(time.Millisecond), Stamped: true, Payload: c.GetCommand(),
		Principal: c.GetCaller().GetPrincipal(), Reason: c.GetCaller().GetReason(),
	})
	if err != nil {
		return 0, err
	}
	return settlementOf(c, reply), nil
}

// settlementOf returns what an outcome says.
func settlementOf(c Command, reply actors.Reply) Settlement {
	o, err := license.DecodeOutcome(c.CustomerId, c.GetCommand(), reply.Time, reply.Outcome)
	switch {
	case err != nil: // The owner executed it; it may be of another release.
		return Executed
	case o.Refusal != nil:
		return Refused
	case o.Superseded:
		return Superseded
	case o.Sync != nil && o.Sync.HighestNumber < c.GetCommand().GetSyncDevice().GetAfterNumber():
		return Gap
	}
	return Executed
}

// customerLocks has a lock for each customer: one goroutine at a time hands in the commands of a customer.
type customerLocks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when the lock is free
}

// lock locks a customer until unlock is called. Errors: ctx's.
func (l *customerLocks) lock(ctx context.Context, customer string) (unlock func(), err error) {
	for {
		l.mu.Lock()
		held := l.held[customer]
		if held == nil {
			mine := make(chan struct{})
			if l.held == nil {
				l.held = make(map[string]chan struct{})
			}
			l.held[customer] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.held, customer)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, fmt.Errorf("deferred commands of the customer are being handed in: %w", context.Cause(ctx))
		}
	}
}
