package actors_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"licensed/actors"
	"licensed/persistence"
	"licensed/persistence/memory"
)

// stalled is a journal of which some replicas do not answer: appends of aggregates that begin with "bad" wait until
// it is opened, and so do reads of those that begin with "unread".
type stalled struct {
	gate
	read  chan struct{}
	roots atomic.Int64 // of which aggregates were told that they are written
}

func newStalled() *stalled {
	return &stalled{gate: gate{Journal: memory.New()}, read: make(chan struct{})}
}

func (s *stalled) PutRoot(ctx context.Context, r *persistence.Root, done func(error)) {
	s.gate.PutRoot(ctx, r, func(err error) {
		done(err)
		s.roots.Add(1)
	})
}

func (s *stalled) Append(ctx context.Context, m *persistence.Mutation, done func(error)) {
	if strings.HasPrefix(m.Partition.Aggregate, "bad") {
		s.gate.Append(ctx, m, done)
		return
	}
	s.Journal.Append(ctx, m, done)
}

func (s *stalled) TopRoot(ctx context.Context, aggregate string) (persistence.Root, error) {
	if strings.HasPrefix(aggregate, "unread") {
		<-s.read
	}
	return s.gate.TopRoot(ctx, aggregate)
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// TestAbandonedRequestsReleaseTheirSlots: requests whose callers gave up hold no slot of the node. Their commands go
// on, and what waits for aggregates that the store does not answer for is bounded.
func TestAbandonedRequestsReleaseTheirSlots(t *testing.T) {
	store := newStalled()
	s := start(t, store, func(o *actors.Options) {
		o.Config.MaxInFlight, o.Config.MaxQueue, o.Config.MaxStuck, o.Config.StuckAfter = 8, 6, 8, time.Hour
	})
	const customers, each = 2, 4
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, customers*each)
	for i := range customers * each {
		go func() {
			_, err := s.Execute(ctx, fmt.Sprint("bad", i%customers), add(fmt.Sprint("c", i), 1))
			results <- err
		}()
	}
	// A root that is written later would be progress: the aggregates would not be stuck any more.
	until(t, "all are decided", func() bool {
		return s.Pending("bad0")+s.Pending("bad1") == customers*each && store.held() == customers &&
			store.roots.Load() == customers
	})
	if _, err := s.Execute(t.Context(), "good", add("g", 1)); !errors.Is(err, actors.ErrOverloaded) {
		t.Errorf("a node whose slots are taken: %v", err)
	}
	cancel()
	for range customers * each {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("given up: %v", err)
		}
	}
	if n := s.Stats().InFlight; n != 0 {
		t.Errorf("%d in flight, and nobody waits", n)
	}
	if _, err := s.Execute(t.Context(), "good", add("g", 1)); err != nil {
		t.Errorf("an aggregate that the store answers for: %v", err)
	}
	until(t, "the aggregates are stuck", func() bool { return s.Stats().Stuck == customers*each })
	if _, err := s.Execute(t.Context(), "bad0", add("more", 1)); !errors.Is(err, actors.ErrOverloaded) {
		t.Errorf("one more for stuck aggregates: %v", err)
	}
	store.open()
	until(t, "nothing is stuck", func() bool { return s.Stats().Stuck == 0 })
	for i := range customers {
		if got := s.total(t, fmt.Sprint("bad", i)); got != each {
			t.Errorf("total of bad%d is %d: what was decided goes on", i, got)
		}
	}
	if _, err := s.Execute(t.Context(), "bad0", add("more", 1)); err != nil {
		t.Errorf("not stuck any more: %v", err)
	}
}

// TestWithdrawnRequestsAreNotExecuted: a request that was not decided when its caller gave up leaves at once, and the
// caller hears that nothing happened.
func TestWithdrawnRequestsAreNotExecuted(t *testing.T) {
	store := newStalled()
	s := start(t, store, func(o *actors.Options) { o.Config.MaxQueue = 3 })
	results := make(chan error)
	for wave := range 3 { // more than the queue takes
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			go func() {
				_, err := s.Execute(ctx, "unread", add(fmt.Sprint("c", wave, i), 1))
				results <- err
			}()
		}
		until(t, "all wait", func() bool { return s.Pending("unread") == 3 })
		cancel()
		for range 3 {
			if err := <-results; !errors.Is(err, actors.ErrExpired) || !errors.Is(err, context.Canceled) ||
				errors.Is(err, actors.ErrUnknownOutcome) {
				t.Errorf("given up: %v", err)
			}
		}
		until(t, "none waits", func() bool { return s.Pending("unread") == 0 })
	}
	close(store.read)
	if r, err := s.Execute(t.Context(), "unread", add("c00", 1)); err != nil || r.Duplicate || r.Sequence != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestStuckAggregatesAreBounded: without an outcome for some time, an aggregate is stuck although its callers wait.
