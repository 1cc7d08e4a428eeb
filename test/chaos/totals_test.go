package chaos_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos"
	"licensed/test/chaos/check"
	"licensed/test/chaos/deploy"
	"licensed/test/chaos/fault"
)

// keep writes a verdict to a directory of its own.
func keep(t *testing.T, name string, v *chaos.Verdict) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	b, err := json.Marshal(v)
	if err == nil {
		err = os.Mkdir(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "verdict.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSum(t *testing.T) {
	good := &chaos.Verdict{
		Pass: true, Deployment: "embedded", Seed: 7, FaultsFrom: time.Second, FaultsTo: time.Minute + time.Second,
		Acknowledged: 1_200_000, Recovery: time.Second,
		Faults: map[string]fault.Count{"kill": {Injected: 600, Failed: 1}, "crash at point": {Injected: 40, Idle: 9}},
		Points: map[string]deploy.Point{"append.before": {Passed: 5, Crashes: 1}, "shard.take.after": {}},
	}
	bad := &chaos.Verdict{
		Deployment: "cluster", Seed: 8, FaultsTo: time.Minute, Acknowledged: 34, Recovery: 2 * time.Second,
		Violations: []check.Violation{{Check: check.Limits, Text: "too much"}},
		Faults:     map[string]fault.Count{"kill": {Injected: 500, LeftOut: 5}, "cut": {Injected: 3}, "pause": {}},
		Points:     map[string]deploy.Point{"append.before": {Passed: 2, Crashes: 2}},
	}
	a, b := keep(t, "a", good), keep(t, "b", bad)
	sum, err := chaos.Sum([]string{a})
	if err != nil || !sum.Pass() {
		t.Errorf("one good run: %v", err)
	}
	if sum, err = chaos.Sum([]string{a, b}); err != nil || sum.Pass() {
		t.Fatalf("a run failed, the sum did not: %v", err)
	}
	var out bytes.Buffer
	sum.Print(&out)
	for _, says := range []string{
		"| a | embedded | 7 | 1m0s | 640 | 1,200,000 | 0 | 0 | 0 | 1s | PASS |",
		"| all 2 |  |  | 2m0s | 1,143 | 1,200,034 | 0 | 0 | 0 | 2s | FAIL: 1 violations |",
		"| crash at point | 40 | 9 |  |  |", "| kill | 1,100 |  | 1 | 5 |", "| pause | 0 |  |  |  |",
		"| all | 1,143 | 9 | 1 | 5 |", "| append.before | 7 | 3 |", "| shard.take.after | 0 |  |",
	} {
		if !strings.Contains(out.String(), says+"\n") {
			t.Errorf("does not say %s:\n%s", says, out.String())
		}
	}
	if _, err := chaos.Sum([]string{a, b, keep(t, "copy of a", good)}); err == nil ||
		!strings.Contains(err.Error(), "same run") {
		t.Errorf("a run was added up twice: %v", err)
	}
	if _, err := chaos.Sum([]string{a, t.TempDir()}); err == nil {
		t.Error("a directory without a verdict was added up")
	}
}

// TestPrint tells every kind of fault and every point that nothing happened at.
func TestPrint(t *testing.T) {
	v := &chaos.Verdict{
		Pass: true, Faults: map[string]fault.Count{
			"kill": {Injected: 1234}, "memory pressure": {Injected: 2, Idle: 1, Failed: 3, LeftOut: 4}, "pause": {},
		},
		Points: map[string]deploy.Point{"append.before": {Passed: 5, Crashes: 2}, "shard.take.after": {}},
		Missed: []string{"shard.take.after"},
	}
	var out bytes.Buffer
	v.Print(&out)
	words := strings.Join(strings.Fields(out.String()), " ")
	for _, says := range []string{"PASS", "1,234 kill", "2 1 3 4 memory pressure", "0 pause", "1,236 1 3 4 all",
		"1 of 2 passed, 1 died at, 2 times", "not passed: shard.take.after"} {
		if !strings.Contains(words, says) {
			t.Errorf("does not say %q:\n%s", says, out.String())
		}
	}
}
