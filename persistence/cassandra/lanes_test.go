package cassandra

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/gocql/gocql"
)

// TestLanesOfManyHosts compares lanes for each node that is asked, as they are, with lanes for each set of replicas, on
// twelve hosts with three copies and all 220 sets: with that number of lanes, nothing is grouped before the store is
// overloaded.
func TestLanesOfManyHosts(t *testing.T) {
	const hosts, copies, sets = 12, 3, 220
	busy := simulatedStore{network: 500 * time.Microsecond, request: 150 * time.Microsecond,
		each: 30 * time.Microsecond, processors: 1}
	idle := busy
	idle.processors = 16
	run := func(store simulatedStore, clients int, bySet bool) *pacing {
		r := rand.New(rand.NewPCG(1, 2))
		if !bySet {
			return newPlacedPacing(store, 8, clients, false, hosts, func(int) (int, []int) {
				replicas := r.Perm(hosts)[:copies]
				return replicas[0], replicas
			}).run(settling).run(measuring)
		}
		lanes := map[[copies]int]int{}
		return newPlacedPacing(store, 8, clients, false, sets, func(int) (int, []int) {
			replicas := r.Perm(hosts)[:copies]
			set := [copies]int(slices.Sorted(slices.Values(replicas)))
			if _, known := lanes[set]; !known {
				lanes[set] = len(lanes)
			}
			return lanes[set], replicas
		}).run(settling).run(measuring)
	}
	for _, c := range []struct {
		name    string
		store   simulatedStore
		clients int
		// least of commands in a time, and most of requests for a command, as parts of those with a lane for each set.
		least, most float64
	}{
		{"idle", idle, 16, 0.9, 1}, {"idle", idle, 64, 0.75, 0.5}, {"idle", idle, 256, 0.6, 0.2},
		{"busy", busy, 16, 0.9, 1}, {"busy", busy, 64, 1.25, 0.5}, {"busy", busy, 256, 2, 0.2},
		{"busy", busy, 1024, 1.4, 0.3},
	} {
		host, set := run(c.store, c.clients, false), run(c.store, c.clients, true)
		rate := float64(host.writes) / float64(set.writes)
		requests := float64(host.requests) / float64(host.writes) / (float64(set.requests) / float64(set.writes))
		t.Logf("%s, %d in flight: %.2f of the writes, %.2f of the requests for a write; %v and %v",
			c.name, c.clients, rate, requests, host.meanLatency(), set.meanLatency())
		if rate < c.least || requests > c.most {
			t.Errorf("%s, %d in flight: %.2f of the writes, %.2f of the requests for a write",
				c.name, c.clients, rate, requests)
		}
	}
}

// TestSuspects: a set of replicas that does not answer holds up one request of those that share a node with it.
func TestSuspects(t *testing.T) {
	f := newFakeCassandra(1, 10, 100)
	good, bad := []byte{0, 1}, []byte{0, 2}
	f.putAt("first", good, 1)
	f.expectSent(t, "first")
	f.putAt("a", good, 1)
	f.putAt("b", bad, 1)
	f.answer <- nil
	f.expectSent(t, "a", "b")
	f.answer <- gocql.ErrTimeoutNoResponse
	f.wg.Wait()

	f.putAt("c", bad, 1)
	f.expectSent(t, "c")
	f.putAt("d", good, 1)
	f.expectSent(t, "d") // though c is in progress
	f.putAt("e", []byte{0, 3}, 1)
	f.expectSent(t, "e") // neither suspect
	for range 3 {
		f.answer <- nil
	}
	f.wg.Wait()

	f.putAt("f", good, 1)
	f.expectSent(t, "f")
	f.putAt("g", bad, 1)
	f.putAt("h", good, 1)
	f.answer <- nil
	f.expectSent(t, "g", "h") // together again
	f.answer <- nil
	f.wg.Wait()
}

// TestFewSuspects: when everything is too slow, writes continue to travel together.
func TestFewSuspects(t *testing.T) {
	var s suspects
	now := time.Unix(1_000_000, 0)
	group := func(from, to int) (all []*write) {
		for set := from; set < to; set++ {
			all = append(all, &write{set: uint64(set)})
		}
		return all
	}
	count := func(what string, want int) {
		t.Helper()
		n := 0
		for set := range uint64(200) {
			if s.has(set, now) {
				n++
			}
		}
		if n != want {
			t.Errorf("%s: %d suspects, want %d", what, n, want)
		}
	}
	s.note(group(0, 10), true, now)
	count("success", 0)
	s.note(group(0, 100), false, now)
	count("failures", maxSuspects)
	now = now.Add(suspectFor)
	count("later", 0)
	s.note(group(100, 110), false, now)
	count("in their place", 10)
	s.note(group(100, 109), true, now)
	count("most succeeded", 1)
	s.note(group(109, 110), true, now)
	if s.some.Load() {
		t.Error(fmt.Sprint("suspects ", s.until))
	}
}
