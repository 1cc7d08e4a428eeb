// Package host runs the customers of one process: the actors of each incarnation, the archiver that works for them, and
// what operators ask of the owner of a customer.
//
// A process that has its store to itself has one host for as long as it lives. A node of a cluster has one for
// each of its incarnations: when the lease is lost, the host ends with the incarnation, and the next one begins
// with a new host.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/actors/license/policy/policyfile"
	"licensed/internal/customers"
	"licensed/internal/status"
	"licensed/internal/storage"
	"licensed/internal/tracing"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/archive"
)

// Config of Hosts. Confirmed is called by many goroutines at once.
type Config struct {
	// Node is the name of the process.
	Node    string
	Storage *storage.Storage
	Policy  *policyfile.Source
	// Runtime of the aggregates, and Archiver of their closed history.
	Runtime  actors.Config
	Archiver archive.WorkerConfig
	// Data is the directory that keeps where the archiver's scan stood; empty for none: each run begins anew.
	Data string
	// Listener hears what happens.
	Listener Listener
	// Confirmed reports whether the process still has its lease, by whatever its setting of confirmations asks for.
	Confirmed func(context.Context) bool
	// Tracer of requests; nil for none.
	Tracer   *tracing.Tracer
	Events   *status.Events
	Registry *prometheus.Registry
	Now      func() time.Time
	Log      *slog.Logger
}

// Listener hears what happens. The functions must be quick and safe for concurrent use. Those that are nil are not
// called.
type Listener struct {
	// Appended is told which customer has new events.
	Appended func(customer string)
}

// withDefaults fills in functions that are nil.
func (l Listener) withDefaults() Listener {
	if l.Appended == nil {
		l.Appended = func(string) {}
	}
	return l
}

// Hosts starts the host of each incarnation of a process, one after another, and knows what all of them did. A process
// without shards has none. It is safe for concurrent use.
type Hosts struct {
	Config
	runtime actors.Options // of each host, without its authority and what it listens with
	metrics *runtimeMetrics
	archive *archiveSource // nil: there is no archive
	counts  counts
	present atomic.Pointer[Host] // nil before the first one
	closed  chan struct{}
}

// New starts what all hosts run in.
func New(c Config) *Hosts {
	c.Listener = c.Listener.withDefaults()
	s := &Hosts{Config: c, metrics: newRuntimeMetrics(c.Registry), closed: make(chan struct{})}
	// One set of options for the runtimes of all incarnations; New adds the authority and
	// the listener.
	s.runtime = actors.Options{
		Kind:    s.Policy.Kind(),
		Journal: s.Tracer.Journal(s.Storage.Journal()),
		Config:  s.Runtime,
		Now:     s.Now,
		Past:    s.pastOf,
		System:  actors.NewActorSystem(slog.New(fromWarn{s.Log.Handler()})),
	}
	observe(s.Registry, s.Stats)
	if s.Storage.Cold != nil {
		s.archive = &archiveSource{metrics: newArchiveMetrics(s.Registry, s.archiverStats, s.Storage.ArchiveSize)}
	}
	// Rates are sampled for as long as the process lives, across hosts.
	go s.sampleRates()
	return s
}

// Close ends what hosts run in. They are closed before.
func (s *Hosts) Close() {
	close(s.closed)
	s.runtime.System.Shutdown()
}

// Host serves the shards of one incarnation: its aggregates, and the archiver that works for them. It implements
// cluster.Host.
type Host struct {
	*actors.Runtime
	hosts     *Hosts
	authority actors.Authority
	archiver  atomic.Pointer[archive.Worker] // nil: there is no archive
	// forgetting has a token while a customer is being forgotten: each has files rewritten, and an operator and the
	// archiver's scan may be about the same one.
	forgetting chan struct{}
}

// New starts the runtime, and the archiver if there is an archive, of an incarnation.
// They end with it.
func (s *Hosts) New(a actors.Authority) (*Host, error) {
	h := &Host{hosts: s, authority: a, forgetting: make(chan struct{}, 1)}
	o := s.runtime
	o.Authority = a
	o.Listener = actors.Listener{
		Appended:  func(i actors.AppendedInfo) { s.Listener.Appended(i.ID) },
		Activated: s.activated, Passivated: h.passivated, Ended: s.activationEnded,
	}
	rt, err := actors.New(o)
	if err != nil {
		return nil, err
	}
	h.Runtime = rt
	if s.archive != nil {
		h.startArchiver()
	}
	// Status and metrics are those of the host that was started last.
	s.present.Store(h)
	return h, nil
}

// Execute implements cluster.Host.
func (h *Host) Execute(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
	h.hosts.counts.commands.Add(1)
	if err := checkForeign(customer, license.CheckCommand(c.ID, c.ValidateOnly, c.Payload)); err != nil {
		return actors.Reply{}, err
	}
	ctx, end := h.hosts.Tracer.Request(ctx, customers.Aggregate(customer), c.ID)
	reply, err := h.Runtime.Execute(ctx, customer, c)
	end(err)
	return reply, err
}

// checkForeign checks a request that may have arrived at the node port: other processes check what their clients
// send, but an id that no API lets through would be in a history forever.
func checkForeign(customer string, err error) error {
	if fault := license.CheckCustomer(customer); fault != nil {
		err = fault
	}
	if err != nil {
		return fmt.Errorf("%w: %w", actors.ErrNotSupported, err)
	}
	return nil
}

