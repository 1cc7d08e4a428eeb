package cassandra

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// fakeCassandra executes groups when the test asks for it.
type fakeCassandra struct {
	*groups
	sent     chan []*write // groups as they are sent
	answer   chan error    // answers, in the order of being received by anyone
	mu       sync.Mutex
	outcomes map[string]error
	wg       sync.WaitGroup
}

func newFakeCassandra(maxSending, maxPartitions, maxBytes int) *fakeCassandra {
	f := &fakeCassandra{
		sent: make(chan []*write, 1000), answer: make(chan error), outcomes: make(map[string]error),
	}
	f.groups = &groups{
		maxSending: maxSending, maxPartitions: maxPartitions, maxBytes: maxBytes, timeout: time.Hour,
		place: func(key []byte) place {
			return place{coordinator: uint64(key[0]), set: 1000 + uint64(key[len(key)-1])}
		},
		execute: func(group []*write) error {
			f.sent <- group
			return <-f.answer
		},
		finish: func(w *write, err error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			if _, twice := f.outcomes[w.what.Aggregate]; twice {
				panic("two outcomes of " + w.what.Aggregate)
			}
			f.outcomes[w.what.Aggregate] = err
			f.wg.Done()
		},
	}
	f.lanes = newLanes(f.newLane)
	return f
}

// put submits a write of a size to a lane.
func (f *fakeCassandra) put(name string, lane byte, size int) { f.putAt(name, []byte{lane}, size) }

// putAt submits a write to the node that the first byte of its key says, of a set of replicas that the last one says.
func (f *fakeCassandra) putAt(name string, key []byte, size int) {
	f.wg.Add(1)
	f.submit(&write{what: persistence.RootKey{Aggregate: name}, key: key, bytes: size})
}

func names(group []*write) (ns []string) {
	for _, w := range group {
		ns = append(ns, w.what.Aggregate)
	}
	return ns
}

func (f *fakeCassandra) expectSent(t *testing.T, want ...string) {
	t.Helper()
	if got := names(<-f.sent); !slices.Equal(got, want) {
		t.Fatalf("sent %q, want %q", got, want)
	}
}

