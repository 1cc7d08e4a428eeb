package routing

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/transport"
)

// idIn returns the nth id of a shard.
func idIn(shard uint32, n int) string {
	for i := 0; ; i++ {
		id := fmt.Sprint("c", i)
		if cluster.ShardOf(id+":Kind", shards) != shard {
			continue
		}
		if n == 0 {
			return id
		}
		n--
	}
}

// outcomes asks for that many customers of shards at once, and counts the answers.
func (s *setup) outcomes(t *testing.T, n int, of ...uint32) (answered, refused, expired int, longest time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			began := time.Now()
			_, err := s.Router.Execute(ctx, idIn(of[i%len(of)], i), actors.Command{ID: "1"})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				answered++
				longest = max(longest, time.Since(began))
			case errors.Is(err, actors.ErrOverloaded) && !errors.Is(err, actors.ErrUnknownOutcome):
				refused++
				longest = max(longest, time.Since(began))
			default:
				expired++
			}
		})
	}
	wg.Wait()
	return answered, refused, expired, longest
}

// owned makes a the owner of the even shards and b of the odd ones.
func (s *setup) owned() {
	s.join("a", "b")
	s.owner = func(id string) string { return []string{"a", "b"}[cluster.ShardOf(id+":Kind", shards)%2] }
	for id := range uint32(shards) {
		r := row(1, []string{"a", "b"}[id%2], "")
		r.ID = id
		s.hear(r)
	}
}

// Requests to a node that nobody reaches are refused at once beyond a number; those to others are not.
func TestUnreachableNodeLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, func(c *Config) { c.MaxPerNode = 10 })
		s.owned()
		s.answer = func(name string) error {
			if name == "a" {
				time.Sleep(time.Second)
				return fmt.Errorf("%w: connection timed out", transport.ErrNotSent)
			}
			return nil
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if answered, refused, expired, longest := s.outcomes(t, 50, 0, 2, 4); answered != 0 || refused != 40 ||
				expired != 10 || longest != 0 {
				t.Errorf("unreachable: %d answered, %d refused in %v, %d expired; "+
					"want 40 refused at once and 10 expired", answered, refused, longest, expired)
			}
		})
		wg.Go(func() {
			time.Sleep(2500 * time.Millisecond) // some of the ten are waiting between two attempts
			if answered, refused, expired, longest := s.outcomes(t, 10, 1, 3, 5); answered != 10 || longest != 0 {
				t.Errorf("reachable: %d answered in %v, %d refused, %d expired", answered, longest, refused, expired)
			}
			if answered, refused, _, _ := s.outcomes(t, 1, 0); answered != 0 || refused != 1 {
				t.Errorf("a request to the unreachable node: %d answered, %d refused", answered, refused)
			}
		})
		wg.Wait()
		if len(s.peers.of) != 0 {
			t.Errorf("counted after all have ended: %v", s.peers.of)
		}
		s.answer = func(string) error { return nil }
		if answered, _, _, _ := s.outcomes(t, 10, 0); answered != 10 {
			t.Errorf("%d of 10 answered when the node is reachable again", answered)
		}
	})
}

// A request that goes from one node to another is counted for the one that it waits for.
func TestRedirectedRequestsMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, func(c *Config) { c.MaxPerNode = 3 })
		s.owned()
		s.owner = nil
		s.answer = func(name string) error {
			if name == "a" {
				r := row(2, "b", "")
				r.ID = 0
				return &cluster.NotOwnerError{Row: r}
			}
			time.Sleep(time.Second)
			return nil
		}
		if answered, refused, _, _ := s.outcomes(t, 3, 0); answered != 3 || refused != 0 {
			t.Errorf("%d answered, %d refused", answered, refused)
		}
		if len(s.peers.of) != 0 {
			t.Errorf("counted after all have ended: %v", s.peers.of)
		}
	})
}

// One shard that makes no progress leaves room for the others of its node.
func TestStuckShardLeavesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, func(c *Config) { c.MaxPerShard = 5 })
		s.owned()
		stuck := make(chan struct{})
		s.answer = func(string) error { <-stuck; return nil }
		var wg sync.WaitGroup
		wg.Go(func() {
			if answered, refused, _, _ := s.outcomes(t, 20, 2); answered != 5 || refused != 15 {
				t.Errorf("stuck: %d answered, %d refused", answered, refused)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if answered, refused, _, _ := s.outcomes(t, 5, 0); answered != 5 || refused != 0 {
				t.Errorf("another shard of the node: %d answered, %d refused", answered, refused)
			}
		})
		synctest.Wait()
		close(stuck)
		wg.Wait()
		if answered, _, _, _ := s.outcomes(t, 5, 2); answered != 5 {
			t.Errorf("%d of 5 answered when the shard makes progress again", answered)
		}
	})
}
