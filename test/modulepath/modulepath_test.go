package modulepath

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"licensed/internal/harness"
)

const (
	root   = "../.."
	module = "example.com/org/licensed"
)

// TestModulePath gives a copy of the project another module path, builds all of it, and has the programs of
// testdata, each a module of its own, call the daemon that was built. A new way to use the project needs a file there.
func TestModulePath(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the project anew")
	}
	tree := filepath.Join(t.TempDir(), "tree")
	copyTree(t, tree)
	run(t, tree, "make", "module-path", "MODULE="+module)
	// Compiles tests too, as far as it takes to know that they would build.
	run(t, tree, "go", "vet", "./...", "./test/...")
	run(t, tree, "go", "test", "./internal/archtest")
	if old := run(t, tree, "go", "list", "-test", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, "./...",
		"./test/..."); strings.Contains("\n"+old, "\nlicensed/") {
		t.Error("packages of the former module path are still in use")
	}
	bin := t.TempDir()
	run(t, tree, "go", "build", "-o", bin+"/", "./cmd/licensed")
	daemon := harness.Start(t, filepath.Join(bin, "licensed"), "dev", "--data", filepath.Join(bin, "data"), "--listen",
		"127.0.0.1:0", "--admin", "127.0.0.1:0")
	programs, err := filepath.Glob("testdata/*.go.txt")
	if err != nil || len(programs) == 0 {
		t.Fatalf("programs of testdata: %v, %v", programs, err)
	}
	for _, program := range programs {
		t.Run(strings.TrimSuffix(filepath.Base(program), ".go.txt"), func(t *testing.T) {
			source, err := os.ReadFile(program)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, filepath.Join(dir, "main.go"), bytes.ReplaceAll(source, []byte("MODULE/"), []byte(module+"/")))
			requirements, err := os.ReadFile(filepath.Join(tree, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			// The same versions as the product's, so that no other has to be fetched.
			write(t, filepath.Join(dir, "go.mod"),
				append(requirements, fmt.Sprintf("\nrequire %s v0.0.0\nreplace %[1]s => %s\n", module, tree)...))
			run(t, dir, "go", "mod", "edit", "-module", "example.com/consumer")
			run(t, dir, "go", "mod", "tidy")
			run(t, dir, "go", "run", ".", daemon.API)
		})
	}
}

// copyTree copies the files that git tracks or would track, and the pinned buf if it was built: that takes a minute.
func copyTree(t *testing.T, to string) {
	t.Helper()
	files := strings.Split(run(t, root, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"), "\x00")
	for _, name := range append(files, "bin/buf") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if name == "" || os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(to, name), content)
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(to, name), info.Mode()&fs.ModePerm); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run returns what a command wrote to its standard output. If it fails, so does the test.
func run(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var errors bytes.Buffer
	cmd.Dir, cmd.Stderr = dir, &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, errors.Bytes())
	}
	return string(out)
}
