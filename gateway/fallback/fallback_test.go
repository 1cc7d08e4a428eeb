package fallback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/caller"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// owner is a cluster that remembers commands by their ids, as owners do.
type owner struct {
	mu sync.Mutex
	// unavailable is the error of all requests, nil if there is none; executes says that commands are executed all the
	// same.
	unavailable error
	executes    bool
	// hang, if not nil, keeps requests until it is closed or their context ends.
	hang chan struct{}

	calls     int
	questions int
	executed  map[string]uint64 // fingerprints by customer and id
	order     []string          // customer and id
	callers   []string          // of them, by context and by command
	stamps    map[string]time.Time
	outcome   []byte
}

func (o *owner) Execute(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
	o.mu.Lock()
	o.calls++
	hang := o.hang
	o.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return actors.Reply{}, fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, ctx.Err())
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unavailable != nil && !o.executes {
		return actors.Reply{}, o.unavailable
	}
	name := customer + " " + c.ID
	fingerprint, duplicate := o.executed[name]
	switch {
	case duplicate && fingerprint != c.Fingerprint:
		return actors.Reply{}, actors.ErrIDReused
	case !duplicate && c.IssuedAt.Before(o.stamps[customer]) && c.Stamped:
		return actors.Reply{}, &actors.StampError{At: o.stamps[customer]}
	case !duplicate && c.IssuedAt.Before(o.stamps[customer]):
		return actors.Reply{}, actors.ErrTooOld
	case !duplicate:
		if o.executed == nil {
			o.executed = make(map[string]uint64)
		}
		o.executed[name] = c.Fingerprint
		o.order = append(o.order, name)
		if by := caller.FromContext(ctx); by != nil {
			o.callers = append(o.callers, fmt.Sprint(*by, c.Principal, c.Reason))
		}
	}
	return actors.Reply{Duplicate: duplicate, Time: someTime, Outcome: o.outcome}, o.unavailable
}

func (o *owner) Query(ctx context.Context, customer string, q any) (actors.Answer, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.questions++
	if o.unavailable != nil {
		return actors.Answer{}, o.unavailable
	}
	a := actors.Answer{Value: &licensedv1.ListDevicesResponse{PlanId: customer}}
	a.Head.Sequence = uint64(len(o.order))
	return a, nil
}

// set changes the owner.
func (o *owner) set(f func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f()
}

// reported returns a command with one fact of that number.
func reported(id string, number uint64) actors.Command {
	return actors.Command{ID: id, Fingerprint: 7, IssuedAt: someTime, Payload: facts("", "", "iphone", number).Command}
}

// command returns a renewal or a release.
func command(id string, renew bool) actors.Command {
	c := release("", "").Command
	if renew {
		c = renewal("", "").Command
	}
	return actors.Command{ID: id, Fingerprint: 7, IssuedAt: someTime, Payload: c}
}

// held is the licence of those commands.
var held = License{TitleID: "GlowS01E01", AcquiredAt: someTime.Add(-time.Hour), ExpiresAt: someTime.Add(time.Hour)}

