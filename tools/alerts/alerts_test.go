// Package alerts tests the alert rules of deploy/prometheus with Prometheus' own engine: each rule fires
// on what it is for, and stays quiet a little below that. It also sees that rules and Grafana dashboards
// ask for metrics that there are, and that each query of a dashboard finds something in what a cluster at
// work tells. It is a module of its own, since the engine needs much that licensed
// does not.
package alerts

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

const (
	rulesFile = "../../deploy/prometheus/alerts.yml"
	document  = "../../docs/guide/dashboard.md"
	metrics   = "../../docs/reference/metrics.md"

	// Where docker-compose.yml has an admin port and Grafana.
	adminURL, grafanaURL = "https://localhost:8081", "http://localhost:3000"
)

func load(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(rulesFile, false, model.UTF8Validation, parser.NewParser(parser.Options{}),
		slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if t.Failed() {
		t.FailNow()
	}
	rules := make(map[string]rulefmt.Rule)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			rules[r.Alert] = r
		}
	}
	return rules
}

const errorsOf = `
	licensed_gateway_request_duration_seconds_count{job="licensed",code="ok"} 0+%dx60
	licensed_gateway_request_duration_seconds_count{job="licensed",code="unavailable"} 0+%dx60`

const latency = `
	licensed_gateway_request_duration_seconds_bucket{job="licensed",method="AcquireLicense",le="0.1"} 0+%dx60
	licensed_gateway_request_duration_seconds_bucket{job="licensed",method="AcquireLicense",le="1"} 0+100x60
	licensed_gateway_request_duration_seconds_bucket{job="licensed",method="AcquireLicense",le="+Inf"} 0+100x60`

