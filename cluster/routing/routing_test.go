package routing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/actors"
	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/cluster/roster"
	"licensed/cluster/shardmap"
	"licensed/cluster/transport"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

const shards = 8

// incarnation returns one for a name.
func incarnation(name string) (i persistence.Incarnation) {
	copy(i[:], name)
	return i
}

// network stands for all other processes: each answers as a test says. Its addresses are "at" and a name.
type network struct {
	mu      sync.Mutex
	answer  func(name string) error
	owner   func(id string) string // nil: the process that is asked
	asked   []string
	failed  []string
	failing func() // called by Fail
	drained string
}

func (n *network) ask(address string) error {
	name := strings.TrimPrefix(address, "at ")
	n.mu.Lock()
	n.asked = append(n.asked, name)
	answer := n.answer
	n.mu.Unlock()
	return answer(name)
}

func (n *network) Execute(_ context.Context, address, _, id string, _ actors.Command) (actors.Reply, error) {
	if n.owner != nil && address != "at "+n.owner(id) {
		r := row(1, n.owner(id), "")
		r.ID = cluster.ShardOf(id+":Kind", shards)
		return actors.Reply{}, &cluster.NotOwnerError{Row: r}
	}
	err := n.ask(address)
	return actors.Reply{Outcome: []byte(address)}, err
}

func (n *network) Query(_ context.Context, address, _, _ string, _ any) (actors.Answer, error) {
	err := n.ask(address)
	return actors.Answer{Value: address}, err
}

func (n *network) Operate(_ context.Context, address, _, _ string, _ any) (actors.Answer, error) {
	err := n.ask(address)
	return actors.Answer{Value: "operator " + address}, err
}

func (n *network) Status(_ context.Context, address string) (*clusterv1.StatusResponse, error) {
	return &clusterv1.StatusResponse{Name: address}, n.ask(address)
}

func (n *network) Drain(_ context.Context, address string) error { n.drained = address; return nil }

func (n *network) Undrain(_ context.Context, address string) error {
	n.drained = "not " + address
	return nil
}

func (n *network) Fail(address string, _ error) {
	n.failed = append(n.failed, address)
	if n.failing != nil {
		n.failing()
	}
}

func (n *network) took() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := strings.Join(n.asked, " ")
	n.asked = nil
	return s
}

// local is the node in the process.
type local struct {
	holds bool
	err   error
	asked int
}

func (l *local) Execute(context.Context, string, actors.Command) (actors.Reply, error) {
	l.asked++
	return actors.Reply{Outcome: []byte("local")}, l.err
}

func (l *local) Query(context.Context, string, any) (actors.Answer, error) {
	l.asked++
	return actors.Answer{Value: "local"}, l.err
}

func (l *local) Operate(context.Context, string, any) (actors.Answer, error) {
	l.asked++
	return actors.Answer{Value: "local operator"}, l.err
}

func (l *local) Epoch(uint32) (uint64, bool)          { return 1, l.holds }
func (l *local) Incarnation() persistence.Incarnation { return incarnation("local") }

// leases are what the store says: any incarnation is alive, but for the dead.
type leases struct {
	mu       sync.Mutex
	dead     map[persistence.Incarnation]bool
	at       map[persistence.Incarnation]string // addresses in leases
	suspects []persistence.Incarnation
}

func (l *leases) Look(i persistence.Incarnation) (persistence.Lease, roster.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead[i] {
		return persistence.Lease{}, roster.Dead
	}
	return persistence.Lease{Address: l.at[i]}, roster.Alive
}

func (l *leases) Suspect(i persistence.Incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspects = append(l.suspects, i)
}

// setup is a router in front of a network.
type setup struct {
	*Router
	*network
	rows   *shardmap.Map
	leases *leases
	done   DoneInfo
}

func newSetup(t *testing.T, change func(*Config)) *setup {
	t.Helper()
	s := &setup{
		network: &network{answer: func(string) error { return nil }}, rows: shardmap.New(shards),
		leases: &leases{dead: map[persistence.Incarnation]bool{}, at: map[persistence.Incarnation]string{}},
	}
	c := DefaultConfig()
	c.Patience = time.Hour // TestUnserved is about it
	c.Name, c.Kind, c.Map, c.Leases, c.Transport = "local", "Kind", s.rows, s.leases, s.network
	c.Listener.Done = func(i DoneInfo) { s.mu.Lock(); defer s.mu.Unlock(); s.done = i }
	if change != nil {
		change(&c)
	}
	var err error
	if s.Router, err = New(c); err != nil {
		t.Fatal(err)
	}
	return s
}

