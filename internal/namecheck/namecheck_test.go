package namecheck

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"licensed/cluster"
	"licensed/cluster/membership"
	"licensed/messages/clusterv1"
)

// TestNameCheck: a process of the same name counts as dead if it refuses connections, if another one answers at its
// address, or after a bounded time; not because one answer is late.
func TestNameCheck(t *testing.T) {
	const ttl = 2500 * time.Millisecond
	late := fmt.Errorf("late: %w", context.DeadlineExceeded)
	for name, test := range map[string]struct {
		id        string
		lateFor   time.Duration // until when there is no answer
		startsFor time.Duration // until when the others are starting
		answer    string
		refuses   bool
		taken     bool
		takes     time.Duration // at least, and at most a TTL more
		says      string
	}{
		"answers":               {"g@2", 0, 0, "g", false, true, 0, ""},
		"answers late":          {"g@2", 2 * ttl, 0, "g", false, true, 2 * ttl, ""},
		"another process does":  {"g@2", 0, 0, "n1", false, false, 0, ""},
		"refuses":               {"g@2", time.Hour, 0, "", true, false, 0, ""},
		"neither of these ever": {"g@2", time.Hour, 0, "", false, false, TTLs * ttl, "not reached"},
		"starts, smaller":       {"g@2", 0, time.Hour, "g", false, true, 0, ""},
		"starts, greater":       {"g", 0, 2 * ttl, "g", false, true, 2 * ttl, ""},
		"starts, and gives way": {"g", 0, 2 * ttl, "", true, false, 2 * ttl, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				var log strings.Builder
				c := Check{
					ID: test.id, TTL: ttl, Log: slog.New(slog.NewTextHandler(&log, nil)),
					Refuses: func(context.Context, string) bool {
						return test.refuses && time.Since(began) >= test.startsFor
					},
					Ask: func(ctx context.Context, _ string) (string, bool, error) {
						if time.Since(began) < test.startsFor {
							return "g", true, nil
						}
						if time.Since(began) < test.lateFor {
							if !test.refuses {
								<-ctx.Done()
							}
							return "", false, late
						}
						return test.answer, false, nil
					},
					Others: []membership.Member{
						{Name: "g", ID: "g@0", Meta: &clusterv1.Meta{NodeAddress: "10.0.0.1:7800"}},
						{Name: "g", ID: "g@1", Meta: &clusterv1.Meta{NodeAddress: "10.0.0.2:7800"}},
					},
				}
				err := c.Run(t.Context())
				took := time.Since(began)
				if errors.Is(err, cluster.ErrNameTaken) != test.taken || (err != nil) != test.taken {
					t.Errorf("%v, want taken: %v", err, test.taken)
				}
				if took < test.takes || took > test.takes+ttl {
					t.Errorf("after %v, want %v", took, test.takes)
				}
				if (log.Len() > 0) != (test.says != "") || !strings.Contains(log.String(), test.says) {
					t.Errorf("log: %s, want %q", log.String(), test.says)
				}
			})
		})
	}
}