// newFallback returns a Fallback of an owner, with a journal in a directory.
func newFallback(t testing.TB, o *owner, dir string) *Fallback {
	t.Helper()
	return New(Config{
		Journal: openJournal(t, dir, 1<<20), Execute: o.Execute, Query: o.Query, FormerBytes: 1 << 20,
		Owner:    func(string) (one persistence.Incarnation) { return one },
		Terms:    func(string) Terms { return Terms{Renewals: 2, For: 24 * time.Hour} },
		Patience: time.Minute, Timeout: time.Minute, Now: func() time.Time { return someTime },
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
}

// settled returns the number of deferred commands that ended in a way.
func (f *Fallback) settled(s Settlement) int {
	sum := 0.0
	for _, k := range kinds {
		sum += testutil.ToFloat64(f.metrics.settled.WithLabelValues(k.name, s.String()))
	}
	return int(sum)
}

// TestAway: an answer of the owner never leads to a fallback, and no failure to get one escapes it.
func TestAway(t *testing.T) {
	for _, err := range []error{
		actors.ErrIDReused, actors.ErrTooOld, actors.ErrIssuedAhead, actors.ErrCorrupt, actors.ErrPanic,
		actors.ErrRejected, actors.ErrNotSupported, actors.ErrImporting, persistence.ErrCorrupt,
		actors.ErrForgotten,
		&actors.RateLimitedError{}, &actors.StampError{}, context.Canceled, errors.New("a bug"),
		&actors.DeniedError{}, fmt.Errorf("%w: %w", actors.ErrUnavailable, &actors.DeniedError{}),
		fmt.Errorf("%w: %w", actors.ErrUnavailable, actors.ErrCorrupt),
	} {
		if Unavailable(err) {
			t.Errorf("%v qualifies", err)
		}
	}
	for _, err := range []error{
		actors.ErrUnavailable, actors.ErrNotOwner, actors.ErrUnknownOutcome, actors.ErrExpired, actors.ErrOverloaded,
		&actors.UnservedError{}, persistence.ErrUnavailable, context.DeadlineExceeded, ErrOpen,
		fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, context.Canceled),
	} {
		if !Unavailable(err) {
			t.Errorf("%v does not qualify", err)
		}
	}
}

// TestDefer: what is granted, and what is not.
func TestDefer(t *testing.T) {
	day := 24 * time.Hour
	of := func(until time.Time) Terms { return Terms{Renewals: 2, For: day, Until: until} }
	for name, test := range map[string]struct {
		terms   Terms
		expires time.Time
		renew   bool
		until   time.Time
		err     error
	}{
		"renewal":              {of(time.Time{}), someTime.Add(1), true, someTime.Add(day), nil},
		"expires later":        {of(time.Time{}), someTime.Add(9 * day), true, someTime.Add(9 * day), nil},
		"title ends":           {of(someTime.Add(5)), someTime.Add(3), true, someTime.Add(5), nil},
		"title has ended":      {of(someTime), someTime.Add(3), true, time.Time{}, ErrNotActive},
		"expired":              {of(time.Time{}), someTime, true, time.Time{}, ErrNotActive},
		"not allowed":          {Terms{}, someTime.Add(1), true, time.Time{}, ErrNoTerms},
		"release":              {Terms{}, someTime.Add(1), false, time.Time{}, nil},
		"release after expiry": {Terms{}, someTime, false, time.Time{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFallback(t, &owner{}, t.TempDir())
			f.config.Terms = func(string) Terms { return test.terms }
			l := held
			l.ExpiresAt = test.expires
			got, err := f.Defer(t.Context(), "Bayley", command("c1", test.renew), l, actors.ErrUnavailable)
			if !errors.Is(err, test.err) {
				t.Fatalf("%v, want %v", err, test.err)
			}
			if err == nil && test.renew && !got.GrantedUntil().Equal(test.until.Truncate(time.Millisecond)) {
				t.Errorf("granted until %v, want %v", got.GrantedUntil(), test.until)
			}
			if f.config.Journal.Has("Bayley") != (err == nil) {
				t.Error("what is in the journal does not fit the answer")
			}
		})
	}
}

// TestSettle: deferred commands are handed in once, in order, and before a later one of the customer.
func TestSettle(t *testing.T) {
	o := &owner{unavailable: actors.ErrUnavailable}
	f := newFallback(t, o, t.TempDir())
	for i, id := range []string{"c1", "c2", "c3"} {
		_, err := f.Execute(t.Context(), "Bayley", command(id, i == 0), true)
		if !Unavailable(err) {
			t.Fatal(err)
		}
		if _, err := f.Defer(t.Context(), "Bayley", command(id, i == 0), held, err); err != nil {
			t.Fatal(err)
		}
	}
	f.settleAll(t.Context())
	if f.config.Journal.Usage().Commands != 3 {
		t.Errorf("the owner is unavailable: %+v", f.config.Journal.Usage())
	}
	o.set(func() { o.unavailable = nil })
	if _, err := f.Execute(t.Context(), "Bayley", command("c4", false), true); err != nil {
		t.Fatal(err)
	}
	if want := []string{"Bayley c1", "Bayley c2", "Bayley c3", "Bayley c4"}; !slices.Equal(o.order, want) {
		t.Errorf("executed: %v, want %v", o.order, want)
	}
	if f.settled(Executed) != 3 || f.config.Journal.Has("Bayley") {
		t.Errorf("%d were executed", f.settled(Executed))
	}
}

// TestCaller: a deferred command is handed in for who gave it, also by a later process, and one of nobody for nobody.
func TestCaller(t *testing.T) {
	o, dir := &owner{unavailable: actors.ErrUnavailable}, t.TempDir()
	f := newFallback(t, o, dir)
	shop := &caller.Caller{
		Principal: "tokens:shop", Roles: 4, Customer: "Bayley", Reason: "a reason", Method: "/s/Renew", Token: "secret",
	}
	if _, err := f.Defer(caller.NewContext(t.Context(), shop), "Bayley", command("c1", true), held,
		actors.ErrUnavailable); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Defer(t.Context(), "Zoë", command("c1", true), held, actors.ErrUnavailable); err != nil {
		t.Fatal(err)
	}
	if err := f.config.Journal.Close(); err != nil {
		t.Fatal(err)
	}
	o.unavailable = nil
	newFallback(t, o, dir).settleAll(t.Context())
	shop.Token = "" // It is not kept.
	want := []string{fmt.Sprint(*shop, "tokens:shop", "a reason")}
	if len(o.order) != 2 || !slices.Equal(o.callers, want) {
		t.Errorf("%v for %v, want %v", o.order, o.callers, want)
	}
}

// TestDenied: a command that the owner denies ends, also as another command, and holds up none after it; a customer
// that was forgotten meanwhile neither.
func TestDenied(t *testing.T) {
	for settlement, refuses := range map[Settlement]error{
		Denied: &actors.DeniedError{Text: "no"}, Forgotten: actors.ErrForgotten,
	} {
		for _, anew := range []bool{false, true} {
			o := &owner{}
			f := newFallback(t, o, t.TempDir())
			f.config.Execute = func(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
				switch {
				case c.ID == "c1" && anew:
					return actors.Reply{}, actors.ErrTooOld
				case c.ID == "c1", strings.HasPrefix(c.ID, "late-"):
					return actors.Reply{}, refuses
				}
				return o.Execute(ctx, customer, c)
			}
			for _, id := range []string{"c1", "c2"} {
				_, err := f.Defer(t.Context(), "Bayley", command(id, false), held, actors.ErrUnavailable)
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := f.Execute(t.Context(), "Bayley", command("c3", false), false); err != nil {
				t.Errorf("the next command: %v", err)
			}
			if want := []string{"Bayley c2", "Bayley c3"}; f.settled(settlement) != 1 || !slices.Equal(o.order, want) ||
				f.config.Journal.Usage().Commands != 0 {
				t.Errorf("%v: %d ended so, %v were executed", settlement, f.settled(settlement), o.order)
			}
			for _, outcome := range f.Status().Outcomes {
				if outcome.Command == "release" && outcome.NotExecuted != 1 {
					t.Errorf("%v: the status says %v", settlement, outcome)
				}
			}
		}
	}
}

// TestProbeCaller: a question that is asked in the background is asked for the caller of the one that is answered.
func TestProbeCaller(t *testing.T) {
	o := &owner{unavailable: actors.ErrUnavailable}
	f := newFallback(t, o, t.TempDir())
	var mu sync.Mutex
	nobody, asked := 0, 0
	f.config.Query = func(ctx context.Context, customer string, q any) (actors.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if by := caller.FromContext(ctx); by == nil || by.Principal != "tokens:shop" {
			nobody++
		}
		return o.Query(ctx, customer, q)
	}
	ctx := caller.NewContext(t.Context(), &caller.Caller{Principal: "tokens:shop"})
	for range 2 * minFailing {
		_, _ = f.Read(ctx, "Bayley", devices(), time.Hour, nil)
	}
	mu.Lock()
	before := asked
	mu.Unlock()
	until(func() bool {
		_, _ = f.Read(ctx, "Bayley", devices(), time.Hour, nil)
		mu.Lock()
		defer mu.Unlock()
		return asked > before
	})
	mu.Lock()
	defer mu.Unlock()
	if nobody > 0 {
		t.Errorf("%d of %d questions were asked for nobody", nobody, asked)
	}
}

// TestStamps: a command that was never sent gets another stamp from an owner that forgot commands of its time; a
// renewal that may have been executed does not, and a release is handed in as another command.
func TestStamps(t *testing.T) {
	o := &owner{stamps: map[string]time.Time{"Bayley": someTime.Add(-time.Minute)}}
	for name, test := range map[string]struct {
		renew, stamped bool
		cause          error
		want           Settlement
	}{
		"stamped, not sent": {true, true, actors.ErrUnavailable, Executed},
		"stamped, sent":     {true, true, actors.ErrUnknownOutcome, Lapsed},
		"issued":            {true, false, actors.ErrUnavailable, Lapsed},
		"release":           {false, false, actors.ErrUnavailable, Executed},
		"release, sent":     {false, true, actors.ErrUnknownOutcome, Executed},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFallback(t, o, t.TempDir())
			c := command(name, test.renew)
			c.Stamped, c.IssuedAt = test.stamped, someTime.Add(-time.Hour)
			if _, err := f.Defer(t.Context(), "Bayley", c, held, test.cause); err != nil {
				t.Fatal(err)
			}
			f.settleAll(t.Context())
			if f.settled(test.want) != 1 || f.config.Journal.Has("Bayley") {
				t.Errorf("not %v", test.want)
			}
		})
	}
}