// join makes the named the members, each a node.
func (s *setup) join(names ...string) {
	var all []membership.Member
	for _, n := range names {
		i := incarnation(n)
		all = append(all, membership.Member{Name: n, Meta: &clusterv1.Meta{Incarnation: i[:], NodeAddress: "at " + n}})
	}
	s.SetMembers(all)
}

// row returns the row of the shard of "id".
func row(epoch uint64, owner, successor string) persistence.Shard {
	return persistence.Shard{
		ID:        cluster.ShardOf("id:Kind", shards),
		Epoch:     epoch,
		Owner:     incarnation(owner),
		Successor: incarnation(successor),
	}
}

// hear has others say rows.
func (s *setup) hear(rows ...persistence.Shard) {
	for _, r := range rows {
		s.rows.Hear(r)
	}
}

// bury marks an incarnation dead in the store, and has the router see it.
func (s *setup) bury(i persistence.Incarnation) {
	s.leases.mu.Lock()
	s.leases.dead[i] = true
	s.leases.mu.Unlock()
	s.SetMembers(s.Router.members.Load().listed)
}

func (s *setup) execute(t *testing.T, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	r, err := s.Router.Execute(ctx, "id", actors.Command{ID: "1"})
	return string(r.Outcome), err
}

// takes runs a request, and fails the test unless it was asked for in this order, in this time.
func (s *setup) takes(t *testing.T, path string, atMost time.Duration) {
	t.Helper()
	began := time.Now()
	s.took()
	if _, err := s.execute(t, time.Minute); err != nil {
		t.Errorf("%v", err)
	}
	if took := s.took(); took != path || time.Since(began) > atMost {
		t.Errorf("asked %s in %v, want %s in %v", took, time.Since(began), path, atMost)
	}
}

func TestFindsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, nil)
		s.join("a", "b", "c")
		s.answer = func(name string) error {
			if name != "b" {
				return &cluster.NotOwnerError{Row: row(4, "b", "")}
			}
			return nil
		}
		s.hear(row(3, "a", ""))
		s.takes(t, "a b", 0) // the owner it heard of sends it on, without a pause
		s.takes(t, "b", 0)   // that is remembered
		s.hear(row(3, "c", ""))
		s.takes(t, "b", 0) // an earlier epoch is no news
		s.answer = func(name string) error {
			if name == "b" {
				return &cluster.NotOwnerError{Row: row(4, "", "c")}
			}
			return nil
		}
		s.takes(t, "b c", 0) // the successor of a release
	})
}

// TestGuess: where nothing is known, and where the owner is gone, placement tells whom to ask.
// News of a hand-over may be lost: when the owner of old is not reached, another node tells who it is.
func TestLostNewsOfAnUnreachableOwner(t *testing.T) {
	for name, failure := range map[string]error{"not sent": transport.ErrNotSent, "silent": actors.ErrUnknownOutcome} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, nil)
				s.join("a", "b", "c")
				s.hear(row(3, "a", ""))
				s.answer = func(name string) error {
					switch name {
					case "a":
						time.Sleep(time.Second)
						return failure
					case "b":
						return &cluster.NotOwnerError{Row: row(5, "c", "")}
					}
					return nil
				}
				began := time.Now()
				if outcome, err := s.execute(t, 10*time.Second); err != nil || outcome != "at c" ||
					time.Since(began) > 1500*time.Millisecond {
					t.Errorf("%q, %v after %v: asked %s", outcome, err, time.Since(began), s.took())
				}
			})
		})
	}
}

func TestGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, nil)
		go func() { time.Sleep(5 * time.Second); s.join("a") }()
		s.takes(t, "a", 5*time.Second) // it waited for the first member to appear, and no longer
		s.hear(row(7, "gone", ""))
		s.takes(t, "a", 0)
		s.join("a", "b")
		s.hear(row(8, "b", ""))
		s.takes(t, "b", 0)
		b := incarnation("b")
		if !s.Knows(b) || s.Knows(incarnation("stranger")) {
			t.Error("the members are not known")
		}
		s.bury(b)
		s.bury(b)
		if s.Knows(b) {
			t.Error("a dead incarnation is known")
		}
		if got := strings.Join(s.failed, " "); got != "at b" {
			t.Errorf("requests to %q were failed, want those to b, once", got)
		}
		s.join("a", "b") // still listed
		s.hear(row(8, "b", ""))
		for id := range uint32(shards) {
			if to := s.look(id).to.address; to != "at a" {
				t.Errorf("shard %d: %q", id, to)
			}
		}
	})
}

// TestRequestsLeaveTheDead: when an owner is known to be dead, requests that were in flight to it ask
// somebody else, though gossip still lists it.
func TestRequestsLeaveTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for owner, other := range map[string]string{"a": "b", "b": "a"} { // whichever of them placement prefers
			s := newSetup(t, nil)
			s.join("a", "b")
			s.hear(row(1, owner, ""))
			dead, hung := incarnation(owner), make(chan struct{})
			s.failing = func() { close(hung) }
			s.answer = func(name string) error {
				if name != owner {
					return nil
				}
				<-hung
				return fmt.Errorf("%w: %w", transport.ErrNotSent, errDead)
			}
			go func() {
				time.Sleep(time.Second)
				s.bury(dead)
			}()
			s.takes(t, owner+" "+other, time.Second+DefaultConfig().PauseMin)
			s.join("a", "b") // still listed
			s.takes(t, other, 0)
		}
	})
}

// TestCapacity: a node with more shards is guessed more often.
func TestCapacity(t *testing.T) {
	for _, large := range []string{"a", "b"} {
		s := newSetup(t, nil)
		var all []membership.Member
		for _, n := range []string{"a", "b"} {
			i, capacity := incarnation(n), 1.0
			if n == large {
				capacity = 1e6
			}
			all = append(all, membership.Member{
				Name: n,
				Meta: &clusterv1.Meta{Incarnation: i[:], NodeAddress: "at " + n, Capacity: capacity},
			})
		}
		s.SetMembers(all)
		for id := range uint32(shards) {
			if to := s.look(id).to.address; to != "at "+large {
				t.Errorf("shard %d: guessed %q, but %s has a million times the capacity", id, to, large)
			}
		}
	}
}

// TestMembersThatTakeNoShards are not guessed, but asked for what they have.
func TestMembersThatTakeNoShards(t *testing.T) {
	s := newSetup(t, nil)
	a, b, c := incarnation("a"), incarnation("b"), incarnation("c")
	s.SetMembers([]membership.Member{
		{Name: "a", Meta: &clusterv1.Meta{Incarnation: a[:], NodeAddress: "at a", Draining: true}},
		{Name: "b", Meta: &clusterv1.Meta{Incarnation: b[:], NodeAddress: "at b", ClockWrong: true}},
		{Name: "c", Meta: &clusterv1.Meta{Incarnation: c[:], NodeAddress: "at c"}},
		{Name: "gateway", Meta: &clusterv1.Meta{NodeAddress: "at gateway"}},
		{Name: "unreadable", Meta: &clusterv1.Meta{Incarnation: []byte("x"), NodeAddress: "at unreadable"}},
		{Name: "starting", Meta: nil},
	})
	for id := range uint32(shards) {
		if to := s.look(id).to.address; to != "at c" {
			t.Errorf("shard %d: guessed %q", id, to)
		}
	}
	s.hear(row(1, "a", ""))
	s.takes(t, "a", time.Minute)
}

// TestTakeOver: while nobody has the shard requests wait for news, and do not ask on and on.
func TestTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, nil)
		s.join("a", "b")
		s.hear(row(1, "a", ""))
		var taken atomic.Bool
		s.answer = func(name string) error {
			switch {
			case name == "a":
				return fmt.Errorf("%w: refused", transport.ErrNotSent)
			case !taken.Load():
				return &cluster.NotOwnerError{Row: row(1, "a", "")}
			}
			return nil
		}
		go func() {
			time.Sleep(3 * time.Second)
			taken.Store(true)
			s.hear(row(2, "b", ""))
		}()
		began := time.Now()
		if got, err := s.execute(t, time.Minute); got != "at b" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		if d := time.Since(began); d != 3*time.Second {
			t.Errorf("it took %v, the news came after 3 s", d)
		}
		if s.done.Attempts > 25 || s.done.Attempts < 5 || s.done.Waited != 3*time.Second ||
			s.done.Remote != s.done.Attempts {
			t.Errorf("%+v", s.done)
		}
	})
}

