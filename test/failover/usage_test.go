package failover

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// usage is what was used of the processors until a moment, in seconds.
type usage struct {
	at          time.Time
	busy, total float64   // of all processors, by whatever runs
	of          []float64 // the processes, see usedBy
}

var usedBy = [...]string{"nodes", "gateways", "Cassandra", "clients"}

// usage reads it. A Cassandra that is not this run's is not told apart.
func (f *fleet) usage() usage {
	f.t.Helper()
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		f.t.Fatal(err)
	}
	stat, err := proc.Stat()
	if err != nil {
		f.t.Fatal(err)
	}
	c := &stat.CPUTotal
	u := usage{at: time.Now(), busy: c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal}
	u.total = u.busy + c.Idle + c.Iowait
	pids := [len(usedBy)][]int{3: {os.Getpid()}}
	for k, members := range [][]*member{f.nodes, f.gateways} {
		for _, m := range members {
			pids[k] = append(pids[k], m.PID())
		}
	}
	if f.cassandra != nil {
		pids[2] = f.cassandra.PIDs(f.t)
	}
	for _, group := range pids {
		var sum float64
		for _, pid := range group {
			p, err := proc.Proc(pid)
			if err != nil {
				f.t.Fatal(err)
			}
			s, err := p.Stat()
			if err != nil {
				f.t.Fatal(err)
			}
			sum += s.CPUTime()
		}
		u.of = append(u.of, sum)
	}
	return u
}

// since describes what was used since then.
func (u usage) since(then usage) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%.0f %% of all processors busy", 100*(u.busy-then.busy)/(u.total-then.total))
	for k, name := range usedBy {
		fmt.Fprintf(&b, "; %s %.2f", name, (u.of[k]-then.of[k])/u.at.Sub(then.at).Seconds())
	}
	return b.String() + " of one"
}
