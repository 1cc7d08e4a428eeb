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

// TestSiegeFindsWeakness: where a protection is missing, the attacks that it stops succeed.
func TestSiegeFindsWeakness(t *testing.T) {
	for name, c := range map[string]struct {
		only           string
		without, risks []string
		breached       []string
	}{
		"open-admin": {
			"admin port", []string{"auth-file", "admin-token-file", "admin-tls-cert", "admin-tls-key"},
			[]string{"open-admin", "open-api", "open-callers"},
			[]string{"without credentials", "customer's token"},
		},
		"open-api": {
			"tokens: ", []string{"auth-file"}, []string{"open-api", "open-callers"},
			[]string{"none", "alg none", "customer's own, at AdminService"},
		},
		"open-gossip": {
			"without the key", []string{"gossip-key-file"}, []string{"open-gossip"},
			[]string{"forged members, deaths and owners without the key"},
		},
		"one authority for all": {
			"node port", []string{"node-sans", "gateway-sans", "auth-file"}, []string{"open-api", "open-callers"},
			[]string{"client's certificate of the right authority"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			report := besiege(t, func(o *siege.Options) {
				o.Only, o.Without, o.Risks = c.only, c.without, c.risks
			})
			for _, attack := range c.breached {
				if !slices.ContainsFunc(report.Breaches(), func(r siege.Result) bool { return r.Name == attack }) {
					t.Errorf("%s: %s is not found", name, attack)
				}
			}
		})
	}
}
