package sim

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// mutant is a bug planted in the product, to show that the simulation would notice it.
type mutant struct {
	name  string
	rule  string // of docs/design/write-path.md
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
		"actors/machine.go", "case !m.inherited || m.refusing(in) || r.late", "case m.root.Version > 0 || r.late",
	}, {
		"actors/machine.go", "if m.inherited && len(h.group.Records) > 0 {", "if false {",
	}}},
	{"tell by two clocks whether a request is late", "R5", []edit{{
		"actors/machine.go", "m.refusing(in) || r.late(in.Steady)", "m.refusing(in) || r.late(in.Now)",
	}, {
		"actors/machine.go", "if m.inherited && len(h.group.Records) > 0 {", "if false {",
	}}},
	{"answer from what may be undecided", "R5", []edit{{
		"actors/sleeping.go", "return sequence == 0 || root.Epoch == epoch && root.Version > floor", "return true",
	}}},
	{"take a root of an earlier epoch for decided", "R5", []edit{{
		"actors/sleeping.go", "root.Epoch == epoch && root.Version > floor", "root.Version > floor",
	}}},
	{"take what an earlier activation left under way for decided", "R5", []edit{{
		"actors/sleeping.go", "root.Epoch == epoch && root.Version > floor", "root.Epoch == epoch",
	}}},
	{"version of an unresolved root is used again", "R6", []edit{{
		"actors/recovery.go", "max(m.root.Version, m.floor) + 1}", "m.root.Version + 1}",
	}}},
	{"partitions are shared between epochs", "R7", []edit{
		{"actors/machine.go", "RootKey: m.root, Incarnation: m.rootBy}", "RootKey: persistence.RootKey{Aggregate: m.root.Aggregate, Version: m.root.Version}}"},
		{"persistence/persistence.go", "RootKey: r.Key, Incarnation: r.Incarnation}", "RootKey: RootKey{Aggregate: r.Key.Aggregate, Version: r.Key.Version}}"},
	}},
	{"acknowledge before durable", "R8", []edit{{
		"actors/machine.go", "h.waiting[n].needs <= m.durable {\n\t\th.out", "true {\n\t\th.out",
	}}},
	{"answer a repeat before its first is durable", "R8", []edit{{
		"actors/decide.go", "Duplicate: true,\n\t}\n\tm.wait(r, first.sequence > m.durable)", "Duplicate: true,\n\t}\n\tm.hot.out.Replies = append(m.hot.out.Replies, r)",
	}}},
	{"answer a query from the optimistic state", "R8", []edit{{
		"actors/decide.go", "\t\tm.refuse(r, err)\n\t\treturn\n\t}\n\tm.wait(r, false)\n}\n\nfunc (m *Machine) validate",
		"\t\tm.refuse(r, err)\n\t\treturn\n\t}\n\tm.hot.out.Replies = append(m.hot.out.Replies, r)\n}\n\nfunc (m *Machine) validate",
	}}},
	{"skip the lease check", "R9", []edit{{
		"actors/machine.go", "m.phase == phaseEnded || !in.Held {", "m.phase == phaseEnded {",
	}, {
		"actors/machine.go", "if m.packed != nil && !in.Held {", "if false {",
	}}},
	{"roll over with a mutation in flight", "R10", []edit{{
		"actors/machine.go", "|| h.flight != nil || h.rootFlight != nil {", "|| h.rootFlight != nil {",
	}}},
	{"vouch for a head without looking whether the customer was loaded meanwhile", "R11", []edit{{
		"actors/sleeping.go", "if !s.Asleep() || !decided", "if !decided",
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
		"persistence/archive/archiver.go", "segment{aggregate + \"/\" + a.name(), sha256", "segment{aggregate + \"/\" + a.name()[:1], sha256",
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
		"persistence/archive/archiver.go", "\tif err := a.hot.StripRoot(ctx, r.Key, s.name); err", "\tif err := a.hot.StripRoot(ctx, r.Key, s.name[:0]); err",
	}}},
	{"trim before verify", "R12", []edit{{
		"persistence/archive/archiver.go", "\t\tmark, err := a.copy(ctx, group, res)\n",
		"\t\tfor _, c := range group {\n\t\t\t_ = a.hot.DeleteRecords(ctx, c.root.Partition())\n\t\t}\n\t\tmark, err := a.copy(ctx, group, res)\n",
	}}},
	{"leave a stub whose snapshot is not known to be kept", "R12", []edit{{
		"persistence/archive/archiver.go", "EncodeSnapshot(&r), time.Time{})\n",
		"EncodeSnapshot(&r), time.Time{})\n\tif err != nil {\n\t\ts, err = segment{name: r.Key.Aggregate + \"/\" + a.name()}, nil\n\t}\n",
	}}},
	{"delete a stub's snapshot before the new root is durable", "R12", []edit{{
		"persistence/tiered/tiered.go", "\t\twhole, completeErr := j.complete(ctx, r)\n",
		"\t\twhole, completeErr := j.complete(ctx, r)\n\t\tif completeErr == nil {\n\t\t\t_ = j.archive.DeleteSegment(ctx, r.SnapshotAt)\n\t\t}\n",
	}}},
	{"archive below a head that is not durable", "R11", []edit{{
		"actors/decide.go", "\tm.wait(r, false)\n}\n\nfunc (m *Machine) validate",
		"\tif _, ok := r.Query.(HeadQuery); ok {\n\t\tm.hot.out.Replies = append(m.hot.out.Replies, r)\n\t\treturn\n\t}\n\tm.wait(r, false)\n}\n\nfunc (m *Machine) validate",
	}}},
	{"forget the window at rollover", "commands", []edit{{
		"actors/recovery.go", "snapshot := frame(&h.window, s.Data, m.importing)", "snapshot := frame(&window{}, s.Data, m.importing)",
	}}},
	{"forget the horizon", "commands", []edit{{
		"actors/window.go", "w.horizon = max(w.horizon, old.issuedAt)", "_ = old",
	}}},
	{"take age for enough to tell a forgotten command", "commands", []edit{{
		"actors/window.go", "return issuedAt <= w.horizon ||", "return w.count >= c.MaxCommands && issuedAt <= w.horizon ||",
	}}},
	{"take an unknown outcome for success", "commands", []edit{{
		"actors/machine.go", "\tcase in.Err == nil:\n\t\tm.durable", "\tcase !errors.Is(in.Err, persistence.ErrRejected):\n\t\tm.durable",
	}}},
	{"take a rejection after an unknown outcome for certain", "commands", []edit{{
		"actors/machine.go", "persistence.ErrRejected) && h.flightTry.attempts == 0:", "persistence.ErrRejected):",
	}}},
	{"take a rejected root after an unknown outcome for certain", "commands", []edit{{
		"actors/machine.go", "if h.rootTry.attempts == 0 {", "if true {",
	}}},
	{"go back to an older root without the exact count of events", "R11", []edit{{
		"actors/recovery.go", "if n := h.top.Base - base; uint64(len(rows)) != n {", "if n := h.top.Base - base; false {",
	}, {
		"actors/recovery.go", "if roots[i].Base < m.sequence || n > uint64(len(rows)) {", "if n = min(n, uint64(len(rows))); false {",
	}, {
		"persistence/tiered/past.go", "\tvar gap *Gap\n\tif errors.As(err, &gap) {", "\tvar gap *Gap\n\tif errors.As(err, &gap) {\n\t\treturn past, nil\n\t}\n\tif errors.As(err, &gap) {",
	}}},
	{"refuse without a record", "outcome", []edit{{
		"actors/decide.go", "\t\treturn m.record(r, d.Events, now)", "\t\tif d.Refused {\n\t\t\tr.Reply = Reply{Outcome: m.env.Kind.Outcome(d.Events), Sequence: m.sequence, Time: now}\n\t\t\treturn nil\n\t\t}\n\t\treturn m.record(r, d.Events, now)",
	}}},
	{"decide a request that was withdrawn", "outcome", []edit{
		{"actors/decide.go", "case !r.take():", "case false:"},
		{"actors/machine.go", "if in.Request.withdrawn() {", "if false {"},
		{"actors/machine.go", "if !r.withdrawn() {", "if true {"},
	}},
	{"withdraw a request that was decided", "outcome", []edit{{
		"actors/request.go", "r.stage.CompareAndSwap(stageQueued, stageDecided) }", "r.stage.Load() == stageQueued }",
	}}},
	{"take commands in the middle of an import", "import", []edit{{
		"actors/decide.go", "\tcase m.importing:\n\t\tm.refuse(r, ErrImporting)\n", "",
	}}},
	{"forget in a new root that a history is being imported", "import", []edit{{
		"actors/recovery.go", "snapshot := frame(&h.window, s.Data, m.importing)", "snapshot := frame(&h.window, s.Data, false)",
	}}},
	{"import a stretch wherever the history ends", "import", []edit{{
		"actors/import.go", "\tcase m.sequence != i.After:\n\t\tr.Answer", "\tcase m.sequence < i.After:\n\t\tr.Answer",
	}}},
	{"acknowledge a stretch of an import before it is durable", "import", []edit{{
		"actors/import.go", "\tm.wait(r, true)\n", "\th.out.Replies = append(h.out.Replies, r)\n",
	}}},
	{"say that an import has ended before a root says so", "import", []edit{{
		"actors/import.go", "\tcase i.End && m.importing:\n\t\tm.importing = false\n", "\tcase i.End && m.importing:\n\t\tm.importing = false\n\t\treturn true\n",
	}}},
}

