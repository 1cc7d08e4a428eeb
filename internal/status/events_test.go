package status

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// TestEventsOfAll: what members tell of themselves is in one list, and nothing twice.
func TestEventsOfAll(t *testing.T) {
	var n1, n2 Events
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	n1.Add(at(1), &licensedv1.Happening{Node: "n1", Text: "n1 is ready"})
	n1.Add(at(4), &licensedv1.Happening{Node: "n3", Text: "n3 is not responding"})
	n2.Add(at(2), &licensedv1.Happening{Node: "n2", Text: "n2 is ready"})
	n2.Add(at(5), &licensedv1.Happening{Node: "n3", Text: "n3 is not responding"})
	n2.Add(at(6), &licensedv1.Happening{Node: "n2", Text: "n2 took 7 shards over from n3"})
	var got []string
	for _, h := range Merge(n1.NewestFirst(), FirstHand("n2", n2.NewestFirst())) {
		got = append(got, h.Text)
	}
	if want := []string{
		"n2 took 7 shards over from n3", "n3 is not responding", "n2 is ready", "n1 is ready",
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range int64(2 * keptEvents) {
		n2.Add(at(10+i), &licensedv1.Happening{Node: "n2"})
	}
	if told := FirstHand("n2", n2.NewestFirst()); len(told) != toldEvents ||
		told[0].At.AsTime().Before(told[1].At.AsTime()) {
		t.Errorf("%d are told, the newest at %v", len(told), told[0].At.AsTime())
	}
	if all := Merge(n1.NewestFirst(), n2.NewestFirst()); len(all) != keptEvents {
		t.Errorf("%d in all", len(all))
	}
}

// TestEventsAreCounted: shards that move alike are one happening.
func TestEventsAreCounted(t *testing.T) {
	var h Events
	now := time.Unix(1000, 0)
	released := func(at time.Time, shard uint32, to string) {
		h.Count(at, &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_RELEASED, OtherNode: to, Shard: proto.Uint32(shard),
		}, func(w *licensedv1.Happening) string { return fmt.Sprintf("%d to %s", w.Shards, w.OtherNode) })
	}
	released(now, 1, "n2")
	released(now.Add(time.Second), 2, "n3")
	released(now.Add(2*time.Second), 3, "n2")
	released(now.Add(time.Minute), 4, "n2")
	var got []string
	for _, w := range h.NewestFirst() {
		got = append(got, w.Text)
		if (w.Shard == nil) != (w.Shards > 1) {
			t.Errorf("%v names one shard of several", w)
		}
	}
	if want := []string{"1 to n2", "1 to n3", "2 to n2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 3 * keptEvents {
		h.Add(now, &licensedv1.Happening{Text: fmt.Sprint(i)})
	}
	if all := h.NewestFirst(); len(all) != keptEvents || all[0].Text != fmt.Sprint(3*keptEvents-1) {
		t.Errorf("%d are kept, the newest is %v", len(all), all[0])
	}
}

// TestNamesAreBounded: a member that gets an incarnation after the other is not remembered by all of them, and still
// by its last.
func TestNamesAreBounded(t *testing.T) {
	n := NewMembers("g", time.Now, new(Events))
	var last persistence.Incarnation
	for range 3 * keptNames {
		last = persistence.NewIncarnation()
		n.Notice([]membership.Member{{Name: "n1", Meta: &clusterv1.Meta{Incarnation: last[:]}}})
	}
	if got := n.NameOf(last); got != "n1" {
		t.Errorf("the last one is %q", got)
	}
	if kept := len(n.names); kept != keptNames || len(n.order) != kept {
		t.Errorf("%d are kept", kept)
	}
}

// TestDepartures: a member that disappears is remembered if it had a lease or was heard, and a member that forged
// gossip invents neither is remembered nor has a former one of its name forgotten.
func TestDepartures(t *testing.T) {
	n := NewMembers("g", time.Now, new(Events))
	departed := func(want ...string) {
		t.Helper()
		var got []string
		for _, d := range n.Departed() {
			got = append(got, d.Name)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("departed: %q, want %q", got, want)
		}
	}
	i := persistence.NewIncarnation()
	node := membership.Member{Name: "n1", Meta: &clusterv1.Meta{Incarnation: i[:]}}
	drained := membership.Member{Name: "n1", Meta: &clusterv1.Meta{}}
	gateway := membership.Member{Name: "g1", Meta: &clusterv1.Meta{}}
	n.Heard("g1") // It is not listed yet.
	n.Notice([]membership.Member{node, gateway})
	n.Notice([]membership.Member{drained, gateway})
	n.Notice(nil)
	departed("n1")
	n.Notice([]membership.Member{gateway})
	n.Heard("g1")
	n.Notice(nil)
	departed("g1", "n1")
	n.Notice([]membership.Member{drained, gateway})
	departed("g1", "n1") // The status passes over those that are listed.
	n.Notice(nil)
	departed("g1", "n1")
	n.Notice([]membership.Member{node, gateway})
	n.Heard("g1")
	departed()
}
