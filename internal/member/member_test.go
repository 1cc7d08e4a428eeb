package member

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/internal/optional"
	"licensed/messages/clusterv1"
	"licensed/persistence"
)

// TestEarlyQuestions: others can reach a process before it has joined them. It has no status yet.
func TestEarlyQuestions(t *testing.T) {
	m := &Self{config: Config{Now: time.Now, Node: new(optional.Value[cluster.Node])}, joined: make(chan struct{})}
	if s, err := m.Status(t.Context()); !errors.Is(err, errNotJoined) {
		t.Errorf("%v, %v", s, err)
	}
	if err := m.Drain(t.Context()); !errors.Is(err, errNoNode) {
		t.Errorf("a gateway drains: %v", err)
	}
}

// TestNodesOf: who may be given shards, and how many.
func TestNodesOf(t *testing.T) {
	i := persistence.NewIncarnation()
	meta := func(change func(*clusterv1.Meta)) *clusterv1.Meta {
		m := &clusterv1.Meta{Incarnation: i[:], Capacity: 3}
		change(m)
		return m
	}
	all := []membership.Member{
		{Name: "n1", Meta: meta(func(*clusterv1.Meta) {})},
		{Name: "draining", Meta: meta(func(m *clusterv1.Meta) { m.Draining = true })},
		{Name: "clock", Meta: meta(func(m *clusterv1.Meta) { m.ClockWrong = true })},
		{Name: "gateway", Meta: &clusterv1.Meta{}},
		{Name: "self", Meta: &clusterv1.Meta{Capacity: 2}},
		{Name: "strange", Meta: &clusterv1.Meta{Incarnation: []byte("short")}},
	}
	for draining, want := range map[bool]string{
		false: "n1 3 true, draining 3 false, clock 3 false, self 2 true, ",
		true:  "n1 3 true, draining 3 false, clock 3 false, self 2 false, ",
	} {
		var got strings.Builder
		for _, m := range nodesOf(all, "self", draining) {
			fmt.Fprintf(&got, "%s %v %t, ", m.Name, m.Capacity, m.Eligible)
		}
		if got.String() != want {
			t.Errorf("draining %t: %q, want %q", draining, got.String(), want)
		}
	}
}
