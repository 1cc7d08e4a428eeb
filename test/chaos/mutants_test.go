package chaos_test

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/internal/planted"
	"licensed/test/chaos"
	"licensed/test/chaos/check"
	"licensed/test/chaos/deploy"
)

var planting = flag.Bool("mutants", false, "plant bugs in the daemon, which takes minutes for each")

// scenario is a run that brings out a bug in what the simulation does not execute: stores, gateway, what joins them.
type scenario struct {
	bug     planted.ID
	cluster bool     // embedded otherwise
	kinds   []string // of faults
	checks  []string // any of these must catch it
}

var scenarios = []scenario{
	{planted.AcknowledgeUnsynced, false, []string{"kill -9 node"}, []string{check.Acknowledged, check.Structure}},
	{planted.AnswerFromCache, false, []string{"restart node"}, []string{check.Linearizable}},
	{planted.HistoryWithoutArchive, false, []string{"kill -9 node"}, []string{check.Archive, check.Structure}},
	{
		planted.CassandraUnknownIsSuccess,
		true,
		[]string{"kill -9 cassandra"},
		[]string{check.Acknowledged, check.Structure, check.Linearizable},
	},
	{planted.SayNotExecuted, true, []string{"kill -9 node", "pause node"}, []string{check.Refused}},
	{
		planted.ForgetCommandID,
		true,
		[]string{"kill -9 node", "pause node"},
		[]string{check.Refused, check.Acknowledged},
	},
}

// TestScenarios demands one scenario for each bug that only chaos finds.
func TestScenarios(t *testing.T) {
	for i, b := range planted.Bugs {
		n := 0
		for _, s := range scenarios {
			if s.bug == planted.ID(i) {
				n++
			}
		}
		if want := map[bool]int{true: 1}[b.Check == planted.ByChaos]; n != want {
			t.Errorf("%s: %d scenarios, want %d", b.Name, n, want)
		}
	}
}

// TestMutants plants each bug in the daemon and demands that a run of less than a minute notices.
func TestMutants(t *testing.T) {
	if !*planting {
		t.Skip("takes minutes: run with -mutants")
	}
	for _, s := range scenarios {
		bug := planted.Bugs[s.bug].Name
		t.Run(strings.ReplaceAll(bug, " ", "_"), func(t *testing.T) {
			t.Setenv(planted.Variable, bug)
			c, o, accidents := start(t, 40*time.Second, planted.Tag)
			c.Kinds, c.Schedule.Gap, c.Schedule.Calm = s.kinds, time.Second, 2*time.Second
			began := time.Now()
			v, err := chaos.Run(context.WithoutCancel(t.Context()), c, s.deployment(t, o), accidents)
			if err != nil {
				t.Fatal(err)
			}
			if !logged(t, o.Dir, planted.Met+bug) {
				t.Fatal("planted bug never met")
			}
			found := map[string]int{}
			for _, x := range v.Violations {
				found[x.Check]++
			}
			caught := slices.ContainsFunc(s.checks, func(name string) bool { return found[name] > 0 })
			if !caught {
				t.Fatalf("not noticed by any of %v: %v", s.checks, v.Violations)
			}
			t.Logf("CAUGHT | %s | %v | %.0f s | %v", bug, found, time.Since(began).Seconds(), v.Violations[0])
		})
	}
}

// logged reports whether a process of a run wrote that line to its log.
func logged(t *testing.T, dir, line string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || found || filepath.Ext(name) != ".log" {
			return err
		}
		b, err := os.ReadFile(name)
		found = bytes.Contains(b, []byte(line+"\n"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (s *scenario) deployment(t *testing.T, o deploy.Options) deploy.Deployment {
	t.Helper()
	var d deploy.Deployment
	var err error
	if s.cluster {
		d, err = deploy.NewCluster(o, tree, deploy.Size{Nodes: 3, Gateways: 2, Cassandra: 1})
	} else {
		d, err = deploy.NewEmbedded(o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}
