//go:build long

// Tests that take minutes: three Cassandra nodes, and nodes that die. Run them with
//
//	go test -tags long -run Long -timeout 30m ./persistence/cassandra
package cassandra_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/persistence/persistencetest"
)

// threeNodes starts a cluster and returns it with a keyspace that has a copy on each node.
func threeNodes(t *testing.T) (*cassandratest.Cluster, cassandra.Options) {
	t.Helper()
	c := cassandratest.Start(t, cassandratest.Config{Nodes: 3, Env: []string{"HEAP=512M", "SYNC=group"}})
	o := impatient(cassandratest.Keyspace(t, c.Options(), 3))
	o.AcceptRisks = nil
	return c, o
}

// impatient returns the options with the timeouts that operators get.
func impatient(o cassandra.Options) cassandra.Options {
	d := cassandra.DefaultOptions()
	o.Timeout, o.ConnectTimeout = d.Timeout, d.ConnectTimeout
	return o
}

func TestLongConformanceOfThreeNodes(t *testing.T) {
	c := cassandratest.Start(t, cassandratest.Config{Nodes: 3, Env: []string{"HEAP=512M", "SYNC=group", "TIMEOUT=20s"}})
	o := cassandratest.Keyspace(t, c.Options(), 3)
	o.AcceptRisks = nil
	s := open(t, o)
	for _, r := range s.Risks() {
		t.Errorf("risk of three copies: %v", r)
	}
	persistencetest.Run(t, driver(t, o))
}

// load appends to many aggregates, one mutation after the other each, repeating the identical write
// while its outcome is unknown, as the runtime does.
type load struct {
	store   *cassandra.Store
	writers []writer
	acked   atomic.Int64
	unknown atomic.Int64
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	t       *testing.T
}

type writer struct {
	partition persistence.Partition
	acked     uint64
}

func startLoad(t *testing.T, s *cassandra.Store, name string, writers int) *load {
	l := &load{store: s, writers: make([]writer, writers), stop: make(chan struct{}), t: t}
	t.Cleanup(l.halt) // before the store is closed, also when the test fails
	for i := range l.writers {
		w := &l.writers[i]
		w.partition = persistence.Partition{
			RootKey: persistence.RootKey{
				Aggregate: fmt.Sprintf("%s-%d:LicenseAggregate", name, i), Epoch: 1, Version: 1,
			},
			Incarnation: persistence.Incarnation{1},
		}
		l.wg.Go(func() { l.run(w) })
	}
	return l
}

func (l *load) record(w *writer, sequence uint64) persistence.Record {
	return persistence.Record{
		Sequence: sequence, Count: 1, CommandID: fmt.Sprint("c", sequence), Fingerprint: sequence,
		IssuedAt:    time.UnixMilli(int64(sequence)).UTC(),
		AggregateID: "iphone/GlowS01E01",
		Time:        time.UnixMilli(int64(sequence)).UTC(),
		Mapper:      "TestEvent/1", Data: []byte(w.partition.Aggregate),
	}
}

func (l *load) run(w *writer) {
	for {
		m := &persistence.Mutation{Partition: w.partition, Records: []persistence.Record{l.record(w, w.acked+1)}}
		if err := l.append(m); err != nil {
			if !errors.Is(err, persistence.ErrUnknownOutcome) {
				l.t.Errorf("append to %v: %v, want ErrUnknownOutcome", w.partition, err)
			}
			l.unknown.Add(1)
			time.Sleep(20 * time.Millisecond)
		} else {
			w.acked++
			l.acked.Add(1)
		}
		select {
		case <-l.stop:
			return
		default:
		}
	}
}

func (l *load) append(m *persistence.Mutation) error {
	done := make(chan error, 1)
	l.store.Append(context.Background(), m, func(err error) { done <- err })
	return <-done
}

// await waits until this many more appends were acknowledged.
func (l *load) await(what string, more int64) {
	l.t.Helper()
	start, target := time.Now(), l.acked.Load()+more
	for l.acked.Load() < target {
		if time.Since(start) > 3*time.Minute {
			l.t.Fatalf("%s: %d of %d appends acknowledged in %v",
				what, more-(target-l.acked.Load()), more, time.Since(start))
		}
		time.Sleep(10 * time.Millisecond)
	}
	l.t.Logf("%s: %d appends in %v, %d unknown outcomes so far",
		what, more, time.Since(start).Round(time.Millisecond), l.unknown.Load())
}

