package dashboard

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"licensed/internal/clusterrates"
	"licensed/messages/licensedv1"
)

// boardView is the part of the cluster page that changes every second.
type boardView struct {
	// Known says that the cluster answered at least once.
	Known    bool
	Name     string
	Reporter string
	AsOf     *timestamppb.Timestamp
	// Verdict is the level and one sentence. Level is "good", "warning", "critical", or "unknown": there is no
	// status, or it is old.
	Verdict    string
	Level      string
	Findings   []findingView
	Tiles      []tileView
	Nodes      []nodeView
	Happenings []happeningView
	Fallbacks  []fallbackView
}

// fallbackView is what a gateway does while owners cannot be reached.
type fallbackView struct {
	Name, Level string
	*licensedv1.FallbackFigures
	// Owners are the nodes to which commands fail, by name.
	Owners string
	// Room is how full the journal is.
	Room string
}

// fallbackOf returns the fallbacks of a member; false if it has none.
func fallbackOf(n *licensedv1.NodeStatus, all []*licensedv1.NodeStatus) (v fallbackView, ok bool) {
	f := n.Fallback
	if f == nil {
		return v, false
	}
	v = fallbackView{Name: n.Name, Level: "good", FallbackFigures: f, Owners: "all answer"}
	if f.DeferredCommands > 0 || len(f.UnavailableOwners) > 0 {
		v.Level = "warning"
	}
	var owners []string
	for _, incarnation := range f.UnavailableOwners {
		name, _, _ := strings.Cut(incarnation, "-") // An incarnation that ended.
		if incarnation == "" {
			name = n.Name
		}
		for _, other := range all {
			if other.Incarnation == incarnation {
				name = other.Name
			}
		}
		owners = append(owners, name)
	}
	if len(owners) > 0 {
		v.Owners = strings.Join(owners, ", ") + " unavailable"
	}
	v.Room = size(f.Bytes) + " of " + size(f.MaxBytes)
	return v, true
}

// findingView is something that is wrong.
type findingView struct {
	Level, Text string
	Since       *timestamppb.Timestamp
	NextStep    string
	Runbook     string // anchor of its entry
}

// tileView is one figure.
type tileView struct{ Name, Value, Unit, Note, Level string }

// nodeView is a member in the table of nodes. Texts are for people and have their units;
// a dash stands for what is not known.
type nodeView struct {
	*licensedv1.NodeStatus
	// Key tells members of the same name apart; Class is its colour in the picture of the
	// shards.
	Key                 string
	Class, State, Level string
	Roles               string
	Age                 string
	// The time left of its lease, and that time as a part of the TTL for a bar.
	LeaseWords   string
	LeasePercent int
	Commands     string // a second
	Cores        string
	Memory       string
	// How far its wall clock is off; empty if it is not.
	Offset string
	Moving string
	Epochs string
	Silent string // for how long it said nothing, if that is long
	Absent bool   // it does not answer: there are no figures
}

// happeningView is an entry of the list of what happened.
type happeningView struct {
	*licensedv1.Happening
	Kind, Level string
}

// mapView is the picture of the shards.
type mapView struct {
	Known         bool
	Total         int
	Width, Height int
	Cells         []cellView
	Owners        []ownerView
	Moving        int
	Orphaned      int
	Unconfirmed   int
	Words         string
}

// cellView is the square of one shard.
type cellView struct {
	X, Y         int
	Class, Title string
}

// ownerView is an entry of the legend: a node and the number of shards that it serves.
type ownerView struct {
	Class, Name string
	Shards      int
	Epochs      string
}

// clusterView is the whole page.
type clusterView struct {
	Board boardView
	Map   mapView
	// Rules and Codes are the names of series, in an order that never changes, so that each keeps its colour.
	Rules, Codes []string
}

// cluster shows the cluster.
func (d *Dashboard) cluster(w http.ResponseWriter, r *http.Request) error {
	reading := d.sampler.current(r.Context())
	now := d.config.Now()
	return d.render(w, http.StatusOK, "cluster", "", view{
		Title:   "Cluster",
		Section: "cluster",
		Body: clusterView{
			Board: boardOf(reading, now), Map: mapOf(reading.Status), Rules: rules, Codes: clusterrates.ErrorWords(),
		},
	})
}

