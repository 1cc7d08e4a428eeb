package node_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	"licensed/internal/node"
	"licensed/messages/licensedv1"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

// keyOf has a condition on the partition of each table, for a row that does not exist.
var keyOf = map[string]string{
	"events":     "row_id = 'x' AND epoch = 1 AND incarnation = 00000000-0000-0000-0000-000000000001",
	"snapshots":  "aggregate = 'x'",
	"tombstones": "bucket = 99", "leases": "bucket = 99", "shards": "bucket = 99",
	"cluster": "id = 'x'", "votes": "id = 'x'",
	"segment_names": "bucket = 99", "segment_chunks": "id = 00000000-0000-0000-0000-000000000001",
	"schema_migrations": "scope = 'x'",
}

// probe demands that a role may do with each table what it needs, and nothing else.
func probe(t *testing.T, r cassandratest.Roles, role string, reads, modifies []string) {
	t.Helper()
	s := cassandratest.Connect(t, r.As(role))
	keyspace := r.Admin.Keyspace
	check := func(statement string, may bool) {
		t.Helper()
		if err := s.Exec(statement); may && err != nil || !may && !cassandratest.Unauthorized(err) {
			t.Errorf("%s: %s: %v; allowed: %t", role, statement, err, may)
		}
	}
	for table, key := range keyOf {
		check("SELECT * FROM "+table+" LIMIT 1", slices.Contains(reads, table))
		check("DELETE FROM "+table+" WHERE "+key, slices.Contains(modifies, table))
		check("DROP TABLE "+table, false)
	}
	for _, statement := range []string{
		"DROP KEYSPACE " + keyspace, "CREATE KEYSPACE " + keyspace +
			"x WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
		"CREATE ROLE " + keyspace + "_other", "SELECT * FROM system_auth.roles",
		"ALTER ROLE " + r.As(role).Username + " WITH SUPERUSER = true",
		"GRANT ALL ON KEYSPACE " + keyspace + " TO " + r.As(role).Username,
	} {
		check(statement, false)
	}
	if role != "migration" {
		check("ALTER TABLE votes WITH comment = 'x'", false)
		check("CREATE TABLE other (a int PRIMARY KEY)", false)
	}
}

// TestCassandraRoles: the roles of deploy/cassandra are enough for a migration, a node and a gateway, and for
// nothing else.
func TestCassandraRoles(t *testing.T) {
	r := cassandratest.Roles{Admin: cassandratest.NewKeyspace(t, cassandratest.Shared(t))}
	keyspace := r.Admin.Keyspace
	bare := r.Admin
	bare.Keyspace = "system"
	root := cassandratest.Connect(t, bare)
	query := func(statement string) {
		t.Helper()
		if err := root.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	query("CREATE KEYSPACE " + keyspace +
		" WITH replication = {'class': 'NetworkTopologyStrategy', 'replication_factor': 1}")
	r.Execute(t, root, "migration.cql")
	t.Cleanup(func() {
		for _, role := range []string{"migration", "node", "gateway"} {
			query("DROP ROLE IF EXISTS " + r.As(role).Username)
		}
	})
	migrate := func() {
		t.Helper()
		for _, schema := range []cassandra.Schema{cassandra.HotSchema, cassandra.ArchiveSchema} {
			if _, err := cassandra.ApplySchema(
				t.Context(), r.As("migration"), schema, cassandra.ApplyOptions{},
			); err != nil {
				t.Fatal(err)
			}
		}
		r.Execute(t, root, "processes.cql")
	}
	migrate()
	// A later migration makes what is missing.
	query("DROP TABLE " + keyspace + ".tombstones")
	query("DELETE FROM " + keyspace + ".schema_migrations WHERE scope = 'hot' AND version = 5 IF EXISTS")
	migrate()

	work(t, r)

	all := slices.Collect(maps.Keys(keyOf))
	written := slices.DeleteFunc(slices.Clone(all), func(table string) bool { return table == "schema_migrations" })
	probe(t, r, "node", all, written)
	probe(t, r, "gateway", all, []string{"votes"})
	probe(t, r, "migration", []string{"schema_migrations"}, []string{"schema_migrations"})
}

// work has a node and a gateway do all that they do with the store.
func work(t *testing.T, r cassandratest.Roles) {
	c := newCompany(t)
	with := func(role string) {
		c.with = func(config *node.Config) {
			config.Shared = nil
			config.Store = cassandratest.URL(r.As(role), "accept_risk=replication-1&timeout=30s&connect_timeout=30s")
			config.Archive = ""
			config.Runtime.SnapshotEvery = 5
		}
	}
	with("node")
	c.start("n1", node.RoleNode)
	with("gateway")
	g := c.start("g1", node.RoleGateway)
	a := admin(g)
	settle(t, a, "n1")
	ctx := t.Context()
	for i := range 20 {
		err := acquireCanary(ctx, g, fmt.Sprint("c", i))
		if err != nil && connect.CodeOf(err) != connect.CodeFailedPrecondition { // It has the licence.
			t.Fatal(err)
		}
	}
	for name, do := range map[string]func() error{
		"customers": func() error {
			_, err := a.ListCustomers(ctx, connect.NewRequest(&licensedv1.ListCustomersRequest{}))
			return err
		},
		"archive": func() error {
			_, err := a.ArchiveCustomer(ctx,
				connect.NewRequest(&licensedv1.ArchiveCustomerRequest{CustomerId: canaries[0], All: true}))
			return err
		},
		"passivate": func() error {
			_, err := a.PassivateCustomer(ctx,
				connect.NewRequest(&licensedv1.PassivateCustomerRequest{CustomerId: canaries[0]}))
			return err
		},
	} {
		if err := do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	events, err := historyClient(g).ListEvents(ctx,
		connect.NewRequest(&licensedv1.ListEventsRequest{CustomerId: canaries[0]}))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for events.Receive() {
		n++
	}
	if err := events.Err(); err != nil || n == 0 {
		t.Errorf("%d events: %v", n, err)
	}
	report, err := a.VerifyCustomer(ctx,
		connect.NewRequest(&licensedv1.VerifyCustomerRequest{CustomerId: canaries[0]}))
	if err != nil {
		t.Fatal(err)
	}
	for report.Receive() {
	}
	if err := report.Err(); err != nil {
		t.Errorf("verify: %v", err)
	}
	if _, err := forget(ctx, a, canaries[0]); err != nil {
		t.Errorf("forget: %v", err)
	}
	if strings.Contains(fmt.Sprint(status(t, a).Warnings), "ermission") {
		t.Errorf("%v", status(t, a).Warnings)
	}
}