func (l *load) signal() { l.once.Do(func() { close(l.stop) }) }

func (l *load) halt() {
	l.signal()
	l.wg.Wait()
}

// finish stops the load and sees that all that was acknowledged is present, as it was written.
func (l *load) finish() {
	l.t.Helper()
	l.halt()
	for i := range l.writers {
		w := &l.writers[i]
		var sequence uint64
		for more := true; more; {
			got, err := l.store.ReadRecords(context.Background(), w.partition, sequence, 500)
			if err != nil {
				l.t.Fatalf("records of %v: %v", w.partition, err)
			}
			for _, r := range got {
				sequence++
				if want := l.record(w, sequence); !reflect.DeepEqual(r, want) {
					l.t.Fatalf("%v: got %+v, want %+v", w.partition, r, want)
				}
			}
			more = len(got) == 500
		}
		if sequence < w.acked || sequence > w.acked+1 {
			l.t.Errorf("%v: acknowledged up to %d, there up to %d", w.partition, w.acked, sequence)
		}
	}
}

// TestLongOneOfThreeFails: with one of three nodes killed or stalled, what was acknowledged stays, and
// after the timeout work continues.
func TestLongOneOfThreeFails(t *testing.T) {
	c, o := threeNodes(t)
	s := open(t, o)
	l := startLoad(t, s, "customer", 64)
	l.await("warm", 20_000)
	ownership(t, s, "before", 1)
	for _, node := range []string{"2", "1"} {
		c.Do(t, "kill", node)
		l.await("killed "+node, 10_000)
		ownership(t, s, "without "+node, 1+len(node))
		c.Do(t, "start", node)
		l.await("started "+node, 10_000)
	}
	c.Do(t, "pause", "3")
	l.await("paused 3", 10_000)
	ownership(t, s, "while 3 is paused", 3)
	c.Do(t, "resume", "3")
	l.await("resumed 3", 10_000)
	l.finish()
}

var shardEpoch atomic.Uint64

// ownership takes a shard, resolving unknown outcomes as the protocol says: by reading.
func ownership(t *testing.T, s *cassandra.Store, when string, id int) {
	t.Helper()
	ctx := t.Context()
	start := time.Now()
	var old persistence.Shard
	for {
		got, err := s.Shard(ctx, uint32(id))
		if err == nil {
			old = got
		} else if !errors.Is(err, persistence.ErrNotFound) {
			t.Logf("%s: read shard: %v", when, err)
			continue
		}
		next := persistence.Shard{
			ID: uint32(id), Epoch: old.Epoch + 1, Owner: persistence.Incarnation{9, byte(shardEpoch.Add(1))},
		}
		applied, now, err := s.CompareAndSetShard(ctx, old, next)
		if errors.Is(err, persistence.ErrUnknownOutcome) {
			t.Logf("%s: take shard: %v", when, err)
			continue
		}
		if err != nil || !applied && now == old {
			t.Fatalf("%s: take shard: %v, %+v, %v", when, applied, now, err)
		}
		if applied {
			break
		}
	}
	t.Logf("%s: shard taken in %v", when, time.Since(start).Round(time.Millisecond))
}

// TestLongOnlyNodeFails: errors are clear while the only node is unavailable, and work continues by itself when
// it is back. With commitlog_sync periodic a killed node forgets what it acknowledged last (so there it
// is stopped in order); with batch and group it does not.
func TestLongOnlyNodeFails(t *testing.T) {
	for _, sync := range []string{"periodic", "batch", "group"} {
		t.Run(sync, func(t *testing.T) {
			c := cassandratest.Start(t, cassandratest.Config{Env: []string{"SYNC=" + sync}})
			s := open(t, impatient(cassandratest.Keyspace(t, c.Options(), 1)))
			for _, r := range s.Risks() {
				if (r.Name == cassandra.RiskCommitLog) != (sync == "periodic") && r.Name != cassandra.RiskReplication1 {
					t.Errorf("risk with commitlog_sync %s: %v", sync, r)
				}
			}
			l := startLoad(t, s, "customer", 64)
			l.await("warm", 10_000)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if sync == "periodic" {
				c.Do(t, "stop", "1")
			} else {
				c.Do(t, "kill", "1")
			}
			_, err := s.TopRoot(ctx, "nobody")
			wantUnavailable(t, "killed", err)
			_, err = s.Shards(ctx)
			wantUnavailable(t, "killed", err)
			c.Do(t, "start", "1")
			l.await("started", 10_000)
			c.Do(t, "pause", "1")
			_, err = s.TopRoot(ctx, "nobody")
			wantUnavailable(t, "paused", err)
			c.Do(t, "resume", "1")
			l.await("resumed", 10_000)
			ownership(t, s, "in the end", 1)
			l.finish()
		})
	}
}

