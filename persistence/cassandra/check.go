package cassandra

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
)

// Risk is something about the keyspace or the Cassandra cluster that endangers the
// promise that an acknowledged event is never lost, or the service. The promise rests on
// what an operator can undo with one statement, so it is checked at each start rather
// than assumed.
type Risk struct {
	// Name to accept it by, in Options.AcceptRisks.
	Name string
	// Severe risks make Open fail unless they are accepted.
	Severe bool
	// Detail says what was found and what follows from it.
	Detail string
}

// String returns name and detail.
func (r Risk) String() string { return r.Name + ": " + r.Detail }

// The names of risks. docs/guide/cassandra.md tells what to do about each.
const (
	RiskReplication1  = "replication-1"      // severe: one copy of everything
	RiskReplication2  = "replication-2"      // no node may be down
	RiskNoReplicas    = "no-replicas"        // severe: the data centre that is used has none
	RiskDataCenter    = "data-center-unset"  // severe: LOCAL levels, several data centres, none named
	RiskSimple        = "simple-strategy"    // severe: LOCAL levels need NetworkTopologyStrategy
	RiskSerial        = "serial-consistency" // severe: the cluster was created with other levels
	RiskReadRepair    = "read-repair"        // severe: reads are not monotonic
	RiskTimeToLive    = "time-to-live"       // severe: rows would expire
	RiskCommitLog     = "commitlog-periodic" // a replica that crashes forgets what it acknowledged last
	RiskPaxosVariant  = "paxos-v1"           // compare-and-set is unsafe when nodes come and go
	RiskMutationLimit = "mutation-limit"     // Cassandra's limit is below Options.MaxMutationBytes
	RiskClock         = "clock-skew"         // event times and deletions follow clocks
	RiskUnchecked     = "unchecked"          // settings could not be read
)

// maxSkew is the difference between clocks that is reported, beyond what the question took.
const maxSkew = time.Second

// Cassandra's defaults of what it warns about, for when its settings cannot be read.
const (
	defaultBatchBytes      = 5 << 10
	defaultBatchPartitions = 10
)

// findings is what inspect found. It is plain data, so that the tests of [findings.risks]
// need no Cassandra.
type findings struct {
	dataCenters []string // of all nodes
	// Empty with a level that uses all data centres and none configured.
	dataCenter string // the one that is used
	// The last part of the class: "NetworkTopologyStrategy".
	strategy string
	replicas int // of each partition among the nodes that are asked
	// By name.
	tables map[string]tableOptions
	// Zero if the cluster was not created yet, or for an archive.
	cluster clusterRow
	// Why the settings of some node could not be read.
	unreadable error
	// Of the nodes that answered: the values in use, and the smallest limits, in bytes or
	// as a number. A mutation must fit at every node.
	commitLog, paxosVariant     map[string]bool
	mutationBytes               int
	batchBytes, batchPartitions int
	// The largest difference between this machine's clock and a node's, at least.
	skew time.Duration
}

// tableOptions are the properties of a table that the promise depends on.
type tableOptions struct {
	readRepair string
	timeToLive int
}

// inspect reads what the promise depends on: from one node what all share, from each node
// that answers its clock and settings. Errors: ErrUnavailable if the shared part cannot
// be read.
func inspect(ctx context.Context, s *session, o *Options, which Schema) (*findings, error) {
	f := &findings{
		tables:    make(map[string]tableOptions),
		commitLog: make(map[string]bool), paxosVariant: make(map[string]bool),
		batchBytes: defaultBatchBytes, batchPartitions: defaultBatchPartitions,
	}
	if err := f.readTopology(ctx, s, o); err != nil {
		return nil, err
	}
	if err := f.readTables(ctx, s, o.Keyspace); err != nil {
		return nil, err
	}
	// Only the schema of events has the row of the cluster; an archive may be in a
	// keyspace of its own.
	if which == HotSchema {
		var err error
		if f.cluster, err = s.readCluster(ctx); err != nil && !errors.Is(err, persistence.ErrNotFound) {
			return nil, err
		}
	}
	first := true
	// One request to each node, whatever it holds: clocks and settings are each node's
	// own.
	for _, id := range s.policy.hostIDs() {
		one := context.WithValue(ctx, onlyHost{}, id)
		if f.readClock(one, s) != nil {
			continue // down, which is no reason not to start
		}
		if err := f.readSettings(one, s, first); err != nil {
			f.unreadable = err
		}
		first = false
	}
	return f, nil
}

