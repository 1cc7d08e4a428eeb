package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"licensed/internal/harness"
)

// TestOwnFilesAreOwn: whatever the umask, nobody but the user of a process reads what the process wrote.
func TestOwnFilesAreOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(t.TempDir(), "careless")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\numask 0 && exec %s \"$@\"\n", licensed(t)),
		0o700); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	if out, err := harness.Command(script, "keys", "new", at("keys")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := startProgram(t, script, "dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data", at("data"),
		"--archive", at("archive"), "--audit-file", at("audit"), "--license-keys", at("keys"),
		"--fallback-dir", at("fallback"), "--ready-file", at("ready"))
	d.fill(20, 2)
	if code := d.Stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if files++; info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Errorf("%d files, %v", files, err)
	}
}