// rules are the names of all rules.
var rules = func() []string {
	var names []string
	for i := range len(licensedv1.Rule_name) {
		if name, ok := licensedv1.Rule_name[int32(i)]; ok && i > 0 {
			names = append(names, clusterrates.RuleWords(licensedv1.Rule(licensedv1.Rule_value[name])))
		}
	}
	return names
}()

// boardOf makes the board of a reading. A reading that is too old shows what was known
// and the level "unknown": an old "all systems normal" must not look like a present one.
func boardOf(r reading, now time.Time) boardView {
	b := boardView{Level: "unknown", Verdict: "Waiting for the first status"}
	s := r.Status
	if s != nil {
		b.Known, b.Name, b.Reporter, b.AsOf = true, s.Name, s.Reporter, s.AsOf
		b.Level, b.Verdict = levels[s.Level], verdict(s)
		for _, w := range s.Warnings {
			b.Findings = append(b.Findings, findingView{findingLevel(w.Level), w.Text, w.Since, w.NextStep, w.Runbook})
		}
		b.Tiles = tilesOf(s, r.Latest)
		for i, n := range s.Nodes {
			b.Nodes = append(b.Nodes, nodeOf(n, i, r.Latest, r.At))
			if f, ok := fallbackOf(n, s.Nodes); ok {
				b.Fallbacks = append(b.Fallbacks, f)
			}
		}
		for _, h := range s.Happenings {
			b.Happenings = append(b.Happenings, happeningOf(h))
		}
	}
	if why := stale(r, now); why != "" {
		b.Level, b.Verdict = "unknown", why
	}
	return b
}

// staleAfter is the age from which a status is not taken for the present state: five
// samples of a page that is watched.
const staleAfter = 5 * time.Second

// stale returns why the last reading is no present status; empty if it is one.
func stale(r reading, now time.Time) string {
	age := now.Sub(r.At).Round(time.Second)
	switch {
	case r.Status == nil && r.Err != nil:
		return "Unknown: no status since this gateway started: " + sentence(r.Err.Error())
	case r.Status == nil:
		return ""
	case r.Err != nil:
		return fmt.Sprintf("Unknown: the last status is %s old: %s", duration(age), sentence(r.Err.Error()))
	case age > staleAfter:
		return fmt.Sprintf("Unknown: the last status is %s old.", duration(age))
	}
	return ""
}

// levels are the classes of levels. What is missing is of another release, which reports none.
var levels = map[licensedv1.ClusterLevel]string{
	licensedv1.ClusterLevel_CLUSTER_LEVEL_UNSPECIFIED: "unknown", licensedv1.ClusterLevel_CLUSTER_LEVEL_OK: "good",
	licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED: "warning",
	licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL: "critical",
}

// verdict says the level in one sentence.
func verdict(s *licensedv1.ClusterStatus) string {
	switch s.Level {
	case licensedv1.ClusterLevel_CLUSTER_LEVEL_OK:
		return s.Summary
	case licensedv1.ClusterLevel_CLUSTER_LEVEL_CRITICAL:
		return "Critical: some customers are not served"
	case licensedv1.ClusterLevel_CLUSTER_LEVEL_DEGRADED:
		if s.ShardsUnconfirmed > 0 {
			return "Degraded: a node does not answer"
		}
		if words := deferring(s.Nodes); words != "" {
			return "Degraded: " + words
		}
		return "Degraded: all customers are served"
	}
	return "Unknown: this gateway is of another release"
}

// deferring says what gateways answer by their fallbacks, because nodes or the store do not; empty if they do not.
func deferring(members []*licensedv1.NodeStatus) string {
	var commands, customers uint64
	var cutOff uint32
	for _, n := range members {
		commands += n.Fallback.GetDeferredCommands()
		customers += n.Fallback.GetDeferredCustomers()
		if len(n.Fallback.GetUnavailableOwners()) > 0 {
			cutOff++
		}
	}
	var words []string
	if cutOff > 0 {
		words = append(words, fmt.Sprintf("%s cannot reach nodes or the store", count(cutOff, "gateway", "gateways")))
	}
	if commands > 0 {
		words = append(words, fmt.Sprintf("%s of %s deferred", count(commands, "command", "commands"),
			count(customers, "customer", "customers")))
	}
	return strings.Join(words, "; ")
}

