package membership

import (
	"log/slog"
	"net"
	"sync"

	"licensed/persistence"
)

// Strangers are processes of other clusters that were met: through a mistyped address, or one that was given to another
// machine. Each is logged once. It is safe for concurrent use.
type Strangers struct {
	log *slog.Logger
	own persistence.ClusterID

	mu  sync.Mutex
	met map[stranger]struct{}
}

// stranger is a process by its cluster and host: its ports are many.
type stranger struct {
	cluster persistence.ClusterID
	host    string
}

// maxStrangers bounds how many are remembered, and so how many are logged.
const maxStrangers = 64

// NewStrangers returns those of a cluster that has met none.
func NewStrangers(own persistence.ClusterID, log *slog.Logger) *Strangers {
	return &Strangers{log: log, own: own, met: map[stranger]struct{}{}}
}

// Refuse reports whether a process that names that cluster is not of this one, and logs it once. One that names none
// is of an earlier release. The address is where it was met, host:port, and how says by what.
func (s *Strangers) Refuse(cluster persistence.ClusterID, address, how string) bool {
	if s == nil || s.own.IsZero() || cluster.IsZero() || cluster == s.own {
		return false
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	key := stranger{cluster, host}
	s.mu.Lock()
	_, known := s.met[key]
	full := len(s.met) >= maxStrangers
	if !known && !full {
		s.met[key] = struct{}{}
	}
	s.mu.Unlock()
	if !known && !full {
		s.log.Warn("process of another cluster ignored; check --join, and whether its address belonged to a "+
			"member before",
			"address", address, "cluster_id", cluster, "own_cluster_id", s.own, "met_by", how)
	}
	return true
}
