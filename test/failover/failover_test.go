package failover

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"
)

func everybody(string) bool { return true }

func not(of func(string) bool) func(string) bool { return func(c string) bool { return !of(c) } }

// TestKill kills owners with SIGKILL, one after the other.
func TestKill(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	l := newLoad(f)
	l.run()
	var gaps, calm, meanwhile []time.Duration
	for k := range *kills {
		victim := f.nodes[k%len(f.nodes)]
		owners := f.settle(3)
		theirs := holds(owners, victim.name)
		quiet := l.now()
		time.Sleep(3 * time.Second)
		at, clock := l.now(), time.Now()
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		l.served(at, theirs)
		time.Sleep(time.Second)
		end := l.now()
		hit := l.gaps(at, end, theirs)
		before, after := l.latencies(quiet, at, everybody), l.latencies(at, end, not(theirs))
		gaps, calm, meanwhile = append(gaps, hit...), append(calm, before...), append(meanwhile, after...)
		t.Logf("kill %d of %s at %s: without success %s; others' p99 %v, before %v",
			k+1, victim.name, clock.UTC().Format("15:04:05.000"), spread(hit), quantile(after, .99), quantile(before, .99))
		f.start(victim)
	}
	f.settle(3)
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("%d kills: time without success of the customers of the killed node: %s\n"+
		"latency of the other customers meanwhile: %s\nlatency of all before: %s\nattempts that failed: %d\n%s",
		*kills, spread(gaps), spread(meanwhile), spread(calm), failed, why)
	t.Log(result)
	f.save("kill.txt", result)
	l.verify()
}

// TestPause stops owners in their tracks for ten seconds.
func TestPause(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	l := newLoad(f)
	l.run()
	var gaps []time.Duration
	for k := range min(*kills, 10) {
		victim := f.nodes[k%len(f.nodes)]
		theirs := holds(f.settle(3), victim.name)
		at := l.now()
		if err := victim.Pause(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := victim.Resume(); err != nil {
			t.Fatal(err)
		}
		l.served(l.now(), everybody)
		hit := l.gaps(at, l.now(), theirs)
		gaps = append(gaps, hit...)
		t.Logf("pause %d of %s: without success %s", k+1, victim.name, spread(hit))
	}
	f.settle(3)
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("pauses of 10 s: time without success of the customers of the paused node: %s\nattempts that failed: %d\n%s",
		spread(gaps), failed, why)
	t.Log(result)
	f.save("pause.txt", result)
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
	l := newLoad(f)
	l.run()
	var gaps []time.Duration
	before := f.incarnations()
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
	if after := f.incarnations(); !maps.Equal(before, after) {
		t.Errorf("leases were lost: %v, then %v", before, after)
	}
	l.end()
	failed, why := l.failures()
	result := fmt.Sprintf("a node of Cassandra stalls for 10 s: time without success: %s\nattempts that failed: %d\n%s", spread(gaps), failed, why)
	t.Log(result)
	f.save("stall.txt", result)
	l.verify()
}

// TestRollingRestart restarts all nodes, one after the other, as an upgrade does.
func TestRollingRestart(t *testing.T) {
	f := launch(t, 3)
	f.settle(3)
	l := newLoad(f)
	l.run()
	time.Sleep(3 * time.Second)
	before, _ := l.failures()
	from := l.now()
	calm := l.latencies(0, from, everybody)
	for _, m := range f.nodes {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if err := m.Stop(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		f.settle(2)
		f.start(m)
		f.settle(3)
	}
	l.report(f, "rolling restart", from, calm, before)
}

// TestScaleOut adds a third node to two.
func TestScaleOut(t *testing.T) {
	f := launch(t, 2)
	f.settle(2)
	l := newLoad(f)
	l.run()
	time.Sleep(3 * time.Second)
	before, _ := l.failures()
	from := l.now()
	calm := l.latencies(0, from, everybody)
	f.addNode(3)
	f.settle(3)
	l.report(f, "scale-out", from, calm, before)
}

// report tells how the clients fared while shards moved in good order: nobody may have seen an error.
func (l *load) report(f *fleet, what string, from time.Duration, calm []time.Duration, before int) {
	l.t.Helper()
	time.Sleep(time.Second)
	to := l.now()
	l.end()
	failed, why := l.failures()
	var slowest []time.Duration
	for _, c := range l.clients {
		is := func(customer string) bool { return customer == c.customer }
		slowest = append(slowest, quantile(l.latencies(from, to, is), 1))
	}
	result := fmt.Sprintf("%s in %v: slowest request of each customer: %s\nlatency: %s\nlatency before: %s\nattempts that failed: %d\n%s",
		what, (to - from).Round(time.Second), spread(slowest), spread(l.latencies(from, to, everybody)), spread(calm), failed-before, why)
	l.t.Log(result)
	f.save("moves.txt", result)
	if failed > before {
		l.t.Errorf("%d attempts failed", failed-before)
	}
	l.verify()
}
