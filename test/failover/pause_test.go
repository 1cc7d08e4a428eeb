package failover

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/harness"
	"licensed/messages/licensedv1/licensedv1connect"
)

// TestPause stops owners in their tracks for ten seconds.
func TestPause(t *testing.T) { pauses(t, "lease") }

// TestPauseConfirmedByRead does so where replies are confirmed by a read of the lease.
func TestPauseConfirmedByRead(t *testing.T) { pauses(t, "read") }

// pauses stops owners in their tracks. Nodes have an API here: what was sent to the paused node's while it
// was stopped is the first that it sees when it continues, when others have had its customers for long.
func pauses(t *testing.T, confirm string) {
	f := launchAs(t, 3, "serve", "--confirm", confirm)
	f.settle(3)
	l := newLoad(f, *clients)
	l.run()
	var gaps, calm []time.Duration
	lying := 0
	for k := range min(*kills, 10) {
		victim := f.nodes[k%len(f.nodes)]
		theirs := holds(f.settle(3), victim.name)
		quiet := l.now()
		time.Sleep(time.Second)
		before, at := f.incarnations(3), l.now()
		calm = append(calm, l.latencies(quiet, at, everybody)...)
		stray := l.strayTo(f, victim, theirs)
		if err := victim.Pause(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second) // others have its customers
		answered := stray.ask(fmt.Sprint("stray-", k))
		time.Sleep(6 * time.Second)
		stray.expect()
		if err := victim.Resume(); err != nil {
			t.Fatal(err)
		}
		answered()
		l.served(l.now(), everybody)
		hit := l.gaps(at, l.now(), theirs)
		gaps, lying = append(gaps, hit...), lying+2*len(stray.clients)
		f.settle(3)
		if after := f.incarnations(3); before[victim.name] == after[victim.name] {
			t.Errorf("%s is still %s, others had its shards", victim.name, after[victim.name])
		}
		t.Logf("pause %d of %s: without success %s; %d requests lay in its sockets",
			k+1, victim.name, spread(hit), 2*len(stray.clients))
	}
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("pauses of 10 s, confirmed by %s: time without success of the customers of the paused "+
		"node: %s\n"+
		"requests that waited in its sockets and were answered truly: %d\nlatency of all before: %s\n"+
		"attempts that failed: %d\n%s",
		confirm, spread(gaps), lying, spread(calm), failed, why)
	t.Log(result)
	f.save("pause-"+confirm+".txt", result)
	l.verify()
}

// stray is clients that ask the paused node itself.
type stray struct {
	l       *load
	to      targets
	of      []*client // the same customers' clients, which ask elsewhere
	clients []*client
}

// strayTo returns a client for each of the customers, connected to that node.
func (l *load) strayTo(f *fleet, m *member, of func(string) bool) *stray {
	l.t.Helper()
	s := &stray{
		l:  l,
		to: targets{licensedv1connect.NewLicenseServiceClient(harness.HTTP2(f.t), m.url(8080), connect.WithGRPC())},
	}
	for _, c := range l.clients {
		if of(c.customer) {
			s.of, s.clients = append(s.of, c), append(s.clients, newClient(c.customer))
		}
	}
	l.strays = append(l.strays, s.clients...)
	if len(s.clients) == 0 {
		l.t.Fatalf("%s holds no customer that has a client", m.name)
	}
	if _, err := read(l.t.Context(), s.to[0], s.clients[0].customer); err != nil {
		l.t.Fatal(err)
	}
	return s
}

// ask sends a read and a renewal for each customer. The function that it returns waits for the answers.
func (s *stray) ask(id string) (answered func()) {
	var asking sync.WaitGroup
	for _, c := range s.clients {
		asking.Go(func() { s.l.read(context.Background(), c, s.to) })
		other := newClient(c.customer)
		s.l.strays = append(s.l.strays, other)
		asking.Go(func() { s.l.renew(context.Background(), other, s.to, id) })
	}
	return asking.Wait
}

// expect has the reads show at least what the customers were told until now.
func (s *stray) expect() {
	for k, c := range s.clients {
		c.expires.Store(s.of[k].expires.Load())
	}
}
