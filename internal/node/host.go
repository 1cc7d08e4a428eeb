package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"licensed/actors"
	"licensed/actors/license"
	"licensed/internal/customers"
	"licensed/messages/licensedv1"
	"licensed/persistence"
	"licensed/persistence/archive"
)

// host serves the shards of one incarnation: its aggregates, and the archiver that works for them. A node
// that has its store to itself has one for as long as it lives, others one after another.
type host struct {
	*actors.Runtime
	node      *Node
	authority actors.Authority
	archiver  atomic.Pointer[archive.Worker] // nil: there is no archive
}

// startSystem starts what all hosts run in.
func (n *Node) startSystem(context.Context) error {
	system := actors.NewActorSystem(slog.New(fromWarn{n.log.Handler()}))
	n.push("actor system", func(context.Context) error { system.Shutdown(); return nil })
	n.runtime = actors.Options{
		Kind: n.policy.Kind(), Journal: n.tracer.Journal(n.storage.Journal()), Config: n.config.Runtime, System: system, Now: n.config.Now,
	}
	n.runtime.Past = n.pastOf
	n.metrics = newRuntimeMetrics(n.registry)
	observe(n.registry, n.runtimeStats)
	if n.archive != nil {
		n.archive.metrics = newArchiveMetrics(n.registry, n.archiverStats, n.storage.ArchiveSize)
	}
	return nil
}

// newHost starts the runtime, and the archiver if there is an archive, of an incarnation.
func (n *Node) newHost(a actors.Authority) (*host, error) {
	h := &host{node: n, authority: a}
	o := n.runtime
	o.Authority = a
	o.Listener = actors.Listener{Appended: n.appended, Activated: n.activated, Passivated: h.passivated, Ended: n.activationEnded}
	rt, err := actors.New(o)
	if err != nil {
		return nil, err
	}
	h.Runtime = rt
	if n.archive != nil {
		h.startArchiver()
	}
	n.host.Store(h)
	return h, nil
}

// Execute implements cluster.Host.
func (h *host) Execute(ctx context.Context, customer string, c actors.Command) (actors.Reply, error) {
	h.node.counts.commands.Add(1)
	if err := checkForeign(customer, license.CheckCommand(c.ID, c.ValidateOnly, c.Payload)); err != nil {
		return actors.Reply{}, err
	}
	ctx, end := h.node.tracer.Request(ctx, customers.Aggregate(customer), c.ID)
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
func (h *host) Close(ctx context.Context) error {
	var err error
	if w := h.archiver.Load(); w != nil {
		err = w.Close(ctx)
	}
	return errors.Join(err, h.Runtime.Close(ctx))
}

// owns reports whether an aggregate's shard is held, at any epoch.
func (h *host) owns(aggregate string) bool {
	_, held := h.authority.Epoch(h.authority.Shard(aggregate))
	return held
}

// holds says whether the shard of a head is held under the head's epoch at this very moment.
func (h *host) holds(head persistence.Head) bool {
	return h.authority.Holds(h.authority.Shard(head.Partition.Aggregate), head.Partition.Epoch)
}

// passivated hears that an aggregate was evicted.
func (h *host) passivated(i actors.PassivatedInfo) {
	h.node.metrics.passivated.Inc()
	h.node.counts.passivations.Add(1)
	if w := h.archiver.Load(); w != nil && i.Head != nil {
		w.Passivated(i.Head.Partition.Aggregate, *i.Head, i.ArchivedThrough)
	}
}

// activated hears that an aggregate was read from the store.
func (n *Node) activated(i actors.ActivatedInfo) {
	n.metrics.activations.Observe(i.Duration.Seconds())
	n.metrics.replayed.Add(float64(i.Records))
	n.counts.activations.Add(1)
	n.counts.replayed.Add(uint64(i.Records))
	if i.Damage != nil {
		n.metrics.rebuilt.Inc()
		n.log.Error("snapshot damaged, state rebuilt from events; find out what damaged the store",
			"customer", i.ID, "row", i.Damaged.String(), "replayed_events", i.Rebuilt, "error", i.Damage)
		n.events.Add(n.config.Now(), &licensedv1.Happening{
			Kind: licensedv1.HappeningKind_HAPPENING_KIND_SNAPSHOT_DAMAGED, Node: n.name,
			Text: fmt.Sprintf("%s rebuilt customer %s from %d events: the newest snapshot is damaged", n.name, i.ID, i.Rebuilt),
		})
	}
	if i.Ahead > maxAhead {
		n.metrics.ahead.Inc()
		n.log.Error("the customer's last event lies in the future: some node's clock was wrong; new events get its time until the clock has caught up",
			"customer", i.ID, "ahead", i.Ahead)
	}
}

// large hears that a customer has reached half of what the policy lets it have, or another tenth.
func (n *Node) large(l license.Large) {
	n.metrics.large.Inc()
	n.log.Warn("customer is large", "customer", l.Customer, "remembered_licences", l.Licenses, "limit", l.Limit,
		"remembered_uses", l.Uses, "uses_limit", l.UsesLimit)
}

// pastOf returns what the state at the base of a root is built from whose snapshot is damaged.
func (n *Node) pastOf(ctx context.Context, top persistence.Root) (persistence.Past, error) {
	replay := actors.NewReplay(n.policy.Kind(), customers.ID(top.Key.Aggregate))
	return n.storage.Reader().Past(ctx, top, func(r *persistence.Root) bool { return replay.Restore(r) == nil })
}

// maxAhead is from where a customer's last event is an alarm.
const maxAhead = 5 * time.Minute

// appended tells streams that follow a customer, once there is a gateway.
func (n *Node) appended(i actors.AppendedInfo) {
	if g := n.gateway.Load(); g != nil {
		g.Appended(i.ID)
	}
}

// activationEnded reports an activation that gave up. Its cause matters to operators where it is the
// store's; that a shard moved is normal.
func (n *Node) activationEnded(i actors.EndedInfo) {
	cause := endCauses.of(i.Cause)
	n.metrics.ended.WithLabelValues(cause).Inc()
	n.counts.failed.Add(1)
	level := slog.LevelWarn
	switch {
	case cause == "not_owner":
		level = slog.LevelDebug
	case errors.Is(i.Cause, actors.ErrCorrupt):
		level = slog.LevelError
	}
	n.log.Log(context.Background(), level, "activation gave up", "customer", i.ID, "cause", cause, "error", i.Cause)
}

// endCauses are why activations give up.
var endCauses = causes{
	{actors.ErrNotOwner, "not_owner"},
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

func (h fromWarn) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && h.Handler.Enabled(ctx, l)
}

func (h fromWarn) WithAttrs(a []slog.Attr) slog.Handler { return fromWarn{h.Handler.WithAttrs(a)} }
func (h fromWarn) WithGroup(name string) slog.Handler   { return fromWarn{h.Handler.WithGroup(name)} }

// runtimeStats returns the figures of the present host.
func (n *Node) runtimeStats() actors.Stats {
	if h := n.host.Load(); h != nil {
		return h.Stats()
	}
	return actors.Stats{}
}

// archiverStats returns the figures of the present host's archiver.
func (n *Node) archiverStats() archive.WorkerStats {
	if h := n.host.Load(); h != nil {
		if w := h.archiver.Load(); w != nil {
			return w.Stats()
		}
	}
	return archive.WorkerStats{}
}