// TestLateFacts: facts of which the owner has forgotten the command are handed in as another one; those whose
// predecessors are not recorded end as a gap.
func TestLateFacts(t *testing.T) {
	o := &owner{stamps: map[string]time.Time{"Bayley": someTime.Add(-time.Minute)}}
	f := newFallback(t, o, t.TempDir())
	c := reported("late", 1)
	c.IssuedAt = someTime.Add(-48 * time.Hour)
	if _, err := f.Defer(t.Context(), "Bayley", c, License{}, actors.ErrUnknownOutcome); err != nil {
		t.Fatal(err)
	}
	f.settleAll(t.Context())
	if f.settled(Executed) != 1 || f.config.Journal.Has("Bayley") || len(o.order) != 1 || o.order[0] == "Bayley late" {
		t.Errorf("executed: %v", o.order)
	}
	early := reported("early", 9)
	early.Payload.(*licensedv1.Command).GetSyncDevice().AfterNumber = 8
	if _, err := f.Defer(t.Context(), "Bayley", early, License{}, actors.ErrUnavailable); err != nil {
		t.Fatal(err)
	}
	o.set(func() {
		o.outcome = license.NewKind(nil).Outcome([]actors.Event{{Value: &licensedv1.CommandAccepted{
			Command: licensedv1.CommandKind_COMMAND_KIND_SYNC_DEVICE, DeviceId: "iphone", HighestNumber: 7,
		}}})
	})
	f.settleAll(t.Context())
	if f.settled(Gap) != 1 || f.config.Journal.Has("Bayley") {
		t.Error("facts without their predecessors are no gap")
	}
}

