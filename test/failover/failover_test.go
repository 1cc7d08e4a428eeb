package failover

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func everybody(string) bool { return true }

func not(of func(string) bool) func(string) bool { return func(c string) bool { return !of(c) } }

// TestKill kills owners with SIGKILL, one after the other.
func TestKill(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	l := newLoad(f, *clients)
	l.run()
	var gaps, calm, meanwhile []time.Duration
	leases := 0
	for k := range *kills {
		victim := f.nodes[k%len(f.nodes)]
		owners := f.settle(3)
		theirs, incarnations := holds(owners, victim.name), f.incarnations(3)
		quiet := l.now()
		time.Sleep(time.Second + rand.N(time.Second)) // at any time between two renewals of its lease
		at, clock := l.now(), time.Now()
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		l.served(at, theirs)
		time.Sleep(500 * time.Millisecond) // a customer who was served is served from then on
		end := l.now()
		hit := l.gaps(at, end, theirs)
		before, after := l.latencies(quiet, at, everybody), l.latencies(at, end, not(theirs))
		gaps, calm, meanwhile = append(gaps, hit...), append(calm, before...), append(meanwhile, after...)
		t.Logf("kill %d of %s at %s: without success %s; others' p99 %v, before %v",
			k+1, victim.name, clock.UTC().Format("15:04:05.000"), spread(hit), quantile(after, .99),
			quantile(before, .99))
		leases += lost(incarnations, f.incarnations(2), victim.name)
		f.start(victim)
	}
	f.settle(3)
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("%d kills: time without success of the customers of the killed node: %s\n"+
		"latency of the other customers meanwhile: %s\nlatency of all before: %s\n"+
		"leases that nodes which lived lost meanwhile: %d\nattempts that failed: %d\n%s",
		*kills, spread(gaps), spread(meanwhile), spread(calm), leases, failed, why)
	t.Log(result)
	f.save("kill.txt", result)
	l.verify()
}

// TestStoreNodeStalls stops one of three nodes of Cassandra in its tracks for ten seconds: nobody may lose
// a lease.
func TestStoreNodeStalls(t *testing.T) {
	if *replicas < 3 {
		t.Skip("needs -cassandra 3")
	}
	f := launch(t, 3)
	if f.cassandra == nil {
		t.Skip("not with a Cassandra that is not this run's")
	}
	f.settle(3)
	l := newLoad(f, *clients)
	l.run()
	var gaps []time.Duration
	before := f.incarnations(3)
	for k := range 3 {
		time.Sleep(3 * time.Second)
		at := l.now()
		f.cassandra.Do(t, "pause", fmt.Sprint(k+1))
		time.Sleep(10 * time.Second)
		f.cassandra.Do(t, "resume", fmt.Sprint(k+1))
		l.served(l.now(), everybody)
		hit := l.gaps(at, l.now(), everybody)
		gaps = append(gaps, hit...)
		t.Logf("Cassandra node %d stalled: without success %s", k+1, spread(hit))
	}
	if after := f.incarnations(3); !maps.Equal(before, after) {
		t.Errorf("leases were lost: %v, then %v", before, after)
	}
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("a node of Cassandra stalls for 10 s: time without success: %s\nattempts that failed: %d\n%s",
		spread(gaps), failed, why)
	t.Log(result)
	f.save("stall.txt", result)
	l.verify()
}

// TestRollingRestart restarts all nodes, one after the other, as an upgrade does.
func TestRollingRestart(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	l := newLoad(f, *clients)
	l.run()
	restart := func() {
		for _, m := range f.nodes {
			f.stop(m)
			f.settle(2)
			f.start(m)
			f.settle(3)
		}
	}
	for range *warm / len(f.nodes) {
		restart()
	}
	l.report(f, "rolling restart", restart)
}

// TestScaleOut adds a third node to two.
func TestScaleOut(t *testing.T) {
	f := launch(t, 2)
	f.settle(2)
	l := newLoad(f, *clients)
	l.run()
	third := f.addNode(3)
	f.settle(3)
	again := func() { f.start(third); f.settle(3) }
	for range *warm {
		f.stop(third)
		f.settle(2)
		again()
	}
	f.stop(third)
	f.settle(2)
	l.report(f, "scale-out", again)
}

// report tells how the clients fare while something moves shards in good order: nobody may ever see an error.
func (l *load) report(f *fleet, what string, move func()) {
	l.t.Helper()
	quiet := l.now()
	time.Sleep(3 * time.Second)
	from := l.now()
	move()
	time.Sleep(time.Second)
	to := l.now()
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("%s in %v: slowest request of each customer: %s\nlatency: %s\nlatency before: %s\n"+
		"attempts that failed: %d\n%s",
		what, (to - from).Round(time.Second), spread(l.slowest(from, to, everybody)),
		spread(l.latencies(from, to, everybody)),
		spread(l.latencies(quiet, from, everybody)), failed, why)
	l.t.Log(result)
	f.save(strings.ReplaceAll(what, " ", "-")+".txt", result)
	if failed > 0 {
		l.t.Errorf("%d attempts failed", failed)
	}
	l.verify()
}
