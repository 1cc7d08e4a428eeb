package chaos

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/deploy"
)

// member plays the address for operators of one that has this many goroutines; ready or not, 0 for neither.
func member(t *testing.T, goroutines *int, ready *bool) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if *goroutines == 0 || r.URL.Path == "/readyz" && !*ready {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		if r.URL.Path == "/metrics" {
			_, err := fmt.Fprintf(w, "go_goroutines %d\ngo_memstats_heap_alloc_bytes 1e6\n"+
				"process_start_time_seconds %d\n", *goroutines, time.Now().Add(-time.Hour).Unix())
			if err != nil {
				t.Error(err)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestUnsettled tells of members that are not ready, that cannot be measured any more, and that have too much.
func TestUnsettled(t *testing.T) {
	goroutines, ready := 10, true
	d, err := deploy.NewAttached(
		[]byte("gateways: [\"http://g:1\"]\nmembers: [{name: n1, admin: \"" + member(t, &goroutines, &ready) + "\"}]"),
	)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{Config: Config{Log: slog.New(slog.DiscardHandler)}, deployment: d, verdict: &Verdict{}}
	r.baseline = r.resources(t.Context())
	if notes := unmeasured(d.Members(), r.baseline); notes != nil {
		t.Errorf("notes %q", notes)
	}
	expect := func(what string, want ...string) {
		t.Helper()
		got := r.unsettled(t.Context())
		if len(got) != len(want) {
			t.Errorf("%s: %q", what, got)
			return
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%s: %q", what, got)
			}
		}
	}
	expect("all is well")
	if up := r.verdict.Resources["n1"][1].Uptime; up < 3590 || up > 4000 {
		t.Errorf("up for %f s", up)
	}
	ready = false
	expect("not ready", "n1 is not ready")
	ready, goroutines = true, 1000
	expect("leaks", "1000 goroutines")
	goroutines = 0
	expect("gone", "n1 cannot be measured any more", "n1 is not ready")
	r.baseline = r.resources(t.Context())
	if notes := unmeasured(d.Members(), r.baseline); len(notes) != 1 ||
		!strings.HasPrefix(notes[0], "n1 could not be measured") {
		t.Errorf("notes %q", notes)
	}
	if notes := unmeasured(d.Members()[:1], nil); len(notes) != 1 || !strings.Contains(notes[0], "no member") {
		t.Errorf("without members: %q", notes)
	}
}
