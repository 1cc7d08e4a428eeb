package cassandra_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"licensed/persistence"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

// wantOpenError opens a store, which must fail with the error and report it in the words.
func wantOpenError(t *testing.T, o cassandra.Options, want error, words string) {
	t.Helper()
	s, err := cassandra.Open(t.Context(), o)
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), words) {
		t.Errorf("open: %v, want %v about %q", err, want, words)
	}
}

func TestNothingThere(t *testing.T) {
	o := cassandra.DefaultOptions()
	o.Hosts = []string{"127.255.255.254:1"}
	o = quiet(t, o)
	wantOpenError(t, o, persistence.ErrUnavailable, "127.255.255.254")
	if _, err := cassandra.SchemaStatus(
		t.Context(), o, cassandra.HotSchema,
	); !errors.Is(err, persistence.ErrUnavailable) {
		t.Errorf("status: %v, want ErrUnavailable", err)
	}
	o.Hosts = nil
	if _, err := cassandra.Open(t.Context(), o); err == nil {
		t.Error("invalid options open")
	}
}

func TestSchema(t *testing.T) {
	o := cassandratest.NewKeyspace(t, cassandratest.Shared(t))
	ctx := t.Context()
	wantOpenError(t, o, cassandra.ErrSchema, "keyspace "+o.Keyspace+" does not exist")
	if _, err := cassandra.ApplySchema(ctx, o, cassandra.HotSchema,
		cassandra.ApplyOptions{}); !errors.Is(err, cassandra.ErrSchema) {
		t.Errorf("apply without a keyspace: %v, want ErrSchema", err)
	}
	if err := cassandra.ExecBare(ctx, o, "CREATE KEYSPACE "+o.Keyspace+
		" WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, o, cassandra.ErrSchema, "licensed schema apply")
	state, err := cassandra.SchemaStatus(ctx, o, cassandra.HotSchema)
	if err != nil || len(state) == 0 ||
		slices.ContainsFunc(state, func(v cassandra.SchemaVersion) bool { return !v.AppliedAt.IsZero() || !v.Known }) {
		t.Errorf("status before: %+v, %v", state, err)
	}

	var applied []int
	state, err = cassandra.ApplySchema(ctx, o, cassandra.HotSchema,
		cassandra.ApplyOptions{Progress: func(v cassandra.SchemaVersion) { applied = append(applied, v.Version) }})
	if err != nil || len(applied) != len(state) {
		t.Fatalf("applied %v of %+v: %v", applied, state, err)
	}
	again, err := cassandra.SchemaStatus(ctx, o, cassandra.HotSchema)
	if err != nil || !slices.Equal(again, state) || slices.ContainsFunc(again,
		func(v cassandra.SchemaVersion) bool { return v.AppliedAt.IsZero() || v.AppliedBy == "" }) {
		t.Errorf("status after: %+v, %v", again, err)
	}
	open(t, o)

	// A program that is older than the keyspace stops, and does not touch it.
	newer := fmt.Sprintf("INSERT INTO schema_migrations (scope, version, name, checksum, applied_at, "+
		"applied_by) VALUES ('hot', %d, 'future', 'x', 1, 'me') IF NOT EXISTS", len(state)+1)
	if err := cassandra.Exec(ctx, o, newer); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, o, cassandra.ErrSchema, "newer than this program knows")
	if _, err := cassandra.ApplySchema(ctx, o, cassandra.HotSchema,
		cassandra.ApplyOptions{}); !errors.Is(err, cassandra.ErrSchema) {
		t.Errorf("apply below a newer schema: %v, want ErrSchema", err)
	}
}

func TestSchemaChanged(t *testing.T) {
	o := keyspace(t)
	if err := cassandra.Exec(t.Context(), o,
		"UPDATE schema_migrations SET checksum = 'other' WHERE scope = 'hot' AND version = 1 IF EXISTS"); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, o, cassandra.ErrSchema, "other statements")
}

