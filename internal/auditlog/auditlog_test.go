package auditlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, name string, most int64) *Log {
	t.Helper()
	l, err := Open(Config{File: name, MaxBytes: most, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func record(i int) Record {
	return Record{
		Time: time.Unix(int64(i), 0).UTC(), Principal: "tokens:alice", Roles: "support", Source: "192.0.2.1",
		Method: "/licensed.v1.HistoryService/Why", Customer: fmt.Sprint("Bayley", i), Decision: Allowed,
	}
}

func add(t testing.TB, l *Log, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := l.Append(record(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// verify returns the findings in the files of a log.
func verify(t testing.TB, names ...string) (*Verifier, []Finding) {
	t.Helper()
	v, all := new(Verifier), []Finding(nil)
	for _, name := range names {
		findings, err := v.File(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, findings...)
	}
	return v, all
}

// TestContinues: a log continues after a restart and in a new file.
func TestContinues(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, name, 2000)
	add(t, l, 0, 7)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(record(0)); err == nil {
		t.Error("a closed log takes records")
	}
	l = open(t, name, 2000)
	add(t, l, 7, 20)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(name + ".*")
	if err != nil || len(names) < 2 {
		t.Fatalf("%v, %v", names, err)
	}
	all := append(names, name)
	v, findings := verify(t, all...)
	if first, last, hash := v.Range(); len(findings) > 0 || v.Records() != 20 || first != 1 || last != 20 ||
		hash != l.hash {
		t.Errorf("%d records, %v", v.Records(), findings)
	}
	if _, findings = verify(t, all[1:]...); len(findings) > 0 {
		t.Errorf("without the first file: %v", findings)
	}
	if _, findings = verify(t, append(all[:1:1], all[2:]...)...); len(findings) == 0 {
		t.Error("a file that is missing between others is not seen")
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestEveryChangeShows: whatever is changed, removed or put in between.
func TestEveryChangeShows(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, name, 0)
	add(t, l, 0, 5)
	_, head := "", l.hash
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(content, []byte("\n"))[:5]
	for what, changed := range map[string][]byte{
		"changed":  bytes.Replace(content, []byte("Bayley2"), []byte("Robin"), 1),
		"removed":  bytes.Join(append(lines[:2:2], lines[3:]...), nil),
		"swapped":  bytes.Join([][]byte{lines[0], lines[2], lines[1], lines[3], lines[4]}, nil),
		"repeated": bytes.Join([][]byte{lines[0], lines[1], lines[1], lines[2]}, nil),
		"put in":   bytes.Join([][]byte{lines[0], []byte("x\n"), lines[1]}, nil),
		"begun":    append(bytes.Replace(lines[0], []byte(`"prev":""`), []byte(`"prev":"00"`), 1), lines[1]...),
	} {
		if err := os.WriteFile(name, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		_, findings := verify(t, name)
		broken := false
		for _, f := range findings {
			broken = broken || f.Kind == Broken
		}
		if !broken {
			t.Errorf("%s: %v", what, findings)
		}
		if l, err := Open(Config{File: name, Logger: slog.New(slog.DiscardHandler)}); err == nil {
			t.Errorf("%s: such a log is continued: %v", what, l.Close())
		}
	}
	// The end has no successor: its hash tells.
	if err := os.WriteFile(name, bytes.Join(lines[:4], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	v, findings := verify(t, name)
	if _, _, hash := v.Range(); len(findings) > 0 || hash == head {
		t.Errorf("cut at its end: %v", findings)
	}
}

// TestCutWhileOpen: a file that is cut while the process runs shows at the next record.
func TestCutWhileOpen(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, name, 0)
	add(t, l, 0, 3)
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	add(t, l, 3, 4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	v, _ := verify(t, name)
	if first, last, _ := v.Range(); first != 4 || last != 4 || v.Records() != 1 {
		t.Errorf("record %d of %d", last, v.Records())
	}
}

// TestTornLine: a record that a crash cut off stays, and the log continues after it.
func TestTornLine(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, name, 0)
	add(t, l, 0, 2)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"number":3,"pr`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, name, 0)
	add(t, l, 2, 4)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	v, findings := verify(t, name)
	if v.Records() != 4 || len(findings) != 1 || findings[0].Kind != Torn || findings[0].Line != 3 {
		t.Errorf("%d records, %v", v.Records(), findings)
	}
}

func TestConcurrent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	l := open(t, name, 0)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { add(t, l, 0, 50) })
	}
	all.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if v, findings := verify(t, name); v.Records() != 400 || len(findings) > 0 {
		t.Errorf("%d records, %v", v.Records(), findings)
	}
}

// TestNotWritten: what is not recorded is an error, which the caller must not ignore.
func TestNotWritten(t *testing.T) {
	l := open(t, filepath.Join(t.TempDir(), "audit.log"), 0)
	long := record(0)
	long.Reason = strings.Repeat("x", maxLine)
	if err := l.Append(long); err == nil {
		t.Error("a record that cannot be read again is written")
	}
	add(t, l, 0, 1)
	_ = l.file.Close()
	if err := l.Append(record(1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}

// FuzzVerify: no file has the verifier panic.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("{\"number\":1,\"prev\":\"\"}\n{\"number\":2,\"prev\":\"x\"}\n"))
	f.Add([]byte("{\"number\":1"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		var v Verifier
		_, _ = v.read(bytes.NewReader(b), "file")
	})
}
