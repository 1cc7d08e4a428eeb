package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"licensed/internal/node"
)

// bindLimits declares the flags of what API requests may use at a time.
func (o *options) bindLimits(f *pflag.FlagSet) {
	c, l := &o.config, &o.config.Limits
	f.Var(&o.requestMemory, "request-memory",
		"memory for API requests, as bytes or share of the memory: bodies being received, requests in flight, unread replies, streams, imports, operators")
	f.Var(&o.addressShare, "address-share",
		"share of each limit that the clients of one address may use; 100% behind a proxy that all clients come through")
	f.IntVar(&l.MaxInFlight, "max-in-flight", l.MaxInFlight, "`requests` handled at once; more are refused")
	f.IntVar(&l.MaxOperators, "max-operators", l.MaxOperators, "`requests` and streams of operators and the dashboard handled at once; more are refused")
	f.IntVar(&l.MaxStreams, "max-streams", l.MaxStreams, "`streams` of events open at once; more are refused")
	f.IntVar(&l.MaxImports, "max-imports", l.MaxImports, "`calls` that import customers handled at once; more are refused")
	f.IntVar(&c.MaxConnections, "max-connections", c.MaxConnections,
		"`connections` to the API accepted at once, more are closed; 0 for what the limit of open files leaves")
	f.IntVar(&c.MaxStreams, "max-connection-streams", c.MaxStreams, "`requests` in progress on one HTTP/2 connection")
	f.DurationVar(&c.ReadTimeout, "read-timeout", c.ReadTimeout, "time that a request may take to arrive")
	f.DurationVar(&c.ReplyTimeout, "reply-timeout", c.ReplyTimeout, "time that a client may take to read a reply, or a message of a stream")
}

// smallestMemory is what requests need to be served at all: an import has 4 MiB.
const smallestMemory = 16 << 20

// limitsConfig checks the options of limits.
func (o *options) limitsConfig(c *node.Config, memory uint64) error {
	c.Limits.Memory, c.Limits.AddressShare = o.requestMemory.of(memory), o.addressShare.percent/100
	switch {
	case c.Limits.Memory < smallestMemory:
		return fmt.Errorf("request-memory: is %v, must be at least 16MiB", &o.requestMemory)
	case o.addressShare.percent == 0:
		return fmt.Errorf("address-share: is %v, must be a share like 25%%", &o.addressShare)
	}
	return errors.Join(
		atLeast("max-in-flight", c.Limits.MaxInFlight, 1),
		atLeast("max-operators", c.Limits.MaxOperators, 1),
		atLeast("max-streams", c.Limits.MaxStreams, 1),
		atLeast("max-imports", c.Limits.MaxImports, 1),
		atLeast("max-connections", c.MaxConnections, 0),
		atLeast("max-node-connections", c.Cluster.MaxConnections, 0),
		atLeast("max-connection-streams", c.MaxStreams, 1),
		atLeast("read-timeout", c.ReadTimeout, time.Millisecond),
		atLeast("reply-timeout", c.ReplyTimeout, time.Millisecond),
	)
}
