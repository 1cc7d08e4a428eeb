package status

import (
	"fmt"
	"math"
	"runtime/debug"
	"time"

	"github.com/prometheus/procfs"
	"google.golang.org/protobuf/types/known/durationpb"

	"licensed/cluster"
	"licensed/messages/licensedv1"
)

// AddProcess adds what the operating system knows. Where it cannot be asked there is nothing to add.
func AddProcess(s *licensedv1.NodeStatus) {
	// A negative argument returns the limit and leaves it as it is.
	if limit := debug.SetMemoryLimit(-1); limit != math.MaxInt64 {
		s.MemoryLimitBytes = uint64(limit)
	}
	self, err := procfs.Self()
	if err != nil {
		return
	}
	st, err := self.Stat()
	if err != nil {
		return
	}
	s.CpuTime = durationpb.New(time.Duration(st.CPUTime() * float64(time.Second)))
	s.MemoryBytes = uint64(st.ResidentMemory())
}

// From these on something is wrong.
const (
	archiveLagWarning = time.Hour
	memoryWarning     = 0.9 // of the limit
)

// Warnings are what is wrong with the node itself. Whether its shards are served, and whether it can serve, is for
// the part that makes the status of the cluster. Owner is nil for a process that is no node of a cluster, and a for one
// without an archive.
func Warnings(
	s *licensedv1.NodeStatus, owner *cluster.NodeStatus, a *licensedv1.ArchiveStatus,
) (out []*licensedv1.ClusterWarning) {
	add := func(runbook, next, format string, args ...any) *licensedv1.ClusterWarning {
		w := &licensedv1.ClusterWarning{
			Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: s.Name, Text: fmt.Sprintf(format, args...),
			NextStep: next, Runbook: runbook,
		}
		out = append(out, w)
		return w
	}
	if owner != nil && owner.ClockWrong {
		add("clock-wrong", "Repair the clock of that machine (NTP). The node takes shards again by itself.",
			"The wall clock of %s is %s the clocks of the other nodes; it takes no shards",
			s.Name, aheadOf(owner.ClockAhead),
		).Kind = licensedv1.FindingKind_FINDING_KIND_CLOCK_WRONG
	}
	if owner != nil && owner.Unreachable != nil && !owner.Draining {
		add("node-not-reachable", "Check --node-advertise, and whether a firewall lets the node port through. "+
			"The node takes shards again by itself.",
			"%s takes no shards: %v", s.Name, owner.Unreachable)
	}
	if a != nil {
		switch {
		case a.LastError != "":
			add("licensedarchivefails", "History stays in the hot tier until the archive can be written. "+
				"Check its disk, its permissions or its Cassandra.",
				"The archive of %s cannot be written: %s", s.Name, a.LastError)
		case a.Lag.AsDuration() > archiveLagWarning:
			add("licensedarchivebehind", "Raise --archive-rate, or find out what slows the archive down.",
				"The archiver of %s is %v behind with %d customers",
				s.Name, a.Lag.AsDuration().Round(time.Minute), a.WaitingCustomers)
		}
	}
	if f := s.Fallback; f.GetDeferredCommands() > 0 || len(f.GetUnavailableOwners()) > 0 {
		since := ""
		if f.DeferredSince != nil {
			since = " since " + f.DeferredSince.AsTime().UTC().Format(time.DateTime) + " UTC"
		}
		add("deferred-commands", "The gateway sends them to their nodes by itself. "+
			"Look why nodes or the store do not answer.",
			"%s has deferred commands%s: %d, of customers: %d; nodes to which commands fail: %d",
			s.Name, since, f.DeferredCommands, f.DeferredCustomers, len(f.UnavailableOwners))
	}
	if limit := float64(s.MemoryLimitBytes); limit > 0 && float64(s.MemoryBytes) > memoryWarning*limit {
		add("licensedmemory", "Lower --max-resident, or give the process more memory.",
			"%s uses %.0f %% of its memory limit", s.Name, 100*float64(s.MemoryBytes)/limit)
	}
	return out
}

// aheadOf says how far a clock is off.
func aheadOf(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%v behind", d.Abs().Round(time.Millisecond))
	}
	return fmt.Sprintf("%v ahead of", d.Round(time.Millisecond))
}