// cases are series, a sample a minute for an hour, on which a rule fires, and some on which it does not.
var cases = map[string]struct{ fires, quiet string }{
	"LicensedErrors": {fmt.Sprintf(errorsOf, 970, 30), fmt.Sprintf(errorsOf, 995, 5)},
	"LicensedSlow":   {fmt.Sprintf(latency, 90), fmt.Sprintf(latency, 100)},
	"LicensedLimitReached": {
		`licensed_gateway_limit_refusals_total{instance="a",limit="reply_bytes",scope="share"} 0+120x60`,
		"licensed_gateway_limit_refusals_total{instance=\"a\",limit=\"reply_bytes\",scope=\"share\"} 0+30x60\n" +
			"licensed_gateway_limit_refusals_total{instance=\"a\",limit=\"reply_bytes\",scope=\"all\"} 0+30x60",
	},
	"LicensedOverloaded": {
		`licensed_gateway_request_duration_seconds_count{instance="a",code="resource_exhausted"} 0+120x60`,
		`licensed_gateway_request_duration_seconds_count{instance="a",code="resource_exhausted"} 0+30x60`,
	},
	"LicensedDown": {`up{job="licensed",instance="a"} 1x30 0x30`, `up{job="licensed",instance="a"} 1x60`},
	"LicensedShardsNotServed": {
		`licensed_cluster_shards_held{job="licensed",instance="a"} 200x60
		licensed_cluster_shards_held{job="licensed",instance="b"} 300x60
		licensed_cluster_shards{job="licensed",instance="a"} 512x60`,
		`licensed_cluster_shards_held{job="licensed",instance="a"} 256x60
		licensed_cluster_shards_held{job="licensed",instance="b"} 256x60
		licensed_cluster_shards{job="licensed",instance="a"} 512x60`,
	},
	"LicensedClusterCritical": {
		"licensed_cluster_status{job=\"licensed\",instance=\"a\"} 2x60\n" +
			"licensed_cluster_status{job=\"licensed\",instance=\"b\"} 1x60",
		`licensed_cluster_status{job="licensed",instance="a"} 1x60`,
	},
	"LicensedClusterDegraded": {
		`licensed_cluster_status{job="licensed",instance="a"} 1x60`,
		`licensed_cluster_status{job="licensed",instance="a"} 0x52 1x5 0x3`,
	},
	"LicensedClusterStatusOld": {
		`licensed_cluster_status_timestamp_seconds{job="licensed",instance="a"} 0+60x50 3000x10`,
		"licensed_cluster_status_timestamp_seconds{job=\"licensed\",instance=\"a\"} 0+60x60\n" +
			"licensed_cluster_status_timestamp_seconds{job=\"licensed\",instance=\"b\"} 9x60",
	},
	"LicensedNoLease": {
		`licensed_cluster_has_lease{instance="a"} 0x60
		licensed_cluster_draining{instance="a"} 0x60`,
		`licensed_cluster_has_lease{instance="a"} 1x60
		licensed_cluster_draining{instance="a"} 0x60
		licensed_cluster_has_lease{instance="drained"} 0x60
		licensed_cluster_draining{instance="drained"} 1x60`,
	},
	"LicensedLeasesLost": {
		`licensed_cluster_incarnations_total 1x60
		licensed_cluster_lease_lapses_total 0+1x60`,
		`licensed_cluster_incarnations_total 1x30 2x30
		licensed_cluster_lease_lapses_total 0x40 1x20`,
	},
	"LicensedEpochRaised": {
		`licensed_cluster_shard_changes_total{change="epoch_raised"} 0x50 1x10`,
		`licensed_cluster_shard_changes_total{change="claimed"} 0x50 64x10`,
	},
	"LicensedMembersDisagree": {
		"licensed_cluster_members{instance=\"a\"} 3x60\nlicensed_cluster_members{instance=\"b\"} 2x60",
		"licensed_cluster_members{instance=\"a\"} 3x60\nlicensed_cluster_members{instance=\"b\"} 3x60",
	},
	"LicensedVersionsMixed": {
		"licensed_build_info{version=\"1\"} 1x60\nlicensed_build_info{version=\"2\"} 1x60",
		"licensed_build_info{version=\"2\",instance=\"a\"} 1x60\n" +
			"licensed_build_info{version=\"2\",instance=\"b\"} 1x60",
	},
	"LicensedHistoryCorrupt": {
		`licensed_activations_failed_total{cause="corrupt"} 0x50 1x10`,
		`licensed_activations_failed_total{cause="not_owner"} 0+5x60`,
	},
	"LicensedPanics":          {`licensed_gateway_panics_total 0x50 1x10`, `licensed_gateway_panics_total 1x60`},
	"LicensedSnapshotDamaged": {`licensed_customers_rebuilt_total 0x50 1x10`, `licensed_customers_rebuilt_total 1x60`},
	"LicensedCustomersAhead":  {`licensed_customers_ahead_total 0x50 1x10`, `licensed_customers_ahead_total 1x60`},
	"LicensedCustomersLarge":  {`licensed_customers_large_total 0x50 1x10`, `licensed_customers_large_total 1x60`},
	"LicensedDeferredCommandsOld": {
		`licensed_gateway_deferred_age_seconds 0x50 3601x10`, `licensed_gateway_deferred_age_seconds 3600x60`,
	},
	"LicensedDeferredCommandsDeclined": {
		`licensed_gateway_deferred_commands_declined_total{reason="disk"} 0x50 1x10`,
		`licensed_gateway_deferred_commands_declined_total{reason="not_active"} 0+1x60`,
	},
	"LicensedWritesFail": {
		`licensed_store_failed_writes_total{instance="a"} 0+60x60`,
		`licensed_store_failed_writes_total{instance="a"} 0+1x60`,
	},
	"LicensedArchiveFails":  {`licensed_archive_failing_seconds 0+60x60`, `licensed_archive_failing_seconds 60x60`},
	"LicensedArchiveBehind": {`licensed_archive_lag_seconds 4000x60`, `licensed_archive_lag_seconds 3000x60`},
	"LicensedArchiveMismatch": {
		`licensed_archive_failures_total{cause="shortfall"} 0x50 1x10`,
		`licensed_archive_failures_total{cause="unavailable"} 0+1x60`,
	},
	"LicensedDiskBehind": {
		`licensed_store_compaction_debt_bytes 2e10x60`, `licensed_store_compaction_debt_bytes 1e9x60`,
	},
	// An hour passed; what expires does so a day, or ten days, later.
	"LicensedCertificateExpires": {
		"licensed_certificate_expiry_timestamp_seconds{port=\"api\"} 900000x60\n" +
			"licensed_certificate_start_timestamp_seconds{port=\"api\"} -6000000x60",
		"licensed_certificate_expiry_timestamp_seconds{port=\"api\"} 900000x60\n" +
			"licensed_certificate_start_timestamp_seconds{port=\"api\"} -1000000x60\n" +
			"licensed_certificate_expiry_timestamp_seconds{port=\"admin\"} 3000000x60\n" +
			"licensed_certificate_start_timestamp_seconds{port=\"admin\"} -90000000x60",
	},
	"LicensedCertificateExpiresNow": {
		"licensed_certificate_expiry_timestamp_seconds 90000x60\nlicensed_certificate_start_timestamp_seconds -6000000x60",
		"licensed_certificate_expiry_timestamp_seconds 900000x60\nlicensed_certificate_start_timestamp_seconds -90000000x60",
	},
	"LicensedCertificatesRefused": {
		`licensed_certificate_refusals_total{reason="revoked"} 0x50 1x10`,
		`licensed_certificate_refusals_total{reason="revoked"} 1x60`,
	},
	"LicensedAuditExportFails": {
		`licensed_audit_export_records_total{result="full"} 0x50 1x10`,
		"licensed_audit_export_records_total{result=\"rejected\"} 1x60\n" +
			"licensed_audit_export_records_total{result=\"sent\"} 0+9x60",
	},
	"LicensedMemory": {
		"process_resident_memory_bytes{job=\"licensed\"} 98x60\ngo_gc_gomemlimit_bytes{job=\"licensed\"} 100x60",
		"process_resident_memory_bytes{job=\"licensed\"} 98x60\ngo_gc_gomemlimit_bytes{job=\"licensed\"} 9.2e18x60",
	},
}