// TestOtherOwners: a customer whose owner answers nothing does not hold up others.
func TestOtherOwners(t *testing.T) {
	o := &owner{unavailable: actors.ErrUnavailable}
	f := newFallback(t, o, t.TempDir())
	f.config.Owner = func(customer string) (of persistence.Incarnation) {
		copy(of[:], customer)
		return of
	}
	for _, customer := range []string{"Bayley", "Zoë"} {
		if _, err := f.Defer(t.Context(), customer, command("c1", false), held, actors.ErrUnavailable); err != nil {
			t.Fatal(err)
		}
	}
	o.set(func() { o.unavailable = nil })
	f.config.Execute = func(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
		if customer == "Bayley" {
			return actors.Reply{}, actors.ErrCorrupt // It must be kept, for an operator to repair the customer.
		}
		return o.Execute(ctx, customer, c)
	}
	f.settleAll(t.Context())
	if got := f.config.Journal.Customers(); !slices.Equal(got, []string{"Bayley"}) {
		t.Errorf("left: %v, want Bayley", got)
	}
}

// TestBreaker: once requests to an owner fail, further ones are answered at once, and those in progress are given up.
// Ones that can be deferred do not find out whether the owner is back: others do.
func TestBreaker(t *testing.T) {
	o := &owner{unavailable: actors.ErrUnavailable}
	f := newFallback(t, o, t.TempDir())
	var wg sync.WaitGroup
	ended := make(chan error, 5)
	hang := make(chan struct{})
	o.set(func() { o.hang = hang })
	for i := range cap(ended) {
		wg.Go(func() {
			_, err := f.Execute(t.Context(), "Bayley", command(fmt.Sprint("slow", i), true), true)
			ended <- err
		})
	}
	until(func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.calls == cap(ended) })
	o.set(func() { o.hang = nil })
	for i := range minFailing {
		if _, err := f.Execute(t.Context(), "Zoë", command(fmt.Sprint(i), true), true); !Unavailable(err) {
			t.Fatal(err)
		}
	}
	wg.Wait() // Their patience of a minute is not over.
	for range cap(ended) {
		if err := <-ended; !Unavailable(err) || errors.Is(err, context.Canceled) {
			t.Errorf("given up with %v", err)
		}
	}
	if u, unavailable := f.Usage(); unavailable != 1 || u.Commands != 0 {
		t.Errorf("%d owners are unavailable, %+v", unavailable, u)
	}
	before := o.calls
	_, err := f.Execute(t.Context(), "Zoë", command("next", true), true)
	if !errors.Is(err, ErrOpen) || o.calls != before {
		t.Errorf("%v after %d calls, want %v", err, o.calls-before, ErrOpen)
	}
	o.set(func() { o.unavailable = nil })
	until(func() bool { // The pause before a probe.
		_, err := f.Execute(t.Context(), "Zoë", command("probe", true), false)
		return err == nil
	})
	if _, err := f.Execute(t.Context(), "Zoë", command("last", true), true); err != nil {
		t.Errorf("the owner is back: %v", err)
	}
	close(hang)
}

