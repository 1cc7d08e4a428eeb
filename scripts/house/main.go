// House measures the source of a tree: lines by folder, large packages, comments, long lines, phrases of the word
// list, and the files of the walks in docs/design/architecture.md. It prints the rows of docs/design/house.md.
//
//	go run ./scripts/house [-words styles/Licensed/Words.yml] [TREE]
//
// With -build it also builds the programs of the tree and prints their sizes.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// counts are what is counted of a folder or a package.
type counts struct{ code, tests, comments, long int }

// measure is what is known of a tree.
type measure struct {
	root             string
	phrases          *regexp.Regexp
	folders          map[string]*counts
	packages         map[string]*counts
	words, found     int
	generated, total int
}

func main() {
	log.SetFlags(0)
	list := flag.String("words", "styles/Licensed/Words.yml", "word `list` of the prose linter")
	build := flag.Bool("build", false, "build the programs and print their sizes")
	flag.Parse()
	m := &measure{root: ".", folders: map[string]*counts{}, packages: map[string]*counts{}}
	if flag.NArg() > 0 {
		m.root = flag.Arg(0)
	}
	if err := m.run(*list); err != nil {
		log.Fatal(err)
	}
	m.print()
	if *build {
		if err := m.programs(); err != nil {
			log.Fatal(err)
		}
	}
}

func (m *measure) run(list string) error {
	b, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var words struct{ Swap map[string]string }
	if err := yaml.Unmarshal(b, &words); err != nil {
		return fmt.Errorf("%s: %w", list, err)
	}
	var all []string
	for p := range words.Swap {
		all = append(all, p)
	}
	m.phrases = regexp.MustCompile(`(?i)\b(?:` + strings.Join(all, "|") + `)\b`)
	return filepath.WalkDir(m.root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "vendor", "testdata"}, d.Name()):
			return fs.SkipDir
		case strings.HasSuffix(name, ".go"):
			return m.file(name)
		case strings.HasSuffix(name, ".md") && d.Name() != "CHANGELOG.md":
			text, err := os.ReadFile(name)
			m.prose(fenced.ReplaceAllString(string(text), ""))
			return err
		}
		return nil
	})
}

var fenced = regexp.MustCompile("(?ms)^ *```.*?^ *```$")

// prose counts words and phrases.
func (m *measure) prose(text string) {
	m.words += len(strings.Fields(text))
	m.found += len(m.phrases.FindAllString(strings.Join(strings.Fields(text), " "), -1))
}

// file counts a Go file.
func (m *measure) file(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(m.root, name)
	if err != nil {
		return err
	}
	lines := strings.Count(string(text), "\n")
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if ast.IsGenerated(file) {
		m.generated += lines
		return nil
	}
	folder := of(m.folders, strings.Split(filepath.ToSlash(rel), "/")[0])
	pkg := of(m.packages, filepath.ToSlash(filepath.Dir(rel)))
	for _, c := range []*counts{folder, pkg} {
		if strings.HasSuffix(name, "_test.go") {
			c.tests += lines
		} else {
			c.code += lines
		}
	}
	m.total += lines
	for s := bufio.NewScanner(strings.NewReader(string(text))); s.Scan(); {
		if utf8.RuneCountInString(strings.ReplaceAll(s.Text(), "\t", "    ")) > 120 {
			folder.long++
			pkg.long++
		}
	}
	for _, g := range file.Comments {
		m.prose(g.Text())
		if !strings.HasSuffix(name, "_test.go") {
			n := fset.Position(g.End()).Line - fset.Position(g.Pos()).Line + 1
			folder.comments += n
			pkg.comments += n
		}
	}
	return nil
}

func of(m map[string]*counts, name string) *counts {
	if m[name] == nil {
		m[name] = &counts{}
	}
	return m[name]
}

func share(part, all int) float64 { return 100 * float64(part) / float64(max(all, 1)) }

func (m *measure) print() {
	fmt.Printf("| folder | code | tests | comments in code |\n|---|---|---|---|\n")
	var long, code, comments, tests int
	for _, name := range sorted(m.folders) {
		c := m.folders[name]
		fmt.Printf("| `%s` | %d | %d | %.0f %% |\n", name, c.code, c.tests, share(c.comments, c.code))
		long, code, comments, tests = long+c.long, code+c.code, comments+c.comments, tests+c.tests
	}
	fmt.Printf("| all | %d | %d | %.0f %% |\n\n", code, tests, share(comments, code))
	fmt.Printf("| | |\n|---|---|\n| hand-written lines | %d |\n| generated lines | %d |\n", m.total, m.generated)
	fmt.Printf("| lines over 120 columns | %d (%.2f %%) |\n", long, share(long, m.total))
	var large []string
	outside, all := 0, 0
	for _, name := range sorted(m.packages) {
		c := m.packages[name]
		if c.code > 1500 {
			large = append(large, fmt.Sprintf("`%s` %d", name, c.code))
		}
		if c.code > 100 {
			all++
			if s := share(c.comments, c.code); s < 18 || s > 30 {
				outside++
			}
		}
	}
	fmt.Printf("| packages over 1,500 lines of code | %d: %s |\n", len(large), strings.Join(large, ", "))
	fmt.Printf("| packages with comments outside 18 to 30 %% | %d of %d |\n", outside, all)
	fmt.Printf("| words of comments and docs | %d |\n| phrases of the word list | %d, %.0f per 100,000 words |\n",
		m.words, m.found, 100_000*float64(m.found)/float64(max(m.words, 1)))
	m.walks()
}

func sorted(m map[string]*counts) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

var (
	section = regexp.MustCompile(`(?ms)^## (A command|The death of a node|A page of the explorer)$(.*?)^## `)
	step    = regexp.MustCompile(`(?m)^\d+\. `)
	path    = regexp.MustCompile("`([\\w/]+)/[\\w]+\\.go`")
)

// walks counts the steps, files and packages of the walks in the architecture page.
func (m *measure) walks() {
	page, err := os.ReadFile(filepath.Join(m.root, "docs", "design", "architecture.md"))
	if err != nil {
		fmt.Println("| walks | not described in this tree |")
		return
	}
	text := string(page)
	for {
		at := section.FindStringSubmatchIndex(text)
		if at == nil {
			return
		}
		name, body := text[at[2]:at[3]], text[at[4]:at[5]]
		files, rooms := map[string]bool{}, map[string]bool{}
		for _, f := range path.FindAllStringSubmatch(body, -1) {
			files[f[0]], rooms[f[1]] = true, true
		}
		fmt.Printf("| walk: %s | %d steps, %d files, %d packages |\n",
			strings.ToLower(name), len(step.FindAllString(body, -1)), len(files), len(rooms))
		text = text[at[5]:]
	}
}

// programs builds the programs of the tree, stripped, and prints their sizes.
func (m *measure) programs() error {
	dir, err := os.MkdirTemp("", "house")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing depends on it
	for _, p := range []string{"licensed", "licensectl"} {
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, p), "./cmd/"+p)
		c.Dir, c.Stderr, c.Env = m.root, os.Stderr, append(os.Environ(), "CGO_ENABLED=0")
		if err := c.Run(); err != nil {
			return fmt.Errorf("build %s: %w", p, err)
		}
		i, err := os.Stat(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		fmt.Printf("| `%s`, stripped | %.1f MB |\n", p, float64(i.Size())/1e6)
	}
	return nil
}
