package siege_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/internal/harness"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
	"licensed/test/hostile/siege"
)

func TestMain(m *testing.M) { os.Exit(cassandratest.Main(m)) }

// besiege attacks a small cluster.
func besiege(t *testing.T, change func(o *siege.Options)) *siege.Report {
	t.Helper()
	keyspace := cassandratest.Keyspace(t, cassandratest.Shared(t), 1)
	o := siege.Options{
		Dir: t.TempDir(), Binary: filepath.Join(harness.PlainPrograms(t), "licensed"), Nodes: 1, Gateways: 1,
		Store: cassandratest.URL(keyspace, "accept_risk="+cassandra.RiskReplication1), Hold: 300 * time.Millisecond,
		Log: t.Logf,
	}
	if change != nil {
		change(&o)
	}
	report, err := siege.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// TestSiege: no attack on a protected cluster succeeds.
func TestSiege(t *testing.T) {
	report := besiege(t, nil)
	if got, want := len(report.Results), len(siege.Attacks()); got != want {
		t.Errorf("%d of %d attacks were carried out", got, want)
	}
	if len(report.Unknown) > 0 {
		t.Errorf("settings that do not exist: %v", report.Unknown)
	}
	for _, r := range report.Results {
		if r.Breached || r.Skipped {
			t.Errorf("%s: %s: %s", r.Group, r.Name, r.Seen)
		}
	}
	if page := siege.Table(nil, report); strings.Count(page, "| held |") != len(report.Results) {
		t.Errorf("the table has other results:\n%s", page)
	}
	name := filepath.Join(t.TempDir(), "report.json")
	if err := report.Write(name); err != nil {
		t.Fatal(err)
	}
	if again, err := siege.Read(name); err != nil || !slices.Equal(again.Results, report.Results) {
		t.Errorf("%v, %v", again, err)
	}
}

// TestSiegeFindsWeakness: where protections are missing, the attacks that they stop succeed.
func TestSiegeFindsWeakness(t *testing.T) {
	want := []string{
		"admin port: without credentials", "admin port: customer's token",
		"tokens: none", "tokens: alg none", "tokens: customer's own, at AdminService",
		"gossip: forged members, deaths and owners without the key",
		"node port: client's certificate of the right authority",
	}
	report := besiege(t, func(o *siege.Options) {
		o.Only = want
		o.Without = []string{
			"auth-file", "admin-token-file", "admin-tls-cert", "admin-tls-key", "gossip-key-file", "node-sans",
			"gateway-sans",
		}
		o.Risks = []string{"open-admin", "open-api", "open-callers", "open-gossip"}
	})
	var found []string
	for _, r := range report.Breaches() {
		found = append(found, r.Group+": "+r.Name)
	}
	slices.Sort(found)
	slices.Sort(want)
	if !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
