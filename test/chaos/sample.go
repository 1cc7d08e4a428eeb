package chaos

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"licensed/messages/licensedv1"
	"licensed/test/chaos/check"
	"licensed/test/chaos/client"
	"licensed/test/chaos/deploy"
)

// Sample is the status of the service at a moment, as one member sees it.
type Sample struct {
	At     time.Duration `json:"at"`
	Member string        `json:"m"`
	Up     bool          `json:"up"`
	// Shards is the number of shards each node holds, Epoch the sum of their epochs: it rises by one with each
	// shard that changes hands.
	Shards map[string]int `json:"shards,omitempty"`
	Epoch  uint64         `json:"epoch,omitempty"`
}

// Resources of a process.
type Resources struct {
	Goroutines float64 `json:"goroutines"`
	// Heap is what is alive after a collection, in bytes.
	Heap float64 `json:"heap"`
	// Uptime is for how long the process has run, in seconds: one that was started just before has lost nothing yet.
	Uptime float64 `json:"uptime"`
}

// sample asks every member each second for its status.
func (r *run) sample(ctx context.Context) {
	clients := map[string]*client.Client{}
	for _, m := range r.deployment.Members() {
		if m.API == "" {
			continue
		}
		c, err := client.New(m.API)
		if err != nil {
			r.Log.Error("a member is not sampled", "member", m.Name, "error", err)
			continue
		}
		clients[m.Name] = c
		defer c.Close()
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, m := range r.deployment.Members() {
			if c := clients[m.Name]; c != nil {
				s := ask(ctx, m.Name, c)
				s.At = r.now()
				r.mu.Lock()
				r.samples = append(r.samples, s)
				r.mu.Unlock()
			}
		}
		if err := r.recorder.Flush(); err != nil {
			r.Log.Error("the history cannot be written", "error", err)
		}
	}
}

// ask asks a member about the cluster, or about itself if it is one of its own.
func ask(ctx context.Context, name string, c *client.Client) Sample {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	s := Sample{Member: name}
	res, err := c.Admin.GetCluster(ctx, &licensedv1.GetClusterRequest{})
	if status.Code(err) == codes.Unimplemented {
		node, err := c.Admin.GetNode(ctx, &licensedv1.GetNodeRequest{})
		if err == nil {
			s.Up, s.Epoch, s.Shards = true, node.HighestEpoch, map[string]int{name: int(node.ShardsHeld)}
		}
		return s
	}
	if err != nil {
		return s
	}
	s.Up, s.Shards = true, map[string]int{}
	names := map[string]string{}
	for _, n := range res.GetCluster().GetNodes() {
		names[n.Incarnation] = n.Name
	}
	delete(names, "") // Gateways have none, nor have shards without an owner.
	for _, shard := range res.GetCluster().GetShardMap() {
		s.Epoch += shard.Epoch
		if owner := names[shard.Owner]; owner != "" {
			s.Shards[owner]++
		}
	}
	return s
}

// resources measures every process that has an admin port.
func (r *run) resources(ctx context.Context) map[string]Resources {
	all := map[string]Resources{}
	for _, m := range r.deployment.Members() {
		if m.Admin == "" {
			continue
		}
		if res, err := measure(ctx, m); err == nil {
			all[m.Name] = res
		} else {
			r.Log.Warn("cannot measure", "member", m.Name, "error", err)
		}
	}
	return all
}

func measure(ctx context.Context, m deploy.Member) (res Resources, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := page(ctx, m.Admin+"/debug/pprof/heap?gc=1", func(string) {}); err != nil {
		return res, err
	}
	return res, page(ctx, m.Admin+"/metrics", func(line string) {
		name, value, _ := strings.Cut(line, " ")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return
		}
		switch name {
		case "go_goroutines":
			res.Goroutines = v
		case "go_memstats_heap_alloc_bytes":
			res.Heap = v
		case "process_start_time_seconds":
			res.Uptime = time.Since(time.UnixMilli(int64(v * 1000))).Seconds()
		}
	})
}

// page calls fn for each line of a page.
func page(ctx context.Context, url string, fn func(string)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		_, err := io.Copy(io.Discard, res.Body)
		return fmt.Errorf("%s: %s, %w", url, res.Status, err)
	}
	for lines := bufio.NewScanner(res.Body); ; fn(lines.Text()) {
		if !lines.Scan() {
			return lines.Err()
		}
	}
}

