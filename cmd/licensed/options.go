package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"licensed/internal/demo"
	"licensed/internal/node"
	"licensed/internal/settings"
)

// options are what the settings set: the node's configuration, and what becomes part of
// it in nodeConfig.
type options struct {
	config      node.Config
	maxResident settings.Size
	// requestMemory is for requests to the API; the shares are what part of each limit one holder may use.
	requestMemory, addressShare, serviceShare, customerShare settings.Size

	segment           settings.Size // of the archive
	archiveRate       settings.Size // a second
	fallback, answers settings.Size // of the journal, of answers that are kept

	logLevel   string
	logFormat  string
	readyFile  string
	host       string // of addresses that are not given
	demo       bool
	demoConfig demo.Config
}

// newOptions returns the defaults. They are also what the help and
// docs/reference/settings.md show.
func newOptions() *options {
	return &options{
		config:        node.DefaultConfig(),
		maxResident:   settings.ParseSize("25%"),
		requestMemory: settings.ParseSize("256MiB"),
		addressShare:  settings.ParseSize("25%"),
		serviceShare:  settings.ParseSize("100%"),
		customerShare: settings.ParseSize("4%"),
		segment:       settings.ParseSize("256KiB"),
		archiveRate:   settings.ParseSize("8MiB"),
		fallback:      settings.ParseSize("256MiB"),
		answers:       settings.ParseSize("64MiB"),
		logLevel:      "info",
		logFormat:     "auto",
		demoConfig:    demo.DefaultConfig(),
	}
}

// spreadHost gives the host to the addresses that nobody set, and keeps their ports.
// Errors begin with the name of a setting.
func (o *options) spreadHost(loaded *settings.Loaded) error {
	if o.host == "" {
		return nil
	}
	if strings.ContainsAny(o.host, "[]/ ") {
		return fmt.Errorf("host: %q is no host", o.host)
	}
	// Addresses that are set keep their host: they are more specific.
	c := &o.config
	for name, address := range map[string]*string{
		"listen": &c.Listen, "admin": &c.Admin, "bind": &c.Cluster.Bind, "node-listen": &c.Cluster.NodeListen,
	} {
		if loaded.Changed(name) {
			continue
		}
		_, port, err := net.SplitHostPort(*address)
		if err != nil {
			return err
		}
		// The source is shown by the settings command.
		*address = net.JoinHostPort(o.host, port)
		loaded.Derived(name, "host")
	}
	return nil
}

// smallestMemory is what requests need to be served at all: an import has 4 MiB.
const smallestMemory = 16 << 20

// nodeConfig checks what the settings are together, and returns the node's part of them. An error begins with the
// name of a setting.
func (o *options) nodeConfig(log *slog.Logger) (node.Config, error) {
	c := o.config
	c.Logger = log
	memory, err := availableMemory()
	if err != nil && (o.maxResident.Share() > 0 || o.requestMemory.Share() > 0) {
		return c, fmt.Errorf("max-resident, request-memory: cannot read the memory size of this machine; "+
			"set both in bytes: %w", err)
	}
	c.Runtime.MaxResidentBytes = o.maxResident.Of(memory)
	// The share of a percentage was given as 25 for 25 %.
	c.Limits.Memory, c.Limits.AddressShare = o.requestMemory.Of(memory), o.addressShare.Share()/100
	c.Limits.ServiceShare, c.Limits.CustomerShare = o.serviceShare.Share()/100, o.customerShare.Share()/100
	if c.Limits.Memory < smallestMemory {
		return c, fmt.Errorf("request-memory: is %v, must be at least 16MiB", &o.requestMemory)
	}
	if o.demo && c.AuthFile != "" {
		return c, errors.New("demo: simulated customers have no credentials; leave out auth-file")
	}
	c.Fallback.MaxBytes, c.Fallback.AnswersBytes = o.fallback.Of(0), o.answers.Of(0)
	c.Archiver.SegmentBytes, c.Archiver.BytesPerSecond = int(o.segment.Of(0)), int(o.archiveRate.Of(0))
	return c, errors.Join(c.Validate(), c.Traces.Check())
}

// availableMemory returns what the process may use, in bytes: that of its cgroup, or the machine's.
func availableMemory() (uint64, error) {
	return memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)()
}

// limitMemory has the garbage collector work harder before the process meets the limit of its container, unless
// GOMEMLIMIT says otherwise. A tenth of it is left to what is not on the heap.
func limitMemory(log *slog.Logger) {
	limit, err := memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(0.9))
	if err != nil {
		log.Debug("memory limit not read", "error", err)
		return
	}
	log.Debug("memory limit set", "bytes", limit)
}
