// Package cassandrabench writes to Cassandra with the driver alone, what a store writes there and as plainly as can
// be: the raw limit that benchmarks hold the store against, and the compare-and-set that it does without.
package cassandrabench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
	"licensed/persistence/cassandra"
)

// Operation does one operation; worker is below the number in flight and never used twice at once.
type Operation func(ctx context.Context, worker int) error

// Workload is what is written: one event per command, customers in turn.
type Workload struct {
	Customers     int
	EventBytes    int
	SnapshotBytes int // of the roots that Wake writes
}

// DefaultWorkload returns 10,000 customers with events of 120 bytes.
func DefaultWorkload() Workload {
	return Workload{Customers: 10_000, EventBytes: 120, SnapshotBytes: 2000}
}

// customer is written by one worker at a time.
type customer struct {
	root     persistence.Root
	sequence uint64
}

// customers hands a worker its customers in turn.
type customers struct {
	workload Workload
	all      []customer
	turns    []int // by worker
}

var runs atomic.Uint64

func (w Workload) customers(inFlight int) *customers {
	run := runs.Add(1)
	c := &customers{workload: w, all: make([]customer, w.Customers), turns: make([]int, inFlight)}
	now, snapshot := persistence.NewIncarnation(), noise(w.SnapshotBytes)
	for i := range c.all {
		c.all[i].root = persistence.Root{
			Key: persistence.RootKey{
				Aggregate: fmt.Sprintf("customer-%d-%d:Ledger", run, i), Epoch: 1, Version: 1,
			},
			Incarnation: now, Time: time.Now(), Mapper: "LicenseSnapshot/1", Snapshot: snapshot,
		}
	}
	return c
}

// next returns a worker's next customer.
func (c *customers) next(worker int) *customer {
	i := worker + c.turns[worker]*len(c.turns)
	if i >= len(c.all) {
		i, c.turns[worker] = worker, 0
	}
	c.turns[worker]++
	return &c.all[i%len(c.all)]
}

func (c *customer) record(w Workload) persistence.Record {
	c.sequence++
	return persistence.Record{
		Sequence: c.sequence, CommandID: strconv.FormatUint(rand.Uint64(), 36), AggregateID: "ledger",
		Time: time.Now(), Mapper: "Added/1", Data: noise(w.EventBytes),
	}
}

// noise is bytes that do not compress; real ones do a little.
func noise(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, rand.Uint64())
	}
	return b[:n]
}

// Driver is sessions of the driver alone on a store's keyspace.
type Driver struct {
	Connections int
	Coalesce    time.Duration
	session     *gocql.Session
}

// OpenDriver connects to the keyspace of the options.
func OpenDriver(o cassandra.Options, connections int, coalesce time.Duration) (*Driver, error) {
	cfg := gocql.NewCluster(o.Hosts...)
	cfg.Keyspace = o.Keyspace
	if o.Username != "" {
		cfg.Authenticator = gocql.PasswordAuthenticator{Username: o.Username, Password: o.Password}
	}
	cfg.ProtoVersion = 4
	cfg.NumConns = connections
	cfg.Consistency = gocql.LocalQuorum
	cfg.SerialConsistency = gocql.LocalSerial
	cfg.Timeout = 20 * time.Second
	cfg.WriteCoalesceWaitTime = coalesce
	cfg.PoolConfig.HostSelectionPolicy = gocql.TokenAwareHostPolicy(gocql.RoundRobinHostPolicy())
	s, err := cfg.CreateSession()
	if err != nil {
		return nil, err
	}
	return &Driver{Connections: connections, Coalesce: coalesce, session: s}, nil
}

// Close closes the sessions.
func (d *Driver) Close() { d.session.Close() }