// TestApplyInterrupted: what a crash left half-applied, and its lock, do not keep the next from continuing.
func TestApplyInterrupted(t *testing.T) {
	o := keyspace(t)
	ctx := t.Context()
	if err := cassandra.Exec(ctx, o,
		"DELETE FROM schema_migrations WHERE scope = 'hot' AND version = 2 IF EXISTS",
		"UPDATE schema_migrations USING TTL 3 SET lock = 01020304-0506-0708-090a-0b0c0d0e0f10 WHERE scope = 'hot' "+
			"IF lock = null",
		"DROP TABLE shards"); err != nil {
		t.Fatal(err)
	}
	wantOpenError(t, o, cassandra.ErrSchema, "2 (ownership)")
	if _, err := cassandra.ApplySchema(ctx, o, cassandra.HotSchema, cassandra.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	open(t, o)
}

// TestApplyLocked: while another holds the lock, apply waits, as long as its caller does.
func TestApplyLocked(t *testing.T) {
	o := keyspace(t)
	if err := cassandra.Exec(t.Context(), o,
		"DELETE FROM schema_migrations WHERE scope = 'hot' AND version = 2 IF EXISTS",
		"UPDATE schema_migrations SET lock = 01020304-0506-0708-090a-0b0c0d0e0f10 WHERE scope = 'hot' IF "+
			"lock = null"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := cassandra.ApplySchema(ctx, o, cassandra.HotSchema,
			cassandra.ApplyOptions{Progress: func(v cassandra.SchemaVersion) {
				t.Errorf("version %d was applied without the lock", v.Version)
			}})
		failed <- err
	}()
	if _, err := cassandra.SchemaStatus(t.Context(), o, cassandra.HotSchema); err != nil { // some time passes
		t.Error(err)
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v, want context.Canceled", err)
	}
}

func TestConcurrentApply(t *testing.T) {
	o := cassandratest.NewKeyspace(t, cassandratest.Shared(t))
	const nodes = 4
	states := make([][]cassandra.SchemaVersion, nodes)
	errs := make([]error, nodes)
	var mu sync.Mutex
	applied := make(map[int]int)
	var wg sync.WaitGroup
	for i := range nodes {
		wg.Go(func() {
			states[i], errs[i] = cassandra.ApplySchema(t.Context(), o, cassandra.HotSchema,
				cassandra.ApplyOptions{CreateKeyspace: 1, Progress: func(v cassandra.SchemaVersion) {
					mu.Lock()
					applied[v.Version]++
					mu.Unlock()
				}})
		})
	}
	wg.Wait()
	for i := range nodes {
		if errs[i] != nil || !slices.Equal(states[i], states[0]) {
			t.Errorf("node %d: %+v, %v", i, states[i], errs[i])
		}
	}
	for version, times := range applied {
		if times != 1 {
			t.Errorf("version %d was applied %d times", version, times)
		}
	}
	if len(applied) != len(states[0]) {
		t.Errorf("applied %v of %+v", applied, states[0])
	}
}

func TestCredentials(t *testing.T) {
	o := keyspace(t)
	if o.Username == "" {
		t.Skip("the Cassandra that was given asks for no password")
	}
	for _, wrong := range []cassandra.Options{
		func(o cassandra.Options) cassandra.Options { o.Password = "wrong"; return o }(o),
		func(o cassandra.Options) cassandra.Options { o.Username = "nobody"; return o }(o),
		func(o cassandra.Options) cassandra.Options { o.Username, o.Password = "", ""; return o }(o),
	} {
		wantOpenError(t, wrong, cassandra.ErrCredentials, "")
		if _, err := cassandra.Open(t.Context(), wrong); err != nil && wrong.Password != "" &&
			strings.Contains(err.Error(), wrong.Password+"@") {
			t.Errorf("the password is shown: %v", err)
		}
	}
	open(t, o)
}

func TestRisksOfAKeyspace(t *testing.T) {
	o := keyspace(t)
	ctx := t.Context()
	names := func(s *cassandra.Store) (names []string) {
		for _, r := range s.Risks() {
			names = append(names, r.Name)
		}
		return names
	}
	if got := names(open(t, o)); !slices.Contains(got, cassandra.RiskReplication1) {
		t.Errorf("risks %q, want %s among them", got, cassandra.RiskReplication1)
	}
	strict := o
	strict.AcceptRisks = nil
	wantOpenError(t, strict, cassandra.ErrUnsafe, "one copy")

	for _, tt := range []struct{ damage, says, repair string }{
		{
			"ALTER TABLE events WITH read_repair = 'NONE'",
			"table events has read_repair NONE",
			"ALTER TABLE events WITH read_repair = 'BLOCKING'",
		},
		{
			"ALTER TABLE shards WITH default_time_to_live = 100",
			"rows would expire",
			"ALTER TABLE shards WITH default_time_to_live = 0",
		},
	} {
		if err := cassandra.Exec(ctx, o, tt.damage); err != nil {
			t.Fatal(err)
		}
		wantOpenError(t, o, cassandra.ErrUnsafe, tt.says)
		if err := cassandra.Exec(ctx, o, tt.repair); err != nil {
			t.Fatal(err)
		}
	}

	// SERIAL and LOCAL_SERIAL do not exclude each other.
	if _, err := open(t, o).CreateCluster(ctx, persistence.ClusterInfo{Name: "c", Shards: 8}); err != nil {
		t.Fatal(err)
	}
	mixed := o
	mixed.Consistency = cassandra.Quorum
	wantOpenError(t, mixed, cassandra.ErrUnsafe, "do not exclude each other")
	open(t, o)
}

// TestTooLargeForCassandra: what slips past this store's own limit is still no unknown outcome to be
// repeated forever.
func TestTooLargeForCassandra(t *testing.T) {
	o := keyspace(t)
	o.MaxMutationBytes = 64 << 20
	o.AcceptRisks = append(o.AcceptRisks, cassandra.RiskMutationLimit)
	s := open(t, o)
	if err := appendOne(t, s, make([]byte, 17<<20)); !errors.Is(err, persistence.ErrRejected) {
		t.Errorf("17 MiB: %v, want ErrRejected", err)
	}
	if err := appendOne(t, s, make([]byte, 1<<20)); err != nil {
		t.Errorf("1 MiB after that: %v", err)
	}
}

// TestSchemaLagsBehind: what a node says that does not know the table, or a column of it, is no verdict on the write.
func TestSchemaLagsBehind(t *testing.T) {
	o := keyspace(t)
	s := open(t, o)
	for _, damage := range []string{"ALTER TABLE events DROP event_data", "DROP TABLE events"} {
		if err := cassandra.Exec(t.Context(), o, damage); err != nil {
			t.Fatal(err)
		}
		if err := appendOne(t, s, []byte("x")); !errors.Is(err, persistence.ErrUnknownOutcome) ||
			errors.Is(err, persistence.ErrRejected) {
			t.Errorf("after %s: %v, want ErrUnknownOutcome", damage, err)
		}
	}
}

func appendOne(t *testing.T, s *cassandra.Store, data []byte) error {
	m := &persistence.Mutation{
		Partition: persistence.Partition{
			RootKey:     persistence.RootKey{Aggregate: "a", Epoch: 1, Version: 1},
			Incarnation: persistence.Incarnation{1},
		},
		Records: []persistence.Record{{Sequence: 1, Count: 1, Data: data}},
	}
	done := make(chan error, 1)
	s.Append(t.Context(), m, func(err error) { done <- err })
	return <-done
}

// TestClusterOfEarlierRelease: a cluster that was created without an id gets one, and keeps it.
func TestClusterOfEarlierRelease(t *testing.T) {
	o := keyspace(t)
	want := persistence.ClusterInfo{Name: "c", Shards: 8}
	if _, err := open(t, o).CreateCluster(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := cassandra.Exec(t.Context(), o,
		"DELETE cluster_id FROM cluster WHERE id = 'cluster' IF EXISTS"); err != nil {
		t.Fatal(err)
	}
	given := persistence.ClusterInfo{Name: "other", Shards: 9, ID: persistence.NewClusterID()}
	want.ID = given.ID
	for range 2 {
		got, err := open(t, o).CreateCluster(t.Context(), given)
		if err != nil || got != want {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		given.ID = persistence.NewClusterID()
	}
}
