package reach

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"licensed/actors"
	"licensed/persistence"
	"licensed/persistence/faulty"
	"licensed/persistence/memory"
)

// setup is a prober whose pings are answered as a test says, by address.
type setup struct {
	*Prober
	store *faulty.Store

	mu     sync.Mutex
	errs   map[string]error
	pings  map[string]int
	change int
}

var self = persistence.Incarnation{9}

func newSetup(t *testing.T, with ...func(*Config)) *setup {
	s := &setup{store: faulty.New(memory.New(), nil), errs: map[string]error{}, pings: map[string]int{}}
	c := DefaultConfig()
	c.Process, c.Name, c.Votes, c.Log = self, "g", s.store, slog.New(slog.DiscardHandler)
	c.Ping = func(_ context.Context, address, _ string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pings[address]++
		return s.errs[address]
	}
	c.Listener.Changed = func() { s.change++ }
	for _, f := range with {
		f(&c)
	}
	s.Prober = Start(c)
	t.Cleanup(s.Close)
	return s
}

func (s *setup) answers(address string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs[address] = err
}

// votes returns the beats of the votes by the first byte of the accused.
func (s *setup) votes(t *testing.T) map[byte]uint64 {
	t.Helper()
	all, err := s.store.Votes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	by := map[byte]uint64{}
	for _, v := range all {
		if v.Voter != self || v.Name != "g" {
			t.Errorf("%+v", v)
		}
		by[v.Accused[0]] = v.Beat
	}
	return by
}

func (s *setup) want(t *testing.T, what string, accused ...byte) {
	t.Helper()
	votes := s.votes(t)
	for _, a := range accused {
		if votes[a] == 0 {
			t.Errorf("%s: no vote against %d", what, a)
		}
	}
	if len(votes) != len(accused) {
		t.Errorf("%s: votes %v, want against %v", what, votes, accused)
	}
}

func nodeOf(n byte) Node {
	return Node{Name: fmt.Sprint("n", n), Incarnation: persistence.Incarnation{n}, Address: fmt.Sprint("at ", n)}
}

var errDown = errors.New("no route to host")

func TestVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t)
		s.answers("at 2", errDown)
		s.answers("at 3", fmt.Errorf("%w: 8192 requests", actors.ErrOverloaded))
		s.SetNodes([]Node{nodeOf(1), nodeOf(2), nodeOf(3)}, []string{"g"})
		time.Sleep(2 * time.Second)
		s.want(t, "before the patience is over")
		time.Sleep(2 * time.Second)
		s.want(t, "after it", 2)
		first := s.votes(t)[2]
		time.Sleep(25 * time.Second)
		if n := s.votes(t)[2] - first; n < 7 || n > 10 {
			t.Errorf("the vote was renewed %d times in ten times the patience", n)
		}
		s.answers("at 2", nil)
		s.answers("at 1", errDown)
		time.Sleep(time.Second)
		s.want(t, "when it answers again")
		time.Sleep(3 * time.Second)
		s.want(t, "when another does not", 1)
		s.SetNodes([]Node{nodeOf(2)}, []string{"g"})
		synctest.Wait()
		s.want(t, "when that one is gone")
		s.SetNodes([]Node{nodeOf(1)}, []string{"g"})
		time.Sleep(4 * time.Second)
		s.want(t, "when it is back", 1)
		s.Close()
		s.want(t, "when the voter has left")
	})
}

// Only a node with a live lease is voted against: votes end with the lease, and none is cast against one that has none.
func TestOnlyLiveLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := map[byte]bool{1: true}
		var mu sync.Mutex
		s := newSetup(t, func(c *Config) {
			c.Live = func(i persistence.Incarnation) bool {
				mu.Lock()
				defer mu.Unlock()
				return live[i[0]]
			}
		})
		nowhere := Node{Name: "n3", Incarnation: persistence.Incarnation{3}}
		s.answers("at 1", errDown)
		s.answers("at 2", errDown)
		s.SetNodes([]Node{nodeOf(1), nodeOf(2), nowhere}, []string{"g"})
		time.Sleep(10 * time.Second)
		s.want(t, "one has a lease", 1)
		mu.Lock()
		live[1] = false
		mu.Unlock()
		time.Sleep(time.Second)
		s.want(t, "it is dead")
	})
}

// A store that fails delays votes, and leaves none behind.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t)
		failing := true
		s.store.SetScript(func(c faulty.Call) faulty.Fault {
			if failing && (c.Op == faulty.PutVote || c.Op == faulty.WithdrawVote) {
				return faulty.Fault{Kind: faulty.LoseReply}
			}
			return faulty.Fault{}
		})
		s.answers("at 1", errDown)
		s.SetNodes([]Node{nodeOf(1)}, []string{"g"})
		time.Sleep(4 * time.Second)
		s.want(t, "written, though nobody said so", 1)
		failing = false
		s.answers("at 1", nil)
		time.Sleep(time.Second)
		s.want(t, "withdrawn")
	})
}

func TestReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t)
		a, b := persistence.Incarnation{1}, persistence.Incarnation{2}
		s.Heard(a, "a")
		s.Heard(self, "g")
		s.Heard(persistence.Incarnation{}, "nobody")
		time.Sleep(2 * time.Second)
		s.Heard(b, "b")
		s.Heard(b, "b")
		if got := s.Reached(); len(got) != 2 || s.change != 2 {
			t.Errorf("reached by %v, %d changes", got, s.change)
		}
		time.Sleep(time.Second)
		if got := s.Reached(); len(got) != 1 || got[0] != b {
			t.Errorf("reached by %v, want b", got)
		}
		for i := range 3 * maxHeard {
			s.Heard(persistence.Incarnation{0xff, byte(i), byte(i >> 8)}, "x")
		}
		if got := s.Reached(); len(got) != maxHeard {
			t.Errorf("%d processes are remembered", len(got))
		}
	})
}

// In a large cluster every node is pinged by as many others as there are witnesses.
func TestWitnesses(t *testing.T) {
	var members []string
	var nodes []Node
	for i := range byte(50) {
		nodes = append(nodes, nodeOf(i+1))
		members = append(members, nodes[i].Name)
	}
	pinged := map[string]int{}
	for _, m := range members {
		c := DefaultConfig()
		c.Name = m
		for _, n := range (&Prober{config: c}).chosen(nodes, members) {
			pinged[n.Name]++
		}
	}
	for _, m := range members {
		if pinged[m] != 16 {
			t.Errorf("%s is pinged by %d", m, pinged[m])
		}
	}
	c := DefaultConfig()
	if p := (&Prober{config: c}); len(p.chosen(nodes[:17], members[:17])) != 17 || p.Expected(3) != 3 ||
		p.Expected(49) != 16 {
		t.Error("in a small cluster everybody pings everybody")
	}
}