// devices is a question.
func devices() *licensedv1.Query {
	return &licensedv1.Query{Query: &licensedv1.Query_ListDevices{ListDevices: &licensedv1.ListDevices{}}}
}

// TestRead: a question is answered by the owner, or else from the store, or else as before; an owner or store that
// fails is not waited for, and is asked again in the background until it is back.
func TestRead(t *testing.T) {
	o := &owner{}
	f := newFallback(t, o, t.TempDir())
	now := someTime
	f.config.Now = func() time.Time { return now }
	var mu sync.Mutex
	stored := error(nil)
	store := func(context.Context) (actors.Answer, error) {
		mu.Lock()
		defer mu.Unlock()
		return actors.Answer{Value: &licensedv1.ListDevicesResponse{PlanId: "of the store"}}, stored
	}
	read := func(want Source, at time.Time, plan string) {
		t.Helper()
		a, err := f.Read(t.Context(), "Bayley", devices(), time.Hour, store)
		if err != nil || a.Source != want || !a.AsOf.Equal(at) ||
			a.Value.(*licensedv1.ListDevicesResponse).PlanId != plan {
			t.Errorf("%+v, %v, want %v as of %v", a, err, want, at)
		}
	}
	read(FromOwner, now, "Bayley")
	former := now
	now = now.Add(time.Minute)
	o.set(func() { o.unavailable = actors.ErrUnavailable })
	for range 2 * minFailing {
		read(FromStore, now, "of the store")
	}
	if o.questions > minFailing+2 {
		t.Errorf("%d questions to an owner that fails", o.questions)
	}
	mu.Lock()
	stored = persistence.ErrUnavailable
	mu.Unlock()
	for range 4 * minFailing {
		read(FromFormer, former, "Bayley")
	}
	if _, err := f.Read(t.Context(), "Zoë", devices(), time.Hour, store); !Unavailable(err) {
		t.Errorf("never answered: %v", err)
	}
	if u, unavailable := f.Usage(); unavailable != 0 || u.Commands != 0 {
		t.Errorf("questions say that %d owners cannot execute commands", unavailable)
	}
	mu.Lock()
	stored = nil
	mu.Unlock()
	until(func() bool {
		a, err := f.Read(t.Context(), "Bayley", devices(), time.Hour, store)
		return err == nil && a.Source == FromStore
	})
	o.set(func() { o.unavailable = nil })
	until(func() bool {
		a, err := f.Read(t.Context(), "Bayley", devices(), time.Hour, store)
		return err == nil && a.Source == FromOwner
	})
	o.set(func() { o.unavailable = actors.ErrCorrupt })
	if a, err := f.Read(t.Context(), "Bayley", devices(), time.Hour, store); !errors.Is(err, actors.ErrCorrupt) {
		t.Errorf("an answer of the owner was replaced by %+v, %v", a, err)
	}
}

