package alerts

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// notRehearsed are the alerts that no process is brought to, with the reason. TestRules has them fire on series that
// were written by hand.
var notRehearsed = map[string]string{
	"LicensedSlow":                     "needs minutes of slow requests",
	"LicensedLimitReached":             "needs more than a refusal a second for minutes; gateway/limits_test.go has the refusals",
	"LicensedOverloaded":               "needs more than a refusal a second for minutes; gateway/limits_test.go has the refusals",
	"LicensedClusterDegraded":          "is LicensedClusterCritical with a lower threshold",
	"LicensedClusterStatusOld":         "no known fault stops the assessment alone",
	"LicensedNoLease":                  "needs a store that is away for longer than a lease; test/chaos has it",
	"LicensedLeasesLost":               "needs several pauses of a process; test/failover has one",
	"LicensedEpochRaised":              "needs rows of the store that were changed by hand; persistence/cassandra has them",
	"LicensedVersionsMixed":            "needs an hour of two releases; test/e2e has the two releases",
	"LicensedPanics":                   "no known request causes a panic",
	"LicensedDeferredCommandsOld":      "needs an hour of outage; internal/node has the deferred command",
	"LicensedDeferredCommandsDeclined": "needs a full disk; gateway/fallback has it",
	"LicensedWritesFail":               "only Cassandra has such; test/chaos stops it",
	"LicensedArchiveFails":             "needs minutes without the archive; persistence/archive has it",
	"LicensedArchiveBehind":            "needs an hour of arrears",
	"LicensedArchiveMismatch":          "needs an archive that lost what it confirmed; persistence/tiered has it",
	"LicensedDiskBehind":               "needs gigabytes of arrears",
	"LicensedMemory":                   "needs a process at the limit of its memory",
	"LicensedCertificateExpires":       "needs a certificate near its end; internal/expiry has it",
	"LicensedCertificateExpiresNow":    "needs a certificate near its end; internal/expiry has it",
	"LicensedAuditExportFails":         "needs a collector that refuses; internal/auditlog has it",
}

// counter is the name of a series that only grows.
var counter = regexp.MustCompile(`^\w+_(total|count|bucket|sum)\{`)

// rehearsal returns the series of what processes told: for half an hour that of before, then, if it continues, that of
// during: gauges stay, and counters grow by as much each minute.
func rehearsal(t *testing.T, dir string, continues bool) string {
	t.Helper()
	processes := make(map[string]bool)
	files, err := filepath.Glob(filepath.Join(dir, "*.prom"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		processes[name] = true
	}
	var series strings.Builder
	for p := range processes {
		before, during := told(t, filepath.Join(dir, p+".before.prom"), p), told(t, filepath.Join(dir, p+".during.prom"), p)
		if !continues {
			during = before
		}
		names := make(map[string]bool)
		for name := range before {
			names[name] = true
		}
		for name := range during {
			names[name] = true
		}
		for name := range names {
			first, second, step := before[name], during[name], 0.0
			if second != "" && counter.MatchString(name) {
				step = number(t, second)
				if first != "" {
					step -= number(t, first)
				}
			}
			fmt.Fprintf(&series, "%s %s %s\n", name, samplesOf(t, first, 0, 29), samplesOf(t, second, step, 30))
		}
	}
	return series.String()
}

// told returns what a process told, with up as Prometheus adds it; of a process that is stopped only that.
func told(t *testing.T, file, process string) map[string]string {
	t.Helper()
	up := fmt.Sprintf("up{job=%q,instance=%q}", "licensed", process)
	if _, err := os.Stat(file); err != nil {
		if strings.HasSuffix(file, ".before.prom") {
			return nil // It was not yet started.
		}
		return map[string]string{up: "0"}
	}
	all := samples(t, file, process)
	all[up] = "1"
	return all
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// samplesOf writes n+1 samples from a value on; none if it is empty.
func samplesOf(t *testing.T, value string, step float64, n int) string {
	t.Helper()
	if value == "" {
		return fmt.Sprintf("_x%d", n+1)
	}
	return fmt.Sprintf("%s+%sx%d", strconv.FormatFloat(number(t, value), 'f', -1, 64),
		strconv.FormatFloat(step, 'f', -1, 64), n)
}

// TestRehearsals: alerts are quiet before processes are brought into the state that they are for, and fire in it.
// internal/node has the tests that do that, with rehearse.
func TestRehearsals(t *testing.T) {
	directory := os.Getenv("LICENSED_SCRAPES")
	if directory == "" {
		t.Skip("LICENSED_SCRAPES names no directory; make test-alerts fills one")
	}
	rules := load(t)
	for name := range notRehearsed {
		if _, ok := rules[name]; !ok {
			t.Errorf("there is no rule %s", name)
		}
	}
	for name, r := range rules {
		dir := filepath.Join(directory, "alerts", name)
		_, err := os.Stat(dir)
		if _, not := notRehearsed[name]; not || err != nil {
			if not == (err == nil) {
				t.Errorf("%s: is it rehearsed? %v, notRehearsed %t", name, err, not)
			}
			continue
		}
		t.Run(name, func(t *testing.T) {
			if fires(t, r, rehearsal(t, dir, false)) {
				t.Error("it fires before")
			}
			if !fires(t, r, rehearsal(t, dir, true)) {
				t.Error("it does not fire")
			}
		})
	}
}
