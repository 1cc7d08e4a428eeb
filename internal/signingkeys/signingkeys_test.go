package signingkeys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

func mustNew(t *testing.T, dir string, at time.Time) Key {
	t.Helper()
	k, err := New(dir, at)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustRead(t *testing.T, path string) Ring {
	t.Helper()
	r, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	k := mustNew(t, dir, noon)
	info, err := os.Stat(k.Path)
	if err != nil || info.Mode().Perm() != 0o600 || filepath.Base(k.Path) != "20261130T120000Z.pem" {
		t.Errorf("%s: mode %v, %v", k.Path, info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the directory has %v, %v", entries, err)
	}
	if got := mustRead(t, dir); len(got) != 1 || got[0].ID != k.ID || !got[0].Begins.Equal(noon) {
		t.Errorf("read %+v", got)
	}
	if _, err := New(dir, noon); !errors.Is(err, os.ErrExist) {
		t.Errorf("a key was replaced: %v", err)
	}
	if got := mustRead(t, k.Path); len(got) != 1 || got[0].ID != k.ID {
		t.Errorf("one file: %+v", got)
	}
}

func TestWhichKeySigns(t *testing.T) {
	dir := t.TempDir()
	third, first := mustNew(t, dir, noon.Add(2*time.Hour)), mustNew(t, dir, noon)
	second := mustNew(t, dir, noon.Add(time.Hour))
	r := mustRead(t, dir)
	const grace = 3 * time.Hour
	for _, test := range []struct {
		after    time.Duration
		signs    Key
		accepted []Key
	}{
		{-time.Hour, first, []Key{first, second, third}}, // none has begun
		{0, first, []Key{first, second, third}},
		{time.Hour - 1, first, []Key{first, second, third}},
		{time.Hour, second, []Key{first, second, third}},
		{4*time.Hour - 1, third, []Key{first, second, third}},
		{4 * time.Hour, third, []Key{second, third}},
		{1000 * time.Hour, third, []Key{third}},
	} {
		now := noon.Add(test.after)
		if got := r.Signing(now); got.ID != test.signs.ID {
			t.Errorf("after %v, %s signs, want %s", test.after, got.Path, test.signs.Path)
		}
		got := r.Accepted(now, grace)
		for _, k := range test.accepted {
			if got[k.ID] == nil {
				t.Errorf("after %v, %s is not accepted", test.after, k.Path)
			}
		}
		if len(got) != len(test.accepted) {
			t.Errorf("after %v, %d keys are accepted, want %d", test.after, len(got), len(test.accepted))
		}
	}
}

// TestOtherNames: a key that another program made begins at the time of its file.
func TestOtherNames(t *testing.T) {
	dir := t.TempDir()
	k := mustNew(t, dir, noon)
	path := filepath.Join(dir, "mine.pem")
	at := noon.Add(time.Hour)
	if err := errors.Join(os.Rename(k.Path, path), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
	if got := mustRead(t, dir); !got[0].Begins.Equal(at) {
		t.Errorf("begins at %v", got[0].Begins)
	}
}

func TestRefusedFiles(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	valid, err := os.ReadFile(mustNew(t, t.TempDir(), noon).Path)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, content []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
	}
	for name, test := range map[string]struct {
		content []byte
		mode    os.FileMode
		want    string // "" if it is accepted
	}{
		"a key":                      {valid, 0o600, ""},
		"read-only":                  {valid, 0o400, ""},
		"for the group":              {valid, 0o440, ""},
		"for everyone":               {valid, 0o604, "chmod 600"},
		"that the group may replace": {valid, 0o620, "chmod 600"},
		"empty":                      {nil, 0o600, "it is not PEM"},
		"large":                      {make([]byte, maxBytes+1), 0o600, "are no key"},
		"two keys":                   {append(valid, valid...), 0o600, "something follows"},
		"another kind of key":        {block(blockType, ec), 0o600, "is a *ecdsa.PrivateKey, not a key of Ed25519"},
		"another form":               {block("EC PRIVATE KEY", ec), 0o600, "is a EC PRIVATE KEY, not a PRIVATE KEY"},
		"a public key":               {block("PUBLIC KEY", ec), 0o600, "is a PUBLIC KEY"},
		"encrypted":                  {block("ENCRYPTED PRIVATE KEY", ec), 0o600, "openssl pkey"},
		"damaged":                    {block(blockType, ec[:20]), 0o600, "not PKCS #8"},
	} {
		path := filepath.Join(t.TempDir(), "k.pem")
		if err := errors.Join(os.WriteFile(path, test.content, 0o600), os.Chmod(path, test.mode)); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v does not name the file", name, err)
		}
	}
	if _, err := Read(t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing directory: %v", err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	old := mustNew(t, dir, noon)
	var log bytes.Buffer
	now := noon.Add(time.Hour)
	s, err := Open(SourceConfig{
		Path: dir, Grace: time.Hour, Poll: time.Hour, Now: func() time.Time { return now },
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	signs := func(want Key) {
		t.Helper()
		if got, since := s.Signing(); got.ID != want.ID || !since.Equal(want.Begins) {
			t.Errorf("%s signs since %v, want %s", got.ID, since, want.Path)
		}
	}
	signs(old)
	// A fault changes nothing, and is told once.
	broken := filepath.Join(dir, "broken.pem")
	if err := os.WriteFile(broken, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	s.Reload()
	signs(old)
	if n := strings.Count(log.String(), "not reloaded"); n != 1 {
		t.Errorf("told %d times:\n%s", n, &log)
	}
	if err := os.Remove(broken); err != nil {
		t.Fatal(err)
	}
	// A key that begins later is published, and then signs by itself.
	next := mustNew(t, dir, now.Add(time.Minute))
	s.Reload()
	signs(old)
	if len(s.Accepted()) != 2 {
		t.Error("the next key is not published")
	}
	now = now.Add(time.Minute)
	signs(next)
	// A key that is removed is accepted no more.
	if err := os.Remove(old.Path); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if got := s.Accepted(); len(got) != 1 || got[next.ID] == nil {
		t.Errorf("accepted: %v", got)
	}
	if n := strings.Count(log.String(), "keys of licences reloaded"); n != 2 {
		t.Errorf("reloaded %d times:\n%s", n, &log)
	}
	if private, err := os.ReadFile(next.Path); err != nil || strings.Contains(log.String(), string(private[30:60])) {
		t.Errorf("the log has the key: %v", err)
	}
	// Without any key the former ones stay.
	if err := os.Remove(next.Path); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	signs(next)
}
