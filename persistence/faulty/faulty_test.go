package faulty_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
	"licensed/persistence/persistencetest"
)

func TestConformanceWithoutFaults(t *testing.T) {
	persistencetest.Run(t, persistencetest.Driver{
		AtomicMutations: true,
		New: func(testing.TB) *persistencetest.Place {
			inner := memory.New()
			return &persistencetest.Place{
				Open:           func() (persistence.Store, error) { return faulty.New(inner.Reopen(), nil), nil },
				DamageSnapshot: func(_ testing.TB, key persistence.RootKey) { inner.DamageSnapshot(key.Aggregate) },
			}
		},
	})
}

var key = persistence.RootKey{Aggregate: "a", Epoch: 1, Version: 1}

func partition(aggregate string) persistence.Partition {
	return persistence.Partition{
		RootKey:     persistence.RootKey{Aggregate: aggregate, Epoch: 1, Version: 1},
		Incarnation: persistence.Incarnation{1},
	}
}

func mutation(aggregate string, first uint64, count int) *persistence.Mutation {
	m := &persistence.Mutation{Partition: partition(aggregate)}
	for i := range count {
		m.Records = append(m.Records, persistence.Record{
			Sequence: first + uint64(i), Index: uint32(i), Count: uint32(count), Data: []byte("event"),
		})
	}
	return m
}

func appendTo(s persistence.Store, m *persistence.Mutation) <-chan error {
	outcome := make(chan error, 2)
	s.Append(context.Background(), m, func(err error) { outcome <- err })
	return outcome
}

