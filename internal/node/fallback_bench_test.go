package node_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/internal/signingkeys"
	"licensed/messages/licensedv1"
)

// BenchmarkFallback compares the latency of an ordinary command through a gateway with a directory for deferred
// commands and one without, each in a node of its own with an embedded store. The two take turns with each request, so
// that a disturbance of the machine hits both:
//
//	go test -run '^$' -bench Fallback -benchtime 5000x ./internal/node
func BenchmarkFallback(b *testing.B) {
	keys := filepath.Join(b.TempDir(), "keys")
	if _, err := signingkeys.New(keys, time.Now()); err != nil {
		b.Fatal(err)
	}
	names := [2]string{"without", "with"}
	var nodes [2]*node.Node
	for i := range nodes {
		c := node.DefaultConfig()
		c.Data, c.Listen, c.Admin = filepath.Join(b.TempDir(), "data"), "127.0.0.1:0", ""
		c.LicenseKeys = keys
		if i == 1 {
			c.Fallback.Dir = filepath.Join(b.TempDir(), "fallback")
		}
		nodes[i] = start(b, c)
	}
	var took [2][]time.Duration
	round := 0
	for b.Loop() {
		for turn := range nodes {
			i := (round + turn) % 2 // Neither is always the first.
			r := connect.NewRequest(&licensedv1.AcquireLicenseRequest{
				CustomerId: fmt.Sprint("c", round%1000), DeviceId: "iphone", TitleId: fmt.Sprint("t", round/1000%50),
				CommandId: fmt.Sprint(round),
			})
			began := time.Now()
			if _, err := client(nodes[i]).AcquireLicense(b.Context(), r); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], time.Since(began))
		}
		round++
	}
	for i := range took {
		slices.Sort(took[i])
		b.ReportMetric(float64(median(took[i]).Nanoseconds())/1000, names[i]+"-µs")
	}
	b.ReportMetric(float64(median(took[1]))/float64(median(took[0])), "with/without")
	b.ReportMetric(0, "ns/op")
}

// median of sorted durations.
func median(d []time.Duration) time.Duration { return d[len(d)/2] }
