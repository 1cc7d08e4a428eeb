package cassandrabench

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/gocql/gocql"

	"licensed/persistence"
	"licensed/persistence/cassandra"
)

// Workload is what is written: one event per command, customers in turn.
type Workload struct {
	Customers     int
	EventBytes    int
	SnapshotEvery int // events of a customer between two roots; 0 for none
	SnapshotBytes int
}

// DefaultWorkload returns 10,000 customers with events of 120 bytes and a root with every 100.
func DefaultWorkload() Workload {
	return Workload{Customers: 10_000, EventBytes: 120, SnapshotEvery: 100, SnapshotBytes: 2000}
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
	now := persistence.NewIncarnation()
	for i := range c.all {
		c.all[i].root = persistence.Root{
			Key:         persistence.RootKey{Aggregate: fmt.Sprintf("customer-%d-%d:LicenseAggregate", run, i), Epoch: 1, Version: 1},
			Incarnation: now, Time: time.Now(), Mapper: "LicenseSnapshot/1", Snapshot: noise(w.SnapshotBytes),
		}
		// As if each were somewhere between two snapshots.
		if w.SnapshotEvery > 0 {
			c.all[i].sequence = uint64(i % w.SnapshotEvery)
			c.all[i].root.Base = 0
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
	now := time.Now()
	return persistence.Record{
		Sequence: c.sequence, Count: 1, CommandID: commandID(), Fingerprint: rand.Uint64(), IssuedAt: now,
		AggregateID: "iphone/GlowS01E01", Order: c.sequence, Time: now, Mapper: "LicenseAcquired/1",
		Header: persistence.Header{PolicyVersion: "2025-10-27"}, Data: noise(w.EventBytes),
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

func commandID() string { return gocql.UUID(persistence.NewIncarnation()).String() }

// Store returns a contender that appends through a store, with the roots.
func Store(name string, s persistence.Store, w Workload, inFlight int) Contender {
	cs := w.customers(inFlight)
	outcomes := make([]chan error, inFlight)
	for i := range outcomes {
		outcomes[i] = make(chan error, 1)
	}
	return Contender{Name: name, InFlight: inFlight, Do: func(ctx context.Context, worker int) error {
		c := cs.next(worker)
		done := func(err error) { outcomes[worker] <- err }
		if w.SnapshotEvery > 0 && c.sequence-c.root.Base >= uint64(w.SnapshotEvery) {
			c.root.Parent, c.root.ParentIncarnation = c.root.Key, c.root.Incarnation
			c.root.Key.Version++
			c.root.Base = c.sequence
			s.PutRoot(ctx, &c.root, done)
			if err := <-outcomes[worker]; err != nil {
				return err
			}
		}
		m := persistence.Mutation{Partition: c.root.Partition(), Records: []persistence.Record{c.record(w)}}
		s.Append(ctx, &m, done)
		return <-outcomes[worker]
	}}
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

const columns = `(row_id, epoch, incarnation, sequence, aggregate_id, command_id, event_time, event_mapper, event_data) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`

// Raw returns a contender that inserts the same rows with prepared statements and nothing else.
func (d *Driver) Raw(w Workload, inFlight int) Contender {
	c := d.inserts(`INSERT INTO events `+columns, w, inFlight)
	c.Name = fmt.Sprintf("raw inserts, %d in flight", inFlight)
	return c
}

// CompareAndSet returns a contender that inserts each row on the condition that it is not there.
func (d *Driver) CompareAndSet(w Workload, inFlight int) (Contender, error) {
	if err := d.session.Query(`CREATE TABLE IF NOT EXISTS bench_conditional (row_id text, epoch bigint, incarnation uuid, sequence bigint,
		aggregate_id text, command_id text, event_time timestamp, event_mapper text, event_data blob,
		PRIMARY KEY ((row_id, epoch, incarnation), sequence))`).Exec(); err != nil {
		return Contender{}, err
	}
	c := d.inserts(`INSERT INTO bench_conditional `+columns+` IF NOT EXISTS`, w, inFlight)
	c.Name = fmt.Sprintf("compare-and-set, %d in flight", inFlight)
	return c, nil
}

// Wake returns a contender that does what the waking of a customer asks of a store, one customer after
// the other: the top root, its events (there are none), a new root.
func Wake(name string, s persistence.Store, w Workload, inFlight int) Contender {
	cs := w.customers(inFlight)
	outcomes := make([]chan error, inFlight)
	for i := range outcomes {
		outcomes[i] = make(chan error, 1)
	}
	return Contender{Name: name, InFlight: inFlight, Do: func(ctx context.Context, worker int) error {
		c := cs.next(worker)
		if c.root.Key.Version > 1 { // else nobody slept here yet
			r, err := s.TopRoot(ctx, c.root.Key.Aggregate)
			if err != nil {
				return err
			}
			if _, err := s.ReadRecords(ctx, r.Partition(), r.Base, 1000); err != nil {
				return err
			}
		}
		c.root.Key.Version++
		s.PutRoot(ctx, &c.root, func(err error) { outcomes[worker] <- err })
		return <-outcomes[worker]
	}}
}

// RawWake returns a contender that has the driver read and write the same rows.
func (d *Driver) RawWake(w Workload, inFlight int) Contender {
	cs := w.customers(inFlight)
	const rootColumns = `epoch, version, incarnation, base, parent_epoch, parent_version, parent_incarnation, root_time,
		archived_through, checksum, snapshot_mapper, snapshot_data`
	const root = `SELECT ` + rootColumns + ` FROM snapshots WHERE aggregate = ? LIMIT 1`
	const events = `SELECT sequence, aggregate_id, command_id, event_time, event_mapper, event_data FROM events
		WHERE row_id = ? AND epoch = ? AND incarnation = ? AND sequence > ? LIMIT 1000`
	const insert = `INSERT INTO snapshots (aggregate, ` + rootColumns + `) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	return Contender{Name: fmt.Sprintf("raw two reads, one insert, %d in flight", inFlight), InFlight: inFlight, Do: func(_ context.Context, worker int) error {
		c := cs.next(worker)
		var epoch, version, base, parentEpoch, parentVersion, rootTime, archived int64
		var incarnation, parentIncarnation gocql.UUID
		var checksum int32
		var mapper string
		var snapshot []byte
		if c.root.Key.Version > 1 {
			if err := d.session.Query(root, c.root.Key.Aggregate).Scan(&epoch, &version, &incarnation, &base, &parentEpoch, &parentVersion,
				&parentIncarnation, &rootTime, &archived, &checksum, &mapper, &snapshot); err != nil {
				return err
			}
			if err := d.session.Query(events, c.root.Key.RowID(), epoch, incarnation, base).Exec(); err != nil {
				return err
			}
		}
		c.root.Key.Version++
		return d.session.Query(insert, c.root.Key.Aggregate, int64(1), int64(c.root.Key.Version), gocql.UUID(c.root.Incarnation), base,
			parentEpoch, parentVersion, parentIncarnation, c.root.Time.UnixMilli(), archived, checksum, c.root.Mapper, c.root.Snapshot).Exec()
	}}
}

// storeOverhead is what event_data has beside the event of this workload.
const storeOverhead = 36

func (d *Driver) inserts(statement string, w Workload, inFlight int) Contender {
	// What a store adds to the event (its place, times, checksums) counts as the event's bytes.
	w.EventBytes += storeOverhead
	cs := w.customers(inFlight)
	return Contender{InFlight: inFlight, Do: func(ctx context.Context, worker int) error {
		c := cs.next(worker)
		r := c.record(w)
		q := d.session.Query(statement, c.root.Key.RowID(), int64(1), gocql.UUID(c.root.Incarnation), int64(r.Sequence),
			r.AggregateID, r.CommandID, r.Time.UnixMilli(), r.Mapper, r.Data)
		err := q.Exec()
		q.Release()
		return err
	}}
}

// Sweep returns the driver and concurrency with the most raw inserts per second, and that figure. It
// calls report with each.
func (m *Meter) Sweep(ctx context.Context, o cassandra.Options, w Workload, turn time.Duration, report func(d *Driver, inFlight int, m Measure)) (best *Driver, inFlight int, err error) {
	var most float64
	for _, connections := range []int{1, 2, 4} {
		for _, coalesce := range []time.Duration{0, 200 * time.Microsecond} {
			d, err := OpenDriver(o, connections, coalesce)
			if err != nil {
				return nil, 0, err
			}
			keep := false
			for _, n := range []int{64, 256, 1024} {
				one, err := m.Drive(ctx, d.Raw(w, n), turn)
				if err != nil {
					return nil, 0, err
				}
				report(d, n, one)
				if one.PerSecond > most {
					if best != nil && best != d {
						best.Close()
					}
					most, best, inFlight, keep = one.PerSecond, d, n, true
				}
			}
			if !keep {
				d.Close()
			}
		}
	}
	return best, inFlight, nil
}