func stored(t *testing.T, s persistence.Store, aggregate string) int {
	t.Helper()
	rs, err := s.ReadRecords(t.Context(), partition(aggregate), 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(rs)
}

func TestFaultsOfWrites(t *testing.T) {
	injected := errors.New("as told")
	for _, tt := range []struct {
		fault faulty.Fault
		want  error
		rows  int // after the caller heard, of 3
		later int // after all that is held was released
	}{
		{faulty.Fault{}, nil, 3, 3},
		{faulty.Fault{Kind: faulty.Refuse}, persistence.ErrRejected, 0, 0},
		{faulty.Fault{Kind: faulty.Refuse, Err: injected}, injected, 0, 0},
		{faulty.Fault{Kind: faulty.LoseRequest}, persistence.ErrUnknownOutcome, 0, 0},
		{faulty.Fault{Kind: faulty.LoseReply}, persistence.ErrUnknownOutcome, 3, 3},
		{faulty.Fault{Kind: faulty.Late}, persistence.ErrUnknownOutcome, 0, 3},
		{faulty.Fault{Kind: faulty.Tear, Records: 0}, persistence.ErrUnknownOutcome, 0, 0},
		{faulty.Fault{Kind: faulty.Tear, Records: 2}, persistence.ErrUnknownOutcome, 2, 2},
		{faulty.Fault{Kind: faulty.Tear, Records: 9}, persistence.ErrUnknownOutcome, 3, 3},
	} {
		t.Run(fmt.Sprintf("%v %d", tt.fault.Kind, tt.fault.Records), func(t *testing.T) {
			s := faulty.New(memory.New(), faulty.Sequence(faulty.Append, tt.fault))
			m := mutation("a", 1, 3)
			outcome := appendTo(s, m)
			err := <-outcome
			if !errors.Is(err, tt.want) || err != nil && tt.fault.Err == nil && !errors.Is(err, faulty.ErrInjected) {
				t.Errorf("append: %v, want %v", err, tt.want)
			}
			clear(m.Records[0].Data) // the caller's again
			m.Records[2] = persistence.Record{}
			if got := stored(t, s, "a"); got != tt.rows {
				t.Errorf("%d records, want %d", got, tt.rows)
			}
			s.ReleaseAll()
			if got := stored(t, s, "a"); got != tt.later {
				t.Errorf("later %d records, want %d", got, tt.later)
			}
			if rs, _ := s.ReadRecords(t.Context(), partition("a"), 0, 1); len(rs) > 0 && string(rs[0].Data) != "event" {
				t.Errorf("data %q", rs[0].Data)
			}
			if len(outcome) > 0 {
				t.Errorf("told again: %v", <-outcome)
			}
			// The next call of the sequence is sound.
			if err := <-appendTo(s, mutation("a", 1, 3)); err != nil {
				t.Error(err)
			}
			if got := s.Injected(tt.fault.Kind); got == 0 {
				t.Error("the fault was not counted")
			}
		})
	}
}

func TestFaultsOfRoots(t *testing.T) {
	s := faulty.New(memory.New(), faulty.Sequence(faulty.PutRoot,
		faulty.Fault{Kind: faulty.Late}, faulty.Fault{Kind: faulty.Hold}, faulty.Fault{Kind: faulty.Tear}))
	put := func(version uint64) <-chan error {
		outcome := make(chan error, 1)
		r := &persistence.Root{
			Key:         persistence.RootKey{Aggregate: "a", Epoch: 1, Version: version},
			Incarnation: persistence.Incarnation{1}, Snapshot: []byte{1},
		}
		s.PutRoot(t.Context(), r, func(err error) {
			clear(r.Snapshot)
			outcome <- err
		})
		return outcome
	}
	top := func() uint64 {
		r, err := s.TopRoot(t.Context(), "a")
		if err == nil && r.Snapshot[0] != 1 {
			t.Errorf("snapshot %v", r.Snapshot)
		}
		return r.Key.Version
	}
	if err := <-put(1); !errors.Is(err, persistence.ErrUnknownOutcome) || top() != 0 {
		t.Errorf("late: %v", err)
	}
	held := put(2)
	if len(held) != 0 || len(s.Held()) != 2 {
		t.Errorf("%d calls are held, want 2", len(s.Held()))
	}
	s.Held()[1].Release() // in another order than they came
	if err := <-held; err != nil || top() != 2 {
		t.Errorf("held: %v, top %d", err, top())
	}
	s.Held()[0].Release()
	if roots, err := s.ReadRoots(t.Context(), "a", persistence.RootKey{}, 9); err != nil || len(roots) != 2 {
		t.Errorf("%d roots, %v", len(roots), err)
	}
	if err := <-put(3); !errors.Is(err, persistence.ErrUnknownOutcome) || top() != 3 {
		t.Errorf("torn: %v", err)
	}
}

func TestFaultsOfCompareAndSet(t *testing.T) {
	row := func(epoch uint64) persistence.Shard { return persistence.Shard{ID: 1, Epoch: epoch} }
	s := faulty.New(memory.New(), faulty.Sequence(faulty.CompareAndSetShard,
		faulty.Fault{Kind: faulty.LoseReply}, faulty.Fault{Kind: faulty.LoseRequest}, faulty.Fault{Kind: faulty.Refuse},
		faulty.Fault{Kind: faulty.Late}))
	epoch := func() uint64 {
		now, _ := s.Shard(t.Context(), 1)
		return now.Epoch
	}
	for _, step := range []struct {
		old, next persistence.Shard
		want      error
		epoch     uint64
	}{
		{persistence.Shard{}, row(1), persistence.ErrUnknownOutcome, 1},
		{row(1), row(2), persistence.ErrUnknownOutcome, 1},
		{row(1), row(2), persistence.ErrRejected, 1},
		{row(1), row(2), persistence.ErrUnknownOutcome, 1}, // late
		{row(1), row(7), nil, 7},
	} {
		applied, _, err := s.CompareAndSetShard(t.Context(), step.old, step.next)
		if !errors.Is(err, step.want) || applied != (step.want == nil) || epoch() != step.epoch {
			t.Errorf("%+v → %+v: %v, %v; now %d", step.old, step.next, applied, err, epoch())
		}
	}
	s.ReleaseAll()
	if epoch() != 7 {
		t.Errorf("a late compare-and-set was applied to a row that had changed: %d", epoch())
	}
}

func TestFaultsOfReads(t *testing.T) {
	s := faulty.New(memory.New(), nil)
	for _, kind := range []faulty.Kind{faulty.Refuse, faulty.LoseRequest, faulty.LoseReply, faulty.Late, faulty.Tear} {
		s.SetScript(faulty.Always(faulty.Fault{Kind: kind}))
		_, top := s.TopRoot(t.Context(), "a")
		_, root := s.ReadRoot(t.Context(), key)
		_, roots := s.ReadRoots(t.Context(), "a", persistence.RootKey{}, 1)
		_, records := s.ReadRecords(t.Context(), partition("a"), 0, 1)
		_, ids := s.Aggregates(t.Context(), "", 1)
		_, lease := s.Lease(t.Context(), persistence.Incarnation{1})
		_, leases := s.Leases(t.Context())
		_, shard := s.Shard(t.Context(), 1)
		_, shards := s.Shards(t.Context())
		for i, err := range []error{top, root, roots, records, ids, lease, leases, shard, shards} {
			if !errors.Is(err, persistence.ErrUnavailable) || errors.Is(err, persistence.ErrNotFound) {
				t.Errorf("%v, read %d: %v, want ErrUnavailable", kind, i, err)
			}
		}
	}
}

func TestHeldRead(t *testing.T) {
	inner := memory.New()
	s := faulty.New(inner, faulty.Sequence(faulty.TopRoot, faulty.Fault{Kind: faulty.Hold},
		faulty.Fault{Kind: faulty.Hold}, faulty.Fault{Kind: faulty.Hold}))
	read := func(ctx context.Context) <-chan error {
		before := len(s.Held())
		outcome := make(chan error, 1)
		go func() {
			_, err := s.TopRoot(ctx, "a")
			outcome <- err
		}()
		for len(s.Held()) == before {
			time.Sleep(time.Microsecond)
		}
		return outcome
	}
	released, dropped := read(t.Context()), read(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	abandoned := read(ctx)

	// The released read sees what was written while it was held.
	if err := put(t, inner); err != nil {
		t.Fatal(err)
	}
	held := s.Held()
	held[0].Release()
	held[1].Drop()
	held[1].Release() // too late
	cancel()
	if err := <-released; err != nil {
		t.Errorf("released: %v", err)
	}
	if err := <-dropped; !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("dropped: %v, want ErrUnavailable", err)
	}
	if err := <-abandoned; !errors.Is(err, persistence.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("abandoned: %v, want ErrUnavailable and context.Canceled", err)
	}
}

func put(t *testing.T, s persistence.Store) (err error) {
	t.Helper()
	r := &persistence.Root{Key: key, Incarnation: persistence.Incarnation{1}}
	s.PutRoot(t.Context(), r, func(e error) { err = e })
	return err
}

func TestDelays(t *testing.T) {
	inner := memory.New()
	s := faulty.New(inner, faulty.Always(faulty.Fault{Kind: faulty.Late, Delay: time.Hour}))
	var timers []func()
	s.AfterFunc = func(d time.Duration, f func()) {
		if d != time.Hour {
			t.Errorf("delay %v", d)
		}
		timers = append(timers, f)
	}
	if err := <-appendTo(s, mutation("a", 1, 1)); !errors.Is(err, persistence.ErrUnknownOutcome) {
		t.Errorf("append: %v", err)
	}
	if got := stored(t, inner, "a"); got != 0 || len(timers) != 1 {
		t.Errorf("%d records, %d timers", got, len(timers))
	}
	timers[0]()
	if got := stored(t, inner, "a"); got != 1 || len(s.Held()) != 0 {
		t.Errorf("%d records, %d held", got, len(s.Held()))
	}
}

func TestCloseDropsWhatIsHeld(t *testing.T) {
	inner := memory.New()
	s := faulty.New(inner.Reopen(), faulty.First(
		faulty.Sequence(faulty.Append, faulty.Fault{Kind: faulty.Late}, faulty.Fault{Kind: faulty.Hold})))
	late, held := appendTo(s, mutation("a", 1, 1)), appendTo(s, mutation("a", 2, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []<-chan error{late, held} {
		if err := <-outcome; !errors.Is(err, persistence.ErrUnknownOutcome) {
			t.Errorf("append: %v, want ErrUnknownOutcome", err)
		}
	}
	if err := <-appendTo(s, mutation("a", 3, 1)); !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("append after Close: %v, want ErrClosed", err)
	}
	if got := stored(t, inner, "a"); got != 0 {
		t.Errorf("%d records", got)
	}
}

func TestRandomDependsOnSeedAndCallAlone(t *testing.T) {
	rates := faulty.Rates{
		Refuse: 0.1, LoseRequest: 0.1, LoseReply: 0.1, Late: 0.1, Hold: 0.1, Tear: 0.1, MaxDelay: time.Second,
	}
	script, again, other := faulty.Random(1, rates), faulty.Random(1, rates), faulty.Random(2, rates)
	counts := make(map[faulty.Kind]int)
	differ := 0
	const calls = 20_000
	for i := range calls {
		c := faulty.Call{Op: faulty.Append, Key: fmt.Sprint(i % 100), N: uint64(i / 100), Records: 5}
		f := script(c)
		if f != again(c) {
			t.Fatalf("%+v: %+v and then %+v", c, f, again(c))
		}
		if f != other(c) {
			differ++
		}
		if f.Records >= 5 || f.Delay > time.Second || (f.Kind == faulty.Late) && f.Delay <= 0 {
			t.Errorf("%+v", f)
		}
		counts[f.Kind]++
	}
	for kind := faulty.Refuse; kind <= faulty.Tear; kind++ {
		if n := counts[kind]; n < calls/10*8/10 || n > calls/10*12/10 {
			t.Errorf("%v happened to %d of %d calls", kind, n, calls)
		}
	}
	if differ < calls/4 {
		t.Errorf("another seed differs in %d of %d calls only", differ, calls)
	}
}

// TestNothingAcknowledgedIsMissing has many writers repeat what is unknown, as the runtime does.
func TestNothingAcknowledgedIsMissing(t *testing.T) {
	inner := memory.New()
	s := faulty.New(inner, faulty.On(faulty.Random(3, faulty.Rates{
		Refuse: 0.05, LoseRequest: 0.1, LoseReply: 0.1, Late: 0.1, Hold: 0.1, Tear: 0.1, MaxDelay: time.Millisecond,
	}), faulty.Append))
	const writers, mutations, size = 16, 50, 3
	acked, refused := make([]int, writers), make([]int, writers)
	var wg sync.WaitGroup
	for w := range writers {
		id := fmt.Sprint(w)
		wg.Go(func() {
			for i := 0; i < mutations; {
				switch err := <-appendTo(s, mutation(id, uint64(1+i*size), size)); {
				case err == nil:
					acked[w]++
					i++
				case errors.Is(err, persistence.ErrRejected):
					refused[w]++
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for w := range writers {
		if got := stored(t, inner, fmt.Sprint(w)); got != acked[w]*size {
			t.Errorf("writer %d: %d acknowledged, %d records", w, acked[w], got)
		}
		total += refused[w]
	}
	if total == 0 || s.Injected(faulty.Late) == 0 || s.Injected(faulty.Tear) == 0 {
		t.Error("no faults happened")
	}
}
