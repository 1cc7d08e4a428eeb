package node_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"licensed/internal/node"
)

// TestMetricNames holds all metrics to Prometheus' conventions, and to a number of series that no client
// can raise.
func TestMetricNames(t *testing.T) {
	c, _ := config(t)
	n := start(t, c)
	if _, err := acquire(t, n, "c1"); err != nil {
		t.Fatal(err)
	}
	_, text := get(t, n.Admin().String(), "/metrics")
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "licensed_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	const most = 1500 // of all labels together, once each was met; a histogram is some 20
	if series := strings.Count(text, "\nlicensed_"); series == 0 || series > most {
		t.Errorf("%d series", series)
	}
}

// shows demands of a process's metrics that they have all of these lines, and nothing that begins with one of the
// others.
func shows(t *testing.T, n *node.Node, lines, not []string) {
	t.Helper()
	_, text := get(t, n.Admin().String(), "/metrics")
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	for _, begin := range not {
		if strings.Contains(text, "\n"+begin) {
			t.Errorf("there is %s", begin)
		}
	}
}

// TestAlertsSeeTheFirst: what an alert counts by cause is present, and zero, before it first happens.
func TestAlertsSeeTheFirst(t *testing.T) {
	c, _ := config(t)
	shows(t, start(t, c), []string{
		`licensed_activations_failed_total{cause="corrupt"} 0`, `licensed_activations_failed_total{cause="panic"} 0`,
		`licensed_archive_failures_total{cause="mismatch"} 0`, `licensed_archive_failures_total{cause="shortfall"} 0`,
		`licensed_archive_failures_total{cause="corrupt"} 0`,
	}, nil)
}