// TestUnserved: where nobody can serve a customer, clients hear so within a lease, and why. Where somebody may soon,
// the request is tried until its deadline.
func TestUnserved(t *testing.T) {
	patience := DefaultConfig().Patience
	refused := func(string) error { return fmt.Errorf("%w: refused", transport.ErrNotSent) }
	notOwner := func(string) error { return actors.ErrNotOwner }
	lost := func(string) error { return actors.ErrUnknownOutcome }
	const idle = "its shard has no owner, and no node has taken it: "
	const denied = "the owner of its shard does not hold it: "
	type metas map[string]*clusterv1.Meta
	both := func(m *clusterv1.Meta) metas { return metas{"a": m, "b": m} }
	draining, wrongClock := &clusterv1.Meta{Draining: true}, &clusterv1.Meta{ClockWrong: true}
	unreached := &clusterv1.Meta{Unreachable: true}
	for name, c := range map[string]struct {
		members metas
		row     persistence.Shard // "gone" is dead
		answer  func(name string) error
		want    string // of the error; empty: the request is tried until its deadline
	}{
		"no member":        {nil, row(1, "a", ""), refused, "no node has a lease"},
		"one, unreachable": {metas{"a": {}}, row(1, "a", ""), refused, "a does not respond"},
		"two, unreachable": {metas{"a": {}, "b": {}}, row(1, "a", ""), refused, "a, b do not respond"},
		"one of two": {metas{"a": {}, "b": {}}, row(1, "a", ""), func(name string) error { // the other can take over
			if name == "a" {
				return refused(name)
			}
			return actors.ErrNotOwner
		}, ""},
		"one, not an owner":     {metas{"a": {}}, row(1, "a", ""), notOwner, denied + "a"},
		"a restarted one":       {metas{"b": {}}, row(1, "former b", ""), notOwner, ""},
		"one, no answers":       {metas{"a": {}}, row(1, "a", ""), lost, ""},
		"all drain":             {both(draining), row(2, "", ""), notOwner, idle + "a (draining), b (draining)"},
		"all drain, dead owner": {both(draining), row(2, "gone", ""), notOwner, idle + "a (draining), b (draining)"},
		"wrong clocks": {
			both(wrongClock), row(2, "", ""), notOwner, idle + "a (wrong clock), b (wrong clock)",
		},
		"nobody reached them": {both(unreached), row(2, "gone", ""), notOwner,
			idle + "a (node port not reached), b (node port not reached)"},
		"nobody takes it":        {metas{"a": {}, "b": {}}, row(2, "", "gone"), notOwner, idle + "a, b"},
		"new cluster":            {metas{"a": {}}, row(0, "", ""), notOwner, idle + "a"},
		"a hand-over":            {metas{"a": draining, "b": {}}, row(2, "", "b"), notOwner, ""},
		"the owner is draining":  {metas{"a": draining}, row(2, "a", ""), notOwner, denied + "a"},
		"the owner may be alive": {metas{"a": {}, "b": {}}, row(2, "hidden", ""), notOwner, ""},
		"a node claims it": {metas{"a": {}}, row(2, "", ""), func(string) error {
			return &cluster.NotOwnerError{Row: row(3, "a", "")}
		}, denied + "a"},
		"a node claims it while others deny it": {metas{"a": {}, "b": {}}, row(1, "b", ""), func(name string) error {
			if name == "a" {
				return refused(name)
			}
			return &cluster.NotOwnerError{Row: row(2, "a", "")}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, func(c *Config) { c.Patience = patience })
				var all []membership.Member
				for _, name := range slices.Sorted(maps.Keys(c.members)) {
					i, meta := incarnation(name), proto.CloneOf(c.members[name])
					meta.Incarnation, meta.NodeAddress = i[:], "at "+name
					all = append(all, membership.Member{Name: name, Meta: meta})
				}
				s.SetMembers(all)
				s.leases.dead[incarnation("gone")] = true
				s.leases.at[incarnation("former b")] = "at b"
				s.hear(c.row)
				s.answer = c.answer
				began := time.Now()
				_, err := s.execute(t, 8*time.Second)
				took := time.Since(began)
				var unserved *actors.UnservedError
				if c.want == "" {
					if errors.As(err, &unserved) || took != 8*time.Second {
						t.Errorf("%v after %v", err, took)
					}
					return
				}
				if !errors.As(err, &unserved) || unserved.Known != c.want || !errors.Is(err, actors.ErrUnavailable) ||
					errors.Is(err, actors.ErrUnknownOutcome) {
					t.Errorf("%v, want %q", err, c.want)
				}
				if took != patience {
					t.Errorf("after %v, want %v", took, patience)
				}
			})
		})
	}
}

