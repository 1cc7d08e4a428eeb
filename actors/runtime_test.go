package actors_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/memory"
	"licensed/persistence/tiered"
)

// held is an authority that holds all under one epoch until it is told otherwise.
type held struct {
	incarnation persistence.Incarnation
	epoch       atomic.Uint64 // 0: nothing is held
	stale       atomic.Uint64
	suspended   atomic.Bool
}

// badShard is the shard of all aggregates whose ids begin with "bad". Others have lower ones.
const badShard = 8

func shardOf(id string) uint32 {
	if strings.HasPrefix(id, "bad") {
		return badShard
	}
	return uint32(xxhash.Sum64String(id) % badShard)
}

func newHeld() *held {
	h := &held{incarnation: persistence.NewIncarnation()}
	h.epoch.Store(1)
	return h
}

func (h *held) Incarnation() persistence.Incarnation { return h.incarnation }
func (h *held) Shard(id string) uint32               { return shardOf(id) }
func (h *held) Epoch(uint32) (uint64, bool)          { e := h.epoch.Load(); return e, e != 0 }
func (h *held) Holds(_ uint32, epoch uint64) bool    { return h.epoch.Load() == epoch }
func (h *held) Suspended() bool                      { return h.suspended.Load() }

func (h *held) StaleEpoch(_ uint32, _ string, e uint64) {
	h.stale.Store(e)
}

type setup struct {
	*actors.Runtime
	store     persistence.Journal
	authority *held
	passed    atomic.Int64 // passivations
}

func start(t testing.TB, store persistence.Journal, change func(*actors.Options)) *setup {
	t.Helper()
	s := &setup{store: store, authority: newHeld()}
	o := actors.Options{
		Kind: actorstest.Ledger{}, Journal: store, Authority: s.authority, Config: actors.DefaultConfig(),
		System:   actors.NewActorSystem(quiet()),
		Listener: actors.Listener{Passivated: func(actors.PassivatedInfo) { s.passed.Add(1) }},
	}
	o.Config.Window.MinAge = 0
	o.Config.RetryMin = time.Millisecond
	if change != nil {
		change(&o)
	}
	r, err := actors.New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Runtime = r
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := r.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

func add(id string, amount uint64) actors.Command {
	return actors.Command{ID: id, Fingerprint: amount, IssuedAt: time.Now(), Payload: actorstest.Add{Amount: amount}}
}

func (s *setup) total(t testing.TB, id string) uint64 {
	t.Helper()
	a, err := s.Query(t.Context(), id, actorstest.Total{})
	if err != nil {
		t.Fatal(err)
	}
	return a.Value.(uint64)
}

func TestExecute(t *testing.T) {
	s := start(t, memory.New(), nil)
	r, err := s.Execute(t.Context(), "Bayley", add("c1", 5))
	if err != nil || r.Sequence != 1 || r.Duplicate || string(r.Outcome) != string(binary.AppendUvarint(nil, 5)) {
		t.Fatalf("got %+v, %v", r, err)
	}
	again := add("c1", 5)
	d, err := s.Execute(t.Context(), "Bayley", again)
	if err != nil || !d.Duplicate || d.Sequence != 1 || string(d.Outcome) != string(r.Outcome) ||
		!d.Time.Equal(r.Time) {
		t.Fatalf("repeat: got %+v, %v, want %+v", d, err, r)
	}
	if _, err := s.Execute(t.Context(), "Bayley", add("c1", 6)); !errors.Is(err, actors.ErrIDReused) {
		t.Fatalf("same id, other content: %v", err)
	}
	if got := s.total(t, "Bayley"); got != 5 {
		t.Fatalf("total %d", got)
	}
	if got := s.total(t, "Robin"); got != 0 {
		t.Fatalf("other aggregate: total %d", got)
	}
}

func TestIssueTimes(t *testing.T) {
	s := start(t, memory.New(), nil)
	ahead := add("ahead", 1)
	ahead.IssuedAt = time.Now().Add(time.Hour)
	if _, err := s.Execute(t.Context(), "a", ahead); !errors.Is(err, actors.ErrIssuedAhead) {
		t.Errorf("issued ahead: %v", err)
	}
	old := add("old", 1)
	old.IssuedAt = time.Now().Add(-25 * time.Hour)
	if _, err := s.Execute(t.Context(), "a", old); err != nil {
		t.Errorf("issued long ago, and nothing is forgotten: %v", err)
	}
	if got := s.total(t, "a"); got != 1 {
		t.Errorf("total %d", got)
	}
}

func TestWindowFullOfYoungCommands(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Config.Window.MinAge = time.Hour
		o.Config.Window.MaxCommands = 10
	})
	for i := range 10 {
		if _, err := s.Execute(t.Context(), "a", add(fmt.Sprint(i), 1)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Execute(t.Context(), "a", add("one more", 1))
	var limited *actors.RateLimitedError
	if !errors.As(err, &limited) || limited.RetryAfter <= 0 || limited.RetryAfter > time.Hour {
		t.Fatalf("eleventh command: %v", err)
	}
	if r, err := s.Execute(t.Context(), "a", add("3", 1)); err != nil || !r.Duplicate {
		t.Fatalf("repeat while rate-limited: %+v, %v", r, err)
	}
}

func TestRefusalsPerSecond(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Kind = actorstest.Ledger{Limit: 1}
		o.Now = func() time.Time { return now }
	})
	refused, limited := 0, 0
	for i := range 9 {
		c := add(fmt.Sprint(i), 2)
		c.IssuedAt = now
		_, err := s.Execute(t.Context(), "a", c)
		var l *actors.RateLimitedError
		switch {
		case errors.As(err, &l):
			limited++
		case err == nil:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused != 5 || limited != 4 {
		t.Fatalf("%d refusals recorded, %d turned away", refused, limited)
	}
}

// TestRefusalsAfterClockAhead sets the clock back after an event of a later time: a second is a second
// all the same.
func TestRefusalsAfterClockAhead(t *testing.T) {
	var ahead atomic.Int64
	now := time.Now().Truncate(time.Second)
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Kind = actorstest.Ledger{Limit: 1}
		o.Now = func() time.Time { return now.Add(time.Duration(ahead.Load())) }
	})
	for second, d := range []time.Duration{10 * time.Minute, 0, time.Second, 2 * time.Second} {
		ahead.Store(int64(d))
		for i := range 5 {
			c := add(fmt.Sprint(second, "/", i), 2)
			c.IssuedAt = now
			if _, err := s.Execute(t.Context(), "a", c); err != nil {
				t.Fatalf("refusal %d of second %d: %v", i, second, err)
			}
		}
	}
}