// findingLevel returns the class of a finding.
func findingLevel(l licensedv1.WarningLevel) string {
	if l == licensedv1.WarningLevel_WARNING_LEVEL_CRITICAL {
		return "critical"
	}
	return "warning"
}

// tilesOf returns the figures at the top. latest is nil before there were two readings;
// rates are 0 then.
func tilesOf(s *licensedv1.ClusterStatus, latest *clusterrates.Sample) []tileView {
	if latest == nil {
		latest = new(clusterrates.Sample)
	}
	// Sums over the nodes that answered; the findings name the others.
	var customers, bytes, waiting uint64
	for _, n := range s.Nodes {
		customers += n.ResidentCustomers
		bytes += n.ResidentBytes
		waiting += n.RequestsWaiting
	}
	errors := ""
	if latest.Failed > 0 {
		errors = "critical"
	}
	return []tileView{
		{
			Name:  "Throughput",
			Value: rateOf(latest.Commands),
			Unit:  "commands/s",
			Note:  rateOf(latest.Queries) + " queries/s",
		},
		{Name: "Latency, median", Value: millis(latest.P50), Unit: "ms", Note: "p99 " + millis(latest.P99) + " ms"},
		{Name: "Refused", Value: rateOf(latest.Refused), Unit: "commands/s", Note: "refused by rules, see below"},
		{
			Name: "Errors", Value: rateOf(latest.Failed), Unit: "requests/s",
			Note: "failures of the service, not refusals", Level: errors,
		},
		{Name: "Customers in memory", Value: number(customers), Note: size(bytes)},
		{Name: "Waiting", Value: number(waiting), Unit: "requests", Note: "accepted, not answered yet"},
	}
}

// nodeLevels are the classes of the states of nodes.
var nodeLevels = map[licensedv1.NodeState]string{
	licensedv1.NodeState_NODE_STATE_READY: "good", licensedv1.NodeState_NODE_STATE_STARTING: "warning",
	licensedv1.NodeState_NODE_STATE_DRAINING: "idle",
	licensedv1.NodeState_NODE_STATE_DRAINED:  "idle",
	licensedv1.NodeState_NODE_STATE_SUSPECT:  "critical",
	licensedv1.NodeState_NODE_STATE_DEAD:     "critical", licensedv1.NodeState_NODE_STATE_FAILED: "critical",
	licensedv1.NodeState_NODE_STATE_LEFT: "idle",
}

// owners is the number of colours that tell nodes apart.
const owners = 8

// ownerClass returns the colour of the node at an index of the status. With more nodes
// than colours some share one.
func ownerClass(i int) string { return fmt.Sprintf("owner-%d", i%owners) }

// silence is when it is worth saying that a node said nothing.
const silence = 5 * time.Second