// fires evaluates a rule after an hour of samples, at the end and for as long before as it waits.
func fires(t *testing.T, r rulefmt.Rule, series string) bool {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(series), "\n")
	storage := promqltest.LoadedStorage(t, "load 1m\n\t"+strings.Join(lines, "\n\t")+"\n")
	defer storage.Close()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	end := time.Unix(0, 0).Add(time.Hour)
	for at := end.Add(-min(time.Duration(r.For), 20*time.Minute)); !at.After(end); at = at.Add(time.Minute) {
		q, err := engine.NewInstantQuery(context.Background(), storage, nil, r.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		result := q.Exec(context.Background())
		if result.Err != nil {
			t.Fatal(result.Err)
		}
		v, err := result.Vector()
		if err != nil {
			t.Fatal(err)
		}
		if len(v) == 0 {
			return false
		}
	}
	return true
}

// TestNoNodeAtAll: gateways that are left alone know how many shards there are, and nobody holds one.
func TestNoNodeAtAll(t *testing.T) {
	if !fires(t, load(t)["LicensedShardsNotServed"],
		`licensed_cluster_shards{job="licensed",instance="gateway"} 512x60`) {
		t.Error("LicensedShardsNotServed does not fire")
	}
}

// TestRules lets each rule fire, and be quiet.
func TestRules(t *testing.T) {
	rules := load(t)
	for name := range cases {
		if _, ok := rules[name]; !ok {
			t.Errorf("there is no rule %s", name)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	panels := panelIDs(t)
	for name, r := range rules {
		c, ok := cases[name]
		if !ok {
			t.Errorf("%s has no case", name)
			continue
		}
		if !fires(t, r, c.fires) {
			t.Errorf("%s does not fire on\n%s", name, c.fires)
		}
		if fires(t, r, c.quiet) {
			t.Errorf("%s fires on\n%s", name, c.quiet)
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity %q", name, s)
		}
		if got, want := r.Annotations["runbook_url"], adminURL+"/dashboard/runbook#"+strings.ToLower(name); got != want {
			t.Errorf("%s: runbook_url %q, want %q", name, got, want)
		}
		panel, ok := strings.CutPrefix(r.Annotations["dashboard_url"], grafanaURL+"/d/licensed")
		if id := strings.TrimPrefix(panel, "?viewPanel="); !ok || panel != "" && !panels[id] {
			t.Errorf("%s: dashboard_url %q is no panel of the dashboard", name, r.Annotations["dashboard_url"])
		}
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
			t.Errorf("%s does not say what is wrong", name)
		}
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("%s does not list %s", document, name)
		}
	}
}

var metric = regexp.MustCompile(`licensed_[a-z0-9_]+`)

// known demands that each metric in a text is one that the documentation lists.
func known(t *testing.T, where, text string) {
	t.Helper()
	list, err := os.ReadFile(metrics)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range metric.FindAllString(text, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			base = strings.TrimSuffix(base, suffix)
		}
		if !strings.Contains(string(list), "`"+base+"`") && !strings.Contains(string(list), "`"+name+"`") {
			t.Errorf("%s asks for %s, which %s does not list", where, name, metrics)
		}
	}
}

func TestRulesAskForMetrics(t *testing.T) {
	for name, r := range load(t) {
		known(t, name, r.Expr)
	}
}
