package status

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/internal/clusterstatus"
	"licensed/messages/licensedv1"
)

// Assessor computes the status of the cluster for one process. It remembers since when each finding lasts, and shows
// the last status as metrics. It is safe for concurrent use.
type Assessor struct {
	history clusterstatus.History
	metrics *metrics
	events  *Events
}

// NewAssessor returns an assessor that adds the latest events to a status.
func NewAssessor(events *Events) *Assessor { return &Assessor{metrics: newMetrics(), events: events} }

// Assess computes a status, and remembers what it shows. Told are the events that other processes told of.
func (a *Assessor) Assess(in *clusterstatus.Input, told []*licensedv1.Happening) *licensedv1.ClusterStatus {
	a.history.Recall(in)
	out := clusterstatus.Assess(in)
	a.history.Record(out)
	a.metrics.show(out)
	out.Happenings = Merge(a.events.NewestFirst(), told)
	return out
}

// readEvery is the interval at which a gateway computes the status for its metrics, if nobody asks for it.
const readEvery = 10 * time.Second

// Repeat calls compute, which calls Assess, every few seconds until ctx ends. The metrics are registered once there is
// a status.
func (a *Assessor) Repeat(ctx context.Context, r prometheus.Registerer, compute func(context.Context) error) {
	t := time.NewTicker(readEvery)
	defer t.Stop()
	shown := false
	for {
		// After an error the metrics keep the time of the last status. Before the first one there are none: 0 is OK.
		if err := compute(ctx); err == nil && !shown {
			a.metrics.register(r)
			shown = true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}