func wantUnavailable(t *testing.T, when string, err error) {
	t.Helper()
	if !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("%s: read: %v, want ErrUnavailable", when, err)
	}
	t.Logf("%s: %v", when, err)
}

// TestLongOpenWhileAway: what Open says when nodes are present but do not answer.
func TestLongOpenWhileAway(t *testing.T) {
	c := cassandratest.Start(t, cassandratest.Config{})
	o := impatient(cassandratest.Keyspace(t, c.Options(), 1))
	c.Do(t, "pause", "1")
	start := time.Now()
	wantOpenError(t, o, persistence.ErrUnavailable, strings.Join(o.Hosts, ","))
	if took := time.Since(start); took > 4*o.ConnectTimeout {
		t.Errorf("it took %v to notice", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cassandra.Open(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled open: %v", err)
	}
	c.Do(t, "resume", "1")
	open(t, o)
}

// TestLongCloseWhileAway: a node that stops while Cassandra is stalled does not hang.
func TestLongCloseWhileAway(t *testing.T) {
	c := cassandratest.Start(t, cassandratest.Config{})
	o := impatient(cassandratest.Keyspace(t, c.Options(), 1))
	s, err := cassandra.Open(t.Context(), o)
	check(t, err)
	l := startLoad(t, s, "customer", 64)
	l.await("warm", 1000)
	c.Do(t, "pause", "1")
	for l.unknown.Load() == 0 {
		time.Sleep(10 * time.Millisecond)
	}
	l.signal()
	start := time.Now()
	check(t, s.Close())
	t.Logf("closed in %v", time.Since(start).Round(time.Millisecond))
	c.Do(t, "resume", "1")
}

// TestLongTLS connects to a node that takes nothing else, with trust and without.
func TestLongTLS(t *testing.T) {
	c := cassandratest.Start(t, cassandratest.Config{TLS: true, Password: true})
	o := cassandratest.Keyspace(t, c.Options(), 1)
	s := open(t, o)
	check(t, appendOne(t, s, []byte("x")))
	for name, change := range map[string]func(*cassandra.Options){
		"no TLS":   func(o *cassandra.Options) { o.TLS = nil },
		"no trust": func(o *cassandra.Options) { o.TLS = func() *tls.Config { return &tls.Config{} } },
	} {
		o := o
		change(&o)
		s, err := cassandra.Open(t.Context(), o)
		if err == nil {
			t.Errorf("%s: it opens", name)
			_ = s.Close()
		}
		t.Logf("%s: %v", name, err)
	}
}

// TestLongFullCommitLogDisk: Cassandra stops, or dies, when its commit log finds no space. That is an
// outage like any other: nothing that was acknowledged is lost, and work continues when there is space.
func TestLongFullCommitLogDisk(t *testing.T) {
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Fatalf("this test mounts a small disk, which takes root: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	c := cassandratest.Start(t, cassandratest.Config{Env: []string{"SYNC=batch", "COMMITLOG=" + disk}})
	s := open(t, impatient(cassandratest.Keyspace(t, c.Options(), 1)))
	l := startLoad(t, s, "customer", 64)
	l.await("warm", 5_000)
	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	for before := l.unknown.Load(); l.unknown.Load() < before+1000; {
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("the disk is full: %d appends acknowledged, %d unknown", l.acked.Load(), l.unknown.Load())
	check(t, os.Remove(ballast))
	status := c.Do(t, "status") // it may have stopped serving only, or died of the pages it could not write
	t.Log(strings.TrimSpace(status))
	if !strings.Contains(status, " down ") {
		c.Do(t, "stop", "1")
	}
	c.Do(t, "start", "1")
	l.await("space again", 5_000)
	l.finish()
}

// fill writes until the disk is full, and whatever is freed meanwhile.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	check(t, err)
	defer f.Close()
	for block := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
