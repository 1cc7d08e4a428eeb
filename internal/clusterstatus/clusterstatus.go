// Package clusterstatus computes the status of a cluster: one function, one result, which the dashboard,
// licensectl and the metrics all show.
//
// # The model
//
//	answers of all listed members ─┐
//	members that disappeared       ├─► Assess ─► shard map ─► findings ─► level and summary
//	rows that the store showed     ┘
//
// The shard map comes first. A shard is served only if a member with a valid lease answered this very reading
// and said that it holds the shard, at the latest epoch that the store showed to anybody. Findings about shards are
// made from that map and from nothing else, so they cannot contradict it. A row only says who should have a shard.
//
// Gossip can be forged, so a row that was only heard counts in one case: it says that the owner by the store
// released the shard at the same epoch. Without it, a shard in a hand-over would count as not served once its
// former owner has left. A holder at that epoch overrules it. A forged row of that kind can therefore only delay
// "not served" for a shard that nobody holds, and by no more than Stuck.
//
// A member that is listed and does not answer is a finding at once. A member that disappeared is one for a day,
// unless it was asked to leave. The level is critical if, and only if, the map has unserved shards.
//
// Assess is pure. A [History] beside it remembers when each finding began.
package clusterstatus

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/cluster/ownership"
	"licensed/messages/licensedv1"
	"licensed/persistence"
)

// Times after which a transition counts as trouble.
const (
	// Stuck is the time a shard may be in transit to a node, or its owner silent, before it counts as unserved.
	// It is above the time that requests wait for a shard in flight.
	Stuck = 10 * time.Second
	// VersionsMixed is the time an upgrade may take before it is a finding.
	VersionsMixed = time.Hour
)

// Held is a shard that a member says that it holds.
type Held struct {
	Shard uint32
	Epoch uint64
}

// Answer is what one listed member said of itself for this reading, or that it said nothing.
type Answer struct {
	// Listed is the member as gossip lists it. Its state is draining if the member announced that it leaves.
	Listed *licensedv1.NodeStatus
	// Self is what the member said of itself; nil if it did not answer. Cause says why in a few words: "timeout".
	Self  *licensedv1.NodeStatus
	Cause string
	// Incarnation of the answer, or of the listing if there is none. Zero for gateways.
	Incarnation persistence.Incarnation
	// Holds are the shards that the member itself holds at this moment.
	Holds []Held
	// SilentSince is the time of the first question in a row that the member did not answer.
	SilentSince time.Time
}

// Departure is a member that is no longer listed.
type Departure struct {
	// Last is the member as it was last listed. Its state is draining if the member announced that it leaves.
	Last        *licensedv1.NodeStatus
	Incarnation persistence.Incarnation
	At          time.Time
}

// Moving is a shard that was seen in flight, at an epoch.
type Moving struct {
	Epoch uint64
	Since time.Time
}

// Input is all that a status is computed from.
type Input struct {
	// Name of the cluster, and of the member that makes the reading.
	Name, Reporter string
	// Now is the time at which the reading began.
	Now    time.Time
	Shards uint32
	// Alone says that the process has its store to itself, by design.
	Alone bool
	// Answers of all listed members, and those that disappeared lately.
	Answers  []Answer
	Departed []Departure
	// Rows of ownership that the store showed to the reporter or to members that answered, and releases at the
	// epochs of those. Several may be about one shard.
	Rows []persistence.Shard
	// Moving are shards that were in transit in former readings.
	Moving map[uint32]Moving
}

// member is one process in an assessment. The embedded status is the result's, and is
// completed by describe.
type member struct {
	*licensedv1.NodeStatus
	incarnation persistence.Incarnation
	answered    bool
	// speaks: it answered and has a lease, or needs none.
	speaks  bool
	leaving bool // it announced so
	gone    bool // no longer listed
	since   time.Time
	cause   string
	// rows counts shards whose latest row names it, without those in transit, unserved those of them that are not
	// served.
	rows, unserved int
}

// isNode reports whether the process holds customers, planned whether its absence was
// announced and leaves nothing unserved, away whether it should answer and does not, idle
// whether it holds nothing by request, takes whether it claims shards that others release.
func (m *member) isNode() bool  { return slices.Contains(m.Roles, licensedv1.NodeRole_NODE_ROLE_NODE) }
func (m *member) planned() bool { return m.leaving && m.rows == 0 }
func (m *member) away() bool    { return !m.answered && !m.planned() }
func (m *member) idle() bool {
	return m.State == licensedv1.NodeState_NODE_STATE_DRAINING || m.State == licensedv1.NodeState_NODE_STATE_DRAINED
}
func (m *member) takes() bool { return m.isNode() && m.speaks && !m.idle() }

