package chaos_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/internal/harness"
	"licensed/test/chaos"
	"licensed/test/chaos/deploy"
)

// tree is the module, whose daemon is broken.
const tree = "../.."

// start prepares a run and what it runs against. Its directory is kept if the test fails.
func start(t *testing.T, length time.Duration, tags ...string) (chaos.Config, deploy.Options, *chaos.Accidents) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes minutes: not run with -short")
	}
	dir, err := os.MkdirTemp("", "licensed-chaos-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("see %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	harness.LookAtSources(t)
	binary, err := deploy.Build(t.Context(), tree, dir, tags...)
	if err != nil {
		t.Fatal(err)
	}
	c := chaos.DefaultConfig(dir, 1, length)
	c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	c.Workload.Clients, c.Workload.Customers = 12, 100
	accidents := new(chaos.Accidents)
	o := deploy.Options{
		Dir: dir, Binary: binary, Policy: c.Rules.YAML(), TTL: 2500 * time.Millisecond, Accident: accidents.Add,
	}
	return c, o, accidents
}

// judge runs, and demands a good verdict that says something.
func judge(t *testing.T, c chaos.Config, d deploy.Deployment, accidents *chaos.Accidents) *chaos.Verdict {
	t.Helper()
	v, err := chaos.Run(context.WithoutCancel(t.Context()), c, d, accidents)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	v.Print(&text)
	t.Log(text.String())
	if !v.Pass {
		t.Error("a check failed")
	}
	injected := 0
	for _, n := range v.Faults {
		injected += n.Injected
	}
	if v.Acknowledged < 500 || v.Archived == 0 || injected == 0 || v.Resolved == 0 {
		t.Errorf("too little happened to say anything: %s", text.String())
	}
	page, err := os.ReadFile(filepath.Join(c.Dir, "report.html"))
	if err != nil || !strings.Contains(string(page), "PASS") && v.Pass {
		t.Errorf("the page does not tell: %v", err)
	}
	return v
}

// TestCluster kills, pauses and cuts off nodes of a real cluster on a real Cassandra.
func TestCluster(t *testing.T) {
	c, o, accidents := start(t, 75*time.Second)
	d, err := deploy.NewCluster(o, tree, deploy.Size{Nodes: 3, Gateways: 2, Cassandra: 1})
	if err != nil {
		t.Fatal(err)
	}
	c.Kinds = []string{"kill -9 node", "pause node"}
	for _, k := range d.Kinds() {
		if k.Name == "cut" || k.Name == "cut one way" {
			c.Kinds = append(c.Kinds, k.Name) // Where the machine allows networks; else the notes report it.
		}
	}
	v := judge(t, c, d, accidents)
	again, err := chaos.Recheck(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Pass != v.Pass || again.Acknowledged != v.Acknowledged || again.Events != v.Events {
		t.Errorf("judged again: %+v", again)
	}
}

// TestEmbedded breaks one process with its store.
func TestEmbedded(t *testing.T) {
	c, o, accidents := start(t, 25*time.Second)
	d, err := deploy.NewEmbedded(o)
	if err != nil {
		t.Fatal(err)
	}
	c.Schedule.Gap = time.Second
	judge(t, c, d, accidents)
}
