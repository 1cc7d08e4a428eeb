package fallback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/internal/caller"
	"licensed/internal/planted"
	"licensed/messages/gatewayv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Errors of Defer, beside those of Journal.Add. The command was not accepted.
var (
	// ErrNotActive says that a licence has expired, so that a renewal would raise counts.
	ErrNotActive = errors.New("the licence has expired")
	// ErrNoTerms says that the policy allows no provisional renewal, or none of this title any more.
	ErrNoTerms = errors.New("the policy allows no provisional renewal")
)

// License is what a device has shown to hold.
type License struct {
	TitleID string
	// AcquiredAt names the licence among those of the customer, the device and the title.
	AcquiredAt time.Time
	ExpiresAt  time.Time
	// PlayHours is the number of hours after which it ends, from its first playback on; 0 if a playback ends nothing.
	PlayHours uint32
}

// Terms of provisional renewals.
type Terms struct {
	// Renewals of one licence that this gateway accepts in an outage at most; 0 for none.
	Renewals int
	// For is the time from the command to the expiry of the licence, if it would expire before.
	For time.Duration
	// Until is when the title's licences end in any case; zero for never.
	Until time.Time
	// PlayHours is the number of hours after which a licence of the title ends, from its first playback on; 0 if a
	// playback ends nothing.
	PlayHours uint32
}

// Config of Fallback. All fields are required, but for FormerBytes.
type Config struct {
	// Journal of the gateway. The caller closes it after Run has returned.
	Journal *Journal
	// Execute sends a command to the owner of a customer.
	Execute func(ctx context.Context, customer string, c actors.Command) (actors.Reply, error)
	// Query asks the owner of a customer.
	Query func(ctx context.Context, customer string, q any) (actors.Answer, error)
	// Owner returns the process on which requests of a customer depend; zero if there is one only.
	Owner func(customer string) persistence.Incarnation
	// Terms returns what holds for a title.
	Terms func(titleID string) Terms
	// Patience is the time without any answer of an owner after which requests that can be answered otherwise stop
	// waiting for it. Longer: fewer answers are provisional where the store halts at times; shorter: the first requests
	// of an outage wait less.
	Patience time.Duration
	// FormerBytes bounds the answers that are kept for when nothing else can be had; 0 for none.
	FormerBytes int64
	// Timeout is the time that the owner has to answer a command that is handed in.
	Timeout time.Duration
	// Now is the wall clock.
	Now func() time.Time
	// Registry takes the metrics.
	Registry prometheus.Registerer
	// Logger is told of what an operator should know.
	Logger *slog.Logger
}

// Fallback sends commands to owners, and accepts some while those are unavailable. Safe for concurrent use.
type Fallback struct {
	config   Config
	breakers breakers
	settling customerLocks
	pace     *pace
	former   *formerAnswers
	metrics  *metrics
	// running ends with Run, and stop ends it.
	running context.Context
	stop    context.CancelFunc
}

// New returns a Fallback. Run hands in what the journal has.
func New(c Config) *Fallback {
	f := &Fallback{config: c, pace: newPace(), former: newFormerAnswers(c.FormerBytes)}
	f.running, f.stop = context.WithCancel(context.Background())
	f.metrics = newMetrics(c.Registry, c.Now, f.Usage, f.former, c.Journal.Allowances)
	return f
}

// Execute runs a command, after all deferred ones of the customer. deferrable says that the caller can defer it: then
// the owner has to answer soon. If requests to the owner failed just now, the command is not sent: ErrOpen. Errors:
// those of Config.Execute, which Unavailable tells apart.
func (f *Fallback) Execute(
	ctx context.Context, customer string, c actors.Command, deferrable bool,
) (reply actors.Reply, err error) {
	b := f.breakers.of(breakerKey{owner: f.config.Owner(customer)})
	if !b.permit(deferrable) {
		return reply, fmt.Errorf("%w: %w", actors.ErrUnavailable, ErrOpen)
	}
	limited := ctx
	if deferrable {
		var done func()
		limited, done = b.limit(ctx, f.patience(b), longest(ctx))
		defer done()
	}
	if f.config.Journal.Has(customer) && !planted.Bug(planted.ExecuteBeforeDeferred) {
		err = f.settle(limited, customer)
	}
	switch {
	case err == nil:
		reply, err = f.config.Execute(limited, customer, c)
		f.record(ctx, b, err)
		if err == nil && !reply.Duplicate && !c.ValidateOnly { // Those need no store.
			b.heard()
		}
	case limited == ctx || limited.Err() == nil || !b.IsClosed():
		f.record(ctx, b, err)
	default: // The time was too short for all commands before this one, which says nothing about the owner.
	}
	if err != nil && limited != ctx && limited.Err() != nil && ctx.Err() == nil {
		return reply, f.late(err)
	}
	return reply, err
}

