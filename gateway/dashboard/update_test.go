package dashboard

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// TestUpdates: what did not change is the same event, and nothing is made twice.
func TestUpdates(t *testing.T) {
	made := make(map[string]int)
	u := &updates{now: time.Now, part: func(_, part string, _ any) ([]byte, error) {
		made[part]++
		return fmt.Append(nil, part, made[part]), nil
	}}
	status := newThreeNodes().next
	of := func(number uint64, change func(*licensedv1.ClusterStatus)) update {
		t.Helper()
		status = proto.CloneOf(status)
		change(status)
		got, err := u.of(&reading{
			number: number, Status: status, Latest: &clusterrates.Sample{At: int64(number)}, before: int64(number) - 1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	changed := func(a, b update) (which string) {
		for i, name := range []string{"board", "happenings", "map"} {
			if a.parts[i] != b.parts[i] {
				which += name + " "
			}
		}
		return which
	}
	first := of(1, func(*licensedv1.ClusterStatus) {})
	second := of(2, func(s *licensedv1.ClusterStatus) { s.Nodes[0].ResidentCustomers++ })
	moved := of(3, func(s *licensedv1.ClusterStatus) { s.ShardMap[7].Owner = s.Nodes[0].Incarnation })
	told := of(4, func(s *licensedv1.ClusterStatus) { s.Happenings[0].Text += "!" })
	joined := of(5, func(s *licensedv1.ClusterStatus) { s.Nodes = append(s.Nodes, &licensedv1.NodeStatus{Name: "n4"}) })
	for i, c := range []struct{ got, want string }{
		{changed(update{}, first), "board happenings map "}, {changed(first, second), "board "},
		{changed(second, moved), "board map "},
		{changed(moved, told), "board happenings "}, {changed(told, joined), "board map "},
		{changed(joined, of(5, func(*licensedv1.ClusterStatus) {})), ""},
		{changed(joined, of(2, func(*licensedv1.ClusterStatus) {})), ""},
	} {
		if c.got != c.want {
			t.Errorf("step %d changed %q, want %q", i, c.got, c.want)
		}
	}
	if made["board"] != 5 || made["map"] != 3 || made["happenings"] != 2 {
		t.Errorf("%v", made)
	}
}

// TestViewer: a page gets all samples first, then each as it comes, and those between if it was slow.
func TestViewer(t *testing.T) {
	var samples []clusterrates.Sample
	w := httptest.NewRecorder()
	v := &viewer{out: openStream(w), samples: func() []clusterrates.Sample { return samples }}
	show := func(at int64) string {
		t.Helper()
		own, err := newEvent("samples", "the shared one")
		if err != nil {
			t.Fatal(err)
		}
		part := &event{[]byte("part ")}
		w.Body.Reset()
		u := update{at: at, before: at - 1, sample: own, parts: [3]*event{part, part, part}}
		if at == 0 {
			u.sample = nil
		}
		if err := v.show(&u); err != nil {
			t.Fatal(err)
		}
		return w.Body.String()
	}
	if got := show(0); !strings.Contains(got, "data: []") && !strings.Contains(got, "data: null") ||
		strings.Count(got, "part ") != 3 {
		t.Errorf("at the beginning: %s", got)
	}
	samples = []clusterrates.Sample{{At: 1}}
	if got := show(1); !strings.Contains(got, "the shared one") {
		t.Errorf("then: %s", got)
	}
	samples = []clusterrates.Sample{{At: 1}, {At: 2}, {At: 3}, {At: 4}}
	if got := show(4); strings.Count(got, `"at":`) != 3 || strings.Contains(got, `"at":1,`) {
		t.Errorf("having been slow: %s", got)
	}
	if got := show(4); strings.Contains(got, "samples") {
		t.Errorf("again: %s", got)
	}
}