// TestFailover: a request waits through a failure and the take-over after it: the patience begins when the lease of the
// former owner is known to be dead.
func TestFailover(t *testing.T) {
	patience := DefaultConfig().Patience
	for name, silent := range map[string]bool{"refuses": false, "is silent": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSetup(t, func(c *Config) { c.Patience = patience })
				s.join("a", "b")
				s.hear(row(1, "a", ""))
				var taken atomic.Bool
				s.answer = func(name string) error {
					switch {
					case name == "a" && silent:
						time.Sleep(time.Second)
						return transport.ErrNotSent
					case name == "a":
						return transport.ErrNotSent
					case taken.Load():
						return nil
					}
					return actors.ErrNotOwner
				}
				go func() {
					time.Sleep(patience + 100*time.Millisecond)
					s.bury(incarnation("a"))
					time.Sleep(patience - 100*time.Millisecond)
					taken.Store(true)
					s.hear(row(2, "b", ""))
				}()
				began := time.Now()
				to, err := s.execute(t, 10*time.Second)
				if took := time.Since(began); err != nil || to != "at b" || took != 2*patience {
					t.Errorf("%q, %v after %v", to, err, took)
				}
			})
		})
	}
}

// TestOutcomes: the result of a request, by the results of its attempts. After an attempt that may have
// executed it no later error is certain, but the two that tell of all attempts.
func TestOutcomes(t *testing.T) {
	gone := errors.New("the connection broke")
	stamp := &actors.StampError{At: time.UnixMilli(7)}
	unknown := fmt.Errorf("%w: %w", actors.ErrUnknownOutcome, gone)
	all := []error{
		actors.ErrNotOwner, actors.ErrOverloaded, actors.ErrExpired, actors.ErrUnavailable, actors.ErrUnknownOutcome,
		actors.ErrIDReused, actors.ErrTooOld, actors.ErrCorrupt, actors.ErrRejected, transport.ErrNotSent,
		transport.ErrInternal, context.DeadlineExceeded, gone, stamp,
	}
	for _, c := range []struct {
		attempts []error // the last one again and again
		want     []error // that it matches, and nothing else
	}{
		{[]error{nil}, nil},
		{[]error{unknown, nil}, nil},
		{[]error{actors.ErrNotOwner, transport.ErrNotSent, unknown, nil}, nil},
		{[]error{actors.ErrOverloaded}, []error{actors.ErrOverloaded}},
		{[]error{actors.ErrUnavailable}, []error{actors.ErrUnavailable}},
		{[]error{transport.ErrInternal}, []error{transport.ErrInternal}},
		{[]error{transport.ErrTooLarge}, []error{actors.ErrRejected}},
		{[]error{unknown, actors.ErrOverloaded}, []error{actors.ErrUnknownOutcome}},
		{[]error{unknown, actors.ErrCorrupt}, []error{actors.ErrUnknownOutcome}},
		{[]error{unknown, actors.ErrExpired}, []error{actors.ErrUnknownOutcome}},
		{[]error{unknown, transport.ErrInternal}, []error{actors.ErrUnknownOutcome}},
		{[]error{unknown, actors.ErrIDReused}, []error{actors.ErrIDReused}},
		{[]error{unknown, actors.ErrTooOld}, []error{actors.ErrTooOld}},
		{[]error{stamp}, []error{actors.ErrTooOld, stamp}},
		{[]error{actors.ErrNotOwner, stamp}, []error{actors.ErrTooOld, stamp}},
		// Without the stamp: the command must not be sent with another one.
		{[]error{unknown, stamp}, []error{actors.ErrTooOld}},
		{[]error{actors.ErrNotOwner}, []error{actors.ErrExpired, context.DeadlineExceeded}},
		{[]error{transport.ErrNotSent}, []error{actors.ErrExpired, context.DeadlineExceeded}},
		{[]error{unknown}, []error{actors.ErrUnknownOutcome, context.DeadlineExceeded}},
		{[]error{unknown, actors.ErrNotOwner}, []error{actors.ErrUnknownOutcome, context.DeadlineExceeded}},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newSetup(t, nil)
			s.join("a")
			left := c.attempts
			s.answer = func(string) error {
				err := left[0]
				if len(left) > 1 {
					left = left[1:]
				}
				return err
			}
			_, err := s.execute(t, 5*time.Second)
			if (err == nil) != (c.want == nil) {
				t.Errorf("%v: %v", c.attempts, err)
			}
			for _, e := range all {
				wanted := false
				for _, w := range c.want {
					wanted = wanted || errors.Is(w, e)
				}
				if errors.Is(err, e) != wanted {
					t.Errorf("%v came to %v, which is (%t) %v", c.attempts, err, errors.Is(err, e), e)
				}
			}
		})
	}
}

