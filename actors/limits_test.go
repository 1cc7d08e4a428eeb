package actors_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/actors"
	"licensed/actors/actorstest"
	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
	"licensed/persistence/tiered"
)

// gate is a journal whose appends wait until it is opened.
type gate struct {
	persistence.Journal
	mu      sync.Mutex
	opened  bool
	waiting []func()
}

func (g *gate) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	write := func() { g.Journal.Append(ctx, m, done) }
	g.mu.Lock()
	if !g.opened {
		g.waiting = append(g.waiting, write)
		g.mu.Unlock()
		return
	}
	g.mu.Unlock()
	write()
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = false
}

func (g *gate) open() {
	g.mu.Lock()
	waiting := g.waiting
	g.opened, g.waiting = true, nil
	g.mu.Unlock()
	for _, write := range waiting {
		write()
	}
}

// executing sends commands that cannot finish to one aggregate and returns when it has them all.
func executing(t *testing.T, s *setup, ctx context.Context, ids ...string) *sync.WaitGroup {
	t.Helper()
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, _ = s.Execute(ctx, "a", add(id, 1))
		}()
	}
	for s.Pending("a") < len(ids) {
		time.Sleep(time.Millisecond)
	}
	return &wg
}

func TestQueuesAreBounded(t *testing.T) {
	g := &gate{Journal: memory.New()}
	s := start(t, g, func(o *actors.Options) { o.Config.MaxQueue, o.Config.MaxInFlight = 2, 3 })
	wg := executing(t, s, t.Context(), "c1", "c2")
	if _, err := s.Execute(t.Context(), "a", add("c3", 1)); !errors.Is(err, actors.ErrOverloaded) {
		t.Errorf("third command of an aggregate that takes two: %v", err)
	}
	wg.Add(1)
	go func() {
		defer wg.Done()
		_, _ = s.Execute(t.Context(), "b", add("c1", 1))
	}()
	for s.Stats().InFlight < 3 {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Execute(t.Context(), "c", add("c1", 1)); !errors.Is(err, actors.ErrOverloaded) {
		t.Errorf("fourth command of a process that takes three: %v", err)
	}
	g.open()
	wg.Wait()
	if got := s.total(t, "a"); got != 2 {
		t.Errorf("total %d, the refused command was executed", got)
	}
}

func TestContextEndsWhileWaiting(t *testing.T) {
	g := &gate{Journal: memory.New()}
	s := start(t, g, nil)
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := s.Execute(ctx, "a", add("c1", 1))
		answer <- err
	}()
	for g.held() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-answer; !errors.Is(err, actors.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	g.open()
	r, err := s.Execute(t.Context(), "a", add("c1", 1))
	if err != nil || !r.Duplicate {
		t.Errorf("the repeat tells what came of it: %+v, %v", r, err)
	}
	if _, err := s.Execute(ctx, "a", add("c2", 1)); !errors.Is(err, actors.ErrExpired) {
		t.Errorf("with a context that was over: %v", err)
	}
}

func TestCloseWhoseTimeIsOver(t *testing.T) {
	g := &gate{Journal: memory.New()}
	r, err := actors.New(actors.Options{
		Kind: actorstest.Ledger{}, Journal: g, Authority: newHeld(), Config: actors.DefaultConfig(),
		System: actors.NewActorSystem(quiet()),
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := r.Execute(context.Background(), "a", add("c1", 1))
		answer <- err
	}()
	for g.held() == 0 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: %v", err)
	}
	if err := <-answer; !errors.Is(err, actors.ErrUnknownOutcome) || errors.Is(err, actors.ErrNotOwner) {
		t.Errorf("what was under way: %v", err) // the latter would say that it was not executed
	}
	if _, err := r.Execute(t.Context(), "a", add("c2", 1)); !errors.Is(err, actors.ErrNotOwner) {
		t.Errorf("after close: %v", err)
	}
}

func (g *gate) held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

// bomb is an authority that panics when it is asked for the second time: a bug of the runtime's own.
type bomb struct {
	*held
	mu    sync.Mutex
	asked int
}

func (b *bomb) Holds(shard uint32, epoch uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.asked++; b.asked == 3 {
		panic("bomb")
	}
	return b.held.Holds(shard, epoch)
}

func TestPanicOfTheRuntimeItself(t *testing.T) {
	b := &bomb{held: newHeld()}
	s := start(t, memory.New(), func(o *actors.Options) { o.Authority = b })
	_, err := s.Execute(t.Context(), "a", add("c1", 1))
	if !errors.Is(err, actors.ErrUnknownOutcome) || !errors.Is(err, actors.ErrPanic) {
		t.Fatalf("got %v", err)
	}
	if _, err := s.Execute(t.Context(), "a", add("c2", 1)); err != nil {
		t.Fatalf("the aggregate did not come back: %v", err)
	}
}

// TestPanicLosesNoRequest: the caller that was being served when the runtime itself panicked, before the machine had
// the request, is answered, and nothing waits for it any more.
func TestPanicLosesNoRequest(t *testing.T) {
	var panics atomic.Bool
	s := start(t, memory.New(), func(o *actors.Options) { o.Authority = panicking{newHeld(), &panics} })
	panics.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.Execute(ctx, "Bayley", add("c1", 5)); !errors.Is(err, actors.ErrPanic) ||
		!errors.Is(err, actors.ErrUnknownOutcome) {
		t.Fatalf("%v, the panic is yet to come: %t", err, panics.Load())
	}
	if _, err := s.Execute(ctx, "Bayley", add("c1", 5)); err != nil {
		t.Errorf("repeat: %v", err)
	}
	if n := s.Stats().InFlight; n != 0 {
		t.Errorf("%d requests in flight", n)
	}
}

// panicking is an authority that panics when it is asked for the first time.
type panicking struct {
	*held
	panics *atomic.Bool
}

func (p panicking) Holds(shard uint32, epoch uint64) bool {
	if p.panics.CompareAndSwap(true, false) {
		panic("a bug")
	}
	return p.held.Holds(shard, epoch)
}

// small is a journal that takes small mutations only, and notes their sizes.
type small struct {
	*gate
	most  int
	mu    sync.Mutex
	sizes []int
}

func (s *small) MaxMutation() int { return s.most }

func (s *small) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	s.mu.Lock()
	s.sizes = append(s.sizes, m.Size())
	s.mu.Unlock()
	if m.Size() > s.most {
		done(persistence.ErrRejected)
		return
	}
	s.gate.Append(ctx, m, done)
}