// longBacklog is the number of deferred commands from which on a backlog must not grow.
const longBacklog = 500

// patience returns the time without an answer of the owner after which a command is given up: the usual one, or all
// that an attempt may take while the owner recovers and many commands are deferred.
func (f *Fallback) patience(b *breaker) time.Duration {
	if b.recovering() && f.config.Journal.Usage().Commands >= longBacklog {
		return maxWait
	}
	return f.config.Patience
}

// longest returns the time that an owner has to answer a request that can be answered otherwise: a quarter of the
// request's own is left for the journal.
func longest(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return min(maxWait, time.Until(end)*3/4)
	}
	return maxWait
}

// late returns the error of an attempt that was given up before the deadline of its client.
func (f *Fallback) late(err error) error {
	what := actors.ErrUnknownOutcome
	if notSent(err) {
		what = actors.ErrUnavailable
	}
	return fmt.Errorf("%w: the owner did not answer in time: %s", what, err.Error())
}

// record tells a breaker how a request ended. A full queue says nothing about the requests that are in it: an owner
// that is given more than it can do executes as much as it can.
func (f *Fallback) record(ctx context.Context, b *breaker, err error) {
	switch {
	case errors.Is(err, actors.ErrOverloaded) && b.IsClosed():
	case err == nil || !Unavailable(err) && ctx.Err() == nil:
		b.succeeded()
	case ctx.Err() == nil || !b.IsClosed(): // A probe that its client gave up has shown nothing.
		b.failed()
	}
}

// Defer accepts a renewal, a release or facts of a device, after a failure that qualifies (Unavailable). The command is
// durable when Defer returns. An accepted command is answered alike if it is sent again; facts that are in the journal
// are also accepted under another id, and kept once. l is the licence that a renewal or release names; zero for facts.
// Errors: ErrNotActive, ErrNoTerms, ErrFull, ErrRenewedBefore, ErrManyFacts, ErrOtherContent, ErrDisk, and ctx's;
// MayBeKept tells after which of them the command may have been accepted all the same.
func (f *Fallback) Defer(
	ctx context.Context, customer string, c actors.Command, l License, cause error,
) (Command, error) {
	payload := c.Payload.(*licensedv1.Command)
	accepted, err := f.accept(ctx, customer, c, payload, l, cause)
	if err != nil {
		f.metrics.declined.WithLabelValues(kindOf(payload).name, reasonOf(err)).Inc()
		return Command{}, err
	}
	f.metrics.accepted.WithLabelValues(kindOf(payload).name).Inc()
	return accepted, nil
}

func (f *Fallback) accept(
	ctx context.Context, customer string, c actors.Command, payload *licensedv1.Command, l License,
	cause error,
) (Command, error) {
	now := f.config.Now()
	d := &gatewayv1.DeferredCommand{
		CustomerId: customer, CommandId: c.ID, Command: proto.CloneOf(payload), Fingerprint: c.Fingerprint,
		IssuedAtMs: c.IssuedAt.UnixMilli(), Stamped: c.Stamped, Sent: !notSent(cause),
		AcceptedAtMs: now.UnixMilli(), Caller: callerMessage(caller.FromContext(ctx)),
	}
	if l != (License{}) {
		d.AcquiredAtMs = l.AcquiredAt.UnixMilli()
	}
	if s := d.Command.GetSyncDevice(); s != nil && !planted.Bug(planted.DateFactsWhenHandedIn) {
		s.ReceivedAtMs = d.AcceptedAtMs
	}
	var terms Terms
	if payload.GetRenewLicense() != nil {
		if terms = f.config.Terms(l.TitleID); terms.Renewals == 0 {
			return Command{}, ErrNoTerms
		}
		if !now.Before(l.ExpiresAt) || !terms.Until.IsZero() && !now.Before(terms.Until) {
			return Command{}, ErrNotActive
		}
		d.PlayHours = fewer(l.PlayHours, terms.PlayHours)
		until, err := f.played(d, grant(now, l.ExpiresAt, terms))
		if err != nil {
			return Command{}, err
		}
		d.GrantedUntilMs = until.UnixMilli()
	}
	return f.add(ctx, d, terms.Renewals)
}