// TestReadCurrent: a question that wants a current answer has its own time for the owner, and gets no other answer.
func TestReadCurrent(t *testing.T) {
	o := &owner{}
	f := newFallback(t, o, t.TempDir())
	f.config.Patience = time.Millisecond
	asked, answer := make(chan struct{}, 10), make(chan struct{})
	f.config.Query = func(ctx context.Context, customer string, q any) (actors.Answer, error) {
		asked <- struct{}{}
		select {
		case <-answer:
			return o.Query(ctx, customer, q)
		case <-ctx.Done():
			return actors.Answer{}, fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, ctx.Err())
		}
	}
	store := func(context.Context) (actors.Answer, error) {
		return actors.Answer{Value: &licensedv1.ListDevicesResponse{PlanId: "of the store"}}, nil
	}
	type answered struct {
		Answer
		err error
	}
	current := make(chan answered, 1)
	go func() {
		a, err := f.Read(context.Background(), "Bayley", devices(), 0, store)
		current <- answered{a, err}
	}()
	<-asked
	// This one is asked later, and gives up.
	if a, err := f.Read(t.Context(), "Bayley", devices(), time.Hour, store); err != nil || a.Source != FromStore {
		t.Errorf("a stale answer would do: %v, %v", a, err)
	}
	select {
	case a := <-current:
		t.Errorf("an answer before the owner's: %+v", a)
	default:
		close(answer)
		if a := <-current; a.err != nil || a.Source != FromOwner {
			t.Errorf("%+v", a)
		}
	}
	o.set(func() { o.unavailable = actors.ErrUnavailable })
	if a, err := f.Read(t.Context(), "Bayley", devices(), 0, store); !Unavailable(err) {
		t.Errorf("a stale answer that was not asked for: %v, %v", a, err)
	}
	if n := testutil.ToFloat64(f.metrics.unanswered); n != 1 {
		t.Errorf("%v questions were not answered", n)
	}
}

// TestReadForgotten: as soon as the gateway knows that a customer was forgotten, from the owner, the store or its own
// call, no former answer about them is given.
func TestReadForgotten(t *testing.T) {
	for name, learn := range map[string]func(f *Fallback, o *owner, ask func(stored error) error){
		"owner": func(f *Fallback, o *owner, ask func(stored error) error) {
			o.set(func() { o.unavailable = actors.ErrForgotten })
			_ = ask(persistence.ErrUnavailable)
		},
		"store": func(f *Fallback, o *owner, ask func(stored error) error) {
			o.set(func() { o.unavailable = actors.ErrUnavailable })
			if err := ask(persistence.ErrForgotten); !errors.Is(err, actors.ErrForgotten) {
				t.Errorf("the store says that the customer is forgotten: %v", err)
			}
		},
		"call": func(f *Fallback, o *owner, ask func(stored error) error) { f.Forget("Bayley") },
	} {
		o := &owner{}
		f := newFallback(t, o, t.TempDir())
		ask := func(stored error) error {
			_, err := f.Read(t.Context(), "Bayley", devices(), time.Hour, func(context.Context) (actors.Answer, error) {
				return actors.Answer{}, stored
			})
			return err
		}
		if err := ask(nil); err != nil {
			t.Fatal(err)
		}
		learn(f, o, ask)
		o.set(func() { o.unavailable = actors.ErrUnavailable })
		if err := ask(persistence.ErrUnavailable); !Unavailable(err) || f.former.usage() != 0 {
			t.Errorf("%s: a former answer about a forgotten customer: %v", name, err)
		}
	}
}

// TestFormerAnswers: as many answers are kept as fit, those asked last, no older one replaces a later one, and none is
// given after a day.
func TestFormerAnswers(t *testing.T) {
	f := newFormerAnswers(10_000)
	add := func(customer, plan string, at time.Time) {
		f.add(customer, devices(), Answer{
			Answer: actors.Answer{Value: &licensedv1.ListDevicesResponse{PlanId: plan}}, AsOf: at,
		})
	}
	for i := range 1000 {
		add(fmt.Sprint(i), "basic", someTime)
		if f.usage() > 10_000 {
			t.Fatalf("%d bytes after %d answers", f.usage(), i)
		}
	}
	if _, ok := f.get("0", devices(), someTime, 2*formerAge); ok || f.all.Len() < 20 {
		t.Errorf("the first of 1,000 answers is kept, with %d others", f.all.Len())
	}
	add("999", "premium", someTime.Add(-time.Second))
	add("998", "premium", someTime.Add(time.Second))
	add("997", strings.Repeat("x", maxFormer), someTime.Add(time.Second))
	for customer, plan := range map[string]string{"999": "basic", "998": "premium", "997": "basic"} {
		a, ok := f.get(customer, devices(), someTime, 2*formerAge)
		if !ok || a.Value.(*licensedv1.ListDevicesResponse).PlanId != plan {
			t.Errorf("%s has %+v, want %s", customer, a, plan)
		}
	}
	if _, ok := f.get("999", devices(), someTime.Add(formerAge+1), 2*formerAge); ok {
		t.Error("an answer of yesterday was given")
	}
	// That of 998 is of a second later.
	for age, want := range map[time.Duration]bool{time.Minute: true, time.Minute - 1: false} {
		if _, ok := f.get("998", devices(), someTime.Add(time.Second+time.Minute), age); ok != want {
			t.Errorf("an answer that is a minute old: %v, where it may be %v old", ok, age)
		}
	}
	for _, key := range f.all.Keys() {
		f.all.Remove(key)
	}
	if f.usage() != 0 {
		t.Errorf("%d bytes of no answers", f.usage())
	}
	none := newFormerAnswers(0)
	none.add("a", devices(), Answer{Answer: actors.Answer{Value: &licensedv1.ListDevicesResponse{}}})
	if _, ok := none.get("a", devices(), someTime, 2*formerAge); ok {
		t.Error("an answer is kept in no memory")
	}
}

