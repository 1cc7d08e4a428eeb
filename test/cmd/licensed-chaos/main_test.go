package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/test/chaos/model"
)

func TestCalledWrongly(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	staging := filepath.Join(dir, "staging.yaml")
	old := filepath.Join(dir, "old.yaml")
	tenDaysAgo := model.Standard(time.Now().Add(-10 * 24 * time.Hour))
	for path, text := range map[string]string{
		old: tenDaysAgo.YAML(), policy: "version: x\n", staging: "gateways: []\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) []string { return append([]string{"run", "--dir", dir}, args...) }
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"run", "--nonsense"}, exitUsage, "--nonsense"},
		{run("--length", "0s"), exitUsage, "length"},
		{run("--ttl", "1ms"), exitUsage, "ttl"},
		{run("--cassandra", "2"), exitUsage, "cassandra"},
		{run("--nodes", "0"), exitUsage, "nodes"},
		{run("--deployment", "moon", "--binary", "x"), exitUsage, "moon"},
		{run("--attach", staging), exitUsage, "--policy"},
		{run("--attach", staging, "--policy", policy), exitUsage, "policy.yaml"},
		{run("--attach", staging, "--policy", old), exitUsage, "old.yaml: title G is available until"},
		{run("--attach", staging, "--policy", filepath.Join(dir, "none")), exitNoVerdict, "none"},
		{[]string{"check"}, exitUsage, "directory"},
		{[]string{"check", filepath.Join(dir, "none")}, exitNoVerdict, "verdict.json"},
		{[]string{"sum"}, exitUsage, "director"},
		{[]string{"sum", filepath.Join(dir, "none")}, exitNoVerdict, "verdict.json"},
		{[]string{"report", filepath.Join(dir, "none")}, exitNoVerdict, "verdict.json"},
	} {
		var out, problems bytes.Buffer
		if code := execute(context.Background(), c.args, &out, &problems); code != c.code ||
			!strings.Contains(problems.String(), c.says) {
			t.Errorf("%v: code %d, want %d: %s", c.args, code, c.code, problems.String())
		}
	}
}

// TestPrefix lets no two runs against one service have customers in common.
func TestPrefix(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	own, attached := options{seed: 7}, options{seed: 7, attach: "staging.yaml"}
	if a, b := own.prefix(now), own.prefix(now.Add(time.Second)); a != b {
		t.Errorf("%s and %s: a seed does not repeat its run", a, b)
	}
	if a, b := attached.prefix(now), attached.prefix(now.Add(time.Second)); a == b {
		t.Errorf("two runs have the prefix %s", a)
	}
}

// TestPolicy prints one that a run takes.
func TestPolicy(t *testing.T) {
	var out, problems bytes.Buffer
	if code := execute(context.Background(), []string{"policy"}, &out, &problems); code != exitPass {
		t.Fatalf("code %d: %s", code, problems.String())
	}
	if _, err := model.Parse(out.Bytes()); err != nil {
		t.Error(err)
	}
}
