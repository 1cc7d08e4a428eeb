package node

import (
	"context"
	"fmt"
	"math"
	"syscall"
)

// files describes the files that each part of the process may have open: sockets are files, too. The store and the
// connections to other processes come first. What is left is for the API, whose clients can be told to come back.
type files struct {
	// limit is the process's.
	limit int
	// store and archive are those of embedded stores; node are connections that the node port accepts; members are
	// those to other processes, and for gossip; cassandra are connections to it.
	store, archive, node, members, cassandra int
	// admin and api are connections to these ports.
	admin, api int
}

// What is open whatever the settings: standard streams, the poller, listeners, the log, locks, files that are read
// again.
const baseFiles = 24

// mostConnections are accepted where the limit of open files would allow more: each takes some 40 KiB.
const mostConnections = 8192

// planFiles divides the limit of open files.
func planFiles(limit int, c *Config) files {
	// Each part gets a share of the limit, with a floor so that it works and a ceiling so
	// that it does not take all.
	f := files{limit: limit, admin: clamp(limit/16, 4, 256)}
	if c.Store == "" {
		f.store = clamp(limit/4, 16, 1000)
	}
	if c.ArchiveDir() != "" {
		f.archive = clamp(limit/8, 8, 200)
	}
	if !c.Cluster.Alone {
		f.members = clamp(limit/8, 8, 1024)
		if f.node = c.Cluster.MaxConnections; f.node == 0 {
			f.node = clamp(limit/8, 8, 1024)
		}
	}
	if c.OnCassandra() {
		f.cassandra = clamp(limit/8, 16, 512)
	}
	// The rest is for clients.
	if f.api = c.MaxConnections; f.api == 0 {
		f.api = clamp(limit-f.reserved(), 4, mostConnections)
	}
	return f
}

// reserved is the number of files that are not for the API.
func (f *files) reserved() int {
	return baseFiles + f.store + f.archive + f.node + f.members + f.cassandra + f.admin
}

// clamp returns n, or the bound that it exceeds.
func clamp(n, low, high int) int { return max(low, min(n, high)) }

// openFiles returns the number of files the process may have open. The Go runtime has raised it as far as it may.
func openFiles() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024 // What systems allow at least.
	}
	return int(min(r.Cur, math.MaxInt32))
}

// planFiles says at the start what the limit of open files is used for, before anything has opened many.
func (n *Node) planFiles(context.Context) error {
	n.files = planFiles(openFiles(), &n.config)
	f := &n.files
	n.log.Info("limits set", "open_files", f.limit, "api_connections", f.api, "admin_connections", f.admin,
		"store_files", f.store,
		"archive_files", f.archive, "node_connections", f.node, "member_connections", f.members,
		"cassandra_connections", f.cassandra,
		"request_memory_bytes", n.config.Limits.Memory, "address_share", n.config.Limits.AddressShare)
	if need := f.reserved() + f.api; need > f.limit {
		n.log.Warn("limit of open files too low", "open_files", f.limit, "needed", need,
			"remedy", fmt.Sprintf(
				"raise it to %d (ulimit -n, LimitNOFILE), or set --max-connections and --max-node-connections", need,
			))
	}
	return nil
}
