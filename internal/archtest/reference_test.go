package archtest

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write the generated pages of docs/reference")

// generated compares the part of a page of docs/reference below its marker with what a source gives, or writes it
// with -update.
func generated(t *testing.T, page, want string) {
	t.Helper()
	const marker = "<!-- generated: go test ./internal/archtest -run Reference -update -->\n"
	name := filepath.Join("..", "..", "docs", "reference", page)
	head, got, found := strings.Cut(read(t, name), marker)
	switch {
	case !found:
		t.Fatalf("%s has no line %q", name, marker)
	case got == want:
	case *update:
		if err := os.WriteFile(name, []byte(head+marker+want), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("docs/reference/%s is not up to date: run go test ./internal/archtest -run Reference -update", page)
	}
}

// metric is what the code says where it makes a metric.
type metric struct{ name, kind, labels, help string }

// metricOf returns the metric that a call makes: its name and its help are literals, in the options or as arguments
// one after the other; labels are a slice literal, or one more argument.
func metricOf(call *ast.CallExpr) (m metric) {
	var texts, labels []string
	kind := ""
	ast.Inspect(call, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.CallExpr:
			return n == call || metricOf(n).name == "" // an inner call makes its own metric
		case *ast.CompositeLit:
			if _, isSlice := n.Type.(*ast.ArrayType); isSlice {
				for _, e := range n.Elts {
					if text, ok := stringOf(e); ok {
						labels = append(labels, text)
					}
				}
				return false
			}
			if s, ok := n.Type.(*ast.SelectorExpr); ok && strings.HasSuffix(s.Sel.Name, "Opts") {
				kind = strings.ToLower(strings.TrimSuffix(s.Sel.Name, "Opts"))
			}
		case *ast.BasicLit, *ast.BinaryExpr:
			if text, ok := stringOf(n.(ast.Expr)); ok {
				texts = append(texts, text)
				return false
			}
		}
		return true
	})
	for i, s := range texts {
		if !strings.HasPrefix(s, "licensed_") || strings.Contains(s, " ") || len(texts) < 2 {
			continue
		}
		rest := slices.Delete(slices.Clone(texts), i, i+1)
		if m.help = rest[0]; !strings.HasSuffix(m.help, ".") {
			return metric{}
		}
		m.name, m.kind, m.labels = s, kind, strings.Join(append(labels, rest[1:]...), ", ")
	}
	if s, ok := call.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "counter" {
		m.labels = "cause" // the causes of internal/host
	}
	switch {
	case m.kind != "":
	case strings.HasSuffix(m.name, "_total"):
		m.kind = "counter"
	default:
		m.kind = "gauge"
	}
	return m
}

// stringOf returns the text of a string literal, or of several that are joined with +: long texts stand on several
// lines.
func stringOf(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil && e.Kind == token.STRING
	case *ast.BinaryExpr:
		x, left := stringOf(e.X)
		y, right := stringOf(e.Y)
		return x + y, left && right && e.Op == token.ADD
	}
	return "", false
}

// TestReferenceMetrics makes docs/reference/metrics.md from the places where metrics are made.
func TestReferenceMetrics(t *testing.T) {
	all := map[string]metric{}
	eachFile(t, ".go", func(name, text string) {
		if strings.HasSuffix(name, "_test.go") || !strings.Contains(text, "licensed_") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				if m := metricOf(call); m.name != "" {
					all[m.name] = m
				}
			}
			return true
		})
	})
	if len(all) < 50 {
		t.Fatalf("%d metrics found", len(all))
	}
	var b strings.Builder
	b.WriteString("\n| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, name := range sorted(all) {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, all[name].kind, all[name].labels, all[name].help)
	}
	generated(t, "metrics.md", b.String())
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

var reason = regexp.MustCompile(`(?m)((?:^\t// .*\n)+)^\tReason\w+ += "([A-Z_]+)"$`)

// TestReferenceErrors makes the list of reasons in docs/reference/errors.md from messages/licensedv1/reasons.go, and
// demands a row for each in the table above it.
func TestReferenceErrors(t *testing.T) {
	page := read(t, filepath.Join("..", "..", "docs", "reference", "errors.md"))
	table, _, _ := strings.Cut(page, "## Reasons")
	var b strings.Builder
	b.WriteString("\n| reason | meaning |\n|---|---|\n")
	source := read(t, filepath.Join("..", "..", "messages", "licensedv1", "reasons.go"))
	reasons := reason.FindAllStringSubmatch(source, -1)
	if len(reasons) < 10 {
		t.Fatalf("%d reasons found", len(reasons))
	}
	for _, m := range reasons {
		if !strings.Contains(table, "`"+m[2]+"`") {
			t.Errorf("docs/reference/errors.md does not say what to do about %s", m[2])
		}
		words := strings.Join(strings.Fields(strings.ReplaceAll(m[1], "//", "")), " ")
		_, words, _ = strings.Cut(words, ": ")
		fmt.Fprintf(&b, "| `%s` | %s |\n", m[2], words)
	}
	generated(t, "errors.md", b.String())
}

// TestReferenceAlerts makes docs/reference/alerts.md from the alert rules.
func TestReferenceAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, For          string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join("..", "..", "deploy", "prometheus", "alerts.yml"))),
		&file); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("\n| alert | severity | after | summary |\n|---|---|---|---|\n")
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			after := r.For
			if after == "" {
				after = "at once"
			}
			summary := strings.ReplaceAll(r.Annotations["summary"], "|", `\|`)
			fmt.Fprintf(&b, "| [%s](../guide/operations.md#%s) | %s | %s | `%s` |\n",
				r.Alert, strings.ToLower(r.Alert), r.Labels["severity"], after, summary)
		}
	}
	generated(t, "alerts.md", b.String())
}

var (
	walk     = regexp.MustCompile("(?ms)^## A command$.*?^## Folders$")
	walkStep = regexp.MustCompile("`([\\w/]+\\.go)`|`(\\w+)\\(\\)`")
)

// TestWalks checks that every file and function exists that a walk of docs/design/architecture.md names. A function
// belongs to the file named before it.
func TestWalks(t *testing.T) {
	steps := walkStep.FindAllStringSubmatch(
		walk.FindString(read(t, filepath.Join("..", "..", "docs", "design", "architecture.md"))), -1,
	)
	if len(steps) < 100 {
		t.Fatalf("%d files and functions found", len(steps))
	}
	var file, text string
	for _, s := range steps {
		if s[1] != "" {
			file = s[1]
			text = read(t, filepath.Join("..", "..", file))
		} else if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + s[2] + `[(\[]`).MatchString(text) {
			t.Errorf("docs/design/architecture.md: %s has no function %s", file, s[2])
		}
	}
}
