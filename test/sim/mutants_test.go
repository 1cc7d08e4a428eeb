package sim

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutant is a bug planted in the product, to show that the simulation would notice it.
type mutant struct {
	name  string
	rule  string // of docs/write-path.md
	edits []edit
}

// edit replaces the one occurrence of a text in a file of the module.
type edit struct{ file, from, to string }

var mutants = []mutant{
	{"torn command counts", "R4", []edit{{
		"actors/recovery.go", "if r.Index == r.Count-1 {\n\t\t\twhole", "if true {\n\t\t\twhole",
	}}},
	{"serve before the root is durable", "R5", []edit{{
		"actors/machine.go", "if h.rootFlight != nil { // [R5]", "if false {",
	}}},
	{"activate without a root of its own", "R5", []edit{{
		"actors/recovery.go", "\tm.writeRoot(in, top.Key, top.Incarnation)\n",
		"\tif top.Key.Version > 0 {\n\t\tm.root, m.base = top.Key, top.Base\n\t\treturn\n\t}\n\tm.writeRoot(in, top.Key, top.Incarnation)\n",
	}}},
	{"version of an unresolved root is used again", "R6", []edit{{
		"actors/recovery.go", "max(top.Key.Version, m.floor)", "top.Key.Version",
	}}},
	{"partitions are shared between epochs", "R7", []edit{
		{"actors/machine.go", "RootKey: m.root, Incarnation: m.env.Incarnation}", "RootKey: persistence.RootKey{Aggregate: m.root.Aggregate, Version: m.root.Version}}"},
		{"persistence/persistence.go", "RootKey: r.Key, Incarnation: r.Incarnation}", "RootKey: RootKey{Aggregate: r.Key.Aggregate, Version: r.Key.Version}}"},
	}},
	{"acknowledge before durable", "R8", []edit{{
		"actors/machine.go", "h.waiting[n].needs <= m.durable {\n\t\th.out", "true {\n\t\th.out",
	}}},
	{"answer a repeat before its first is durable", "R8", []edit{{
		"actors/decide.go", "Duplicate: true,\n\t}\n\tm.wait(r, false)", "Duplicate: true,\n\t}\n\tm.hot.out.Replies = append(m.hot.out.Replies, r)",
	}}},
	{"answer a query from the optimistic state", "R8", []edit{{
		"actors/decide.go", "\t\tm.refuse(r, err)\n\t\treturn\n\t}\n\tm.wait(r, false)\n}\n\nfunc (m *Machine) validate",
		"\t\tm.refuse(r, err)\n\t\treturn\n\t}\n\tm.hot.out.Replies = append(m.hot.out.Replies, r)\n}\n\nfunc (m *Machine) validate",
	}}},
	{"skip the lease check", "R9", []edit{{
		"actors/machine.go", "m.phase == phaseEnded || !in.Held {", "m.phase == phaseEnded {",
	}}},
	{"roll over with a mutation in flight", "R10", []edit{{
		"actors/machine.go", "|| h.flight != nil || h.rootFlight != nil {", "|| h.rootFlight != nil {",
	}}},
	{"history takes records past a base", "R11", []edit{{
		"persistence/tiered/history.go", "int(min(uint64(limit), s.through-at))", "limit",
	}}},
	{"reader does not look at the mark again", "R12", []edit{{
		"persistence/tiered/history.go", "if again.Archive == nil {", "if true {",
	}}},
	{"archive without reading back", "R12", []edit{{
		"persistence/archive/archiver.go", "if !bytes.Equal(back, data) {", "if false && !bytes.Equal(back, data) {",
	}}},
	{"archive under a name used before", "R12", []edit{{
		"persistence/archive/archiver.go", "*name = aggregate + \"/\" + a.name()", "*name = aggregate + \"/\" + a.name()[:1]",
	}}},
	{"archive without the exact count", "R12", []edit{{
		"persistence/archive/archiver.go", "\t\t\tif at++; r.Sequence != at {", "\t\t\tif at++; false {",
	}, {
		"persistence/archive/archiver.go", "if len(page) == 0 {", "if at = max(at, c.through); false {",
	}}},
	{"trim before the mark", "R12", []edit{{
		"persistence/archive/archiver.go", "\t\t\tif err := a.hot.MarkArchived(", "\t\t\t_ = a.hot.DeleteRecords(ctx, c.root.Partition())\n\t\t\tif err := a.hot.MarkArchived(",
	}}},
	{"take an unknown mark for made", "R12", []edit{{
		"persistence/archive/archiver.go", "a.hot.MarkArchived(ctx, c.root.Key, m); err != nil", "a.hot.MarkArchived(ctx, c.root.Key, m); false && err != nil",
	}}},
	{"strip the current root", "R12", []edit{{
		"persistence/archive/archiver.go", "\tif err := a.hot.StripRoot(ctx, r.Key, name); err", "\tif err := a.hot.StripRoot(ctx, r.Key, \"\"); err",
	}}},
	{"archive below a head that is not durable", "R11", []edit{{
		"actors/decide.go", "\tm.wait(r, false)\n}\n\nfunc (m *Machine) validate",
		"\tif _, ok := r.Query.(HeadQuery); ok {\n\t\tm.hot.out.Replies = append(m.hot.out.Replies, r)\n\t\treturn\n\t}\n\tm.wait(r, false)\n}\n\nfunc (m *Machine) validate",
	}}},
	{"forget the window at rollover", "commands", []edit{{
		"actors/recovery.go", "Snapshot: frame(&h.window, s.Data, m.importing),", "Snapshot: frame(&window{}, s.Data, m.importing),",
	}}},
	{"forget the horizon", "commands", []edit{{
		"actors/window.go", "w.horizon = max(w.horizon, old.issuedAt)", "_ = old",
	}}},
	{"take an unknown outcome for success", "commands", []edit{{
		"actors/machine.go", "\tcase in.Err == nil:\n\t\tm.durable", "\tcase !errors.Is(in.Err, persistence.ErrRejected):\n\t\tm.durable",
	}}},
	{"take a rejection after an unknown outcome for certain", "commands", []edit{{
		"actors/machine.go", "persistence.ErrRejected) && h.flightTry.attempts == 0:", "persistence.ErrRejected):",
	}}},
	{"refuse without a record", "outcome", []edit{{
		"actors/decide.go", "\t\treturn m.record(r, d.Events, now)", "\t\tif d.Refused {\n\t\t\tr.Reply = Reply{Outcome: m.env.Kind.Outcome(d.Events), Sequence: m.sequence, Time: now}\n\t\t\treturn nil\n\t\t}\n\t\treturn m.record(r, d.Events, now)",
	}}},
}