const columns = `(row_id, epoch, incarnation, sequence, aggregate_id, command_id, event_time, event_mapper, event_data)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

// Insert returns an operation that inserts the rows of a store with prepared statements and nothing else.
func (d *Driver) Insert(w Workload, inFlight int) Operation {
	return d.inserts(`INSERT INTO events `+columns, w, inFlight)
}

// CompareAndSet returns an operation that inserts each row on the condition that it is missing.
func (d *Driver) CompareAndSet(w Workload, inFlight int) (Operation, error) {
	if err := d.session.Query(`CREATE TABLE IF NOT EXISTS bench_conditional (
		row_id text, epoch bigint, incarnation uuid, sequence bigint, aggregate_id text, command_id text, event_time timestamp, event_mapper text, event_data blob,
		PRIMARY KEY ((row_id, epoch, incarnation), sequence))`).Exec(); err != nil {
		return nil, err
	}
	return d.inserts(`INSERT INTO bench_conditional `+columns+` IF NOT EXISTS`, w, inFlight), nil
}

// Wake returns an operation that has the driver do what the waking of a customer asks of a store, one customer
// after the other: the top root, its events (there are none), a new root. Who was never awake gets a first root.
func (d *Driver) Wake(w Workload, inFlight int) Operation {
	cs := w.customers(inFlight)
	const rootColumns = `epoch, version, incarnation, base, parent_epoch, parent_version, parent_incarnation, root_time,
		archived_through, checksum, snapshot_mapper, snapshot_data`
	const root = `SELECT ` + rootColumns + ` FROM snapshots WHERE aggregate = ? LIMIT 1`
	const events = `SELECT sequence, aggregate_id, command_id, event_time, event_mapper, event_data FROM events
		WHERE row_id = ? AND epoch = ? AND incarnation = ? AND sequence > ? LIMIT 1000`
	const insert = `INSERT INTO snapshots (aggregate, ` + rootColumns +
		`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	put := func(c *customer) error {
		return d.session.Query(insert, c.root.Key.Aggregate, int64(1), int64(c.root.Key.Version),
			gocql.UUID(c.root.Incarnation), int64(0),
			int64(0), int64(0), gocql.UUID{}, c.root.Time.UnixMilli(), int64(0), int32(0), c.root.Mapper,
			c.root.Snapshot).Exec()
	}
	return func(_ context.Context, worker int) error {
		c := cs.next(worker)
		if c.root.Key.Version == 1 {
			if err := put(c); err != nil {
				return err
			}
		}
		var epoch, version, base, parentEpoch, parentVersion, rootTime, archived int64
		var incarnation, parentIncarnation gocql.UUID
		var checksum int32
		var mapper string
		var snapshot []byte
		if err := d.session.Query(root, c.root.Key.Aggregate).Scan(&epoch, &version, &incarnation, &base, &parentEpoch,
			&parentVersion,
			&parentIncarnation, &rootTime, &archived, &checksum, &mapper, &snapshot); err != nil {
			return err
		}
		if err := d.session.Query(events, c.root.Key.RowID(), epoch, incarnation, base).Exec(); err != nil {
			return err
		}
		c.root.Key.Version++
		return put(c)
	}
}

// storeOverhead is what event_data has beside the event of this workload.
const storeOverhead = 26

func (d *Driver) inserts(statement string, w Workload, inFlight int) Operation {
	// What a store adds to the event (its place, times, checksums) counts as the event's bytes.
	w.EventBytes += storeOverhead
	cs := w.customers(inFlight)
	return func(_ context.Context, worker int) error {
		c := cs.next(worker)
		r := c.record(w)
		q := d.session.Query(statement, c.root.Key.RowID(), int64(1), gocql.UUID(c.root.Incarnation), int64(r.Sequence),
			r.AggregateID, r.CommandID, r.Time.UnixMilli(), r.Mapper, r.Data)
		err := q.Exec()
		q.Release()
		return err
	}
}

// Rows returns the number of rows a table of the keyspace has, by reading a column of all.
func (d *Driver) Rows(ctx context.Context, table, column string) (int, error) {
	iter := d.session.Query(`SELECT ` + column + ` FROM ` + table).WithContext(ctx).PageSize(5000).Iter()
	n := 0
	for scanner := iter.Scanner(); scanner.Next(); {
		n++
	}
	return n, iter.Close()
}