// TestStatus: what is deferred, what became of it, and which owners fail; an owner that ended is not among them.
func TestStatus(t *testing.T) {
	o := &owner{unavailable: actors.ErrUnavailable}
	f := newFallback(t, o, t.TempDir())
	for i := range minFailing {
		c := reported(fmt.Sprint(i), uint64(i))
		_, err := f.Execute(t.Context(), "Bayley", c, true)
		if _, err := f.Defer(t.Context(), "Bayley", c, License{}, err); err != nil {
			t.Fatal(err)
		}
	}
	synced := func(s *licensedv1.FallbackFigures) *licensedv1.DeferredOutcomes {
		i := slices.IndexFunc(s.Outcomes, func(o *licensedv1.DeferredOutcomes) bool { return o.Command == "sync" })
		return s.Outcomes[i]
	}
	s := f.Status()
	if s.DeferredCommands != minFailing || s.DeferredCustomers != 1 || s.DeferredSince == nil || s.Bytes == 0 ||
		len(s.UnavailableOwners) != 1 || synced(s).Accepted != minFailing || synced(s).Executed != 0 {
		t.Errorf("in the outage: %v", s)
	}
	o.set(func() { o.unavailable = nil })
	until(func() bool {
		f.settleAll(t.Context())
		return !f.config.Journal.Has("Bayley")
	})
	s = f.Status()
	if s.DeferredCommands != 0 || s.DeferredSince != nil || len(s.UnavailableOwners) != 0 ||
		synced(s).Executed != minFailing {
		t.Errorf("after it: %v", s)
	}
	ended := f.breakers.of(breakerKey{owner: persistence.NewIncarnation()})
	ended.Open()
	if n := len(f.breakers.failing()); n != 1 {
		t.Errorf("%d owners fail, want 1", n)
	}
	ended.used = time.Now().Add(-2 * breakerIdle)
	if n := len(f.breakers.failing()); n != 0 {
		t.Errorf("%d owners fail, the one that does has ended", n)
	}
}

// TestOverload: an owner with a full queue stays in use.
func TestOverload(t *testing.T) {
	o := &owner{unavailable: actors.ErrOverloaded}
	f := newFallback(t, o, t.TempDir())
	for i := range 10 * minFailing {
		if _, err := f.Execute(t.Context(), "Bayley", command(fmt.Sprint(i), true), true); !Unavailable(err) {
			t.Fatal(err)
		}
	}
	if o.calls != 10*minFailing {
		t.Errorf("%d of %d commands were sent", o.calls, 10*minFailing)
	}
}

// TestHandingIn: a command whose customer's deferred ones are being handed in does not wait longer than its patience.
func TestHandingIn(t *testing.T) {
	o := &owner{}
	f := newFallback(t, o, t.TempDir())
	if _, err := f.Defer(t.Context(), "Bayley", command("c1", false), held, actors.ErrUnavailable); err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	o.set(func() { o.hang = hang })
	var wg sync.WaitGroup
	wg.Go(func() { f.settleAll(t.Context()) })
	until(func() bool { o.mu.Lock(); defer o.mu.Unlock(); return o.calls == 1 })
	f.config.Patience = time.Millisecond
	_, err := f.Execute(t.Context(), "Bayley", command("c2", true), true)
	if !Unavailable(err) || errors.Is(err, context.DeadlineExceeded) || o.calls != 1 {
		t.Errorf("%v after %d calls", err, o.calls)
	}
	close(hang)
	wg.Wait()
	if f.config.Journal.Has("Bayley") {
		t.Error("not settled")
	}
}