const simulation = "./test/sim"

// TestMutants plants each bug in a copy of the code and demands that the simulation finds it.
func TestMutants(t *testing.T) { plant(t, mutants, simulation, "TestSeeds") }

// TestProtocolMutants does so with those of leases and shards.
func TestProtocolMutants(t *testing.T) { plant(t, protocolMutants, simulation, "TestProtocolSeeds") }

// TestLeaseMutants plants what needs a rarer coincidence, which the trials of leases alone go looking for.
func TestLeaseMutants(t *testing.T) {
	plant(t, leaseMutants, "./cluster/lease", "TestNeverDeadWhileValid|TestConfirmer")
}

// plant demands that a test of a package fails for each mutant.
func plant(t *testing.T, mutants []mutant, pkg, test string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the simulation once per planted bug")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(strings.ReplaceAll(m.rule+" "+m.name, " ", "_"), func(t *testing.T) {
			binary := buildMutant(t, root, pkg, m)
			cmd := exec.Command(binary, "-test.run=^("+test+")$")
			if pkg == simulation {
				cmd.Args = append(cmd.Args, "-seeds=3000")
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("%s did not notice (%v):\n%s", test, err, out)
			}
			if !strings.Contains(string(out), "_test.go") {
				t.Fatalf("failed for another reason: %v\n%s", err, out)
			}
			t.Logf("%s", firstFailure(string(out)))
		})
	}
}

func firstFailure(out string) string {
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "_test.go") {
			return strings.TrimSpace(line)
		}
	}
	return out
}

// buildMutant builds this test with the edits laid over the module's files.
func buildMutant(t *testing.T, root, pkg string, m mutant) string {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for i, e := range m.edits {
		path := filepath.Join(root, e.file)
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), e.from); n != 1 {
			t.Fatalf("%s has %d places like %q, want 1: adapt the mutant to the code", e.file, n, e.from)
		}
		changed := filepath.Join(dir, string(rune('a'+i))+".go")
		if err := os.WriteFile(changed, []byte(strings.Replace(string(source), e.from, e.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = changed
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "sim.test")
	cmd := exec.Command("go", "test", "-c", "-overlay", overlayFile, "-o", binary, pkg)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the mutant: %v\n%s", err, out)
	}
	return binary
}