// assessment is one computation. The steps of Assess fill it in order; each reads what
// those before it wrote.
type assessment struct {
	*Input
	out           *licensedv1.ClusterStatus
	members       []*member
	byIncarnation map[persistence.Incarnation]*member
}

// Assess computes the status. The result owns the messages of the input.
func Assess(in *Input) *licensedv1.ClusterStatus {
	a := &assessment{
		Input: in, byIncarnation: make(map[persistence.Incarnation]*member),
		out: &licensedv1.ClusterStatus{
			Name: in.Name, Reporter: in.Reporter, AsOf: timestamppb.New(in.Now), Shards: in.Shards,
		},
	}
	// In this order: each step uses what the ones before it found.
	a.meet()
	a.mapShards()
	a.describe()
	a.find()
	a.conclude()
	return a.out
}

// meet collects the members. One that is listed again has not disappeared.
func (a *assessment) meet() {
	listed := make(map[string]bool)
	for i := range a.Answers {
		o := &a.Answers[i]
		// One that does not answer is described by what gossip, or its last answer, says
		// of it.
		m := &member{NodeStatus: o.Self, incarnation: o.Incarnation, answered: o.Self != nil, since: o.SilentSince,
			cause: o.Cause}
		m.leaving = o.Listed.GetState() == licensedv1.NodeState_NODE_STATE_DRAINING
		if !m.answered {
			m.NodeStatus = o.Listed
			m.since = cmp.Or(m.since, a.Now)
		}
		m.speaks = m.answered && m.State != licensedv1.NodeState_NODE_STATE_FAILED &&
			(m.Lease == nil || m.Lease.Remaining.AsDuration() > 0)
		listed[m.Name] = true
		a.add(m)
	}
	for _, d := range a.Departed {
		if !listed[d.Last.Name] {
			listed[d.Last.Name] = true
			a.add(&member{
				NodeStatus: d.Last, incarnation: d.Incarnation, gone: true, since: d.At,
				leaving: d.Last.State == licensedv1.NodeState_NODE_STATE_DRAINING,
			})
		}
	}
	slices.SortFunc(a.members, func(x, y *member) int { return strings.Compare(x.Name, y.Name) })
	for _, m := range a.members {
		a.out.Nodes = append(a.out.Nodes, m.NodeStatus)
	}
}

// add adds a member. A later incarnation of the same name is a member of its own in the
// index.
func (a *assessment) add(m *member) {
	a.members = append(a.members, m)
	if !m.incarnation.IsZero() {
		a.byIncarnation[m.incarnation] = m
	}
}

// mapShards makes the shard map, from which all statements about shards follow. For each
// shard it takes the latest row and the holder at the highest epoch; the holder decides
// if it is not older than the row.
func (a *assessment) mapShards() {
	// Rows come from several processes, and may be of different ages.
	rows := make([]persistence.Shard, a.Shards)
	for id := range rows {
		rows[id].ID = uint32(id)
	}
	for _, row := range a.Rows {
		if row.ID < a.Shards && ownership.Later(rows[row.ID], row) {
			rows[row.ID] = row
		}
	}
	holders := make([]*member, a.Shards)
	epochs := make([]uint64, a.Shards)
	for i := range a.Answers {
		o := &a.Answers[i]
		// A process that answered without a lease holds nothing, whatever it says.
		m := a.byIncarnation[o.Incarnation]
		if m == nil || !m.speaks {
			continue
		}
		for _, h := range o.Holds {
			if h.Shard < a.Shards && h.Epoch > epochs[h.Shard] {
				holders[h.Shard], epochs[h.Shard] = m, h.Epoch
			}
		}
	}
	for id, row := range rows {
		m, epoch := holders[id], epochs[id]
		if m != nil && epoch >= row.Epoch { // An epoch has one owner. It held the shard when it answered.
			a.place(persistence.Shard{ID: row.ID, Epoch: epoch, Owner: m.incarnation}, m,
				licensedv1.ShardState_SHARD_STATE_OPEN)
			continue
		}
		a.place(row, a.byIncarnation[either(row.Owner, row.Successor)], a.unheld(row))
	}
}

// either returns the first of two incarnations that is not zero.
func either(i, j persistence.Incarnation) persistence.Incarnation {
	if i.IsZero() {
		return j
	}
	return i
}