// TestGroupsFitTheStore: commands that arrive during a long write do not make a mutation that the store does not take.
// Further ones wait undecided, and questions are answered meanwhile.
func TestGroupsFitTheStore(t *testing.T) {
	const commands, size = 100, 400 // bytes each, about
	j := &small{gate: &gate{Journal: memory.New()}, most: 10 * size}
	s := start(t, j, func(o *actors.Options) { o.Config.SnapshotEvery = 1000 })
	var wg sync.WaitGroup
	for i := range commands {
		wg.Go(func() {
			c := add(fmt.Sprint("c", i), 1)
			c.Payload = actorstest.Add{Amount: 1, Pad: size}
			if _, err := s.Execute(t.Context(), "a", c); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "all wait", func() bool { return s.Pending("a") == commands && j.held() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	withdrawn := make(chan error, 1)
	go func() {
		_, err := s.Execute(ctx, "a", add("more", 1))
		withdrawn <- err
	}()
	until(t, "one more waits", func() bool { return s.Pending("a") == commands+1 })
	cancel()
	if err := <-withdrawn; !errors.Is(err, actors.ErrExpired) {
		t.Errorf("a command that waits for room in the next mutation: %v", err)
	}
	j.open()
	wg.Wait()
	if got := s.total(t, "a"); got != commands {
		t.Errorf("total %d", got)
	}
	// Each is closed by the first command with which it reaches half of the largest mutation.
	one := j.sizes[0] // that of the first command, which went alone
	for _, n := range j.sizes {
		if n >= j.most/2+one {
			t.Errorf("a mutation of %d bytes: half of the largest is %d, and a command takes %d", n, j.most/2, one)
		}
	}
	if n := len(j.sizes); n > commands/4 {
		t.Errorf("%d commands were appended in %d mutations: %d", commands, n, j.sizes)
	}
}

// TestRejectedRootIsCertain: a root that the store refuses for good never will be, so what was decided on it was not
// executed.
func TestRejectedRootIsCertain(t *testing.T) {
	var reject atomic.Bool
	reject.Store(true)
	store := faulty.New(memory.New(), func(c faulty.Call) faulty.Fault {
		if reject.Load() && c.Op == faulty.PutRoot {
			return faulty.Fault{Kind: faulty.Refuse}
		}
		return faulty.Fault{}
	})
	s := start(t, store, nil)
	for range 3 {
		if _, err := s.Execute(t.Context(), "a", add("c1", 5)); !errors.Is(err, actors.ErrRejected) ||
			errors.Is(err, actors.ErrUnknownOutcome) {
			t.Errorf("%v", err)
		}
	}
	reject.Store(false)
	if r, err := s.Execute(t.Context(), "a", add("c1", 5)); err != nil || r.Duplicate || r.Sequence != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestStateTooLargeForTheStore: a customer whose next root the store would not take gets answers to questions and to
// repeats, also from each new owner, and is told that further commands are not executed. Nothing is written for it
// meanwhile, but a root without a snapshot by each owner. Commands that free something are executed.
func TestStateTooLargeForTheStore(t *testing.T) {
	m := memory.New()
	limited := func(most int, epoch uint64) *setup {
		j := &small{gate: &gate{Journal: m, opened: true}, most: most}
		s := start(t, j, func(o *actors.Options) {
			o.Config.SnapshotEvery = 10
			o.Config.RetryMin, o.Config.RetryMax = time.Millisecond, 2*time.Millisecond
			o.Past = func(ctx context.Context, top persistence.Root) (persistence.Past, error) {
				return tiered.NewReader(m, nil, nil).Past(ctx, top, nil)
			}
		})
		s.authority.epoch.Store(epoch)
		return s
	}
	id := func(i int) string { return fmt.Sprintf("%050d", i) }
	s, executed := limited(2000, 1), uint64(0)
	for {
		_, err := s.Execute(t.Context(), "a", add(id(int(executed)), 1))
		if errors.Is(err, actors.ErrRejected) && !errors.Is(err, actors.ErrUnknownOutcome) {
			break
		}
		if executed++; err != nil || executed > 1000 {
			t.Fatalf("after %d commands: %v", executed, err)
		}
	}
	roots := func() int {
		all, err := m.ReadRoots(t.Context(), "a:Ledger", persistence.RootKey{}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	before := roots()
	works := func(s *setup, what string) {
		t.Helper()
		if got := s.total(t, "a"); got != executed {
			t.Errorf("%s: total %d of %d", what, got, executed)
		}
		if a, err := s.Query(t.Context(), "a", actors.HeadQuery{}); err != nil || a.Head.Sequence != executed {
			t.Errorf("%s: the head is %d: %v", what, a.Head.Sequence, err)
		}
		if r, err := s.Execute(t.Context(), "a", add(id(7), 1)); err != nil || !r.Duplicate {
			t.Errorf("%s: a repeat: %+v, %v", what, r, err)
		}
		for range 20 { // while they are refused, and when it is tried again
			if _, err := s.Execute(t.Context(), "a", add("more", 1)); !errors.Is(err, actors.ErrRejected) ||
				errors.Is(err, actors.ErrUnknownOutcome) {
				t.Errorf("%s: one more command: %v", what, err)
			}
			time.Sleep(time.Millisecond / 2)
		}
		if n := roots(); n != before {
			t.Errorf("%s: %d roots, before %d", what, n, before)
		}
	}
	works(s, "in memory")
	for left := false; !left; {
		_, left = s.Passivate(t.Context(), "a")
	}
	works(s, "read again")
	// What a new owner reads has to be settled by a root before it is shown ([R5]).
	for epoch := uint64(2); epoch < 5; epoch++ {
		before++
		next := limited(2000, epoch)
		works(next, fmt.Sprint("epoch ", epoch))
		top, err := m.TopRoot(t.Context(), "a:Ledger")
		if err != nil || !top.IsBare() || top.Key.Epoch != epoch || top.Base != executed {
			t.Errorf("top root %+v, %v", top, err)
		}
		for i := range 25 { // beyond SnapshotEvery
			free := add(fmt.Sprint("free", epoch, i), 1)
			free.Payload = actorstest.Add{Amount: 1, Frees: true}
			r, err := next.Execute(t.Context(), "a", free)
			if executed++; err != nil || r.Sequence != executed {
				t.Errorf("epoch %d: a command that frees: %+v, %v", epoch, r, err)
			}
			if i == 10 { // the next one needs a root of its own, and so has one without a snapshot
				for left := false; !left; {
					_, left = next.Passivate(t.Context(), "a")
				}
			}
		}
		if before = roots(); epoch == 2 {
			works(next, "after commands that free")
		}
	}
	last := limited(20_000, 5)
	if r, err := last.Execute(t.Context(), "a", add("more", 1)); err != nil || r.Sequence != executed+1 {
		t.Errorf("on a store that takes it: %+v, %v", r, err)
	}
}
