package failover

import (
	"context"
	"fmt"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/cluster"
	"licensed/messages/licensedv1"
)

// TestHandOver has one node after the other hand all its shards to the others while all processes stay up,
// and then get its share back. A node that was drained holds nothing until it is started again, so that
// happens between the two, when it has nothing.
func TestHandOver(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	l := newLoad(f, *movers)
	l.pause = *every
	l.run()
	away, back := handOver{l: l, f: f}, handOver{l: l, f: f}
	for k := range *warm + *rounds {
		if k == *warm { // Cassandra has compiled by now what a hand-over makes it do
			away, back = handOver{l: l, f: f}, handOver{l: l, f: f}
		}
		victim := f.nodes[k%len(f.nodes)]
		away.round(victim, 3, 2, func() {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if _, err := f.admin.DrainNode(ctx,
				connect.NewRequest(&licensedv1.DrainNodeRequest{Name: victim.name})); err != nil {
				t.Fatal(err)
			}
		})
		f.stop(victim)
		back.round(victim, 2, 3, func() { f.start(victim) })
		t.Logf("round %d, %s: away %s; back %s", k+1-*warm, victim.name, spread(away.last), spread(back.last))
	}
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("%d hand-overs of all shards of a node\naway, all processes up:\n%s\n"+
		"back, to a node that has just started:\n%s\nattempts that failed: %d\n%s",
		*rounds, &away, &back, failed, why)
	t.Log(result)
	f.save("handover.txt", result)
	if failed > 0 {
		t.Errorf("%d attempts failed", failed)
	}
	l.verify()
}

// handOver is the result of rounds of hand-overs in one direction.
type handOver struct {
	l              *load
	f              *fleet
	gaps, waited   []time.Duration // of the customers whose shard moved, one for each and round
	noise, slowest []time.Duration // the same of the others
	others, before []time.Duration // latencies of all requests
	last           []time.Duration // gaps of the last round
	leases         int             // lost meanwhile: then it was no hand-over
	calm, moving   usage           // in the second before each round, and in it, if all processes are up
}

// round watches one move, after which this many nodes have shards as it says.
func (h *handOver) round(victim *member, from, to int, move func()) {
	l := h.l
	l.t.Helper()
	owners, before := h.f.settle(from), h.f.incarnations(from)
	quiet := l.now()
	var used [3]usage
	watch := func(k int) {
		if from > to {
			used[k] = h.f.usage()
		}
	}
	watch(0)
	time.Sleep(time.Second)
	watch(1)
	at := l.now()
	move()
	after := h.f.settle(to)
	l.served(l.now(), everybody)
	end := l.now()
	watch(2)
	h.calm, h.moving = h.calm.plus(used[1].since(used[0]), 1), h.moving.plus(used[2].since(used[1]), 1)
	h.leases += lost(before, h.f.incarnations(to), victim.name)
	moved := func(customer string) bool {
		s := cluster.ShardOf(customer+":LicenseAggregate", uint32(len(owners)))
		return owners[s] != after[s]
	}
	h.last = l.gaps(at, end, moved)
	h.gaps, h.noise = append(h.gaps, h.last...), append(h.noise, l.gaps(at, end, not(moved))...)
	h.waited = append(h.waited, l.slowest(at, end, moved)...)
	h.slowest = append(h.slowest, l.slowest(at, end, not(moved))...)
	h.others = append(h.others, l.latencies(at, end, not(moved))...)
	h.before = append(h.before, l.latencies(quiet, at, everybody)...)
}

func (h *handOver) String() string {
	text := fmt.Sprintf("  customers that moved: time without success, with the client's pause of %v: %s\n"+
		"                        slowest request: %s\n"+
		"  the others meanwhile: time without success, likewise: %s\n"+
		"                        slowest request: %s\n"+
		"                        all requests: %s\n"+
		"  all customers before: all requests: %s\n"+
		"  leases lost meanwhile: %d",
		*every, spread(h.gaps), spread(h.waited), spread(h.noise), spread(h.slowest), spread(h.others),
		spread(h.before), h.leases)
	if h.moving.total > 0 {
		text += fmt.Sprintf("\n  processors before: %v\n  processors meanwhile: %v", h.calm, h.moving)
	}
	return text
}

// slowest returns the longest request of each of the customers among those that were in progress between
// two moments.
func (l *load) slowest(from, to time.Duration, of func(string) bool) (all []time.Duration) {
	for _, c := range l.clients {
		if !of(c.customer) {
			continue
		}
		var longest time.Duration
		c.mu.Lock()
		for _, a := range c.answers {
			if a.ended > from && a.began < to {
				longest = max(longest, a.ended-a.began)
			}
		}
		c.mu.Unlock()
		all = append(all, longest)
	}
	return all
}
