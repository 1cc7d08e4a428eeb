package status

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/persistence"
)

// TestShardWatch: what is logged when shards become unserved and are served again, and how often.
func TestShardWatch(t *testing.T) {
	type look struct {
		at       time.Duration
		unserved int
	}
	const s = time.Second
	for name, test := range map[string]struct {
		looks []look
		want  []string
	}{
		"a cluster begins": {[]look{{0, 512}, {1 * s, 512}, {2 * s, 0}, {3 * s, 0}}, nil},
		"nobody claims them": {
			[]look{{1 * s, 512}, {5 * s, 512}, {6 * s, 512}},
			[]string{"WARN shards unserved count=512 shards=512 since=00:00:05 reason=dead"},
		},
		"news in the wrong order": {[]look{{0, 0}, {10 * s, 3}, {11 * s, 0}}, nil},
		"a node dies": {[]look{{0, 0}, {10 * s, 171}, {11 * s, 171}, {12 * s, 100}, {13 * s, 0}}, []string{
			"WARN shards unserved count=171 shards=512 since=00:00:10 reason=dead",
			"INFO shards served shards=512 unserved_for=3s",
		}},
		"another one dies": {[]look{
			{0, 0}, {10 * s, 171}, {11 * s, 171}, {15 * s, 300}, {20 * s, 300}, {21 * s, 300}, {22 * s, 512},
		}, []string{
			"WARN shards unserved count=171 shards=512 since=00:00:10 reason=dead",
			"WARN shards unserved count=300 shards=512 since=00:00:10 reason=dead",
		}},
		"it goes back and forth": {[]look{
			{0, 0}, {10 * s, 1}, {11 * s, 1}, {12 * s, 0}, {13 * s, 1}, {14 * s, 1}, {15 * s, 0}, {20 * s, 1},
			{21 * s, 1}, {22 * s, 0},
		}, []string{
			"WARN shards unserved count=1 shards=512 since=00:00:10 reason=dead",
			"INFO shards served shards=512 unserved_for=2s",
			"WARN shards unserved count=1 shards=512 since=00:00:20 reason=dead",
			"INFO shards served shards=512 unserved_for=2s",
		}},
	} {
		var log strings.Builder
		began := time.Unix(0, 0).UTC()
		w := ShardWatch{began: began, log: slog.New(slog.NewTextHandler(&log,
			&slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))}
		for _, l := range test.looks {
			w.Look(began.Add(l.at), 512, l.unserved, "dead")
		}
		var got []string
		for line := range strings.Lines(log.String()) {
			line = strings.NewReplacer("level=", "", "msg=", "", `"`, "", "1970-01-01T", "", "Z reason", " reason").
				Replace(strings.TrimSpace(line))
			got = append(got, line)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s:\n%q, want\n%q", name, got, test.want)
		}
	}
}

// TestLostReason names last owners, and not all of them.
func TestLostReason(t *testing.T) {
	n := NewMembers("g", time.Now, new(Events))
	lost := map[persistence.Incarnation]int{{}: 4}
	for k := range 6 {
		i := persistence.NewIncarnation()
		n.names[i] = "n" + string(rune('1'+k))
		lost[i] = 10 + k
	}
	const want = "no owner (4), n1 not responding (10), n2 not responding (11), n3 not responding (12), " +
		"n4 not responding (13), 2 more owners"
	if got := n.LostReason(lost); got != want {
		t.Errorf("%q", got)
	}
}
