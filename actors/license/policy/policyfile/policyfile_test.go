package policyfile

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"licensed/actors/license/policy"
)

const (
	small = "default_plan: p\nplans: {p: {devices: 1}}\n"
	large = "default_plan: p\nplans: {p: {devices: 2}}\n"
)

// TestExample loads the file that operators start from.
func TestExample(t *testing.T) {
	p, err := Load("../../../../deploy/policy.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	title := p.Title("MadMenS01E01")
	want := policy.Title{
		PlayHours: 48, Studio: "lionsgate", YearlyLimit: 2, AvailableUntil: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if title != want {
		t.Errorf("title %+v, want %+v", title, want)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory was read")
	}
	path := filepath.Join(dir, "policy.yaml")
	write(t, path, "plans: 1\n")
	_, err := Open(path)
	if err == nil || !strings.Contains(err.Error(), path+":1: plans: must be a mapping") {
		t.Errorf("error %v names no line and field", err)
	}
}

// write makes a file that looks other than before: the modification time moves by a second a write.
func write(t *testing.T, path, content string) {
	t.Helper()
	mtime := time.Unix(1_700_000_000, 0)
	if info, err := os.Stat(path); err == nil {
		mtime = info.ModTime().Add(time.Second)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, mtime, mtime); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, content string) (string, *File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, content)
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, f
}

// poll wants a new policy or an error, or neither, of one poll.
func poll(t *testing.T, f *File, changed bool, failure string) {
	t.Helper()
	p, err := f.Poll()
	if (p != nil) != changed {
		t.Fatalf("new policy: %v, want %v (%v)", p != nil, changed, err)
	}
	if failure == "" && err != nil || failure != "" && (err == nil || !strings.Contains(err.Error(), failure)) {
		t.Fatalf("error %v, want %q", err, failure)
	}
	if p != nil && p != f.Policy() {
		t.Fatal("the new policy is not in force")
	}
}

func devices(f *File) uint32 {
	_, d := f.Policy().InForce("")
	return d
}

func TestReload(t *testing.T) {
	path, f := open(t, small)
	poll(t, f, false, "")
	write(t, path, large)
	poll(t, f, false, "") // seen changing
	poll(t, f, true, "")  // at rest
	poll(t, f, false, "")
	if devices(f) != 2 {
		t.Errorf("%d devices after the change, want 2", devices(f))
	}
}

func TestReloadKeepsTheFormerPolicy(t *testing.T) {
	path, f := open(t, small)
	write(t, path, "plans: 1")
	poll(t, f, false, "")
	poll(t, f, false, "must be a mapping")
	poll(t, f, false, "") // reported once
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	poll(t, f, false, "no such file")
	poll(t, f, false, "")
	if devices(f) != 1 {
		t.Errorf("%d devices, want those of the former policy", devices(f))
	}
	write(t, path, large)
	poll(t, f, false, "")
	poll(t, f, true, "")
}

func TestReloadOfAFileBeingWritten(t *testing.T) {
	path, f := open(t, small)
	for range 3 {
		write(t, path, large)
		poll(t, f, false, "")
	}
	poll(t, f, true, "")
}

func TestReloadSwappedLink(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"a": small, "b": large} {
		write(t, filepath.Join(dir, name), content)
	}
	link := filepath.Join(dir, "policy.yaml")
	if err := os.Symlink("a", link); err != nil {
		t.Fatal(err)
	}
	f, err := Open(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b", link); err != nil {
		t.Fatal(err)
	}
	poll(t, f, false, "")
	poll(t, f, true, "")
}

func TestReloadTouched(t *testing.T) {
	path, f := open(t, small)
	write(t, path, small)
	poll(t, f, false, "")
	poll(t, f, false, "") // read, and found equal
}

func TestReloadVersion(t *testing.T) {
	path, f := open(t, "version: v1\n"+small)
	write(t, path, "version: v1\n"+large)
	_, err := f.Reload()
	if !errors.Is(err, ErrVersionReused) {
		t.Fatalf("error %v, want ErrVersionReused", err)
	}
	if devices(f) != 1 {
		t.Error("a version that was used twice is in force")
	}
	write(t, path, "version: v2\n"+large)
	if p, err := f.Reload(); err != nil || p.Version() != "v2" {
		t.Fatalf("reload: %v", err)
	}
}

func TestWatch(t *testing.T) {
	path, f := open(t, small)
	ticks := make(chan time.Time)
	reports := make(chan *policy.Policy, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Watch(ctx, ticks, func(p *policy.Policy, err error) {
			if err != nil {
				t.Error(err)
			}
			reports <- p
		})
	}()
	write(t, path, large)
	ticks <- time.Time{}
	ticks <- time.Time{}
	if p := <-reports; p == nil {
		t.Error("no policy reported")
	}
	cancel()
	<-done
}