// tierMutants are bugs that only a rare coincidence brings out, which a test of its own brings about.
var tierMutants = []mutant{
	{"take a snapshot that was deleted for a lost one", "R12", []edit{{
		"persistence/tiered/tiered.go", "if !errors.Is(completeErr, persistence.ErrCorrupt) {", "if true {",
	}}},
}

const simulation = "./test/sim"

// TestMutants plants each bug in a copy of the code and demands that the simulation finds it.
func TestMutants(t *testing.T) { plant(t, mutants, simulation, "TestSeeds") }

// TestProtocolMutants does so with those of leases and shards.
func TestProtocolMutants(t *testing.T) { plant(t, protocolMutants, simulation, "TestProtocolSeeds") }

// TestReachMutants does so with those of processes that cannot reach nodes.
func TestReachMutants(t *testing.T) { plant(t, reachMutants, simulation, "TestReachSeeds") }

// TestLeaseMutants plants what needs a rarer coincidence, which the trials of leases alone go looking for.
func TestLeaseMutants(t *testing.T) {
	plant(t, leaseMutants, "./cluster/lease", "TestNeverDeadWhileValid|TestConfirmer")
}

// TestOwnershipMutants does so with those of shards.
func TestOwnershipMutants(t *testing.T) {
	plant(t, ownershipMutants, "./cluster/ownership", "TestRetiringHoldsNothing")
}