// Allowances above the baseline: what a process keeps of its busiest moment without losing it for good.
const (
	moreGoroutines = 64
	moreHeap       = 64 << 20
	settleTime     = time.Minute
)

// unmeasured says of which members nothing is known to compare with later.
func unmeasured(members []deploy.Member, before map[string]Resources) (notes []string) {
	watched := 0
	for _, m := range members {
		if m.Admin == "" {
			continue
		}
		watched++
		if before[m.Name] == (Resources{}) {
			notes = append(notes,
				m.Name+" could not be measured before the faults: its goroutines and heap are not compared")
		}
	}
	if watched == 0 {
		notes = append(notes,
			"no member has an address for operators: neither readiness nor goroutines and heap are watched")
	}
	return notes
}

// excess says what a process has more than before the faults, or that it cannot be measured any more.
func excess(name string, before, after Resources) (all []string) {
	switch {
	case before == (Resources{}):
	case after == (Resources{}):
		all = append(all, name+" cannot be measured any more")
	default:
		if after.Goroutines > 1.5*before.Goroutines+moreGoroutines {
			all = append(all, fmt.Sprintf("%s has %.0f goroutines, before the faults %.0f",
				name, after.Goroutines, before.Goroutines))
		}
		if after.Heap > 1.5*before.Heap+moreHeap {
			all = append(all, fmt.Sprintf("%s has %.0f MiB of heap, before the faults %.0f",
				name, after.Heap/(1<<20), before.Heap/(1<<20)))
		}
	}
	return all
}

// unsettled says what is not as it must be when all is healed: every member ready, and back at what it had.
func (r *run) unsettled(ctx context.Context) (all []string) {
	now := r.resources(ctx)
	r.verdict.Resources = map[string][2]Resources{}
	for _, m := range r.deployment.Members() {
		if m.Admin == "" {
			continue
		}
		before, after := r.baseline[m.Name], now[m.Name]
		r.verdict.Resources[m.Name] = [2]Resources{before, after}
		all = append(all, excess(m.Name, before, after)...)
		asked, cancel := context.WithTimeout(ctx, 10*time.Second)
		if err := page(asked, m.Admin+"/readyz", func(string) {}); err != nil {
			all = append(all, fmt.Sprintf("%s is not ready: %v", m.Name, err))
		}
		cancel()
	}
	return all
}

// settled waits until nothing is unsettled. It says when in words: after the load, after the collection.
func (r *run) settled(ctx context.Context, when string) {
	left := r.unsettled(ctx)
	for deadline := time.Now().Add(settleTime); len(left) > 0 && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(time.Second)
		left = r.unsettled(ctx)
	}
	if len(left) > 0 {
		r.profiles(ctx)
	}
	for _, text := range left {
		r.fail(check.Violation{Check: check.Health, Text: text + ", " + when})
	}
}

// crowded reports it where so much runs on the machine that leases end for want of a processor: then a missed
// deadline after healing says more about the machine than about the service.
func crowded() []string {
	const perProcessor = 8
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil // Not Linux.
	}
	_, rest, _ := strings.Cut(string(b), " ")
	five, _, _ := strings.Cut(rest, " ")
	load, err := strconv.ParseFloat(five, 64)
	if err != nil || load < perProcessor*float64(runtime.NumCPU()) {
		return nil
	}
	return []string{fmt.Sprintf("the machine is crowded: a load of %.0f on %d processors over five minutes, "+
		"so that times say little", load, runtime.NumCPU())}
}

// profiles keeps what every process is doing, to find what it does not release.
func (r *run) profiles(ctx context.Context) {
	for _, m := range r.deployment.Members() {
		for _, kind := range []string{"goroutine", "heap"} {
			if m.Admin == "" {
				continue
			}
			var b strings.Builder
			err := page(ctx, m.Admin+"/debug/pprof/"+kind+"?debug=1", func(line string) { b.WriteString(line + "\n") })
			if err = errors.Join(err,
				os.WriteFile(filepath.Join(r.Dir, m.Name+"."+kind+".txt"), []byte(b.String()), 0o644)); err != nil {
				r.Log.Warn("cannot keep a profile", "member", m.Name, "error", err)
			}
		}
	}
}
