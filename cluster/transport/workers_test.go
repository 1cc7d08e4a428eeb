package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"licensed/actors"
)

// TestWorkers: requests that wait for each other each have a worker; afterwards some of the workers wait for further
// requests, until the session ends.
func TestWorkers(t *testing.T) {
	const burst = 3 * maxIdleWorkers
	p, from := start(t, nil), start(t, nil)
	var running atomic.Int32
	all := make(chan struct{})
	p.handler.execute = func(context.Context, string, actors.Command) (actors.Reply, error) {
		if running.Add(1) == burst {
			close(all)
		}
		<-all
		return actors.Reply{Outcome: []byte("done"), Sequence: 1}, nil
	}
	request := func() {
		c := actors.Command{ID: "c", Payload: "x"}
		if _, err := from.Execute(t.Context(), p.Address(), "Kind", "id", c); err != nil {
			t.Error(err)
		}
	}
	var callers sync.WaitGroup
	for range burst {
		callers.Go(request)
	}
	callers.Wait()
	var s *session
	p.mu.Lock()
	for s = range p.sessions {
	}
	p.mu.Unlock()
	idle := func(n int32) {
		t.Helper()
		until(t, "idle workers", func() bool { return s.idle.Load() == n })
	}
	idle(maxIdleWorkers)
	for range 10 {
		request()
		idle(maxIdleWorkers)
	}
	if err := from.Close(t.Context()); err != nil {
		t.Error(err)
	}
	idle(0)
}