// TestRoutingMutants plants what only the tests of routing can find.
func TestRoutingMutants(t *testing.T) {
	plant(t, routingMutants, "./cluster/routing", "TestOutcomes")
}

// TestHintMutants does so with what a process does with hints.
func TestHintMutants(t *testing.T) {
	plant(t, rosterMutants, "./cluster/roster", "TestStates")
	plant(t, mapMutants, "./cluster/shardmap", "TestReadsReplaceWhatWasHeard")
}

// TestTierMutants does so with those of the two tiers.
func TestTierMutants(t *testing.T) {
	plant(t, tierMutants, "./persistence/tiered", "TestWokenMeanwhile")
}

// TestPlantedBugsFit: each edit of each planted bug names one place of the code as it is. It builds nothing.
func TestPlantedBugsFit(t *testing.T) {
	for _, list := range [][]mutant{mutants, protocolMutants, reachMutants, leaseMutants, ownershipMutants, routingMutants, rosterMutants, mapMutants, tierMutants} {
		for _, m := range list {
			text := map[string]string{}
			for _, e := range m.edits {
				if text[e.file] == "" {
					b, err := os.ReadFile("../../" + e.file)
					if err != nil {
						t.Error(err)
					}
					text[e.file] = string(b)
				}
				if n := strings.Count(text[e.file], e.from); n != 1 {
					t.Errorf("%s: %s has %d of %q", m.name, e.file, n, e.from)
				}
				text[e.file] = strings.Replace(text[e.file], e.from, e.to, 1)
			}
		}
	}
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
				cmd.Args = append(cmd.Args, "-seeds=20000")
			}
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) {
				t.Fatalf("%s did not notice (%v):\n%s", test, err, out)
			}
			if !failedTest.Match(out) {
				t.Fatalf("failed for another reason: %v\n%s", err, out)
			}
			t.Logf("%s", firstFailure(string(out)))
			caught(m, string(out), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
		})
	}
}

var (
	failedTest = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	failedSeed = regexp.MustCompile(`seed (\d+):`)
)

// table has a row for each mutant that was caught: of which rule, which test caught it, at which seed,
// in how much processor time.
var table = struct {
	sync.Mutex
	rows map[string]string // by name
}{rows: map[string]string{}}

func caught(m mutant, out string, took time.Duration) {
	rule := m.rule
	if strings.HasPrefix(rule, "R") {
		rule = "[" + rule + "]"
	}
	seed, after := "—", "< 0.1 s"
	if found := failedSeed.FindStringSubmatch(out); found != nil {
		seed = found[1]
	}
	if took >= 100*time.Millisecond {
		after = fmt.Sprintf("%.1f s", took.Seconds())
	}
	table.Lock()
	defer table.Unlock()
	table.rows[m.name] = fmt.Sprintf("| %s | %s | %s | %s | %s |", rule, m.name, failedTest.FindStringSubmatch(out)[1], seed, after)
}

// writeTable brings the rows of a document up to date, and adds those that are new behind the others of their
// rule.
func writeTable(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines, end := strings.Split(string(b), "\n"), -1
	last := map[string]int{} // row of each rule
	for i, line := range lines {
		cells := strings.Split(line, " | ")
		if len(cells) != 5 || !strings.HasSuffix(line, " |") || cells[1] == "planted bug" {
			continue
		}
		end, last[cells[0]] = i, i
		if row, ok := table.rows[cells[1]]; ok {
			lines[i] = row
			delete(table.rows, cells[1])
		}
	}
	if end < 0 {
		return fmt.Errorf("%s has no table of planted bugs", file)
	}
	news := map[int][]string{}
	for _, row := range slices.Sorted(maps.Values(table.rows)) {
		at, ok := last[strings.Split(row, " | ")[0]]
		if !ok {
			at = end
		}
		news[at] = append(news[at], row)
	}
	for at := end; len(news) > 0; at-- {
		lines = slices.Insert(lines, at+1, news[at]...)
		delete(news, at)
	}
	return os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644)
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
		changed, again := replace[path]
		if !again {
			changed = filepath.Join(dir, fmt.Sprint(i, ".go"))
		}
		source, err := os.ReadFile(map[bool]string{false: path, true: changed}[again])
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(source), e.from); n != 1 {
			t.Fatalf("%s has %d places like %q, want 1: adapt the mutant to the code", e.file, n, e.from)
		}
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