// TestBounds: nothing makes a request go round in circles, or wait without an end.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, func(c *Config) { c.MaxAttempts = 10 })
		s.join("a", "b")
		s.hear(row(1, "a", ""))
		s.answer = func(name string) error { // each says that the other is
			if name == "a" {
				return &cluster.NotOwnerError{Row: row(1, "b", "")}
			}
			return &cluster.NotOwnerError{Row: row(1, "a", "")}
		}
		if _, err := s.execute(t, time.Hour); !errors.Is(err, actors.ErrUnavailable) ||
			errors.Is(err, actors.ErrUnknownOutcome) {
			t.Errorf("%v", err)
		}
		if s.done.Attempts != 10 || s.done.Redirects != 0 {
			t.Errorf("%+v", s.done)
		}
		began := time.Now()
		s.SetMembers(nil) // nobody to ask: no attempts, and only the deadline is an end
		if _, err := s.Router.Execute(t.Context(), "id", actors.Command{ID: "1"}); !errors.Is(err, actors.ErrExpired) {
			t.Errorf("%v", err)
		}
		if d := time.Since(began); d != DefaultConfig().MaxTime {
			t.Errorf("a request without a deadline took %v", d)
		}
		s.config.MaxWaiting = 1
		go func() { _, _ = s.execute(t, time.Second) }()
		synctest.Wait()
		if _, err := s.execute(t, time.Second); !errors.Is(err, actors.ErrOverloaded) {
			t.Errorf("one too many waits: %v", err)
		}
		time.Sleep(2 * time.Second)
	})
}

// TestWrongRow: a row that was heard and is wrong, with an epoch that none comes after, is put right when
// the one it names as the owner denies it.
func TestWrongRow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSetup(t, nil)
		s.join("a", "b")
		s.hear(row(math.MaxUint64, "a", ""), persistence.Shard{ID: shards, Epoch: 1},
			persistence.Shard{ID: math.MaxUint32, Epoch: 1})
		s.answer = func(name string) error {
			if name == "a" {
				return &cluster.NotOwnerError{Row: row(5, "b", "")}
			}
			return nil
		}
		s.takes(t, "a b", DefaultConfig().PauseMin)
		s.takes(t, "b", 0)
	})
}

// TestLocalNode: the node of the process is asked without the network.
func TestLocalNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := &local{holds: true}
		s := newSetup(t, func(c *Config) { c.Node = node })
		s.hear(row(9, "a", "")) // what others say does not count if it holds the shard
		s.join("a", "local")
		s.takes(t, "", 0)
		node.holds = false
		s.takes(t, "a", 0)
		s.rows.Read(row(10, "local", ""), time.Now()) // the store showed it to the node
		s.takes(t, "", 0)
		node.err = &cluster.NotOwnerError{Row: row(11, "a", "")}
		s.takes(t, "a", 0)
		if node.asked != 3 {
			t.Errorf("it was asked %d times", node.asked)
		}
		if a, err := s.Router.Query(t.Context(), "id", "what"); a.Value != "at a" || err != nil {
			t.Errorf("query answered by %v, %v", a.Value, err)
		}
		if a, err := s.Router.Operate(t.Context(), "id", "what"); a.Value != "operator at a" || err != nil {
			t.Errorf("operator's request answered by %v, %v", a.Value, err)
		}
		node.holds, node.err = true, nil
		if a, err := s.Router.Operate(t.Context(), "id", "what"); a.Value != "local operator" || err != nil {
			t.Errorf("operator's request answered by %v, %v", a.Value, err)
		}
	})
}