// readTopology reads the data centres, and the strategy and number of copies of the
// keyspace.
func (f *findings) readTopology(ctx context.Context, s *session, o *Options) error {
	dcs := make(map[string]bool)
	f.dataCenter = o.DataCenter
	// Consistency ONE: these tables are local to the node that answers, and it knows the
	// whole ring.
	iter := s.read(ctx, `SELECT data_center FROM system.peers_v2`).Consistency(gocql.One).Iter()
	var dc string
	for iter.Scan(&dc) {
		dcs[dc] = true
	}
	if err := iter.Close(); err != nil {
		return readError(err)
	}
	if err := s.read(ctx, `SELECT data_center FROM system.local`).Consistency(gocql.One).Scan(&dc); err != nil {
		return readError(err)
	}
	dcs[dc] = true
	if f.dataCenter == "" && o.Consistency == LocalQuorum {
		f.dataCenter = dc // the driver asks no node of another
	}
	f.dataCenters = slices.Sorted(maps.Keys(dcs))

	var replication map[string]string
	err := s.read(ctx, `SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?`, o.Keyspace).
		Consistency(gocql.One).Scan(&replication)
	if err != nil {
		return readError(err)
	}
	// The class has the name of its Java package in front.
	f.strategy = replication["class"][strings.LastIndexByte(replication["class"], '.')+1:]
	f.replicas = replicas(replication, f.dataCenter)
	return nil
}

// replicas returns the copies of each partition in a data centre, or in all of them.
func replicas(replication map[string]string, dataCenter string) int {
	sum := 0
	for name, value := range replication {
		full, _, _ := strings.Cut(value, "/") // "3/1" is three replicas, one of them transient
		n, err := strconv.Atoi(full)
		if err == nil && (name == "replication_factor" || dataCenter == "" || name == dataCenter) {
			sum += n
		}
	}
	return sum
}

// readTables reads the properties of all tables of the keyspace, also those of other
// schemas in it.
func (f *findings) readTables(ctx context.Context, s *session, keyspace string) error {
	iter := s.read(
		ctx,
		`SELECT table_name, read_repair, default_time_to_live FROM system_schema.tables WHERE keyspace_name = ?`,
		keyspace,
	).
		Consistency(gocql.One).Iter()
	var name string
	var t tableOptions
	for iter.Scan(&name, &t.readRepair, &t.timeToLive) {
		f.tables[name] = t
	}
	if err := iter.Close(); err != nil {
		return readError(err)
	}
	return nil
}

// readClock asks a node for its time. It fails if the node does not answer.
func (f *findings) readClock(ctx context.Context, s *session) error {
	var theirs time.Time
	before := time.Now()
	err := s.Query(`SELECT toTimestamp(now()) FROM system.local`).WithContext(ctx).Consistency(gocql.One).Scan(&theirs)
	if err != nil {
		return err
	}
	after := time.Now()
	// theirs was read between before and after, and cut off to milliseconds. Whatever
	// moment it was, the difference is at least this.
	skew := max(before.Sub(theirs)-time.Millisecond, theirs.Sub(after))
	f.skew = max(f.skew, skew)
	return nil
}

// readSettings reads a node's cassandra.yaml as it is in force. The first node sets the
// limits, which begin with Cassandra's defaults; each further one can only lower them.
func (f *findings) readSettings(ctx context.Context, s *session, first bool) error {
	settings := make(map[string]string)
	iter := s.Query(`SELECT name, value FROM system_views.settings`).WithContext(ctx).Consistency(gocql.One).
		PageSize(5000).Iter()
	var name, value string
	for iter.Scan(&name, &value) {
		settings[name] = value
	}
	if err := iter.Close(); err != nil {
		return err
	}
	f.commitLog[settings["commitlog_sync"]] = true
	f.paxosVariant[settings["paxos_variant"]] = true
	least := func(have *int, name string) {
		// The least of all nodes counts: any of them may be the coordinator of a batch.
		if n, ok := parseSize(settings[name]); ok && (first || n < *have) {
			*have = n
		}
	}
	least(&f.mutationBytes, "max_mutation_size")
	least(&f.batchBytes, "batch_size_warn_threshold")
	least(&f.batchPartitions, "unlogged_batch_across_partitions_warn_threshold")
	return nil
}

// parseSize reads "5KiB", "16MiB" or a plain number.
func parseSize(s string) (int, bool) {
	unit := 1
	for suffix, size := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if number, ok := strings.CutSuffix(s, suffix); ok {
			s, unit = number, size
			break
		}
	}
	n, err := strconv.Atoi(strings.TrimSuffix(s, "B"))
	return n * unit, err == nil && n >= 0
}