func TestValidateOnlyRecordsNothing(t *testing.T) {
	s := start(t, memory.New(), nil)
	c := add("", 5)
	c.ValidateOnly = true
	r, err := s.Execute(t.Context(), "a", c)
	if err != nil || r.Sequence != 0 || len(r.Outcome) == 0 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if got := s.total(t, "a"); got != 0 {
		t.Fatalf("total %d", got)
	}
}

func TestPanicFailsOneCommand(t *testing.T) {
	s := start(t, memory.New(), nil)
	for i, p := range []actorstest.Add{{Amount: 1, Panic: true}, {Amount: 1, PanicEvolve: true}} {
		if _, err := s.Execute(t.Context(), "a", add(fmt.Sprint("good", i), 1)); err != nil {
			t.Fatal(err)
		}
		c := add(fmt.Sprint("bad", i), 1)
		c.Payload = p
		if _, err := s.Execute(t.Context(), "a", c); !errors.Is(err, actors.ErrPanic) {
			t.Fatalf("panicking command: %v", err)
		}
		if got := s.total(t, "a"); got != uint64(i)+1 {
			t.Fatalf("total %d after panic %d", got, i)
		}
	}
}

func TestLostShardEndsActivations(t *testing.T) {
	s := start(t, memory.New(), nil)
	if _, err := s.Execute(t.Context(), "a", add("c1", 1)); err != nil {
		t.Fatal(err)
	}
	s.authority.epoch.Store(0)
	if _, err := s.Execute(t.Context(), "a", add("c2", 1)); !errors.Is(err, actors.ErrNotOwner) {
		t.Fatalf("without the shard: %v", err)
	}
	s.authority.epoch.Store(2)
	if got := s.total(t, "a"); got != 1 {
		t.Fatalf("total %d under the next epoch", got)
	}
	s.authority.epoch.Store(1)
	if _, err := s.Query(t.Context(), "b", actorstest.Total{}); err != nil {
		t.Fatal(err)
	}
	s.Drop(func(string) bool { return true })
	for s.Stats().Resident > 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Query(t.Context(), "a", actorstest.Total{}); !errors.Is(err, actors.ErrNotOwner) ||
		s.authority.stale.Load() != 2 {
		t.Fatalf("root of a higher epoch: %v, reported %d", err, s.authority.stale.Load())
	}
}

// TestPassivationUnderLoad has aggregates evicted all the time while commands come: none is lost,
// none fails, none waits for a timeout.
func TestPassivationUnderLoad(t *testing.T) {
	store := memory.New()
	s := start(t, store, func(o *actors.Options) {
		o.Config.CompactAfter = time.Microsecond
		o.Config.IdleAfter = time.Microsecond
		o.Config.SweepEvery = 100 * time.Microsecond
		o.Config.SnapshotEvery = 7
	})
	const clients, aggregates, each = 8, 20, 400
	var want [aggregates]atomic.Uint64
	var wg sync.WaitGroup
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(c)))
			for i := range each {
				a, amount := r.IntN(aggregates), uint64(r.IntN(5))
				cmd := add(fmt.Sprintf("%d-%d", c, i), amount)
				if _, err := s.Execute(t.Context(), fmt.Sprint("a", a), cmd); err != nil {
					t.Errorf("command %s: %v", cmd.ID, err)
					return
				}
				want[a].Add(amount)
			}
		}()
	}
	wg.Wait()
	for a := range aggregates {
		if got := s.total(t, fmt.Sprint("a", a)); got != want[a].Load() {
			t.Errorf("aggregate %d: total %d, want %d", a, got, want[a].Load())
		}
	}
	if s.passed.Load() == 0 {
		t.Error("nothing was passivated")
	}
	t.Logf("%d passivations", s.passed.Load())
}

