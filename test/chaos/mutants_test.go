package chaos_test

import (
	"context"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"licensed/internal/plant"
	"licensed/test/chaos"
	"licensed/test/chaos/check"
	"licensed/test/chaos/deploy"
)

var planting = flag.Bool("mutants", false, "plant bugs in the daemon, which takes minutes for each")

// mutant is a bug planted in what the simulation does not execute: stores, gateway, what joins them.
type mutant struct {
	name    string
	cluster bool     // embedded otherwise
	kinds   []string // of faults that bring it out
	edits   []plant.Edit
	checks  []string // any of these must catch it
}

func in(file, from, to string) plant.Edit { return plant.Edit{File: file, From: from, To: to} }

var mutants = []mutant{
	{"embedded store: tell writers before the sync", false, []string{"kill -9 node"}, []plant.Edit{in(
		"persistence/pebble/commit.go", "return s.db.ApplyNoSyncWait(b, pebbledb.Sync)", "return s.db.Apply(b, pebbledb.NoSync)",
	)}, []string{check.Acknowledged, check.Structure}},
	{"gateway: answer questions from a cache", false, []string{"restart node"}, []plant.Edit{
		in("gateway/service.go", "import (\n\t\"context\"\n", "import (\n\t\"context\"\n\t\"sync\"\n"),
		in("gateway/service.go", "\tres.Sequence = head.Sequence\n\treturn connect.NewResponse(res), nil\n}\n\nfunc (s *service) ListDevices(",
			"\tres.Sequence = head.Sequence\n\tif old, ok := cached.Swap(r.Msg.CustomerId, res); ok && !r.Msg.IncludeInactive {\n\t\tres = old.(*licensedv1.ListLicensesResponse)\n\t}\n"+
				"\treturn connect.NewResponse(res), nil\n}\n\nvar cached sync.Map\n\nfunc (s *service) ListDevices("),
	}, []string{check.Linearizable}},
	{"node: list histories without the archive", false, []string{"kill -9 node"}, []plant.Edit{in(
		"internal/node/past.go", "tiered.NewReader(n.store, n.cold, n.config.Now)", "tiered.NewReader(n.store, nil, n.config.Now)",
	)}, []string{check.Archive, check.Structure}},
	{"Cassandra: take an unknown outcome for success", true, []string{"kill -9 cassandra"}, []plant.Edit{in(
		"persistence/cassandra/journal.go", "\tdefault:\n\t\ts.stats.unknown.Add(1)\n\t}\n\tif err != nil {", "\tdefault:\n\t\terr = nil\n\t}\n\tif err != nil {",
	)}, []string{check.Acknowledged, check.Structure, check.Linearizable}},
	{"gateway: say not executed where nobody knows", true, []string{"kill -9 node", "pause node"}, []plant.Edit{in(
		"gateway/errors.go", "unknown, retry := ReasonOutcomeUnknown,", "unknown, retry := ReasonNotExecuted,",
	)}, []string{check.Refused}},
	{"transport: forget the id of a command", true, []string{"kill -9 node", "pause node"}, []plant.Edit{in(
		"cluster/transport/wire.go", "\t\tId: c.ID, Fingerprint: c.Fingerprint, IssuedAt: millis(c.IssuedAt), ValidateOnly: c.ValidateOnly,",
		"\t\tId: c.ID + \"-\" + time.Now().Format(\"05.000000\"), Fingerprint: c.Fingerprint, IssuedAt: millis(c.IssuedAt), ValidateOnly: c.ValidateOnly,",
	)}, []string{check.Refused, check.Acknowledged}},
}

// TestMutants plants each bug in a copy of the daemon and demands that a run of less than a minute notices.
func TestMutants(t *testing.T) {
	for _, m := range mutants {
		plant.Overlay(t, tree, m.edits) // which fails where the code has moved on
	}
	if !*planting {
		t.Skip("takes minutes: run with -mutants")
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			c, o, accidents := start(t, 40*time.Second, "-overlay", plant.Overlay(t, tree, m.edits))
			c.Kinds, c.Schedule.Gap, c.Schedule.Calm = m.kinds, time.Second, 2*time.Second
			began := time.Now()
			v, err := chaos.Run(context.WithoutCancel(t.Context()), c, m.deployment(t, o), accidents)
			if err != nil {
				t.Fatal(err)
			}
			found := map[string]int{}
			for _, x := range v.Violations {
				found[x.Check]++
			}
			caught := slices.ContainsFunc(m.checks, func(name string) bool { return found[name] > 0 })
			if !caught {
				t.Fatalf("not noticed by any of %v: %v", m.checks, v.Violations)
			}
			t.Logf("CAUGHT | %s | %v | %.0f s | %v", m.name, found, time.Since(began).Seconds(), v.Violations[0])
		})
	}
}

func (m *mutant) deployment(t *testing.T, o deploy.Options) deploy.Deployment {
	t.Helper()
	var d deploy.Deployment
	var err error
	if m.cluster {
		d, err = deploy.NewCluster(o, tree, deploy.Size{Nodes: 3, Gateways: 2, Cassandra: 1})
	} else {
		d, err = deploy.NewEmbedded(o)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}
