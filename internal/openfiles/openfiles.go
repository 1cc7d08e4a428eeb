// Package openfiles divides the limit of open files of a process among its parts.
package openfiles

import (
	"math"
	"syscall"
)

// Plan is the number of files that each part of the process may have open: sockets are files, too. The store and the
// connections to other processes come first. What is left is for the API, whose clients can be told to come back.
type Plan struct {
	// Limit is the process's.
	Limit int
	// Store and Archive are those of embedded stores; Node are connections that the node port accepts; Members are
	// those to other processes, and for gossip; Cassandra are connections to it.
	Store, Archive, Node, Members, Cassandra int
	// Admin and API are connections to these ports.
	Admin, API int
}

// Needs are the parts that a process has.
type Needs struct {
	// Store and Archive say that these are directories, Members that the process is one of several, and Cassandra that
	// store or archive are on it.
	Store, Archive, Members, Cassandra bool
	// Node and API are numbers of connections that the settings give; 0 for what the limit allows.
	Node, API int
}

// What is open whatever the settings: standard streams, the poller, listeners, the log, locks, files that are read
// again.
const baseFiles = 24

// mostConnections are accepted where the limit of open files would allow more: each takes some 40 KiB.
const mostConnections = 8192

// Divide divides a limit.
func Divide(limit int, n Needs) Plan {
	// Each part gets a share of the limit, with a floor so that it works and a ceiling so
	// that it does not take all.
	p := Plan{Limit: limit, Admin: clamp(limit/16, 4, 256)}
	if n.Store {
		p.Store = clamp(limit/4, 16, 1000)
	}
	if n.Archive {
		p.Archive = clamp(limit/8, 8, 200)
	}
	if n.Members {
		p.Members = clamp(limit/8, 8, 1024)
		if p.Node = n.Node; p.Node == 0 {
			p.Node = clamp(limit/8, 8, 1024)
		}
	}
	if n.Cassandra {
		p.Cassandra = clamp(limit/8, 16, 512)
	}
	// The rest is for clients.
	if p.API = n.API; p.API == 0 {
		p.API = clamp(limit-p.Reserved(), 4, mostConnections)
	}
	return p
}

// Reserved is the number of files that are not for the API.
func (p *Plan) Reserved() int {
	return baseFiles + p.Store + p.Archive + p.Node + p.Members + p.Cassandra + p.Admin
}

// clamp returns n, or the bound that it exceeds.
func clamp(n, low, high int) int { return max(low, min(n, high)) }

// Limit returns the number of files the process may have open. The Go runtime has raised it as far as it may.
func Limit() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024 // What systems allow at least.
	}
	return int(min(r.Cur, math.MaxInt32))
}
