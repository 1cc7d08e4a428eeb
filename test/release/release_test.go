// Package release tests what a release consists of: the archives and packages of scripts/release.sh, and the systemd
// units in them. Building a release takes minutes, so that most of it runs with -release only (make release-test).
package release

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"licensed/internal/node"
)

var (
	build   = flag.Bool("release", false, "build a release twice and compare all files")
	install = flag.Bool("install", false, "with -release: install the Debian package on this machine, and purge it")
)

const (
	root    = "../.."
	version = "v0.1.0-rc.1"
)

// run runs a program in a directory and returns what it printed.
func run(t *testing.T, dir string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PLATFORMS=linux/amd64", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// files returns the content of the files of a directory by name.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestReleaseIsReproducible builds the release of the last commit in two directories.
func TestReleaseIsReproducible(t *testing.T) {
	if !*build {
		t.Skip("builds the project twice; make release-test")
	}
	source, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	var built []string
	for _, name := range []string{"here", "elsewhere/with a space"} {
		tree := filepath.Join(t.TempDir(), name)
		run(t, root, "git", "clone", "--quiet", source, tree)
		for _, tool := range []string{"nfpm", "cyclonedx-gomod"} {
			if err := os.MkdirAll(filepath.Join(tree, "bin"), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(filepath.Join(source, "bin", tool), filepath.Join(tree, "bin", tool)); err != nil {
				t.Fatal(err)
			}
		}
		run(t, tree, "scripts/release.sh", version)
		built = append(built, filepath.Join(tree, "bin/release", version))
	}
	first, second := files(t, built[0]), files(t, built[1])
	if len(first) != 5 || len(second) != len(first) {
		t.Fatalf("%d and %d files, want an archive, a package, two lists and the checksums", len(first), len(second))
	}
	for name, content := range first {
		if !bytes.Equal(content, second[name]) {
			t.Errorf("%s differs between two builds of one commit", name)
		}
	}
	run(t, built[0], "sha256sum", "--check", "--quiet", "SHA256SUMS")
	testArchive(t, built[0])
	testPackage(t, built[0])
}

// testArchive: the archive has all that it should, and the programs in it tell their version.
func testArchive(t *testing.T, dir string) {
	name, to := "licensed-"+version+"-linux-amd64", t.TempDir()
	run(t, dir, "tar", "-xzf", name+".tar.gz", "-C", to)
	for _, file := range []string{
		"LICENSE", "CHANGELOG.md", "README.md", "man/licensed-node.1", "man/licensectl-acquire.1",
		"completions/licensed.bash", "completions/licensectl.zsh", "completions/licensectl.fish",
	} {
		if info, err := os.Stat(filepath.Join(to, name, file)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, program := range []string{"licensed", "licensectl"} {
		if out := run(t, to, filepath.Join(to, name, program), "--version"); !strings.Contains(out, " "+version) {
			t.Errorf("%s --version: %s", program, out)
		}
	}
}

// testPackage: the package has programs, units and pages; an upgrade keeps the settings, and neither upgrade, removal
// nor purge deletes data.
func testPackage(t *testing.T, dir string) {
	deb, err := filepath.Abs(filepath.Join(dir, "licensed_"+strings.Replace(version[1:], "-", "~", 1)+"_amd64.deb"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(deb); err != nil {
		deb = filepath.Join(filepath.Dir(deb), "licensed_"+version[1:]+"_amd64.deb")
	}
	list := run(t, dir, "dpkg-deb", "--contents", deb)
	for _, file := range []string{
		"./usr/bin/licensed\n", "./usr/bin/licensectl\n", "./lib/systemd/system/licensed-node@.service\n",
		"./usr/share/man/man1/licensed-node.1.gz\n", "./usr/share/bash-completion/completions/licensectl\n",
		"./etc/licensed/licensed.yaml\n", "./usr/share/doc/licensed/copyright\n",
	} {
		if !strings.Contains(list, file) {
			t.Errorf("the package has no %s:\n%s", strings.TrimSpace(file), list)
		}
	}
	if !*install {
		return
	}
	const settings, data = "/etc/licensed/licensed.yaml", "/var/lib/licensed/journal"
	run(t, dir, "dpkg", "--install", deb)
	t.Cleanup(func() { run(t, dir, "dpkg", "--purge", "licensed") })
	if err := os.WriteFile(data, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(filepath.Dir(data)) })
	edited := []byte("host: 127.0.0.1\n")
	if err := os.WriteFile(settings, edited, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "systemd-analyze", "verify", "licensed-node@n1.service", "licensed-gateway@g1.service")
	run(t, dir, "licensed", "settings", "--config", settings)
	run(t, dir, "dpkg", "--install", deb)
	if got, err := os.ReadFile(settings); err != nil || !bytes.Equal(got, edited) {
		t.Errorf("the settings after an upgrade: %q, %v", got, err)
	}
	run(t, dir, "dpkg", "--purge", "licensed")
	if _, err := os.Stat(settings); !os.IsNotExist(err) {
		t.Errorf("the settings after purge: %v", err)
	}
	if _, err := os.ReadFile(data); err != nil {
		t.Errorf("data after purge: %v", err)
	}
}

// TestUnits: a unit waits longer for a stop than a process takes for it, starts the role that it is named for, and
// systemd accepts it.
func TestUnits(t *testing.T) {
	units, err := filepath.Glob(filepath.Join(root, "deploy/systemd/*.service"))
	if err != nil || len(units) != 2 {
		t.Fatalf("%d units, %v", len(units), err)
	}
	defaults := node.DefaultConfig()
	for _, unit := range units {
		content, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		setting := func(name string) string {
			m := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindSubmatch(content)
			if m == nil {
				t.Fatalf("%s has no %s", unit, name)
			}
			return string(m[1])
		}
		stop, err := time.ParseDuration(setting("TimeoutStopSec"))
		if err != nil || stop <= defaults.DrainTimeout+defaults.DrainDelay {
			t.Errorf("%s: TimeoutStopSec %v, %v; a drain takes up to %v", unit, stop, err,
				defaults.DrainTimeout+defaults.DrainDelay)
		}
		role := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(unit), "licensed-"), "@.service")
		if start := setting("ExecStart"); !strings.HasPrefix(start, "/usr/bin/licensed "+role+" ") {
			t.Errorf("%s starts %q", unit, start)
		}
		verify(t, unit, string(content))
	}
}

// verify has systemd look at a unit, with a program that exists, where systemd is installed.
func verify(t *testing.T, unit, content string) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Log("systemd is not installed: the unit is not verified")
		return
	}
	instance := strings.Replace(filepath.Base(unit), "@", "@n1", 1)
	// A manual page that is not installed yet, and a program, are not what this is about.
	content = regexp.MustCompile(`(?m)^Documentation=.*\n`).ReplaceAllString(content, "")
	content = strings.ReplaceAll(content, "/usr/bin/licensed ", "/bin/true ")
	content = strings.ReplaceAll(content, "=licensed\n", "=root\n")
	file := filepath.Join(t.TempDir(), instance)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify %s: %v\n%s", unit, err, out)
	}
	// The exposure, from 0 to 10: an unprotected service has more than 9.
	out, err = exec.Command(analyze, "security", "--offline=yes", "--threshold=25", file).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze security %s: %v\n%s", unit, err, out)
	}
}
