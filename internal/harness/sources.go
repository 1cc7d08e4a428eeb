package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
)

// Root is the directory of the product's module.
var Root = sync.OnceValue(func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
})

// directories of the module that have the sources of its programs, what they embed included.
var directories = []string{
	"actors", "client", "cluster", "cmd", "docs", "gateway", "internal", "licensetoken", "messages", "persistence",
}

// LookAtSources makes the result of a test that builds or runs programs depend on their sources. go test keeps the
// result of a test as long as what it was linked from and the files that it looked at are the same; the sources of
// a program that it runs are neither, unless it looks at them. What is looked at before the first test does not
// count.
func LookAtSources(t testing.TB) {
	t.Helper()
	if err := look(); err != nil {
		t.Fatal(err)
	}
}

var look = sync.OnceValue(func() error {
	var errs []error
	for _, file := range []string{"go.mod", "go.sum", "go.work"} {
		_, err := os.Stat(filepath.Join(Root(), file))
		errs = append(errs, err)
	}
	for _, d := range directories {
		// To read a directory is to look at its files.
		errs = append(errs,
			filepath.WalkDir(filepath.Join(Root(), d), func(_ string, _ fs.DirEntry, err error) error { return err }))
	}
	return errors.Join(errs...)
})

// Programs returns the directory of licensed and licensectl as they are built from today's sources, with the race
// detector if the test has it. All tests share it, so that only the first links them.
func Programs(t testing.TB) string { return programsOf(t, programs) }

// PlainPrograms is Programs without the race detector, for tests of how much memory a process has.
func PlainPrograms(t testing.TB) string { return programsOf(t, plainPrograms) }

func programsOf(t testing.TB, build func() (string, error)) string {
	t.Helper()
	LookAtSources(t)
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var (
	programs      = sync.OnceValues(func() (string, error) { return build(Race) })
	plainPrograms = sync.OnceValues(func() (string, error) { return build(false) })
)

func build(race bool) (string, error) {
	dir, arguments := filepath.Join(Root(), "bin", "tested"), []string{"build", "-C", Root()}
	if race {
		dir, arguments = dir+"-race", append(arguments, "-race")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	compile := exec.Command("go", append(arguments, "-o", dir+"/", "./cmd/licensed", "./cmd/licensectl")...)
	if out, err := compile.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
}
