// Package signingkeys has the private keys that sign licences: files in PEM (PKCS #8, Ed25519), which are read again
// when they change.
//
// # The model
//
// The keys are a directory of files that end in .pem, or one file. Each key begins at a time: the one that its name
// says (20261130T120000Z.pem), or else that of the file. The last key that has begun signs; before the first begins,
// the first signs. So a key can be known to all gateways and devices before it signs.
//
// Keys that have not begun are published, and so are keys that sign no more, for a time: licences that they signed are
// accepted until then. A key whose file is removed is not accepted any more, wherever this was heard.
//
// Files that cannot be used leave the former keys in force.
package signingkeys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"licensed/licensetoken"
)

const (
	// Extension of the files of a directory that are keys.
	Extension = ".pem"
	// nameLayout is the time in the name of a file, in UTC.
	nameLayout = "20060102T150405Z"
	blockType  = "PRIVATE KEY"
	// maxBytes of a file; a key has about 120.
	maxBytes = 16 << 10
)

// Errors of keys that cannot be used.
var (
	// ErrNone says that a directory has no key.
	ErrNone = errors.New("no key")
	// ErrExposed says that others may read the file of a key.
	ErrExposed = errors.New("others may read it")
)

// Key is a key in a file.
type Key struct {
	licensetoken.SigningKey
	Path string
	// Begins is when it may sign.
	Begins time.Time
}

// Ring has the keys of a directory, by their beginning. It is not changed after it was made.
type Ring []Key

// Read reads the keys of a directory, or the one of a file. Errors: ErrNone, ErrExposed, what is wrong with a file, and
// those of the file system.
func Read(path string) (Ring, error) {
	files, err := filesOf(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys of licences: %w", err)
	}
	var ring Ring
	for _, file := range files {
		k, err := readKey(file)
		if err != nil {
			return nil, fmt.Errorf("read the key %s: %w", file, err)
		}
		ring = append(ring, k)
	}
	slices.SortStableFunc(ring, func(a, b Key) int { return a.Begins.Compare(b.Begins) })
	return ring, nil
}

// filesOf returns the files of keys, by name.
func filesOf(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), Extension) && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: %w in a file *%s; make one with: licensed keys new %s",
			path, ErrNone, Extension, path)
	}
	return files, nil
}

// CheckMode returns an error if others than the owner and the group of a file may read it, or others than the owner
// change it. The group may read it: that is how orchestrators give secrets to processes that are not root.
//
// Errors: ErrExposed.
func CheckMode(path string, info os.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("mode %#o: %w, or its group may change it; run: chmod 600 %s", mode, ErrExposed, path)
	}
	return nil
}

func readKey(path string) (k Key, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return k, err
	}
	if err := CheckMode(path, info); err != nil {
		return k, err
	}
	if info.Size() > maxBytes {
		return k, fmt.Errorf("%d bytes are no key", info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return k, err
	}
	private, err := parse(text)
	if err != nil {
		return k, err
	}
	return Key{SigningKey: licensetoken.NewSigningKey(private), Path: path, Begins: begins(path, info)}, nil
}

// begins returns the time that the name of a file says, or that of the file.
func begins(path string, info os.FileInfo) time.Time {
	if at, err := time.Parse(nameLayout, strings.TrimSuffix(filepath.Base(path), Extension)); err == nil {
		return at
	}
	return info.ModTime().UTC()
}

// parse returns the only key of a text.
func parse(text []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, errors.New("it is not PEM; make a key with: licensed keys new DIR")
	case block.Type == "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("it is encrypted: decrypt it with openssl pkey, and protect the file by its mode")
	case block.Type != blockType:
		return nil, fmt.Errorf("it is a %s, not a %s (PKCS #8)", block.Type, blockType)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, errors.New("something follows the key: a file has one")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("it is not PKCS #8: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T, not a key of Ed25519; make one with: licensed keys new DIR", key)
	}
	return private, nil
}

// New makes a key that begins at a time, in a directory that it makes if it is missing. Only the user of the process
// may read the file.
func New(dir string, at time.Time) (Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Key{}, fmt.Errorf("make a key: %w", err)
	}
	k := Key{SigningKey: licensetoken.NewSigningKey(private), Begins: at.UTC().Truncate(time.Second)}
	k.Path = filepath.Join(dir, k.Begins.Format(nameLayout)+Extension)
	if err := write(dir, k); err != nil {
		return Key{}, fmt.Errorf("write the key %s: %w", k.Path, err)
	}
	return k, nil
}

// write makes the file appear as a whole, and never replaces one.
func write(dir string, k Key) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Of mode 0600, and of a name that is no key's.
	f, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	err = pem.Encode(f, &pem.Block{Type: blockType, Bytes: der})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), k.Path)
}

// signing returns the position of the key that signs.
func (r Ring) signing(now time.Time) int {
	i, _ := slices.BinarySearchFunc(r, now, func(k Key, now time.Time) int {
		if k.Begins.After(now) {
			return 1
		}
		return -1
	})
	return max(i-1, 0)
}

// Signing returns the key that signs at a time.
func (r Ring) Signing(now time.Time) Key { return r[r.signing(now)] }

// Accepted returns the keys whose licences are accepted at a time: all but those that sign no more since grace ago.
func (r Ring) Accepted(now time.Time, grace time.Duration) licensetoken.KeySet {
	set := make(licensetoken.KeySet)
	signing := r.signing(now)
	for i, k := range r {
		if i >= signing || now.Sub(r[i+1].Begins) < grace {
			set[k.ID] = k.Public()
		}
	}
	return set
}

// equal reports whether two rings have the same keys, which begin at the same times.
func (r Ring) equal(other Ring) bool {
	return slices.EqualFunc(r, other, func(a, b Key) bool { return a.ID == b.ID && a.Begins.Equal(b.Begins) })
}
