package path

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of counters, in the order of columns. Each kind has one for each group of processes.
const (
	cpu         = iota // in seconds
	allocations        // objects
	syscalls           // of read and write
	kinds
)

// counters read what processes used so far.
type counters struct {
	groups []group
}

// group is processes whose use is added up.
type group struct {
	name    string
	members []*member // of licensed
	pids    []int     // or others, of which CPU time alone is known
	own     bool      // or this process
}

// count returns the counters of a variant.
func count(f *fleet, store []int) *counters {
	c := &counters{}
	for _, r := range f.roles {
		c.groups = append(c.groups, group{name: r.name, members: r.members})
	}
	c.groups = append(c.groups, group{name: "client", own: true})
	if store != nil {
		c.groups = append(c.groups, group{name: "Cassandra", pids: store})
	}
	return c
}

// eachProcess returns counters of each process by itself.
func eachProcess(f *fleet, store []int) *counters {
	c := &counters{}
	for _, m := range f.processes {
		c.groups = append(c.groups, group{name: m.Name(), members: []*member{m}})
	}
	if store != nil {
		c.groups = append(c.groups, group{name: "Cassandra", pids: store})
	}
	return c
}

// index is the place of a counter in what read returns.
func index(group, kind int) int { return group*kinds + kind }

// read implements meter.Contender.Counters. What the reading itself costs the processes is not part of the turn: of
// metrics because they are read before all else at its start and after all else at its end.
func (c *counters) read(ctx context.Context, start bool) ([]float64, error) {
	all := make([]float64, len(c.groups)*kinds)
	steps := []func(context.Context, []float64, bool) error{c.readAllocations, c.readKernel}
	if !start {
		steps[0], steps[1] = steps[1], steps[0]
	}
	for _, step := range steps {
		if err := step(ctx, all, start); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readKernel reads CPU time and system calls.
func (c *counters) readKernel(_ context.Context, all []float64, _ bool) error {
	for i, g := range c.groups {
		pids := g.pids
		for _, m := range g.members {
			pids = append(pids, m.PID())
		}
		if g.own {
			pids = []int{os.Getpid()}
		}
		for _, pid := range pids {
			used, err := cpuTime(pid)
			if err != nil {
				return fmt.Errorf("read the CPU time of process %d of %s: %w", pid, g.name, err)
			}
			all[index(i, cpu)] += used.Seconds()
		}
		if g.pids != nil {
			all[index(i, syscalls)] = math.NaN()
			continue
		}
		for _, pid := range pids {
			n, err := readsAndWrites(pid)
			if err != nil {
				return fmt.Errorf("read the system calls of process %d of %s: %w", pid, g.name, err)
			}
			all[index(i, syscalls)] += n
		}
	}
	return nil
}

// readAllocations reads the objects that were allocated, less those of this request if another one was made before.
func (c *counters) readAllocations(ctx context.Context, all []float64, start bool) error {
	for i, g := range c.groups {
		at := index(i, allocations)
		switch {
		case g.own:
			all[at] = ownAllocations()
		case g.pids != nil:
			all[at] = math.NaN()
		}
		for _, m := range g.members {
			n, err := m.allocations(ctx)
			if err != nil {
				return err
			}
			if all[at] += n; !start {
				all[at] -= m.scrape
			}
		}
	}
	return nil
}

// calibrate finds out what a request for metrics allocates.
func (m *member) calibrate(ctx context.Context) error {
	m.scrape = math.Inf(1)
	last := math.NaN()
	for range 5 { // The smallest: others have something else in them.
		n, err := m.allocations(ctx)
		if err != nil {
			return err
		}
		if n-last < m.scrape {
			m.scrape = n - last
		}
		last = n
	}
	return nil
}

// mallocs is the metric of allocated objects, of the Go collector of Prometheus.
const mallocs = "go_memstats_mallocs_total "

// allocations returns the objects that a process allocated so far.
func (m *member) allocations(ctx context.Context) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.admin+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	found, value := false, 0.0
	for lines.Scan() { // To the end, so that the connection is used again.
		if text, ok := strings.CutPrefix(lines.Text(), mallocs); ok {
			if value, err = strconv.ParseFloat(text, 64); err != nil {
				return 0, fmt.Errorf("read %s of %s: %w", mallocs, m.Name(), err)
			}
			found = true
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read the metrics of %s: %w", m.Name(), err)
	}
	if !found {
		return 0, fmt.Errorf("read the metrics of %s: no %s", m.Name(), mallocs)
	}
	return value, nil
}

// ownAllocations is the same of this process.
func ownAllocations() float64 {
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}}
	metrics.Read(samples)
	return float64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}

// cpuTime returns what a process used of the processors, by its clock in the kernel: /proc/PID/stat has the same in
// ticks of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	var t unix.Timespec
	const scheduled = 2 // CPUCLOCK_SCHED; the number of the process is inverted, see clock_getcpuclockid(3)
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, err
	}
	return time.Duration(t.Nano()), nil
}

// readsAndWrites returns the number of calls of read, write and the like.
func readsAndWrites(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(line, ": ")
		if name == "syscr" || name == "syscw" {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return 0, err
			}
			sum += n
		}
	}
	return sum, nil
}
