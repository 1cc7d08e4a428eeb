package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	ruleName = regexp.MustCompile(`\[R\d+\]`)
	planted  = regexp.MustCompile(`(?m)^\t\{"([^"]+)", "[^"]+", \[\]edit`)
)

// TestLinks finds links of the documents to files that are not there.
func TestLinks(t *testing.T) {
	eachFile(t, ".md", func(name, text string) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, m[1], err)
			}
		}
	})
}

// TestRulesAreDocumented demands that docs/design/write-path.md explains every rule that the code names, and
// that docs/design/reliability.md lists every bug that the simulation must find.
func TestRulesAreDocumented(t *testing.T) {
	doc := read(t, filepath.Join("..", "..", "docs", "design", "write-path.md"))
	eachFile(t, ".go", func(name, text string) {
		for _, r := range ruleName.FindAllString(text, -1) {
			if !strings.Contains(doc, "**"+r+" ") {
				t.Errorf("%s names rule %s, which docs/design/write-path.md does not explain", name, r)
			}
		}
	})
	doc = read(t, filepath.Join("..", "..", "docs", "design", "reliability.md"))
	bugs := 0
	eachFile(t, "mutants_test.go", func(name, text string) {
		for _, b := range planted.FindAllStringSubmatch(text, -1) {
			bugs++
			if !strings.Contains(doc, "| "+b[1]+" |") {
				t.Errorf("%s: docs/design/reliability.md does not list the planted bug %q", name, b[1])
			}
		}
	})
	if bugs == 0 {
		t.Error("no planted bugs found")
	}
}

// eachFile calls f with the files of the module that end in ext.
func eachFile(t *testing.T, ext string, f func(name, text string)) {
	t.Helper()
	found := false
	err := filepath.WalkDir(filepath.Join("..", ".."), func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() != ".." && notOurs(name, d.Name()):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ext) && !strings.HasSuffix(name, "docs_test.go"):
			found = true
			f(name, read(t, name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !found {
		t.Fatalf("no files that end in %s", ext)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var alert = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)

// TestAlertsHaveRunbook demands an entry in the runbook for every alert, and none for others.
func TestAlertsHaveRunbook(t *testing.T) {
	root := filepath.Join("..", "..")
	rules, doc := read(t, filepath.Join(root, "deploy", "prometheus", "alerts.yml")), read(t, filepath.Join(root, "docs", "guide", "operations.md"))
	alerts := alert.FindAllStringSubmatch(rules, -1)
	if len(alerts) == 0 {
		t.Error("no alerts found")
	}
	for _, a := range alerts {
		if !strings.Contains(doc, "\n### "+a[1]+"\n") {
			t.Errorf("docs/guide/operations.md has no entry for the alert %s", a[1])
		}
	}
	if n := strings.Count(doc, "\n### Licensed"); n != len(alerts) {
		t.Errorf("docs/guide/operations.md has %d entries for %d alerts", n, len(alerts))
	}
}