func TestStuckAggregatesAreBounded(t *testing.T) {
	store := newStalled()
	var ahead atomic.Int64
	s := start(t, store, func(o *actors.Options) {
		o.Config.MaxInFlight, o.Config.MaxStuck, o.Config.StuckAfter = 100, 3, time.Minute
		start := time.Now()
		o.Elapsed = func() time.Duration { return time.Since(start) + time.Duration(ahead.Load()) }
	})
	var wg sync.WaitGroup
	ask := func(id, command string) {
		wg.Go(func() {
			if _, err := s.Execute(t.Context(), id, add(command, 1)); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	// Their roots are durable before: the outcome of one that is in flight would count as progress, whenever it came.
	store.open()
	ask("bad0", "c0")
	ask("bad1", "c0")
	wg.Wait()
	store.shut()
	ask("bad0", "c1")
	ask("bad1", "c1")
	until(t, "both are decided", func() bool { return store.held() == 2 })
	ahead.Store(int64(2 * time.Minute))
	if n := s.Stats().Stuck; n != 0 {
		t.Errorf("%d are stuck before anybody asked for more", n)
	}
	ask("bad0", "c2")
	until(t, "the first is stuck", func() bool { return s.Stats().Stuck == 2 })
	ask("bad1", "c2") // is taken: that it is stuck shows only now
	until(t, "the second is stuck", func() bool { return s.Stats().Stuck == 4 })
	for i := range 2 {
		if _, err := s.Execute(t.Context(), fmt.Sprint("bad", i), add("c3", 1)); !errors.Is(err, actors.ErrOverloaded) {
			t.Errorf("one more for bad%d: %v", i, err)
		}
	}
	if _, err := s.Execute(t.Context(), "good", add("c1", 1)); err != nil {
		t.Errorf("an aggregate that the store answers for: %v", err)
	}
	store.open()
	wg.Wait()
	until(t, "nothing is stuck", func() bool { return s.Stats().Stuck == 0 })
}

// TestStuckCustomersOfOneShard: 64 aggregates of one shard that the store does not answer for hold no more than the
// share of their shard, whether their callers wait or gave up. Everything else is for those of other shards.
func TestStuckCustomersOfOneShard(t *testing.T) {
	const stuck, each, slots, share = 64, 8, 64, 16
	for name, waiting := range map[string]bool{"given up": false, "waiting": true} {
		t.Run(name, func(t *testing.T) {
			store := newStalled()
			s := start(t, store, func(o *actors.Options) {
				o.Config.MaxInFlight = slots
				o.Config.MaxPerShard = share
				o.Config.MaxStuck = slots
				o.Config.StuckAfter = time.Hour
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var asked sync.WaitGroup
			var refused atomic.Int64
			for i := range stuck {
				for k := range each {
					asked.Go(func() {
						_, err := s.Execute(ctx, fmt.Sprint("bad", i), add(fmt.Sprint("c", k), 1))
						switch {
						case errors.Is(err, actors.ErrOverloaded):
							refused.Add(1)
						case errors.Is(err, context.Canceled), err == nil:
						default:
							t.Error(err)
						}
					})
				}
			}
			until(t, "the share of the shard is used, and the others are refused", func() bool {
				return s.PendingIn(badShard) == share && refused.Load() == stuck*each-share
			})
			free := slots - share
			if !waiting {
				cancel()
				asked.Wait()
				free = slots
			}
			// Others fill all slots that are left at the same time, as they do in a node without stuck customers.
			others := make(chan error, free)
			for i := range free {
				go func() {
					_, err := s.Execute(t.Context(), fmt.Sprint("unread", i), add("c", 1))
					others <- err
				}()
			}
			until(t, "others use all other slots",
				func() bool { return s.Stats().InFlight == slots || len(others) > 0 })
			close(store.read)
			for range free {
				if err := <-others; err != nil {
					t.Errorf("an aggregate of another shard: %v", err)
				}
			}
			if _, err := s.Execute(t.Context(), "bad1", add("more", 1)); !errors.Is(err, actors.ErrOverloaded) {
				t.Errorf("one more for the shard: %v", err)
			}
			store.open()
			asked.Wait()
			until(t, "nothing is pending", func() bool { return s.PendingIn(badShard) == 0 && s.Stats().Stuck == 0 })
			if _, err := s.Execute(t.Context(), "bad1", add("more", 1)); err != nil {
				t.Errorf("the shard is not stuck any more: %v", err)
			}
		})
	}
}

// TestGivingUpRacesWithAnswers: a caller that gives up at any moment receives the right error, and no slot is lost or
// released twice.
func TestGivingUpRacesWithAnswers(t *testing.T) {
	const workers, rounds, customers = 8, 400, 5
	s := start(t, memory.New(), func(o *actors.Options) { o.Config.Window.MaxCommands = 2 * workers * rounds })
	var notExecuted, unknown, executed atomic.Int64
	var never sync.Map // ids that were told to be not executed, with their aggregate
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(60))*time.Microsecond)
				id, customer := fmt.Sprint("c", w, "-", i), fmt.Sprint("a", rand.IntN(customers))
				_, err := s.Execute(ctx, customer, add(id, 1))
				cancel()
				switch {
				case err == nil:
					executed.Add(1)
				// for all who waited it took too long
				case errors.Is(err, actors.ErrExpired), errors.Is(err, actors.ErrUnavailable):
					notExecuted.Add(1)
					never.Store(id, customer)
				case errors.Is(err, actors.ErrUnknownOutcome):
					unknown.Add(1)
				default:
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d executed, %d unknown, %d not executed", executed.Load(), unknown.Load(), notExecuted.Load())
	until(t, "nothing is pending", func() bool {
		pending := 0
		for i := range customers {
			pending += s.Pending(fmt.Sprint("a", i))
		}
		return pending == 0
	})
	if st := s.Stats(); st.InFlight != 0 || st.Stuck != 0 {
		t.Errorf("%+v", st)
	}
	never.Range(func(id, customer any) bool {
		if r, err := s.Execute(t.Context(), customer.(string), add(id.(string), 1)); err != nil || r.Duplicate {
			t.Errorf("%v of %v was executed: %+v, %v", id, customer, r, err)
		}
		return true
	})
}