// Close stops the archiver, then takes no more requests, and returns when none is in progress or ctx ended.
func (h *Host) Close(ctx context.Context) error {
	var err error
	if w := h.archiver.Load(); w != nil {
		err = w.Close(ctx)
	}
	return errors.Join(err, h.Runtime.Close(ctx))
}

// owns reports whether an aggregate's shard is held, at any epoch.
func (h *Host) owns(aggregate string) bool {
	_, held := h.authority.Epoch(h.authority.Shard(aggregate))
	return held
}

// holds says whether the shard of a head is held under the head's epoch at this very moment.
func (h *Host) holds(head persistence.Head) bool {
	return h.authority.Holds(h.authority.Shard(head.Partition.Aggregate), head.Partition.Epoch)
}

// passivated hears that an aggregate was evicted.
func (h *Host) passivated(i actors.PassivatedInfo) {
	h.hosts.metrics.passivated.Inc()
	h.hosts.counts.passivations.Add(1)
	if w := h.archiver.Load(); w != nil && i.Head != nil {
		w.Passivated(i.Head.Partition.Aggregate, *i.Head, i.ArchivedThrough)
	}
}

// activated hears that an aggregate was read from the store.
func (s *Hosts) activated(i actors.ActivatedInfo) {
	s.metrics.activations.Observe(i.Duration.Seconds())
	s.metrics.replayed.Add(float64(i.Records))
	s.counts.activations.Add(1)
	s.counts.replayed.Add(uint64(i.Records))
	// Damage is an alarm although the customer is served: the store lost something.
	if i.Damage != nil {
		s.metrics.rebuilt.Inc()
		s.Log.Error("snapshot damaged, state rebuilt from events; find out what damaged the store",
			"customer", i.ID, "row", i.Damaged.String(), "replayed_events", i.Rebuilt, "error", i.Damage)
		s.Events.Add(s.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_SNAPSHOT_DAMAGED, Node: s.Node,
			Text: fmt.Sprintf("%s rebuilt customer %s from %d events: the newest snapshot is damaged",
				s.Node, i.ID, i.Rebuilt),
		})
	}
	if i.Ahead > maxAhead {
		s.metrics.ahead.Inc()
		s.Log.Error("the customer's last event lies in the future: some node's clock was wrong; "+
			"new events get its time until the clock has caught up",
			"customer", i.ID, "ahead", i.Ahead)
	}
}

// Large hears that a customer has reached half of what the policy lets it have, or another tenth.
func (s *Hosts) Large(l license.Large) {
	s.metrics.large.Inc()
	s.Log.Warn("customer is large", "customer", l.Customer, "remembered_licences", l.Licenses, "limit", l.Limit,
		"remembered_uses", l.Uses, "uses_limit", l.UsesLimit)
}

// pastOf returns what the state at the base of a root is built from whose snapshot is damaged.
func (s *Hosts) pastOf(ctx context.Context, top persistence.Root) (persistence.Past, error) {
	replay := actors.NewReplay(s.Policy.Kind(), customers.ID(top.Key.Aggregate))
	return s.Storage.Reader().Past(ctx, top, func(r *persistence.Root) bool { return replay.Restore(r) == nil })
}

// maxAhead is from where a customer's last event is an alarm.
const maxAhead = 5 * time.Minute

// activationEnded reports an activation that gave up. Its cause matters to operators where it is the
// store's; that a shard moved is normal.
func (s *Hosts) activationEnded(i actors.EndedInfo) {
	cause := endCauses.of(i.Cause)
	s.metrics.ended.WithLabelValues(cause).Inc()
	s.counts.failed.Add(1)
	level := slog.LevelWarn
	switch {
	case cause == "not_owner", cause == "forgotten":
		level = slog.LevelDebug
	case errors.Is(i.Cause, actors.ErrCorrupt):
		level = slog.LevelError
	}
	s.Log.Log(context.Background(), level, "activation gave up", "customer", i.ID, "cause", cause, "error", i.Cause)
}

// endCauses are why activations give up.
var endCauses = causes{
	{actors.ErrNotOwner, "not_owner"},
	{actors.ErrForgotten, "forgotten"},
	{actors.ErrCorrupt, "corrupt"},
	{persistence.ErrCorrupt, "corrupt"},
	{actors.ErrPanic, "panic"},
	{actors.ErrUnavailable, "store_unavailable"},
	{persistence.ErrUnavailable, "store_unavailable"},
	{actors.ErrRejected, "rejected"},
	{persistence.ErrRejected, "rejected"},
	{persistence.ErrClosed, "store_closed"},
	{actors.ErrUnknownOutcome, "unknown_outcome"},
}

// fromWarn leaves out what a library thinks worth telling about its normal life.
type fromWarn struct{ slog.Handler }

// Enabled implements slog.Handler.
func (h fromWarn) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

// WithAttrs implements slog.Handler.
func (h fromWarn) WithAttrs(a []slog.Attr) slog.Handler { return fromWarn{h.Handler.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (h fromWarn) WithGroup(name string) slog.Handler { return fromWarn{h.Handler.WithGroup(name)} }

// Stats returns the figures of the present host.
func (s *Hosts) Stats() actors.Stats {
	if h := s.present.Load(); h != nil {
		return h.Stats()
	}
	return actors.Stats{}
}

// archiverStats returns the figures of the present host's archiver.
func (s *Hosts) archiverStats() archive.WorkerStats {
	if h := s.present.Load(); h != nil {
		if w := h.archiver.Load(); w != nil {
			return w.Stats()
		}
	}
	return archive.WorkerStats{}
}