// itself tells of the process.
type itself struct{}

func (itself) Status(context.Context) (*clusterv1.StatusResponse, error) {
	return &clusterv1.StatusResponse{Name: "itself"}, nil
}

func (itself) Drain(context.Context) error { return errors.New("not now") }

func (itself) Undrain(context.Context) error { return errors.New("never") }

func TestStatuses(t *testing.T) {
	s := newSetup(t, func(c *Config) { c.Self = itself{} })
	s.join("b", "local", "a")
	s.answer = func(name string) error {
		if name == "b" {
			return errors.New("it does not answer")
		}
		return nil
	}
	var got []string
	for _, st := range s.Statuses(t.Context()) {
		got = append(got, fmt.Sprint(st.Member.Name, ":", st.Response.GetName(), ":", st.Err))
	}
	want := "a:at a:<nil> b:at b:it does not answer local:itself:<nil>"
	if strings.Join(got, " ") != want {
		t.Errorf("%v", got)
	}
	if err := s.Router.Drain(t.Context(), "local"); err == nil || s.drained != "" {
		t.Errorf("drain of itself: %v", err)
	}
	if err := s.Router.Drain(t.Context(), "a"); err != nil || s.drained != "at a" {
		t.Errorf("drain of %q: %v", s.drained, err)
	}
	if err := s.Router.Drain(t.Context(), "x"); err == nil {
		t.Error("drain of nobody")
	}
	if err := s.Router.Undrain(t.Context(), "local"); err == nil || err.Error() != "never" {
		t.Errorf("undrain of itself: %v", err)
	}
	if err := s.Router.Undrain(t.Context(), "a"); err != nil || s.drained != "not at a" {
		t.Errorf("undrain of %q: %v", s.drained, err)
	}
	if err := s.Router.Undrain(t.Context(), "x"); err == nil {
		t.Error("undrain of nobody")
	}
}

func TestConfig(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("a router of nothing")
	}
}

// BenchmarkLocal is what the router adds to a request that stays in the process.
func BenchmarkLocal(b *testing.B) {
	c := DefaultConfig()
	c.Name = "local"
	c.Kind = "Kind"
	c.Map = shardmap.New(512)
	c.Leases = &leases{}
	c.Transport = &network{}
	c.Node = &local{holds: true}
	r, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Execute(ctx, "id", actors.Command{ID: "1"}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestSilentOwnersAreSuspected: the lease of an owner that does not answer is read again. Until the store says that
// it is dead, it is asked.
func TestSilentOwnersAreSuspected(t *testing.T) {
	s := newSetup(t, nil)
	s.join("a", "b")
	s.hear(row(1, "b", ""))
	b := incarnation("b")
	s.network.answer = func(string) error { return transport.ErrNotSent }
	_, _ = s.execute(t, 20*time.Millisecond)
	if len(s.leases.suspects) == 0 || s.leases.suspects[0] != b || len(s.failed) != 0 {
		t.Errorf("suspected %v, and requests under way to %v failed", s.leases.suspects, s.failed)
	}
	s.network.answer = func(string) error { return nil }
	s.took()
	if _, err := s.execute(t, time.Second); err != nil || s.took() != "b" {
		t.Error(err)
	}
}

// TestOwnersThatGossipHides: an owner that gossip does not show is reached at the address in its lease.
func TestOwnersThatGossipHides(t *testing.T) {
	s := newSetup(t, nil)
	s.leases.at[incarnation("hidden")] = "at hidden"
	s.join("a")
	s.hear(row(1, "hidden", ""))
	if _, err := s.execute(t, time.Second); err != nil || s.took() != "hidden" {
		t.Errorf("%v", err)
	}
	s.bury(incarnation("hidden"))
	if _, err := s.execute(t, time.Second); err != nil || s.took() != "a" {
		t.Errorf("a dead one: %v", err)
	}
}