func TestGrouping(t *testing.T) {
	f := newFakeCassandra(1, 3, 100)
	f.put("a", 0, 10)
	f.expectSent(t, "a") // alone, at once
	for _, name := range []string{"b", "c", "d", "e"} {
		f.put(name, 0, 10)
	}
	f.put("f", 0, 60)
	f.put("g", 0, 60)
	f.put("huge", 0, 500)
	f.put("h", 0, 10)
	f.put("other lane", 1, 10)
	f.expectSent(t, "other lane")
	f.answer <- nil // to either
	f.answer <- nil
	f.expectSent(t, "b", "c", "d") // the most partitions
	f.answer <- nil
	f.expectSent(t, "e", "f") // the most bytes
	f.answer <- nil
	f.expectSent(t, "g")
	f.answer <- nil
	f.expectSent(t, "huge") // above the limit, alone
	f.answer <- nil
	f.expectSent(t, "h")
	f.answer <- nil
	f.wg.Wait()
	for name, err := range f.outcomes {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.put("later", 0, 10)
	f.expectSent(t, "later")
	f.answer <- nil
	f.wg.Wait()
}

// TestGroupsFollowWhatIsInProgress: a write waits until it has as much company as is in progress, or a full group, or
// until it has waited for two round trips.
func TestGroupsFollowWhatIsInProgress(t *testing.T) {
	f := newFakeCassandra(5, 3, 100)
	f.put("a", 0, 10)
	f.expectSent(t, "a")
	f.put("b", 0, 10)
	f.expectSent(t, "b") // as much as a
	f.lanes.of(0).mu.Lock()
	f.lanes.of(0).pace.roundTrip = time.Hour
	f.lanes.of(0).mu.Unlock()
	f.put("c", 0, 10)
	f.put("d", 0, 10)
	f.expectSent(t, "c", "d") // as much as a and b
	f.put("e", 0, 10)
	f.put("f", 0, 10)
	f.put("g", 0, 10)
	f.expectSent(t, "e", "f", "g") // all that a group may have
	f.put("h", 0, 10)
	for range 4 {
		f.answer <- nil
	}
	f.expectSent(t, "h")

	f.lanes.of(0).mu.Lock()
	f.lanes.of(0).pace.roundTrip = time.Millisecond
	f.lanes.of(0).mu.Unlock()
	f.put("i", 0, 10)
	f.expectSent(t, "i")
	f.put("j", 0, 10)
	f.expectSent(t, "j") // though neither h nor i was answered
	for range 3 {
		f.answer <- nil
	}
	f.wg.Wait()
}

// TestGroupOutcomes: an unknown outcome is everybody's, a refusal only that of the write it is about.
func TestGroupOutcomes(t *testing.T) {
	f := newFakeCassandra(1, 10, 100)
	f.put("first", 0, 1)
	f.expectSent(t, "first")
	f.put("a", 0, 1)
	f.put("b", 0, 1)
	f.put("c", 0, 1)
	f.answer <- gocql.ErrTimeoutNoResponse
	f.expectSent(t, "a", "b", "c")
	f.answer <- invalid{}
	f.expectSent(t, "a")
	f.answer <- nil
	f.expectSent(t, "b")
	f.answer <- invalid{}
	f.expectSent(t, "c")
	f.answer <- &gocql.RequestErrWriteTimeout{}
	f.wg.Wait()
	for name, want := range map[string]error{
		"first": persistence.ErrUnknownOutcome,
		"a":     nil,
		"b":     persistence.ErrRejected,
		"c":     persistence.ErrUnknownOutcome,
	} {
		if got := f.outcomes[name]; !errors.Is(got, want) || (got == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}

	f.put("d", 0, 1)
	f.expectSent(t, "d")
	f.put("e", 0, 1)
	f.put("f", 0, 1)
	f.answer <- nil
	f.expectSent(t, "e", "f")
	f.answer <- errors.New("connection lost")
	f.wg.Wait()
	if !errors.Is(f.outcomes["e"], persistence.ErrUnknownOutcome) ||
		!errors.Is(f.outcomes["f"], persistence.ErrUnknownOutcome) {
		t.Errorf("e: %v, f: %v", f.outcomes["e"], f.outcomes["f"])
	}
}

// TestWaitedTooLong: while nothing is answered, what waits is told so instead of being sent.
func TestWaitedTooLong(t *testing.T) {
	f := newFakeCassandra(1, 10, 100)
	f.put("first", 0, 1)
	f.expectSent(t, "first")
	f.timeout = -time.Second // of what comes from here on
	for i := range 25 {
		f.put(fmt.Sprint("late ", i), 0, 1)
	}
	f.timeout = time.Hour
	f.put("fresh", 0, 1)
	f.answer <- gocql.ErrTimeoutNoResponse
	for {
		group := <-f.sent
		f.answer <- nil
		if slices.Contains(names(group), "fresh") {
			break
		}
	}
	f.wg.Wait()
	if f.outcomes["fresh"] != nil {
		t.Errorf("fresh: %v", f.outcomes["fresh"])
	}
	if err := f.outcomes["late 0"]; !errors.Is(err, persistence.ErrUnknownOutcome) {
		t.Errorf("late: %v, want ErrUnknownOutcome", err)
	}
}

// TestExpiredDoNotHoldUp: the next group does not wait until all that expired have heard so.
func TestExpiredDoNotHoldUp(t *testing.T) {
	f := newFakeCassandra(1, 10, 100)
	hear, finish := make(chan struct{}), f.finish
	f.finish = func(w *write, err error) {
		if w.what.Aggregate == "late" {
			<-hear
		}
		finish(w, err)
	}
	f.put("first", 0, 1)
	f.expectSent(t, "first")
	f.timeout = -time.Second
	f.put("late", 0, 1)
	f.timeout = time.Hour
	f.put("fresh", 0, 1)
	f.answer <- nil
	f.expectSent(t, "fresh")
	close(hear)
	f.answer <- nil
	f.wg.Wait()
	if err := f.outcomes["late"]; !errors.Is(err, persistence.ErrUnknownOutcome) {
		t.Errorf("late: %v, want ErrUnknownOutcome", err)
	}
}

// TestEveryWriteHasOneOutcome sends many writes from many goroutines.
func TestEveryWriteHasOneOutcome(t *testing.T) {
	const writers, each = 16, 500
	f := newFakeCassandra(3, 7, 50)
	f.execute = func(group []*write) error {
		switch group[0].bytes {
		case 1:
			return invalid{}
		case 2:
			return gocql.ErrTimeoutNoResponse
		}
		return nil
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				f.put(fmt.Sprintf("%d/%d", w, i), byte(i%3), 1+(w+i)%20)
			}
		})
	}
	wg.Wait()
	f.wg.Wait()
	if len(f.outcomes) != writers*each {
		t.Errorf("%d outcomes, want %d", len(f.outcomes), writers*each)
	}
	for _, l := range f.lanes.byID {
		for busy := true; busy; { // until the last sender has seen that nothing waits
			l.mu.Lock()
			busy = l.pace.requests != 0 || len(l.queue) != 0
			l.mu.Unlock()
			runtime.Gosched()
		}
	}
}

// invalid is Cassandra's refusal of a request.
type invalid struct{}

func (invalid) Code() int       { return gocql.ErrCodeInvalid }
func (invalid) Message() string { return "Batch too large" }
func (invalid) Error() string   { return "Batch too large" }
