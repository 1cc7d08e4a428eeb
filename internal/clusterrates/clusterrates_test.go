package clusterrates

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/messages/licensedv1"
)

func TestPercentile(t *testing.T) {
	bounds := []float64{.001, .01, .1}
	for name, c := range map[string]struct {
		counts []uint64
		p      float64
		want   float64
	}{
		"none":             {[]uint64{0, 0, 0, 0}, .5, -1},
		"no counts":        {nil, .5, -1},
		"first bucket":     {[]uint64{10, 0, 0, 0}, .5, .5},
		"second bucket":    {[]uint64{10, 10, 0, 0}, .75, 5.5},
		"end of a bucket":  {[]uint64{10, 10, 0, 0}, .5, 1},
		"empty in between": {[]uint64{10, 0, 10, 0}, .75, 55},
		"above all bounds": {[]uint64{1, 0, 0, 99}, .5, 100},
	} {
		got := percentile(bounds, c.counts, c.p)
		if (got == nil) != (c.want < 0) || got != nil && (*got < c.want-1e-9 || *got > c.want+1e-9) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestDifference takes rates from two readings; a node that joined or restarted since has none.
func TestDifference(t *testing.T) {
	node := func(name, incarnation string, commands, refused, internal uint64) *licensedv1.NodeStatus {
		return &licensedv1.NodeStatus{
			Name: name, Incarnation: incarnation, CpuTime: durationpb.New(time.Duration(commands) * time.Millisecond),
			Activity: &licensedv1.NodeActivity{
				Commands: commands, Refusals: []*licensedv1.RuleCount{
					{Rule: licensedv1.Rule_RULE_DEVICE_LIMIT, Count: refused},
				},
				Errors: []*licensedv1.CodeCount{
					{Code: "internal", Count: internal}, {Code: "invalid_argument", Count: 9 * internal},
				},
				LatencyBoundsSeconds: []float64{.001}, LatencyCounts: []uint64{commands, 0},
			},
			Archive: &licensedv1.ArchiveFigures{Lag: durationpb.New(time.Duration(refused) * time.Second)},
		}
	}
	before := &licensedv1.ClusterStatus{
		Nodes: []*licensedv1.NodeStatus{node("a", "1", 100, 1, 0), node("b", "1", 500, 0, 0), node("g", "", 10, 0, 0)},
	}
	after := &licensedv1.ClusterStatus{Nodes: []*licensedv1.NodeStatus{
		node("a", "1", 300, 7, 4), node("b", "2", 700, 0, 0), node("c", "1", 900, 0, 0), node("g", "", 30, 0, 0),
		{Name: "silent"},
	}}
	s := Between(before, after, time.UnixMilli(5), 2*time.Second)
	if s.Commands != 110 || s.Refusals["device limit"] != 3 || s.Refused != 3 || s.Failed != 2 ||
		s.Lag != 7 || s.At != 5 {
		t.Errorf("%+v", s)
	}
	if s.Cores["a/1"] != .1 || len(s.Cores) != 2 {
		t.Errorf("%+v", s.Cores)
	}
	if s.P50 == nil || *s.P50 != .5 {
		t.Errorf("%v", s.P50)
	}
}