// unheld returns the state of a shard that no member says that it holds at the epoch of
// the row: in transit or unconfirmed for up to Stuck, then orphaned.
func (a *assessment) unheld(row persistence.Shard) licensedv1.ShardState {
	m := a.byIncarnation[either(row.Owner, row.Successor)]
	switch {
	case row.Epoch == 0:
	// A released shard has no owner. If its successor does not claim it, for example because that one drains as well,
	// another node does.
	case row.Owner.IsZero() && slices.ContainsFunc(a.members, (*member).takes),
		// An answer and a row need not be of one moment: the answer is older, or its member is claiming the shard.
		m != nil && m.speaks:
		if was, ok := a.Moving[row.ID]; !ok || was.Epoch != row.Epoch || a.Now.Sub(was.Since) < Stuck {
			return licensedv1.ShardState_SHARD_STATE_MOVING
		}
	case m != nil && !m.gone && !m.answered && a.Now.Sub(m.since) < Stuck:
		return licensedv1.ShardState_SHARD_STATE_UNCONFIRMED
	}
	return licensedv1.ShardState_SHARD_STATE_ORPHANED
}

// place adds a shard to the map. m is the member that has it or should have it, if any is known.
func (a *assessment) place(row persistence.Shard, m *member, state licensedv1.ShardState) {
	switch state {
	case licensedv1.ShardState_SHARD_STATE_OPEN:
		a.out.ShardsServed++
	case licensedv1.ShardState_SHARD_STATE_MOVING:
		a.out.ShardsMoving++
	case licensedv1.ShardState_SHARD_STATE_UNCONFIRMED:
		a.out.ShardsUnconfirmed++
	default:
		a.out.ShardsUnserved++
	}
	// The member is blamed for what is not served; the row names it. A shard in transit may be taken by another one.
	if m != nil && state != licensedv1.ShardState_SHARD_STATE_MOVING {
		if m.rows++; state != licensedv1.ShardState_SHARD_STATE_OPEN {
			m.unserved++
		}
	}
	// A shard without a row was never claimed; it is counted, and has no place in the
	// map.
	if row.Epoch == 0 {
		return
	}
	s := &licensedv1.ShardStatus{Id: row.ID, Epoch: row.Epoch, State: state}
	if !row.Owner.IsZero() {
		s.Owner = row.Owner.String()
	}
	if !row.Successor.IsZero() && state != licensedv1.ShardState_SHARD_STATE_OPEN {
		s.Successor = row.Successor.String()
	}
	a.out.ShardMap = append(a.out.ShardMap, s)
}

// describe sets the state of the members that say nothing, and has the figures of those that do agree with the map.
func (a *assessment) describe() {
	served := make(map[string]uint32)
	for _, s := range a.out.ShardMap {
		if s.State == licensedv1.ShardState_SHARD_STATE_OPEN {
			served[s.Owner]++
		}
	}
	for _, m := range a.members {
		if m.answered {
			m.SeenAt = timestamppb.New(a.Now)
			if !m.incarnation.IsZero() {
				// The node counted at another moment than the map was made.
				n := served[m.incarnation.String()]
				m.ShardsClosing = min(m.ShardsClosing, n)
				m.ShardsOpen = n - m.ShardsClosing
			}
			continue
		}
		if m.SeenAt == nil && m.since.Before(a.Now) {
			m.SeenAt = timestamppb.New(m.since)
		}
		// Figures of a member that says nothing are of an earlier time.
		m.ShardsOpen, m.ShardsClosing, m.ShardsExpected, m.ShardsMoving = 0, 0, 0, 0
		m.ResidentCustomers, m.CommandsPerSecond = 0, 0
		switch {
		case m.planned():
			m.State, m.Reason = licensedv1.NodeState_NODE_STATE_LEFT, "stopped as requested at "+a.clock(m.since)
		case m.gone:
			m.State, m.Reason = licensedv1.NodeState_NODE_STATE_DEAD, "not responding since "+a.clock(m.since)
		default:
			m.State, m.Reason = licensedv1.NodeState_NODE_STATE_SUSPECT, "no status from "+m.Name+": "+m.cause
		}
	}
}

// clock writes a time of the last hours; the day is left out if it is today.
func (a *assessment) clock(t time.Time) string {
	if t.UTC().Format(time.DateOnly) == a.Now.UTC().Format(time.DateOnly) {
		return t.UTC().Format(time.TimeOnly) + " UTC"
	}
	return t.UTC().Format(time.DateTime) + " UTC"
}

// report adds a finding.
func (a *assessment) report(w *licensedv1.ClusterWarning) { a.out.Warnings = append(a.out.Warnings, w) }

