package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const module = "licensed"

// source is one Go file.
type source struct {
	name string // with slashes, below the module's root
	pkg  string // import path
	test bool
	file *ast.File
	fset *token.FileSet
}

// violation of a rule, at a place.
type violation struct {
	rule rule
	file string
	line int
	what string
}

// TestRules checks the module.
func TestRules(t *testing.T) {
	sources := tree(t)
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) {
			for _, v := range r.check(sources) {
				t.Errorf("%s:%d: %s\n\t%s: %s", v.file, v.line, v.what, r.name, r.why)
			}
		})
	}
}

// TestRulesHaveSubjects finds rules that a rename has left without anything to check.
func TestRulesHaveSubjects(t *testing.T) {
	sources := tree(t)
	for _, r := range rules {
		if !slices.ContainsFunc(sources, r.concerns) {
			t.Errorf("%q: no file is in %v %v", r.name, r.from, r.files)
		}
		for _, name := range r.files {
			if !slices.ContainsFunc(sources,
				func(s source) bool { return r.concerns(s) && path.Base(s.name) == name }) {
				t.Errorf("%q: there is no %s in %v", r.name, name, r.from)
			}
		}
	}
}

// TestRulesCanFail checks a module in which every rule is broken, and each broken line names its rule in a
// comment: want "name of the rule", once for each rule it breaks.
func TestRulesCanFail(t *testing.T) {
	sources := load(t, filepath.Join("testdata", "bad"))
	got := map[string]bool{}
	for _, r := range rules {
		broken := r.check(sources)
		if len(broken) == 0 {
			t.Errorf("%q: nothing in testdata/bad breaks it", r.name)
		}
		for _, v := range broken {
			got[fmt.Sprintf("%s:%d: %s", v.file, v.line, r.name)] = true
		}
	}
	want := wanted(t, sources)
	for place := range want {
		if !got[place] {
			t.Errorf("%s: not found", place)
		}
	}
	for place := range got {
		if !want[place] {
			t.Errorf("%s: found, and not marked", place)
		}
	}
}

// wanted collects the marks of broken lines.
func wanted(t *testing.T, sources []source) map[string]bool {
	t.Helper()
	want := map[string]bool{}
	for _, s := range sources {
		for _, group := range s.file.Comments {
			for _, c := range group.List {
				marks, ok := strings.CutPrefix(c.Text, "// want ")
				for ok && marks != "" {
					quoted, err := strconv.QuotedPrefix(marks)
					if err != nil {
						t.Fatalf("%s: %s: %v", s.name, c.Text, err)
					}
					marks = strings.TrimSpace(marks[len(quoted):])
					want[fmt.Sprintf("%s:%d: %s",
						s.name, s.fset.Position(c.Pos()).Line, quoted[1:len(quoted)-1])] = true
				}
			}
		}
	}
	return want
}

// tree returns the files of this module. They are parsed once, and must not be changed.
func tree(t *testing.T) []source {
	t.Helper()
	parsed.Do(func() { parsedTree = load(t, filepath.Join("..", "..")) })
	return parsedTree
}

var (
	parsed     sync.Once
	parsedTree []source
)

// load parses all Go files of the module at root and of its module of tests, whatever their build tags.
func load(t *testing.T, root string) []source {
	t.Helper()
	var sources []source
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && notOurs(name, d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		sources = append(sources, source{
			name: rel, pkg: path.Join(module, path.Dir(rel)), test: strings.HasSuffix(rel, "_test.go"),
			file: file, fset: fset,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) == 0 {
		t.Fatalf("no Go files in %s", root)
	}
	return sources
}

// notOurs reports whether a folder is neither part of the module nor of its module of tests.
func notOurs(dir, name string) bool {
	if name == "test" {
		return false
	}
	switch name {
	case "testdata", "bin", "node_modules":
		return true
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// concerns reports whether a file must keep the rule.
func (r *rule) concerns(s source) bool {
	return matches(r.from, s.pkg) && !matches(r.except, s.pkg) && (r.tests || !s.test) &&
		(r.files == nil || slices.Contains(r.files, path.Base(s.name)))
}

// check returns what breaks the rule.
func (r *rule) check(sources []source) []violation {
	var broken []violation
	for _, s := range sources {
		if !r.concerns(s) {
			continue
		}
		report := func(pos token.Pos, what string) {
			broken = append(broken, violation{rule: *r, file: s.name, line: s.fset.Position(pos).Line, what: what})
		}
		r.checkImports(s, report)
		if r.pure || r.word != "" {
			r.checkBody(s, report)
		}
		if r.calls != nil {
			r.checkCalls(s, report)
		}
	}
	return broken
}

func (r *rule) checkImports(s source, report func(token.Pos, string)) {
	for _, i := range s.file.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			report(i.Pos(), err.Error())
			continue
		}
		if matches(r.deny, imported) && !matches(r.allow, imported) && !sameTree(r.deny, s.pkg, imported) {
			report(i.Pos(), "imports "+imported)
		}
	}
}

func (r *rule) checkBody(s source, report func(token.Pos, string)) {
	clock := localName(s.file, "time")
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.GoStmt, *ast.SelectStmt, *ast.SendStmt:
			if r.pure {
				report(n.Pos(), "starts a goroutine or uses a channel")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && r.pure && clock != "" && x.Name == clock && readsClock[n.Sel.Name] {
				report(n.Pos(), "uses time."+n.Sel.Name)
			}
		case *ast.Ident:
			if r.word != "" && n.Name != path.Base(module) && strings.Contains(strings.ToLower(n.Name), r.word) {
				report(n.Pos(), "speaks of "+n.Name)
			}
		}
		return true
	})
}

func (r *rule) checkCalls(s source, report func(token.Pos, string)) {
	if !slices.ContainsFunc(s.file.Imports,
		func(i *ast.ImportSpec) bool { return match(r.of, strings.Trim(i.Path.Value, `"`)) }) {
		return
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if name, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains(r.calls, name.Sel.Name) {
			report(name.Sel.Pos(), "calls "+name.Sel.Name)
		}
		return true
	})
}

// readsClock are the names of package time that have to do with the present.
var readsClock = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"Tick": true, "NewTimer": true, "NewTicker": true,
}

// localName returns what a file calls an imported package, "" if it does not import it.
func localName(f *ast.File, imported string) string {
	for _, i := range f.Imports {
		if i.Path.Value == strconv.Quote(imported) {
			if i.Name != nil {
				return i.Name.Name
			}
			return path.Base(imported)
		}
	}
	return ""
}

// matches reports whether a package is one of the patterns; "x/..." is x and all below it.
func matches(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return match(p, pkg) })
}

func match(pattern, pkg string) bool {
	tree, ok := strings.CutSuffix(pattern, "/...")
	return pkg == tree || ok && strings.HasPrefix(pkg, tree+"/")
}

// sameTree reports whether two packages are below one and the same "x/..." of the patterns, the whole
// module not counted: a store may import its own parts.
func sameTree(patterns []string, a, b string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		return p != module+"/..." && match(p, a) && match(p, b)
	})
}
