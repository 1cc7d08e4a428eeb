package cassandra

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/gocql/gocql"
)

// fakePolicy offers hosts in a fixed order.
type fakePolicy struct {
	gocql.HostSelectionPolicy
	hosts []*gocql.HostInfo
}

func (f *fakePolicy) AddHost(h *gocql.HostInfo) { f.hosts = append(f.hosts, h) }

func (f *fakePolicy) RemoveHost(h *gocql.HostInfo) {
	f.hosts = slices.DeleteFunc(f.hosts, func(o *gocql.HostInfo) bool { return o == h })
}

func (f *fakePolicy) Pick(gocql.ExecutableQuery) gocql.NextHost {
	left := f.hosts
	return func() gocql.SelectedHost {
		if len(left) == 0 {
			return nil
		}
		h := left[0]
		left = left[1:]
		return picked{h}
	}
}

type picked struct{ host *gocql.HostInfo }

func (p picked) Info() *gocql.HostInfo { return p.host }
func (p picked) Mark(error)            {}

func testPolicy(ids ...string) (*hostPolicy, *time.Time) {
	p := newHostPolicy("k", time.Second, &logger{})
	p.HostSelectionPolicy = &fakePolicy{}
	now := new(time.Time)
	p.now = func() time.Time { return *now }
	for i, id := range ids {
		h := &gocql.HostInfo{}
		h.SetHostID(id)
		h.SetConnectAddress(net.IPv4(127, 0, 0, byte(i+1)))
		p.AddHost(h)
	}
	return p, now
}

// pick returns the hosts in the order in which a request would try them.
func pick(p *hostPolicy, ctx context.Context) (ids []string, hosts []gocql.SelectedHost) {
	next := p.Pick(keyOnlyIn{ctx: ctx})
	for h := next(); h != nil; h = next() {
		ids, hosts = append(ids, h.Info().HostID()), append(hosts, h)
	}
	return ids, hosts
}

type keyOnlyIn struct {
	keyOnly
	ctx context.Context
}

func (k keyOnlyIn) Context() context.Context { return k.ctx }

func TestStalledHostIsAskedLast(t *testing.T) {
	p, now := testPolicy("a", "b", "c")
	expect := func(when string, want ...string) []gocql.SelectedHost {
		t.Helper()
		ids, hosts := pick(p, t.Context())
		if !slices.Equal(ids, want) {
			t.Fatalf("%s: asked %q, want %q", when, ids, want)
		}
		return hosts
	}
	hosts := expect("at first", "a", "b", "c")
	hosts[0].Mark(nil)
	hosts[0].Mark(errors.New("connection lost")) // the driver knows what to do
	hosts = expect("after other errors", "a", "b", "c")
	for range 5 {
		hosts[0].Mark(gocql.ErrTimeoutNoResponse) // what was in progress when it stalled
	}
	expect("stalled", "b", "c", "a")
	*now = now.Add(time.Second)
	hosts = expect("the one that tries", "a", "b", "c")
	expect("meanwhile", "b", "c", "a")
	hosts[0].Mark(gocql.ErrTimeoutNoResponse)
	*now = now.Add(time.Second)
	hosts[0].Mark(gocql.ErrTimeoutNoResponse)
	*now = now.Add(time.Second)
	expect("stalled again, for longer", "b", "c", "a")
	*now = now.Add(time.Minute)
	hosts = expect("the one that tries again", "a", "b", "c")
	hosts[0].Mark(&gocql.RequestErrUnavailable{}) // an answer all the same
	expect("back", "a", "b", "c")
	expect("back for all", "a", "b", "c")
}

func TestAllStalled(t *testing.T) {
	p, _ := testPolicy("a", "b")
	_, hosts := pick(p, t.Context())
	for _, h := range hosts {
		h.Mark(gocql.ErrTimeoutNoResponse)
	}
	if ids, _ := pick(p, t.Context()); len(ids) != 2 {
		t.Errorf("asked %q, want both", ids)
	}
}