// find collects the findings.
func (a *assessment) find() {
	a.findShards()
	a.findNodes()
	for _, m := range a.members {
		a.findOf(m)
	}
	a.findVersions()
}

// findShards makes findings of the map.
func (a *assessment) findShards() {
	if n := a.out.ShardsUnserved; n > 0 {
		a.report(&licensedv1.ClusterWarning{
			Level: licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL,
			Kind:  licensedv1.FindingKind_FINDING_KIND_SHARDS_UNSERVED,
			Text:  fmt.Sprintf("%d of %d shards %s not served%s", n, a.Shards, be(n), a.owners()),
			NextStep: "Requests for their customers wait or fail. Other nodes take over the shards of a failed node " +
				"within seconds. " +
				"If this lasts, check that nodes run and reach the store.",
			Runbook: "licensedshardsnotserved",
		})
	}
	if n := a.out.ShardsUnconfirmed; n > 0 {
		a.report(&licensedv1.ClusterWarning{
			Level:    licensedv1.WarningLevel_WARNING_LEVEL_WARNING,
			Kind:     licensedv1.FindingKind_FINDING_KIND_SHARDS_UNCONFIRMED,
			Text:     fmt.Sprintf("%d of %d shards %s not confirmed as served%s", n, a.Shards, be(n), a.owners()),
			NextStep: "Their owner did not answer. If it failed, other nodes take over its shards within seconds.",
			Runbook:  "licensedshardsnotserved",
		})
	}
}