// risks returns what the findings mean, in a fixed order. The texts name the finding and
// its consequence, since they are what an operator reads in the log or in the error of a
// start.
func (f *findings) risks(o *Options) []Risk {
	var found []Risk
	// add appends a risk if its condition holds, so that the conditions below read as a
	// list.
	add := func(wrong, severe bool, name, format string, args ...any) {
		if wrong {
			found = append(found, Risk{Name: name, Severe: severe, Detail: fmt.Sprintf(format, args...)})
		}
	}
	local := o.Consistency == LocalQuorum
	where := "the cluster"
	if f.dataCenter != "" {
		where = "data centre " + f.dataCenter
	}
	add(f.replicas == 0, true, RiskNoReplicas, "keyspace %s has no replicas in %s: every read and write will fail",
		o.Keyspace, where)
	add(f.replicas == 1, true, RiskReplication1, "keyspace %s has one copy in %s: a lost disk loses acknowledged "+
		"events, and a node that is down stops its customers", o.Keyspace, where)
	add(f.replicas == 2, false, RiskReplication2, "keyspace %s has two copies in %s: a quorum is both, "+
		"so a node that is down stops its customers", o.Keyspace, where)
	several := len(f.dataCenters) > 1
	add(local && several && o.DataCenter == "", true, RiskDataCenter,
		"Cassandra has the data centres %s and this node is told none: with %s all nodes must name the same",
		strings.Join(f.dataCenters, ", "), o.Consistency)
	add(local && several && f.strategy == "SimpleStrategy", true, RiskSimple,
		"keyspace %s is replicated by SimpleStrategy, which knows no data centres: %s needs NetworkTopologyStrategy",
		o.Keyspace, o.Consistency)
	f.addTableRisks(add)
	f.addClusterRisks(o, add)
	add(f.commitLog["periodic"], false, RiskCommitLog,
		"commitlog_sync is periodic: a Cassandra process that is killed forgets what it acknowledged in its last "+
			"100 ms, and one whose machine loses power what it did since its last sync; "+
			"with batch or group neither does")
	add(f.paxosVariant["v1"], false, RiskPaxosVariant,
		"paxos_variant is v1: ownership of shards is not safe while nodes join, leave or are replaced; "+
			"set v2 on every node")
	// Beside the data, a mutation has keys, ids and what Cassandra adds to each cell: an
	// eighth is allowed for.
	add(f.mutationBytes > 0 && f.mutationBytes <= o.MaxMutationBytes+o.MaxMutationBytes/8, true, RiskMutationLimit,
		"max_mutation_size is %d: mutations up to max-mutation-bytes (%d) with their keys do not fit", f.mutationBytes,
		o.MaxMutationBytes)
	add(f.skew > maxSkew, false, RiskClock, "the clocks of this machine and of a Cassandra node differ by %v or more",
		f.skew.Round(time.Millisecond))
	add(f.unreadable != nil, false, RiskUnchecked, "commitlog_sync, paxos_variant and limits could not be checked: %v",
		f.unreadable)
	return found
}

// monotonicTables are those with plain writes: what one read of them saw, later ones must see.
var monotonicTables = []string{"events", "snapshots", "segment_names", "segment_chunks"}

// addRisk adds a risk if it is wrong.
type addRisk func(wrong, severe bool, name, format string, args ...any)

// addTableRisks finds tables whose properties break what [persistence.Journal] promises.
// Tables of others in the keyspace are included for the time to live: they may be ours
// under another name.
func (f *findings) addTableRisks(add addRisk) {
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		t := f.tables[name]
		journal := slices.Contains(monotonicTables, name)
		add(journal && !strings.EqualFold(t.readRepair, "BLOCKING"), true, RiskReadRepair,
			"table %s has read_repair %s: an activation may see a write that the next one does not; "+
				"it must be BLOCKING", name, t.readRepair)
		add(t.timeToLive != 0, true, RiskTimeToLive, "table %s has default_time_to_live %d: its rows would expire",
			name, t.timeToLive)
	}
}

// addClusterRisks compares the levels with those that the cluster was created with: the
// first node recorded its own.
func (f *findings) addClusterRisks(o *Options, add addRisk) {
	if f.cluster.Shards == 0 {
		return // not created yet
	}
	// The serial consistency decides which nodes take part in Paxos. Two nodes with
	// different ones could both win.
	serial := o.levels().serial.String()
	add(f.cluster.serial != serial, true, RiskSerial,
		"the cluster was created with %s and this node would use %s (consistency %s): "+
			"the two do not exclude each other", f.cluster.serial, serial, o.Consistency)
	add(f.cluster.dataCenter != "" && f.cluster.serial == serial && f.cluster.dataCenter != f.dataCenter, true,
		RiskSerial,
		"the cluster was created in data centre %s and this node would use %s: LOCAL levels in two do not exclude "+
			"each other", f.cluster.dataCenter, f.dataCenter)
}

// judge returns ErrUnsafe for the severe risks that are not accepted. The opener of the keyspace tells of the others,
// once for all that it opens.
func judge(risks []Risk, o *Options) error {
	var errs []error
	for _, r := range risks {
		accepted := slices.Contains(o.AcceptRisks, r.Name) || slices.Contains(o.AcceptRisks, "all")
		if r.Severe && !accepted {
			errs = append(errs, fmt.Errorf("%w: %s (accept it by the name %s)", ErrUnsafe, r.Detail, r.Name))
		}
	}
	return errors.Join(errs...)
}
