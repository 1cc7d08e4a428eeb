package examples

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"licensed/internal/harness"
)

// examplePolicy has what the examples show.
const examplePolicy = `
default_plan: standard
plans: {basic: {devices: 1}, standard: {devices: 2, allowances: {downloads: 2, hours: 48}}}
titles: {GlowS01E01: {studio: netflix, hours_after_first_play: 48}}
`

// TestExamples runs the examples against a daemon. The first connection of a client breaks, so that it must repeat its
// first command. A device checks its licence offline.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("installs packages")
	}
	licensed, keys := filepath.Join(harness.Programs(t), "licensed"), filepath.Join(t.TempDir(), "keys")
	if out, err := exec.Command(licensed, "keys", "new", keys).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(examplePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	d := harness.Start(t, licensed, "dev", "--data", filepath.Join(t.TempDir(), "data"), "--license-keys", keys,
		"--policy", file, "--fallback-dir", filepath.Join(t.TempDir(), "fallback"),
		"--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
	examples := filepath.Join(harness.Root(), "examples")
	py, ts := python(t, filepath.Join(examples, "python")), typescript(t, filepath.Join(examples, "typescript"))
	calling := []string{
		"retry\n", "acquired GlowS01E01 until 20", "the same command again: duplicate true\n",
		"DEVICE_LIMIT: 1 of 1\n", "event 1 ", "event 4 ",
	}
	// By the right clock, although that was set back, and after a first playback; then its hours have passed, and the
	// last time the licence has expired.
	const may = "may play GlowS01E01 until 20"
	offline := []string{
		may, "Z\n" + may, "Z\nthe hours after the first playback have passed\nexpired: connect and renew\n",
	}
	travel := []string{
		"acquired GlowS01E01 until 20", "lent ", "acquired GlowS01E02 until 20", "handed back ", "GlowS01E03",
	}
	for name, test := range map[string]struct {
		command, says []string
	}{
		"go":                 {[]string{"go", "run", "licensed/examples/go"}, calling},
		"python":             {append(py, filepath.Join(examples, "python", "main.py")), calling},
		"typescript":         {append(ts, filepath.Join(installed(t, "typescript"), "main.ts")), calling},
		"go offline":         {[]string{"go", "run", "licensed/examples/go/offline"}, offline},
		"python offline":     {append(py, filepath.Join(examples, "python", "offline.py")), offline},
		"typescript offline": {append(ts, filepath.Join(installed(t, "typescript"), "offline.ts")), offline},
		"go travel":          {[]string{"go", "run", "licensed/examples/go/travel"}, travel},
		"python travel":      {append(py, filepath.Join(examples, "python", "travel.py")), travel},
		"typescript travel":  {append(ts, filepath.Join(installed(t, "typescript"), "travel.ts")), travel},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			address := d.API
			if slices.Equal(test.says, calling) {
				address = breakingFirst(t, d.API)
			}
			c := exec.CommandContext(ctx, test.command[0],
				append(test.command[1:], address, "of "+name)...)
			c.Dir = harness.Root()
			c.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(installed(t, "python"), "gen"))
			out, err := c.CombinedOutput()
			for _, words := range test.says {
				if !strings.Contains(string(out), words) {
					t.Errorf("does not say %q", words)
				}
			}
			if err != nil || t.Failed() {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

// breakingFirst returns the address of a proxy before another address that breaks its first connection.
func breakingFirst(t *testing.T, address string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for first := true; ; first = false {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", address)
			if first || err != nil {
				_ = from.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				}()
			}
		}
	}()
	return l.Addr().String()
}

// installed returns where the packages of an example are kept between runs.
func installed(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(harness.Root(), "bin", "examples", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// unlessDone runs commands in a directory if their inputs differ from those of the last time.
func unlessDone(t *testing.T, dir string, inputs []string, commands ...[]string) {
	t.Helper()
	hash := sha256.New()
	for _, name := range inputs {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		hash.Write(content)
	}
	stamp, want := filepath.Join(dir, "done"), hex.EncodeToString(hash.Sum(nil))
	if done, err := os.ReadFile(stamp); err == nil && string(done) == want {
		return
	}
	for _, command := range commands {
		c := exec.Command(command[0], command[1:]...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	if err := os.WriteFile(stamp, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
}

func protos(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(harness.Root(), "proto", "licensed", "v1", "*.proto"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}

// python installs the packages of the examples in Python, and returns the program that runs one.
func python(t *testing.T, example string) []string {
	t.Helper()
	dir, lock := installed(t, "python"), filepath.Join(example, "requirements.txt")
	run := filepath.Join(dir, "venv", "bin", "python")
	unlessDone(t, dir, append(protos(t), lock),
		[]string{"python3", "-m", "venv", "--clear", "venv"},
		[]string{run, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", lock},
		[]string{"mkdir", "-p", "gen"},
		slices.Concat([]string{run, "-m", "grpc_tools.protoc", "-I", filepath.Join(harness.Root(), "proto"),
			"--python_out=gen", "--grpc_python_out=gen"}, protos(t)))
	return []string{run}
}

// typescript installs the packages of the examples in TypeScript, and returns the program that runs one.
func typescript(t *testing.T, example string) []string {
	t.Helper()
	dir := installed(t, "typescript")
	files := func(names ...string) (paths []string) {
		for _, name := range names {
			paths = append(paths, filepath.Join(example, name))
		}
		return paths
	}
	locks := files("package.json", "package-lock.json", "buf.gen.yaml")
	proto := filepath.Join(harness.Root(), "proto")
	unlessDone(t, dir, append(protos(t), locks...),
		slices.Concat([]string{"cp"}, locks, []string{"."}),
		[]string{"npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"},
		[]string{"npx", "--no-install", "buf", "generate", proto, "--path", filepath.Join(proto, "licensed", "v1")})
	for _, name := range []string{"main.ts", "offline.ts", "travel.ts"} {
		program, err := os.ReadFile(filepath.Join(example, name))
		if err == nil { // Imports are resolved from where it lies.
			err = os.WriteFile(filepath.Join(dir, name), program, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return []string{filepath.Join(dir, "node_modules", ".bin", "tsx")}
}

// TestServiceConfig: gRPC accepts the service config of the guide.
func TestServiceConfig(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(harness.Root(), "docs", "guide", "calling-the-api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "```json\n")
	config, _, found := strings.Cut(after, "```")
	if !found {
		t.Fatal("the page has no service config")
	}
	c, err := grpc.NewClient("localhost:1", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
