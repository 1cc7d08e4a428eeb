package e2e_test

import (
	"net/http"
	"strings"
	"testing"

	"licensed/internal/harness"
	"licensed/persistence/cassandra/cassandratest"
)

// TestDevOnCassandra starts with nothing: keyspace and tables are made, and people are told. After kill -9
// the next run takes over once the lease of the former has run out.
func TestDevOnCassandra(t *testing.T) {
	t.Parallel()
	o := cassandratest.NewKeyspace(t, cassandratest.Shared(t))
	url := cassandratest.URL(o, "")
	arguments := []string{"dev", "--store", url, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}
	const acquire = `{"customerId":"Bayley","deviceId":"iphone","titleId":"GlowS01E01","commandId":"c1"}`

	d := startRole(t, arguments...)
	for _, words := range []string{
		"data in cassandra " + strings.Join(o.Hosts, ","), "because this is for development",
	} {
		d.Says(words)
	}
	// Store and archive share the keyspace and its risks.
	if n := strings.Count(d.Log.String(), `"risk":"replication-1"`); n != 1 {
		t.Errorf("the risk is told %d times", n)
	}
	if status, reply := d.post("AcquireLicense", acquire); status != http.StatusOK ||
		!strings.Contains(reply, `"sequence":"4"`) {
		t.Errorf("%d %s", status, reply)
	}
	d.Kill()
	d = startRole(t, arguments...)
	if status, reply := d.post("AcquireLicense", acquire); status != http.StatusOK ||
		!strings.Contains(reply, `"duplicate":true`) {
		t.Errorf("after kill -9: %d %s", status, reply)
	}
	if code := d.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	out, err := harness.Command(licensed(t), "schema", "status", "--store", url).CombinedOutput()
	if err != nil || strings.Contains(string(out), "missing") || strings.Count(string(out), "applied ") < 3 {
		t.Errorf("schema status: %v\n%s", err, out)
	}
	// What is for development must be said to be.
	out, err = harness.Command(licensed(t), "serve", "--store", url, "--host", "127.0.0.1", "--listen", "127.0.0.1:0",
		"--admin", "127.0.0.1:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "accept_risk=NAME") ||
		!strings.Contains(string(out), "replication-1") {
		t.Errorf("serve on one copy: %v\n%s", err, out)
	}
}

// TestSchemaMissing is what an operator reads who forgot it.
func TestSchemaMissing(t *testing.T) {
	o := cassandratest.NewKeyspace(t, cassandratest.Shared(t))
	url := cassandratest.URL(o, "")
	serve := func() string {
		out, err := harness.Command(licensed(t), "gateway", "--store", url+"?accept_risk=replication-1", "--listen",
			"127.0.0.1:0", "--admin", "").CombinedOutput()
		if err == nil {
			t.Error("it starts")
		}
		return string(out)
	}
	if out := serve(); !strings.Contains(out, "keyspace "+o.Keyspace+" does not exist") {
		t.Errorf("no keyspace: %s", out)
	} else if strings.Contains(out, "is down") {
		t.Errorf("a missing keyspace is reported as a node that is down: %s", out)
	}
	if out, err := harness.Command(licensed(t), "schema", "apply", "--store", url, "--archive", "off",
		"--create-keyspace", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The archive is in the same keyspace unless told otherwise.
	if out := serve(); !strings.Contains(out, "licensed schema apply") {
		t.Errorf("no tables of the archive: %s", out)
	}
}
