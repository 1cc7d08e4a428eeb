package cassandra

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// testReads bounds reads where the first byte of a key names its set of replicas.
func testReads(most, sets int) *reads {
	return newReads(most, func(key []byte) uint64 { return uint64(key[0]) }, func() int { return sets })
}

// TestReadsHaveLanes: reads of replicas that hang take the room of their own set, and no other's.
func TestReadsHaveLanes(t *testing.T) {
	const most, sets = 4 * leastReads, 2
	s := &Store{keyspace: &keyspace{opts: Options{Timeout: time.Millisecond}}, reads: testReads(most, sets)}
	hang, hung := make(chan struct{}), make(chan error)
	began := make(chan struct{})
	for range most / sets {
		go func() {
			hung <- s.reads.with(t.Context(), []byte{1}, func() error { began <- struct{}{}; <-hang; return nil })
		}()
		<-began
	}
	never := func(*gocql.Iter) (bool, error) { return false, errors.New("it was sent") }
	if err := s.scan(1, []byte{1},
		(&gocql.Query{}).WithContext(t.Context()), never); !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("one too many of the replicas that hang: %v", err)
	}
	for _, key := range [][]byte{{2}, allRows} {
		ran := false
		if err := s.reads.with(t.Context(), key, func() error { ran = true; return nil }); err != nil || !ran {
			t.Errorf("a read of other replicas, key %v: %v", key, err)
		}
	}
	close(hang)
	for range most / sets {
		if err := <-hung; err != nil {
			t.Error(err)
		}
	}
	if err := s.reads.with(t.Context(), []byte{1}, func() error { return nil }); err != nil {
		t.Errorf("after them: %v", err)
	}
}

// TestShareOfReads: however many sets of replicas there are, each has room for some reads.
func TestShareOfReads(t *testing.T) {
	for _, c := range []struct{ hosts, replicas, sets, room int }{
		{1, 1, 1, 256}, {3, 3, 1, 256}, {2, 3, 1, 256}, {4, 3, 4, 64}, {6, 3, 20, 12}, {100, 3, 161_700, 8},
	} {
		p, _ := testPolicy()
		for i := range c.hosts {
			h := &gocql.HostInfo{}
			h.SetHostID(fmt.Sprint(i))
			h.SetConnectAddress(net.IPv4(127, 0, 0, byte(i+1)))
			p.AddHost(h)
		}
		p.setReplicas(c.replicas)
		if got := p.replicaSets(); got != c.sets {
			t.Errorf("%d replicas on %d hosts: %d sets, want %d", c.replicas, c.hosts, got, c.sets)
		}
		r := newReads(256, func([]byte) uint64 { return 0 }, p.replicaSets)
		if got := r.most / int(r.weight()); got != c.room {
			t.Errorf("%d sets: room for %d reads of each, want %d", c.sets, got, c.room)
		}
	}
}

// TestReadsAreBounded: a read waits until there is room for it, as long as its caller does and not longer than
// the timeout, and leaves its room to the next.
func TestReadsAreBounded(t *testing.T) {
	const most = 2
	s := &Store{keyspace: &keyspace{}, reads: testReads(most, 1)}
	s.opts.Timeout = time.Hour
	end := make(chan struct{})
	began, ended := make(chan struct{}), make(chan error)
	for range most {
		go func() {
			ended <- s.reads.with(t.Context(), nil, func() error { began <- struct{}{}; <-end; return nil })
		}()
		<-began
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- s.scan(1, nil, (&gocql.Query{}).WithContext(ctx), func(*gocql.Iter) (bool, error) {
			t.Error("it was sent")
			return false, nil
		})
	}()
	cancel()
	if err := <-ended; !errors.Is(err, persistence.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("one too many: %v", err)
	}
	impatient := &Store{keyspace: &keyspace{opts: Options{Timeout: time.Millisecond}}, reads: s.reads}
	err := impatient.scan(1, nil, (&gocql.Query{}).WithContext(t.Context()),
		func(*gocql.Iter) (bool, error) { return false, nil })
	if !errors.Is(err, persistence.ErrUnavailable) || impatient.stats.readErrors.Load() != 1 {
		t.Errorf("one that waits longer than the timeout: %v", err)
	}
	close(end)
	for range most {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if err := s.reads.with(t.Context(), nil, func() error { return nil }); err != nil {
		t.Errorf("after them: %v", err)
	}
	// What waits when the store is closed is not sent any more.
	lane := s.reads.lanes.of(^uint64(0))
	if !lane.TryAcquire(most) {
		t.Fatal("there is no room")
	}
	waits := waiting{t.Context(), make(chan struct{}, 1)}
	go func() {
		ended <- s.scan(1, nil, (&gocql.Query{}).WithContext(waits), func(*gocql.Iter) (bool, error) {
			return false,
				nil
		})
	}()
	<-waits.asked
	s.life.Lock()
	s.closed = true
	s.life.Unlock()
	lane.Release(most)
	if err := <-ended; !errors.Is(err, persistence.ErrClosed) {
		t.Errorf("after the store was closed: %v", err)
	}
}

// waiting is a context that tells when it is waited for.
type waiting struct {
	context.Context
	asked chan struct{}
}

func (w waiting) Done() <-chan struct{} {
	select {
	case w.asked <- struct{}{}:
	default:
	}
	return w.Context.Done()
}
