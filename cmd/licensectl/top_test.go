package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/terminal"
	"licensed/messages/licensedv1"
)

// busy is a cluster of two after some seconds of work.
func busy(seconds uint64) *licensedv1.ClusterStatus {
	at := time.Date(2026, 3, 1, 20, 0, int(seconds), 0, time.UTC)
	node := func(name string, commands uint64) *licensedv1.NodeStatus {
		return &licensedv1.NodeStatus{
			CommandsPerSecond: commands + 7, // Its customers get more than its own gateway answers.
			Name:              name, Incarnation: name + "-1", Version: "v1.2.0",
			State: licensedv1.NodeState_NODE_STATE_READY,
			Roles: []licensedv1.NodeRole{licensedv1.NodeRole_NODE_ROLE_NODE}, ShardsOpen: 32,
			ResidentCustomers: 1200, MemoryBytes: 64 << 20,
			Lease:   &licensedv1.LeaseStatus{Remaining: durationpb.New(2500 * time.Millisecond)},
			CpuTime: durationpb.New(time.Duration(seconds) * 400 * time.Millisecond),
			Activity: &licensedv1.NodeActivity{
				Commands: commands * seconds, Queries: 10 * seconds, LatencyBoundsSeconds: []float64{.001, .01},
				LatencyCounts: []uint64{commands * seconds, 0, 0},
				Refusals:      []*licensedv1.RuleCount{{Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Count: 3 * seconds}},
			},
		}
	}
	s := &licensedv1.ClusterStatus{
		Name:       "production",
		Reporter:   "g1",
		Shards:     64,
		AsOf:       timestamppb.New(at),
		Nodes:      []*licensedv1.NodeStatus{node("n1", 100), node("n2", 50)},
		Happenings: []*licensedv1.Happening{{At: timestamppb.New(at.Add(-time.Hour)), Text: "n2 joined"}},
	}
	s.Level, s.Summary, s.ShardsServed = licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, "All systems normal", s.Shards
	for id := range s.Shards {
		s.ShardMap = append(s.ShardMap,
			&licensedv1.ShardStatus{Id: id, Epoch: 2, Owner: "n1-1", State: licensedv1.ShardState_SHARD_STATE_OPEN})
	}
	return s
}

// watching returns a model that took some readings, a second apart.
func watching(width, height, readings int) *topModel {
	m := &topModel{read: func() tea.Msg { return nil }, interval: time.Second, server: "127.0.0.1:8080"}
	m.now = func() time.Time { return m.at }
	m.Update(tea.WindowSizeMsg{Width: width, Height: height})
	for i := range readings {
		s := busy(uint64(i))
		m.Update(topReading{s, s.AsOf.AsTime(), nil})
	}
	return m
}

// TestTop shows the state, and its changes.
func TestTop(t *testing.T) {
	m := watching(140, 30, 4)
	view := plain(m)
	for _, want := range []string{
		"cluster production", "64 shards, as seen by g1 at 2026-03-01 20:00:03 UTC", "OK: All systems normal",
		"shards: 64 served", " 107 ",
		"150.0/s, queries 20.0/s", "p50 0.50 ms, p99 0.99 ms", "6.0/s, most by device limit", "0.40", "64.0 MiB",
		"n2 joined", "███",
	} {
		if !strings.Contains(view, want) {
			t.Errorf("no %q in\n%s", want, view)
		}
	}
	s := busy(4)
	s.Nodes[1].State, s.Level = licensedv1.NodeState_NODE_STATE_DEAD, licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL
	s.Warnings = []*licensedv1.ClusterWarning{
		{Level: licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL, Text: "n2 is\x1b[31m dead"},
	}
	m.Update(topReading{s, s.AsOf.AsTime(), nil})
	if view = plain(m); strings.Contains(view, "normal") || !strings.Contains(view, "CRITICAL") ||
		!strings.Contains(view, `! n2 is\u001b[31m dead`) || !strings.Contains(view, "dead") {
		t.Errorf("%s", view)
	}
	m.Update(topReading{at: time.Now(), err: errors.New("connection refused")})
	if view = plain(m); !strings.Contains(view, "UNKNOWN: no answer since then: connection refused") ||
		!strings.Contains(view, "n1") {
		t.Errorf("%s", view)
	}

	// The gateway hangs: what was OK is not OK forever.
	m = watching(140, 30, 4)
	m.now = func() time.Time { return m.at.Add(12 * time.Second) }
	if view = plain(m); strings.Contains(view, "normal") ||
		!strings.Contains(view, "UNKNOWN: the last status is 12s old") {
		t.Errorf("%s", view)
	}
}

// TestTopFits keeps to the terminal, whatever its size.
func TestTopFits(t *testing.T) {
	for _, size := range [][2]int{{140, 30}, {80, 24}, {40, 10}, {20, 5}, {1, 1}} {
		lines := strings.Split(strings.TrimSuffix(plain(watching(size[0], size[1], 500)), "\n"), "\n")
		if len(lines) > size[1] {
			t.Errorf("%d lines on %v", len(lines), size)
		}
		for _, line := range lines {
			if w := terminal.Width(line); w > size[0] {
				t.Errorf("%d columns on %v: %q", w, size, line)
			}
		}
	}
}

// TestTopBegins shows that it asks, and that nobody answers.
func TestTopBegins(t *testing.T) {
	m := watching(80, 24, 0)
	if v := plain(m); !strings.Contains(v, "asking 127.0.0.1:8080") {
		t.Errorf("%s", v)
	}
	m.Update(topReading{err: errors.New("no route")})
	if v := plain(m); !strings.Contains(v, "UNKNOWN: no status from 127.0.0.1:8080: no route") {
		t.Errorf("%s", v)
	}
	if _, c := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); c == nil || c() != tea.Quit() {
		t.Error("q does not end it")
	}
	if _, c := m.Update(topTick{}); c == nil {
		t.Error("it does not ask again")
	}
}

// TestTopOnce prints one picture of a real node where there is no terminal.
func TestTopOnce(t *testing.T) {
	out := newSession(t).run("licensectl top --interval 100ms")
	if strings.Contains(out, "exit") || !strings.Contains(out, "OK: All systems normal") ||
		!strings.Contains(out, "shards: ") || strings.Contains(out, "\x1b[?") {
		t.Errorf("%s", out)
	}
}

// plain is what is shown, without colours.
func plain(m *topModel) string { return ansi.Strip(m.text()) }
