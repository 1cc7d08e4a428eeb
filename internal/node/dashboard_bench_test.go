package node_test

import (
	"bufio"
	"context"
	"io"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1/licensedv1connect"
)

// In BenchmarkDashboardCost a round lasts 5 s, and in every third that is watched the metrics are scraped:
// every 15 s of looking, as Prometheus does.
const (
	watchRound    = 5 * time.Second
	roundsAScrape = 3
)

// BenchmarkDashboardCost measures what it costs to be looked at: rounds of commands with the cluster page
// open, and now and then a scrape of the metrics, and rounds without, in turns. The viewer is in this
// process and counted too, and so is the sending of all commands.
//
// Each iteration has four rounds; without, with, with, without, so that what only grows, as the store
// does, weighs on both alike. cpu-% is by how much more processor time a command took, throughput-% by how
// much fewer there were in a second; both are means over all pairs, with the standard error of the mean.
// Processor time is the one that can be told on a machine that does other things as well. 15 iterations
// take five minutes.
func BenchmarkDashboardCost(b *testing.B) {
	n := busyNode(b)
	client, done := grpcClient(n)
	defer done()
	l := &commands{customers: 10_000} // Fewer would be told that they ask for too much.
	l.send(b, client, 64, 40_000)     // Until customers are in memory and have some history.
	round := func() (cpu, wall float64) {
		before, start, sent := cpuTime(b), time.Now(), 0.0
		for ; time.Since(start) < watchRound; sent += 1000 {
			l.send(b, client, 64, 1000)
		}
		return (cpuTime(b) - before).Seconds() / sent, time.Since(start).Seconds() / sent
	}
	var events, scrapes, rounds int64
	watched := func() (cpu, wall float64) {
		scrape := rounds%roundsAScrape == 0
		rounds++
		seen := look(b, n, scrape)
		cpu, wall = round()
		events += seen()
		if scrape {
			scrapes++
		}
		return cpu, wall
	}
	var cpu, throughput sample
	for b.Loop() {
		cpu1, wall1 := round()
		cpu2, wall2 := watched()
		cpu3, wall3 := watched()
		cpu4, wall4 := round()
		cpu = append(cpu, 100*((cpu2+cpu3)/(cpu1+cpu4)-1))
		throughput = append(throughput, 100*(1-(wall1+wall4)/(wall2+wall3)))
	}
	mean, deviation := cpu.mean()
	b.ReportMetric(mean, "cpu-%")
	b.ReportMetric(deviation, "cpu-±%")
	mean, deviation = throughput.mean()
	b.ReportMetric(mean, "throughput-%")
	b.ReportMetric(deviation, "throughput-±%")
	b.ReportMetric(float64(events)/float64(rounds), "events/round")
	b.ReportMetric(float64(scrapes), "scrapes")
	b.ReportMetric(0, "ns/op")
}

// sample of a quantity.
type sample []float64

// mean returns the mean and its standard error.
func (s sample) mean() (mean, deviation float64) {
	n := float64(len(s))
	for _, v := range s {
		mean += v / n
	}
	if n < 2 {
		return mean, 0
	}
	for _, v := range s {
		deviation += (v - mean) * (v - mean) / (n - 1)
	}
	return mean, math.Sqrt(deviation / n)
}

// look opens the cluster page's stream, and if asked to scrapes the metrics once, until the function
// returned is called, which tells the number of events that came.
func look(b *testing.B, n *node.Node, scrape bool) func() int64 {
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
	if scrape {
		watchers.Go(func() { fetch("/metrics", func(r io.Reader) { _, _ = io.Copy(io.Discard, r) }) })
	}
	return func() int64 {
		stop()
		watchers.Wait()
		return events.Load()
	}
}

// grpcClient returns a client of a node's API, and what ends its connections.
func grpcClient(n *node.Node) (client licensedv1connect.LicenseServiceClient, done func()) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	client = licensedv1connect.NewLicenseServiceClient(&http.Client{Transport: transport}, "http://"+n.API().String(),
		connect.WithGRPC())
	return client, transport.CloseIdleConnections
}

// cpuTime returns the processor time that this process took.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