// be returns the verb for a number.
func be(n uint32) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// owners names the members that should serve the shards that are not served; empty if none is known.
func (a *assessment) owners() string {
	var names []string
	for _, m := range a.members {
		if m.unserved > 0 {
			names = append(names, fmt.Sprintf("%s (%d)", m.Name, m.unserved))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "; last owner: " + some(names)
}

// some joins the first few of many.
func some(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// findNodes counts the nodes, and reports those that do not respond. A node that is idle
// by request, or left by request, is not expected.
func (a *assessment) findNodes() {
	var away []*member
	for _, m := range a.members {
		// A gateway holds nothing; what it does is reported elsewhere.
		if !m.isNode() || m.idle() && m.answered || m.planned() && !m.answered {
			continue
		}
		a.out.NodesExpected++
		switch {
		case m.away():
			away = append(away, m)
		case m.speaks:
			a.out.NodesRunning++
		}
	}
	running := fmt.Sprintf("%d of %d nodes running", a.out.NodesRunning, a.out.NodesExpected)
	level := licensedv1.WarningLevel_WARNING_LEVEL_WARNING
	switch n := a.out.NodesRunning; {
	case len(away) > 0:
		w := &licensedv1.ClusterWarning{
			Level: level,
			Kind:  licensedv1.FindingKind_FINDING_KIND_NODE_NOT_RESPONDING,
			Text:  running + "; " + a.silent(away),
			Since: timestamppb.New(earliest(away)), Runbook: "licenseddown",
			NextStep: "Read the log of that process, and restart it if it ended. To run without it from now on, " +
				"start another node, or wait: " +
				"a node that does not come back is forgotten after 24 hours.",
		}
		if len(away) == 1 {
			w.Node = away[0].Name
		}
		if n == 0 {
			w.Kind, w.Runbook = licensedv1.FindingKind_FINDING_KIND_NO_NODE, "licensedshardsnotserved"
			w.NextStep = "No node serves customers. Start the nodes, and read their logs."
		}
		a.report(w)
	case n == 0:
		a.report(&licensedv1.ClusterWarning{
			Level: level, Kind: licensedv1.FindingKind_FINDING_KIND_NO_NODE, Text: "No node is running",
			NextStep: "Start a node, undrain one (licensectl cluster undrain NODE), " +
				"or check that gossip reaches the nodes.",
			Runbook: "licensedshardsnotserved",
		})
	case n == 1 && !a.Alone:
		a.report(&licensedv1.ClusterWarning{
			Level:    level,
			Kind:     licensedv1.FindingKind_FINDING_KIND_ONE_NODE,
			Text:     "One node is running; no other takes over its customers if it fails",
			NextStep: "Start a second node.", Runbook: "adding-and-removing-nodes",
		})
	}
}

// silent returns since when members do not respond, and why if there is one of them.
func (a *assessment) silent(away []*member) string {
	m := away[0]
	if len(away) == 1 {
		text := m.Name + " not responding since " + a.clock(m.since)
		if m.cause != "" {
			text += " (no status from " + m.Name + ": " + m.cause + ")"
		}
		return text
	}
	var names []string
	for _, m := range away {
		names = append(names, m.Name+" since "+a.clock(m.since))
	}
	return "not responding: " + some(names)
}

// earliest returns the time from which the first of them did not respond.
func earliest(away []*member) time.Time {
	return slices.MinFunc(away, func(x, y *member) int { return x.since.Compare(y.since) }).since
}

// findOf reports what is wrong with one member beside its silence as a node, and passes
// on what the member reports of itself.
func (a *assessment) findOf(m *member) {
	w := &licensedv1.ClusterWarning{Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Node: m.Name}
	switch {
	case m.away() && !m.isNode():
		w.Kind, w.Text = licensedv1.FindingKind_FINDING_KIND_GATEWAY_NOT_RESPONDING, "Gateway "+a.silent([]*member{m})
		w.Since, w.Runbook = timestamppb.New(m.since), "licenseddown"
		w.NextStep = "Read the log of that process, and restart it if it ended. Clients can use the other gateways."
		a.report(w)
		return
	// Reported by findNodes.
	case !m.answered:
		return
	case m.State == licensedv1.NodeState_NODE_STATE_FAILED:
		w.Kind = licensedv1.FindingKind_FINDING_KIND_NODE_FAILED
		w.Text = m.Name + " cannot serve: " + m.Reason
		w.Runbook = "licenseddown"
		w.NextStep = "Repair the cause and restart " + m.Name + ". Nothing that was acknowledged is lost."
		a.report(w)
	case m.isNode() && !m.speaks && !m.idle():
		w.Kind = licensedv1.FindingKind_FINDING_KIND_NO_LEASE
		w.Text = m.Name + " has no lease and serves no customers"
		w.Runbook = "licensednolease"
		w.NextStep = "The store does not answer " + m.Name +
			", or not in time. Check the store, and the network between the two."
		a.report(w)
	}
	// What a member knows of itself, such as its clock, its memory and its archive.
	for _, w := range m.Warnings {
		w.Node = cmp.Or(w.Node, m.Name)
		a.report(w)
	}
}

// findVersions reports an upgrade that was not finished. Members that answered and are
// not idle count.
func (a *assessment) findVersions() {
	first := make(map[string]time.Time)
	for _, m := range a.members {
		// A version counts from the start of its first process.
		if !m.answered || m.idle() || m.StartedAt == nil {
			continue
		}
		if at, ok := first[m.Version]; !ok || m.StartedAt.AsTime().Before(at) {
			first[m.Version] = m.StartedAt.AsTime()
		}
	}
	if len(first) < 2 {
		return
	}
	// Versions have been mixed since the second of them appeared.
	since := slices.SortedFunc(maps.Values(first), time.Time.Compare)[1]
	if a.Now.Sub(since) < VersionsMixed {
		return
	}
	a.report(&licensedv1.ClusterWarning{
		Level: licensedv1.WarningLevel_WARNING_LEVEL_WARNING, Kind: licensedv1.FindingKind_FINDING_KIND_VERSIONS_MIXED,
		Text:     fmt.Sprintf("Members have run %d versions for more than an hour", len(first)),
		Since:    timestamppb.New(since),
		NextStep: "Finish the upgrade, or go back.", Runbook: "licensedversionsmixed",
	})
}

// AllNormal is the summary of a cluster that is OK.
const AllNormal = "All systems normal"

// conclude sets level and summary. Only unserved shards make the cluster critical: a member that reports worse of
// itself is a warning while others serve.
func (a *assessment) conclude() {
	out := a.out
	if out.ShardsUnserved == 0 {
		for _, w := range out.Warnings {
			w.Level = licensedv1.WarningLevel_WARNING_LEVEL_WARNING
		}
	}
	// The most severe first; within a level in the order of the steps.
	slices.SortStableFunc(out.Warnings,
		func(x, y *licensedv1.ClusterWarning) int { return cmp.Compare(y.Level, x.Level) })
	switch n := len(out.Warnings); {
	case n == 0:
		out.Level, out.Summary = licensedv1.ClusterLevel_CLUSTER_LEVEL_OK, AllNormal
		return
	case n == 1:
		out.Summary = out.Warnings[0].Text
	case n == 2:
		out.Summary = out.Warnings[0].Text + "; 1 more finding"
	default:
		out.Summary = fmt.Sprintf("%s; %d more findings", out.Warnings[0].Text, n-1)
	}
	out.Level = licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED
	if out.ShardsUnserved > 0 {
		out.Level = licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL
	}
}
