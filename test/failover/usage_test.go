package failover

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// usage is what was used of the processors until a moment, or between two, in seconds.
type usage struct {
	at          float64              // or how long, of a difference
	busy, total float64              // of all processors, by whatever runs
	of          [len(usedBy)]float64 // the processes
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
	u := usage{
		at:   float64(time.Now().UnixMicro()) / 1e6,
		busy: c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal,
	}
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
	for k, group := range pids {
		for _, pid := range group {
			p, err := proc.Proc(pid)
			if err != nil {
				f.t.Fatal(err)
			}
			s, err := p.Stat()
			if err != nil {
				f.t.Fatal(err)
			}
			u.of[k] += s.CPUTime()
		}
	}
	return u
}

// plus adds what was used in another time, or takes it away.
func (u usage) plus(o usage, sign float64) usage {
	u.at, u.busy, u.total = u.at+sign*o.at, u.busy+sign*o.busy, u.total+sign*o.total
	for k := range u.of {
		u.of[k] += sign * o.of[k]
	}
	return u
}

// since returns what was used since then.
func (u usage) since(then usage) usage { return u.plus(then, -1) }

func (u usage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "in %.1f s %.0f %% of all processors busy", u.at, 100*u.busy/u.total)
	for k, name := range usedBy {
		fmt.Fprintf(&b, "; %s %.2f", name, u.of[k]/u.at)
	}
	return b.String() + " of one"
}
