package archtest

import (
	"go/ast"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"licensed/internal/planted"
)

// TestPlantedBugs compares the hooks in the code, the table of planted bugs, and the tables in
// docs/design/reliability.md.
func TestPlantedBugs(t *testing.T) {
	hooks := map[string]int{} // by constant
	var constants []string
	for _, s := range tree(t) {
		if s.pkg == module+"/internal/planted" {
			constants = append(constants, constantsOf(s.file)...)
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isPlanted(call.Fun, "Bug") {
				return true
			}
			bug, ok := call.Args[0].(*ast.SelectorExpr)
			if !ok || s.test {
				t.Errorf("%s:%d: a hook is a call of planted.Bug with one of its constants, in code that is no test",
					s.name, s.fset.Position(call.Pos()).Line)
				return true
			}
			hooks[bug.Sel.Name]++
			return true
		})
	}
	if len(constants) != len(planted.Bugs) {
		t.Fatalf("found %d constants of type planted.ID for the %d rows of planted.Bugs",
			len(constants), len(planted.Bugs))
	}
	for i, b := range planted.Bugs {
		if want := max(1, b.Hooks); hooks[constants[i]] != want {
			t.Errorf("planted.%s has %d hooks, want %d", constants[i], hooks[constants[i]], want)
		}
	}

	listed := listedBugs(t)
	for _, b := range planted.Bugs {
		_, test, _ := strings.Cut(b.Check, ".")
		want := []string{b.Rule, b.Name, test}
		if b.Check == planted.ByChaos {
			want = []string{b.Name}
		}
		if !slices.Equal(listed[b.Name], want) {
			t.Errorf("docs/design/reliability.md has %q for a planted bug, want a row that begins with %q",
				listed[b.Name], want)
		}
		delete(listed, b.Name)
	}
	if len(listed) > 0 {
		t.Errorf("docs/design/reliability.md lists planted bugs that planted.Bugs does not have: %v",
			slices.Sorted(maps.Keys(listed)))
	}
}

// isPlanted reports whether an expression is that name of package planted.
func isPlanted(e ast.Expr, name string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != name {
		return false
	}
	x, ok := sel.X.(*ast.Ident)
	return ok && x.Name == "planted"
}

// constantsOf returns the exported constants of a file that are numbered by iota, in order.
func constantsOf(f *ast.File) (names []string) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || len(g.Specs) == 0 {
			continue
		}
		first, ok := g.Specs[0].(*ast.ValueSpec)
		if !ok || len(first.Values) != 1 {
			continue
		}
		if x, ok := first.Values[0].(*ast.Ident); !ok || x.Name != "iota" {
			continue
		}
		for _, s := range g.Specs {
			for _, name := range s.(*ast.ValueSpec).Names {
				if name.IsExported() {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

// listedBugs returns the first cells of each row of the two tables of planted bugs in docs/design/reliability.md:
// rule, name and test of those that tests of packages find, and the name of those that chaos finds.
func listedBugs(t *testing.T) map[string][]string {
	listed := map[string][]string{}
	cells := 0 // of a row that belongs to the bug's identity, while in a table
	for line := range strings.Lines(read(t, filepath.Join("..", "..", "docs", "design", "reliability.md"))) {
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | ")
		switch {
		case !strings.HasPrefix(line, "|"):
			cells = 0
		case strings.HasPrefix(line, "| rule | planted bug | found by |"):
			cells = 3
		case strings.HasPrefix(line, "| planted bug | found by |"):
			cells = 1
		case cells > 0 && len(row) >= cells && !strings.HasPrefix(line, "|--"):
			name := row[cells/2]
			if listed[name] != nil {
				t.Errorf("docs/design/reliability.md lists the planted bug %q twice", name)
			}
			listed[name] = row[:cells]
		}
	}
	return listed
}
