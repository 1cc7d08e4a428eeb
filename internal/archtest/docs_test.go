package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	docPath  = regexp.MustCompile(`\bdocs/[\w/-]+\.(?:md|svg)(?:#[\w-]+)?`)
	fenced   = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	heading  = regexp.MustCompile(`(?m)^#+ +(.+)$`)
	unlinked = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	ruleName = regexp.MustCompile(`\[R\d+\]`)
)

// TestLinks checks that every relative link of a Markdown file, and every page that Go code, a proto file, a script
// or an alert rule names, exists, with its heading.
func TestLinks(t *testing.T) {
	root := filepath.Join("..", "..")
	headings := map[string][]string{} // by file
	check := func(name, target string) {
		file, anchor, _ := strings.Cut(target, "#")
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: link to %s: %v", name, target, err)
			return
		}
		if anchor == "" || !strings.HasSuffix(file, ".md") {
			return
		}
		if headings[file] == nil {
			for _, h := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(read(t, file), ""), -1) {
				h[1] = strings.ToLower(unlinked.ReplaceAllString(h[1], "")) // as GitHub does
				headings[file] = append(headings[file], strings.ReplaceAll(h[1], " ", "-"))
			}
		}
		if !slices.Contains(headings[file], anchor) {
			t.Errorf("%s: link to %s: no such heading", name, target)
		}
	}
	eachFile(t, ".md", func(name, text string) {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			switch {
			case strings.Contains(m[1], "://"):
			case strings.HasPrefix(m[1], "#"):
				check(name, name+m[1])
			default:
				check(name, filepath.Join(filepath.Dir(name), m[1]))
			}
		}
	})
	for _, ext := range []string{".go", ".md", ".proto", ".yml", ".yaml", ".sh", "Makefile"} {
		eachFile(t, ext, func(name, text string) {
			for _, page := range docPath.FindAllString(text, -1) {
				check(name, filepath.Join(root, page))
			}
		})
	}
}

// TestRulesAreDocumented demands that docs/design/write-path.md explains every rule that the code names.
func TestRulesAreDocumented(t *testing.T) {
	doc := read(t, filepath.Join("..", "..", "docs", "design", "write-path.md"))
	eachFile(t, ".go", func(name, text string) {
		for _, r := range ruleName.FindAllString(text, -1) {
			if !strings.Contains(doc, "**"+r+" ") {
				t.Errorf("%s names rule %s, which docs/design/write-path.md does not explain", name, r)
			}
		}
	})
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
	rules, doc := read(t, filepath.Join(root, "deploy", "prometheus", "alerts.yml")), read(t,
		filepath.Join(root, "docs", "guide", "operations.md"))
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

// TestThreatModel: each test that the threat model names exists in the package that is named before it.
func TestThreatModel(t *testing.T) {
	named := 0
	for line := range strings.Lines(read(t, "../../docs/design/threat-model.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		dir := ""
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[len(cells)-2], -1) {
			name := m[1]
			if !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") {
				dir = name
				continue
			}
			named++
			files, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(files, func(file string) bool {
				text, err := os.ReadFile(file)
				return err == nil && strings.Contains(string(text), "\nfunc "+name+"(")
			}) {
				t.Errorf("package %q has no test %s", dir, name)
			}
		}
	}
	if named < 20 {
		t.Errorf("only %d tests are named: is the table read?", named)
	}
}