// nodeOf makes the row of a member.
func nodeOf(n *licensedv1.NodeStatus, index int, latest *clusterrates.Sample, now time.Time) nodeView {
	v := nodeView{
		NodeStatus: n, Key: clusterrates.Key(n), Class: ownerClass(index),
		State: words(n.State.String(), "NODE_STATE_"), Level: nodeLevels[n.State],
	}
	var roles []string
	for _, r := range n.Roles {
		roles = append(roles, words(r.String(), "NODE_ROLE_"))
	}
	v.Roles = strings.Join(roles, ", ")
	if n.StartedAt != nil {
		v.Age = duration(now.Sub(n.StartedAt.AsTime()))
	}
	switch n.State {
	// A member that is absent has no figures, and those of its last status would look
	// present.
	case licensedv1.NodeState_NODE_STATE_DEAD, licensedv1.NodeState_NODE_STATE_LEFT:
		v.Absent = true // Its reason says since when.
	case licensedv1.NodeState_NODE_STATE_SUSPECT:
		v.Absent = n.Activity == nil
		fallthrough
	default:
		if quiet := now.Sub(n.SeenAt.AsTime()); n.SeenAt != nil && quiet > silence {
			v.Silent = duration(quiet.Round(time.Second))
		}
	}
	switch n.State {
	case licensedv1.NodeState_NODE_STATE_DEAD, licensedv1.NodeState_NODE_STATE_LEFT,
		licensedv1.NodeState_NODE_STATE_DRAINED,
		licensedv1.NodeState_NODE_STATE_SUSPECT:
		v.LeaseWords = "–"
	default:
		v.LeaseWords = "none needed"
	}
	if n.Lease != nil && n.State != licensedv1.NodeState_NODE_STATE_DRAINED {
		left, ttl := n.Lease.Remaining.AsDuration(), n.Lease.Ttl.AsDuration()
		if v.LeaseWords = duration(left) + " left"; left <= 0 {
			v.LeaseWords = "not valid"
		}
		if ttl > 0 {
			v.LeasePercent = int(100 * min(left, ttl) / ttl)
		}
	}
	v.Commands, v.Cores = "–", "–"
	// A gateway executes no commands of its own.
	if slices.Contains(n.Roles, licensedv1.NodeRole_NODE_ROLE_NODE) {
		v.Commands = number(n.CommandsPerSecond) + "/s"
	}
	if latest != nil {
		if busy, ok := latest.Cores[clusterrates.Key(n)]; ok {
			v.Cores = fmt.Sprintf("%.2f cores", busy)
		}
	}
	if v.Memory = size(n.MemoryBytes); n.MemoryBytes == 0 {
		v.Memory = "–"
	} else if n.MemoryLimitBytes > 0 {
		v.Memory += " of " + size(n.MemoryLimitBytes)
	}
	if o := n.ClockOffset.AsDuration().Round(time.Millisecond); o != 0 {
		v.Offset = duration(o)
	}
	v.Moving, v.Epochs = movingWords(n), epochs(n.LowestEpoch, n.HighestEpoch)
	return v
}

// epochs returns the range in which epochs are.
func epochs(low, high uint64) string {
	switch {
	case high == 0:
		return "none held"
	case low == high:
		return fmt.Sprintf("epoch %d", low)
	}
	return fmt.Sprintf("epochs %d to %d", low, high)
}

