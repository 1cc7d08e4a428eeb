package node_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1/licensedv1connect"
)

// BenchmarkDashboardCost measures what it costs to be looked at: rounds of commands with the cluster page
// open and the metrics scraped every five seconds, and rounds without, in turns. In a round the service is
// kept busy, so processor time for a command is what throughput is made of; unlike throughput itself it can
// be told apart on a machine that does other things as well. cost-% is the median of the pairs of
// pairs.
func BenchmarkDashboardCost(b *testing.B) {
	c := node.DefaultConfig()
	c.Data, c.Listen, c.Admin = b.TempDir(), "127.0.0.1:0", "127.0.0.1:0"
	c.Logger = slog.New(slog.DiscardHandler)
	n, err := node.Start(b.Context(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := n.Stop(context.Background()); err != nil {
			b.Error(err)
		}
	}()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	client := licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: transport}, "http://"+n.API().String(), connect.WithGRPC())
	l := &commands{}
	l.send(b, client, 64, 4000) // Warm.
	round := func() float64 {
		before := cpuTime(b)
		sent := 0
		for start := time.Now(); time.Since(start) < 3*time.Second; sent += 4000 {
			l.send(b, client, 64, 4000)
		}
		return (cpuTime(b) - before).Seconds() / float64(sent)
	}
	var costs []float64
	var events int64
	watched := func() float64 {
		seen := look(b, n)
		cost := round()
		events += seen()
		return cost
	}
	for b.Loop() {
		// Later rounds find more in the store; so each comes first and last.
		without, with := round(), watched()
		with += watched()
		without += round()
		costs = append(costs, 100*(with/without-1))
	}
	slices.Sort(costs)
	b.ReportMetric(costs[len(costs)/2], "cost-%")
	b.ReportMetric(float64(events)/float64(2*b.N), "events/round")
	b.ReportMetric(0, "ns/op")
}

// look opens the cluster page's stream and scrapes metrics until the function returned is called, which
// tells how many events came.
func look(b *testing.B, n *node.Node) func() int64 {
	ctx, stop := context.WithCancel(b.Context())
	var watchers sync.WaitGroup
	var events atomic.Int64
	admin := "http://" + n.Admin().String()
	fetch := func(path string, read func(io.Reader)) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, admin+path, nil)
		if err != nil {
			b.Error(err)
			return
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return // Stopped.
		}
		defer res.Body.Close()
		read(res.Body)
	}
	watchers.Go(func() {
		fetch("/dashboard/live", func(r io.Reader) {
			lines := bufio.NewScanner(r)
			lines.Buffer(nil, 1<<20)
			for lines.Scan() {
				if len(lines.Bytes()) == 0 {
					events.Add(1)
				}
			}
		})
	})
	watchers.Go(func() {
		for ctx.Err() == nil {
			fetch("/metrics", func(r io.Reader) { _, _ = io.Copy(io.Discard, r) })
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
		}
	})
	return func() int64 {
		stop()
		watchers.Wait()
		return events.Load()
	}
}

// cpuTime returns the processor time that this process took.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
