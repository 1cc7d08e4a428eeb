package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// wordList is the list that the prose linter reads, too.
const wordList = "../../styles/Licensed/Words.yml"

// phrase is a phrase that user-facing text must not contain, and what to write in its place.
type phrase struct {
	pattern *regexp.Regexp
	instead string
}

// phrases reads the word list.
func phrases(t *testing.T) []phrase {
	t.Helper()
	var list struct{ Swap map[string]string }
	if err := yaml.Unmarshal([]byte(read(t, wordList)), &list); err != nil {
		t.Fatal(err)
	}
	anyOf := `(?i)\b(?:` + strings.Join(slices.Collect(maps.Keys(list.Swap)), "|") + `)\b`
	all := []phrase{{regexp.MustCompile(anyOf), ""}}
	for pattern, instead := range list.Swap {
		all = append(all, phrase{regexp.MustCompile(`(?i)\b(?:` + pattern + `)\b`), instead})
	}
	if len(all) < 30 {
		t.Fatalf("%s has %d phrases", wordList, len(all))
	}
	return all
}

// findPhrases returns a finding for each phrase of the list in text. The first phrase is that any of the others occurs.
func findPhrases(all []phrase, text string) []string {
	var found []string
	if !all[0].pattern.MatchString(text) {
		return nil
	}
	for _, p := range all[1:] {
		for _, m := range p.pattern.FindAllString(text, -1) {
			found = append(found, fmt.Sprintf("%q: write %s", m, p.instead))
		}
	}
	slices.Sort(found)
	return found
}

// TestWordsOfStrings checks what programs say against the word list: the string literals of Go code (help texts,
// errors, log messages, metric help), the dashboard's templates and scripts, and the texts of alerts.
func TestWordsOfStrings(t *testing.T) {
	all := phrases(t)
	eachFile(t, ".go", func(name, text string) {
		if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go") {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			e, isExpr := n.(ast.Expr)
			if !isExpr {
				return true
			}
			text, isString := stringOf(e)
			if isString && strings.Contains(text, " ") {
				for _, f := range findPhrases(all, strings.ReplaceAll(text, "\n", " ")) {
					t.Errorf("%s: %s", fset.Position(e.Pos()), f)
				}
			}
			return !isString
		})
	})
	for _, ext := range []string{".html", ".js", ".yml", ".sh", ".proto"} {
		eachFile(t, ext, func(name, text string) {
			if strings.Contains(name, "/vendor/") || strings.Contains(name, "/styles/") ||
				strings.HasSuffix(name, ".pb.go") {
				return
			}
			for i, line := range strings.Split(text, "\n") {
				if strings.HasSuffix(name, ".proto") && !strings.Contains(line, "//") {
					continue // names of fields stay
				}
				for _, f := range findPhrases(all, line) {
					t.Errorf("%s:%d: %s", filepath.ToSlash(name), i+1, f)
				}
			}
		})
	}
}
