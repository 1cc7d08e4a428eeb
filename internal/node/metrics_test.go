package node_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
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