// until returns when a condition holds.
func until(holds func() bool) {
	for !holds() {
		time.Sleep(time.Millisecond)
	}
}

// TestSeeds: whatever happens to owner and gateways, each command that was provisionally accepted is executed once, in
// the order in which its gateway accepted it, and no gateway renews a licence more often than the terms say.
func TestSeeds(t *testing.T) { each(t, runSeed) }

// place is a gateway of a simulated cluster.
type place struct {
	*Fallback
	dir      string
	accepted []string // customer and id, in order
}

func runSeed(t *testing.T, rng *rand.Rand) {
	o := &owner{}
	gateways := []*place{{dir: t.TempDir()}, {dir: t.TempDir()}}
	start := func(g *place) {
		g.Fallback = newFallback(t, o, g.dir)
		g.config.Patience = 5 * time.Second
	}
	for _, g := range gateways {
		start(g)
	}
	sentTo := map[string]map[*place]bool{}
	for step := range 80 {
		g := gateways[rng.IntN(len(gateways))]
		switch n := rng.IntN(20); {
		case n < 2:
			o.unavailable, o.executes = nil, false
		case n < 5:
			o.unavailable = []error{actors.ErrUnavailable, actors.ErrUnknownOutcome, actors.ErrOverloaded}[rng.IntN(3)]
			o.executes = errors.Is(o.unavailable, actors.ErrUnknownOutcome) && rng.IntN(2) == 0
		case n < 7: // kill -9
			dir := t.TempDir()
			data, err := os.ReadFile(filepath.Join(g.dir, "deferred.db"))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "deferred.db"), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			g.dir = dir
			start(g)
		case n < 9:
			g.settleAll(t.Context())
		default:
			customer, id := fmt.Sprint("c", rng.IntN(3)), fmt.Sprint(step)
			if rng.IntN(4) == 0 {
				id = fmt.Sprint(rng.IntN(step + 1)) // Perhaps a repeat, perhaps at the other gateway.
			}
			name := customer + " " + id
			if sentTo[name] == nil {
				sentTo[name] = map[*place]bool{}
			}
			sentTo[name][g] = true
			c := command(id, len(id)%2 == 0)
			if len(id)%2 == 1 && id > "5" {
				number, _ := strconv.ParseUint(id, 10, 64)
				c = reported(id, number)
			}
			_, err := g.Execute(t.Context(), customer, c, true)
			if err == nil {
				continue
			}
			if !Unavailable(err) {
				t.Fatal(err)
			}
			switch _, err := g.Defer(t.Context(), customer, c, held, err); {
			case err == nil && !slices.Contains(g.accepted, name):
				g.accepted = append(g.accepted, name)
				if slices.Contains(o.order, name) {
					sentTo[name][nil] = true // Executed already.
				}
			case err != nil && !errors.Is(err, ErrRenewedBefore):
				t.Fatal(err)
			}
		}
		for _, g := range gateways {
			for _, customer := range g.config.Journal.Customers() {
				all, err := g.config.Journal.Commands(customer)
				if err != nil {
					t.Fatal(err)
				}
				renewals := 0
				for _, c := range all {
					if c.Command.GetRenewLicense() != nil {
						renewals++
					}
				}
				if renewals > 2 {
					t.Fatalf("step %d: %d provisional renewals of a licence", step, renewals)
				}
			}
		}
	}
	o.unavailable, o.executes = nil, false
	for _, g := range gateways {
		until(func() bool { // The pause of an open breaker.
			g.settleAll(t.Context())
			return !slices.ContainsFunc(g.config.Journal.Customers(), func(customer string) bool {
				return len(idsOf(t, g.config.Journal, customer)) > 0
			})
		})
		if u := g.config.Journal.Usage(); u.Commands != 0 {
			t.Errorf("an empty journal has %+v", u)
		}
		at := -1
		for _, name := range g.accepted {
			found := slices.Index(o.order, name)
			if found < 0 {
				t.Errorf("%s was accepted and never executed", name)
			}
			if len(sentTo[name]) > 1 {
				continue
			}
			if customer := name[:2]; at >= 0 && o.order[at][:2] == customer && found < at {
				t.Errorf("%s was executed before %s, which was accepted earlier", name, o.order[at])
			}
			at = found
		}
	}
	for i, name := range o.order {
		if slices.Index(o.order[i+1:], name) >= 0 {
			t.Errorf("%s was executed twice", name)
		}
	}
}