// TestSuspendedEvictsNobodyIdle: while the process is suspended, only the bound of memory has aggregates leave.
func TestSuspendedEvictsNobodyIdle(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Config.MaxResidentBytes = 20_000
		o.Config.SweepEvery = time.Millisecond
		o.Config.CompactAfter, o.Config.IdleAfter = time.Microsecond, time.Microsecond
		o.Authority.(*held).suspended.Store(true)
	})
	for i := range 200 {
		if _, err := s.Execute(t.Context(), fmt.Sprint("a", i), add("c", 1)); err != nil {
			t.Fatal(err)
		}
	}
	for s.Stats().ResidentBytes > 20_000 {
		time.Sleep(time.Millisecond)
	}
	if s.Stats().Resident == 0 {
		t.Error("idle aggregates were evicted")
	}
	s.authority.suspended.Store(false)
	for s.Stats().Resident > 0 {
		time.Sleep(time.Millisecond)
	}
}

func TestMemoryBound(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) {
		o.Config.MaxResidentBytes = 20_000
		o.Config.SweepEvery = time.Millisecond
		o.Config.CompactAfter = time.Millisecond
	})
	for i := range 200 {
		if _, err := s.Execute(t.Context(), fmt.Sprint("a", i), add("c", 1)); err != nil {
			t.Fatal(err)
		}
	}
	for s.Stats().ResidentBytes > 20_000 {
		time.Sleep(time.Millisecond)
	}
	if n := s.Stats().Resident; n == 0 || n > 20 {
		t.Errorf("%d aggregates are left", n)
	}
	if got := s.total(t, "a0"); got != 1 {
		t.Errorf("total %d", got)
	}
}

func TestHeadLeadsToTheWholeHistory(t *testing.T) {
	s := start(t, memory.New(), func(o *actors.Options) { o.Config.SnapshotEvery = 3 })
	for i := range 20 {
		c := add(fmt.Sprint(i), uint64(i))
		c.Principal, c.Reason = fmt.Sprint("tokens:", i), strings.Repeat("r", i)
		if _, err := s.Execute(t.Context(), "a", c); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			s.Drop(func(string) bool { return true })
			for s.Stats().Resident > 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
	a, err := s.Query(t.Context(), "a", actors.HeadQuery{})
	if err != nil || a.Head.Sequence != 20 {
		t.Fatalf("%+v, %v", a, err)
	}
	n := uint64(0)
	err = tiered.NewReader(s.store, nil, nil).ReadAll(t.Context(), a.Head,
		persistence.HistoryRange{}, func(r *persistence.Record) error {
			n++
			if r.Sequence != n || r.CommandID != fmt.Sprint(n-1) || r.Principal != fmt.Sprint("tokens:", n-1) ||
				len(r.Reason) != int(n-1) {
				return fmt.Errorf("got %+v, want sequence %d", r, n)
			}
			return nil
		})
	if err != nil || n != 20 {
		t.Fatalf("%d records, %v", n, err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// TestActivationTellsOfEventsAhead: an aggregate whose last event lies in the future says by how much.
func TestActivationTellsOfEventsAhead(t *testing.T) {
	store := memory.New()
	fast := func(o *actors.Options) { o.Now = func() time.Time { return time.Now().Add(time.Hour) } }
	s := start(t, store, fast)
	c := add("c1", 1)
	c.IssuedAt = time.Now().Add(time.Hour)
	if _, err := s.Execute(t.Context(), "a", c); err != nil {
		t.Fatal(err)
	}
	ahead := make(chan time.Duration, 2)
	right := start(t, store, func(o *actors.Options) {
		o.Listener.Activated = func(i actors.ActivatedInfo) { ahead <- i.Ahead }
	})
	right.authority.epoch.Store(2)
	for _, a := range []struct {
		id        string
		low, high time.Duration
	}{{"a", 30 * time.Minute, time.Hour}, {"b", 0, 0}} {
		if _, err := right.Query(t.Context(), a.id, actorstest.Total{}); err != nil {
			t.Fatal(err)
		}
		if got := <-ahead; got < a.low || got > a.high {
			t.Errorf("%s is %v ahead", a.id, got)
		}
	}
}