// movingWords returns what moves at a node.
func movingWords(n *licensedv1.NodeStatus) string {
	var parts []string
	for _, p := range []struct {
		n    uint32
		what string
	}{{n.ShardsExpected, "expected"}, {n.ShardsClosing, "closing"}, {n.ShardsMoving, "moving"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// happeningLevels are the classes of kinds; others have none.
var happeningLevels = map[licensedv1.HappeningKind]string{
	licensedv1.HappeningKind_HAPPENING_KIND_JOINED: "good", licensedv1.HappeningKind_HAPPENING_KIND_RECOVERED: "good",
	licensedv1.HappeningKind_HAPPENING_KIND_SUSPECTED:         "warning",
	licensedv1.HappeningKind_HAPPENING_KIND_FENCED:            "warning",
	licensedv1.HappeningKind_HAPPENING_KIND_DECLARED_DEAD:     "critical",
	licensedv1.HappeningKind_HAPPENING_KIND_INCARNATION_ENDED: "critical",
	licensedv1.HappeningKind_HAPPENING_KIND_FAILED:            "critical",
	licensedv1.HappeningKind_HAPPENING_KIND_SNAPSHOT_DAMAGED:  "critical",
}

// happeningOf makes an entry of the list of what happened.
func happeningOf(h *licensedv1.Happening) happeningView {
	return happeningView{Happening: h, Kind: words(h.Kind.String(), "HAPPENING_KIND_"), Level: happeningLevels[h.Kind]}
}

// The picture of the shards: cells of this many units, in rows of this many.
const (
	mapColumns = 32
	mapCell    = 10
)

// owner of shards, and the range of their epochs while they are counted.
type owner struct {
	ownerView
	low, high uint64
}

// ownersOf returns the possible owners of shards, by incarnation.
func ownersOf(nodes []*licensedv1.NodeStatus) map[string]*owner {
	out := make(map[string]*owner)
	for i, n := range nodes {
		if n.Incarnation != "" {
			out[n.Incarnation] = &owner{ownerView: ownerView{Class: ownerClass(i), Name: n.Name}}
		}
	}
	return out
}

// mapOf draws the shards. A shard that the status does not mention is not served.
func mapOf(s *licensedv1.ClusterStatus) mapView {
	if s == nil || s.Shards == 0 {
		return mapView{}
	}
	m := mapView{
		Known:  true,
		Total:  int(s.Shards),
		Width:  mapColumns * mapCell,
		Height: (int(s.Shards) + mapColumns - 1) / mapColumns * mapCell,
	}
	byIncarnation := ownersOf(s.Nodes)
	known := make([]*licensedv1.ShardStatus, s.Shards)
	for _, shard := range s.ShardMap {
		if shard.Id < s.Shards {
			known[shard.Id] = shard
		}
	}
	for id, shard := range known {
		if shard == nil {
			shard = &licensedv1.ShardStatus{Id: uint32(id), State: licensedv1.ShardState_SHARD_STATE_ORPHANED}
		}
		o := byIncarnation[shard.Owner]
		if shard.Owner == "" { // Released: it is drawn as its successor's.
			o = byIncarnation[shard.Successor]
		}
		if o != nil && shard.State == licensedv1.ShardState_SHARD_STATE_OPEN {
			o.Shards++
			if o.low == 0 || shard.Epoch < o.low {
				o.low = shard.Epoch
			}
			o.high = max(o.high, shard.Epoch)
		}
		cell := cellView{X: id % mapColumns * mapCell, Y: id / mapColumns * mapCell}
		class, name := "owner-none", "nobody"
		if o != nil {
			class, name = o.Class, o.Name
		} else if shard.Owner != "" {
			name = "incarnation " + short(shard.Owner)
		}
		cell.Class, cell.Title = class, fmt.Sprintf("Shard %d: %s, epoch %d", id, name, shard.Epoch)
		m.addState(&cell, shard, func(incarnation string) string {
			if o := byIncarnation[incarnation]; o != nil {
				return o.Name
			}
			return "another node"
		})
		m.Cells = append(m.Cells, cell)
	}
	// Only owners of open shards are in the legend: a node without any has no colour in
	// the picture.
	for _, o := range byIncarnation {
		if o.Shards > 0 {
			o.Epochs = epochs(o.low, o.high)
			m.Owners = append(m.Owners, o.ownerView)
		}
	}
	slices.SortFunc(m.Owners, func(a, b ownerView) int { return cmp.Compare(a.Name, b.Name) })
	m.Words = m.words()
	return m
}

// addState adds the state of a shard to its cell and counts it, unless it is simply
// served. name returns the name of an incarnation.
func (m *mapView) addState(c *cellView, s *licensedv1.ShardStatus, name func(string) string) {
	switch s.State {
	case licensedv1.ShardState_SHARD_STATE_MOVING:
		m.Moving++
		c.Class += " moving"
		c.Title += ", moving to " + name(s.Successor)
	case licensedv1.ShardState_SHARD_STATE_ORPHANED:
		m.Orphaned++
		c.Class = "orphaned"
		c.Title += ", not served"
	case licensedv1.ShardState_SHARD_STATE_UNCONFIRMED:
		m.Unconfirmed++
		c.Class = "unconfirmed"
		c.Title += ", whose owner does not answer"
	}
}

// words returns in text what the picture shows, for readers who do not see it.
func (m *mapView) words() string {
	var parts []string
	for _, o := range m.Owners {
		parts = append(parts, fmt.Sprintf("%s has %d", o.Name, o.Shards))
	}
	if m.Moving > 0 {
		parts = append(parts, fmt.Sprintf("%d %s moving", m.Moving, is(m.Moving)))
	}
	if m.Orphaned > 0 {
		parts = append(parts, fmt.Sprintf("%d %s not served", m.Orphaned, is(m.Orphaned)))
	}
	if m.Unconfirmed > 0 {
		parts = append(parts, fmt.Sprintf("%d %s not confirmed", m.Unconfirmed, is(m.Unconfirmed)))
	}
	return fmt.Sprintf("%d shards: %s.", m.Total, strings.Join(parts, ", "))
}

// is returns the verb for a number.
func is(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
