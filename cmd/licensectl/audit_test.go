package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"licensed/internal/auditlog"
)

// TestAuditVerify: a log that is whole, one that was changed, and one that was cut.
func TestAuditVerify(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l, err := auditlog.Open(auditlog.Config{File: name, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Append(auditlog.Record{Method: "/m", Customer: "Bayley", Decision: auditlog.Allowed}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var v auditlog.Verifier
	if _, err := v.File(name); err != nil {
		t.Fatal(err)
	}
	_, _, hash := v.Range()
	audit := func(want int, says string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		p := &program{
			stdout: &out, stderr: &out, getenv: func(string) string { return "" }, width: func() int { return 0 },
		}
		code := p.run(t.Context(), append([]string{"audit", "verify"}, args...))
		if code != want || !strings.Contains(out.String(), says) {
			t.Errorf("%v: exit %d, want %d and %q: %s", args, code, want, says, out.String())
		}
	}
	audit(exitOK, "checked 3 records, 1 to 3, last hash "+hash+": 0 changes", name)
	audit(exitOK, `{"records":3,"first":1,"last":3,`, name, "-o", "json")
	audit(exitOK, "0 changes", name, "--hash", hash)
	audit(exitUsage, "FILE is missing")
	audit(exitFailed, "no such file", name+".none")
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(content, []byte("\n"))
	write := func(b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(bytes.Join(lines[:2], nil))
	audit(exitOK, "0 changes", name)
	audit(exitDamaged, "the log was cut", name, "--hash", hash)
	write(bytes.Join(lines[1:], nil))
	audit(exitOK, "records 1 to 1 are in earlier files, or were removed", name)
	write(bytes.Replace(content, []byte("Bayley"), []byte("Robin"), 1))
	audit(exitDamaged, "changed in 1 places", name)
}