// add adds a command to the journal: Journal.Add. Errors: also ctx's.
func (f *Fallback) add(ctx context.Context, d *gatewayv1.DeferredCommand, renewals int) (Command, error) {
	type result struct {
		Command
		err error
	}
	done := make(chan result, 1)
	go func() { // The disk may hang.
		added, err := f.config.Journal.Add(d, renewals)
		done <- result{added, err}
	}()
	select {
	case r := <-done:
		return r.Command, r.err
	case <-ctx.Done():
		return Command{}, fmt.Errorf("write to the journal of deferred commands: %w", ctx.Err())
	}
}

// MayBeKept reports whether an error of Defer or Redeem leaves open whether the command is in the journal: the write
// failed, or the caller gave up before the write was confirmed. A repeat learns it.
func MayBeKept(err error) bool {
	return errors.Is(err, ErrDisk) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// callerMessage returns who gave a command as the journal has it; nil for nobody.
func callerMessage(by *caller.Caller) *gatewayv1.Caller {
	if by == nil {
		return nil
	}
	return &gatewayv1.Caller{
		Principal: by.Principal, Roles: by.Roles, Customer: by.Customer, Reason: by.Reason, Method: by.Method,
	}
}

// handedIn returns the context of a command that is handed in for who gave it. It was decided at that time whether they
// might: their credentials may have ended meanwhile.
func handedIn(ctx context.Context, by *gatewayv1.Caller) context.Context {
	if by == nil {
		return ctx
	}
	return caller.NewContext(ctx, &caller.Caller{
		Principal: by.Principal, Roles: by.Roles, Customer: by.Customer, Reason: by.Reason, Method: by.Method,
	})
}

// grant returns when a provisionally renewed licence expires: never before it did.
func grant(now, expires time.Time, t Terms) time.Time {
	until := now.Add(t.For)
	if until.Before(expires) {
		until = expires
	}
	if !t.Until.IsZero() && t.Until.Before(until) {
		until = t.Until
	}
	return until
}

// fewer returns the lower number of hours, where 0 is for no bound.
func fewer(a, b uint32) uint32 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// played returns until when a licence is renewed at the latest if the device reported a playback of it that is deferred
// as well: a provisional renewal does not begin the hours after the first playback anew. Errors: ErrNotActive if the
// hours have passed, and ErrDisk.
func (f *Fallback) played(d *gatewayv1.DeferredCommand, until time.Time) (time.Time, error) {
	if d.PlayHours == 0 || !f.config.Journal.Has(d.CustomerId) {
		return until, nil
	}
	commands, err := f.config.Journal.Commands(d.CustomerId)
	if err != nil {
		return until, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	renew := d.Command.GetRenewLicense()
	for _, c := range commands {
		sync := c.GetCommand().GetSyncDevice()
		if sync.GetDeviceId() != renew.DeviceId {
			continue
		}
		for _, fact := range sync.GetFacts() {
			if fact.Kind != licensedv1.FactKind_FACT_KIND_PLAYED || fact.TitleId != renew.TitleId ||
				fact.AtMs < d.AcquiredAtMs {
				continue
			}
			// It was made before it was reported, whatever the clock of the device shows.
			end := time.UnixMilli(min(fact.AtMs, c.AcceptedAtMs)).Add(time.Duration(d.PlayHours) * time.Hour)
			if end.Before(until) {
				until = end
			}
		}
	}
	if until.UnixMilli() <= d.AcceptedAtMs {
		return until, ErrNotActive
	}
	return until, nil
}

// Usage returns what is deferred, and the number of owners that cannot be reached at this moment.
func (f *Fallback) Usage() (u Usage, unavailable int) {
	return f.config.Journal.Usage(), len(f.breakers.failing())
}