// TestImpatientCaller: a caller that stops waiting says nothing about the node.
func TestImpatientCaller(t *testing.T) {
	p, _ := testPolicy("a", "b")
	_, hosts := pick(p, t.Context())
	hosts[0].Mark(gocql.ErrTimeoutNoResponse)
	ctx, cancel := context.WithCancel(t.Context())
	_, hosts = pick(p, ctx)
	cancel()
	hosts[1].Mark(nil) // b is first now, a second
	if ids, _ := pick(p, t.Context()); !slices.Equal(ids, []string{"b", "a"}) {
		t.Errorf("asked %q: the stalled node was taken for healthy", ids)
	}
}

// TestDeadlineShowsAStall: an operation on a lease has a deadline far below the driver's timeout. The next
// one must not go to the same node that let it pass.
func TestDeadlineShowsAStall(t *testing.T) {
	for _, c := range []struct {
		waited time.Duration
		want   []string
	}{{stalledAfter - 1, []string{"a", "b"}}, {stalledAfter, []string{"b", "a"}}} {
		p, now := testPolicy("a", "b")
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		_, hosts := pick(p, ctx)
		*now = now.Add(c.waited)
		hosts[0].Mark(nil)
		if ids, _ := pick(p, t.Context()); !slices.Equal(ids, c.want) {
			t.Errorf("asked %q after %v", ids, c.waited)
		}
	}
}

func TestRemovedHostIsForgotten(t *testing.T) {
	p, _ := testPolicy("a", "b")
	_, hosts := pick(p, t.Context())
	a := hosts[0].Info()
	hosts[0].Mark(gocql.ErrTimeoutNoResponse)
	p.RemoveHost(a)
	if p.avoid.Load() != 0 {
		t.Errorf("%d hosts avoided, want 0", p.avoid.Load())
	}
	hosts[0].Mark(gocql.ErrTimeoutNoResponse) // late
	p.AddHost(a)
	if ids, _ := pick(p, t.Context()); !slices.Equal(ids, []string{"b", "a"}) || p.avoid.Load() != 0 {
		t.Errorf("asked %q, %d avoided", ids, p.avoid.Load())
	}
}

func TestOnlyHost(t *testing.T) {
	p, _ := testPolicy("a", "b", "c")
	if ids, _ := pick(p, context.WithValue(t.Context(), onlyHost{}, "b")); !slices.Equal(ids, []string{"b"}) {
		t.Errorf("asked %q, want b", ids)
	}
	if ids, _ := pick(p, context.WithValue(t.Context(), onlyHost{}, "d")); len(ids) != 0 {
		t.Errorf("asked %q, want none", ids)
	}
}

// TestPlaceOfReplicasOnly: a host that is chosen in turn, in the place of a replica that is down, is none.
func TestPlaceOfReplicasOnly(t *testing.T) {
	inTurn := onlyReplicas{&fakePolicy{hosts: []*gocql.HostInfo{{}}}}
	if inTurn.Pick(keyOnly{})() != nil {
		t.Error("a host that is no replica was chosen for a place")
	}
	if inTurn.Pick(keyOnlyIn{})() == nil {
		t.Error("no host was chosen for a request")
	}
}

func TestReplicaSet(t *testing.T) {
	p, _ := testPolicy("a", "b", "c")
	order := p.HostSelectionPolicy.(*fakePolicy)
	p.setReplicas(3)
	if p.replicaSet(nil) != 0 {
		t.Error("with as many replicas as hosts there is one set")
	}
	p.setReplicas(2)
	ab := p.replicaSet(nil)
	order.hosts[0], order.hosts[1] = order.hosts[1], order.hosts[0]
	ba := p.replicaSet(nil)
	order.hosts[0], order.hosts[2] = order.hosts[2], order.hosts[0]
	ca := p.replicaSet(nil)
	if ab != ba || ab == ca {
		t.Errorf("sets ab %x, ba %x, ca %x: order must not matter, members must", ab, ba, ca)
	}
	cab := p.place(nil)
	order.hosts[1], order.hosts[2] = order.hosts[2], order.hosts[1]
	cba := p.place(nil)
	order.hosts[0], order.hosts[1] = order.hosts[1], order.hosts[0]
	bca := p.place(nil)
	if cab.coordinator != cba.coordinator || cab.set == cba.set ||
		bca.coordinator == cba.coordinator || bca.set != cba.set {
		t.Errorf("hosts ca %x, cb %x, bc %x: the first is asked", cab, cba, bca)
	}
}
