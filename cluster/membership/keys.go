package membership

import (
	"bytes"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// Keys encrypt gossip. The first one encrypts what this member sends, and all of them decrypt what it hears. They can
// be replaced while members use them. Keys are safe for concurrent use.
type Keys struct {
	mu   sync.Mutex // one Set at a time
	ring *memberlist.Keyring
}

// maxKeys bounds the keys of a member: a message of somebody without a key is tried with each of them.
const maxKeys = 8

// NewKeys returns keys of 16, 24 or 32 bytes (AES-128, AES-192 or AES-256).
func NewKeys(keys [][]byte) (*Keys, error) {
	if err := checkKeys(keys); err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, err
	}
	return &Keys{ring: ring}, nil
}

// checkKeys returns what is wrong with keys, or nil.
func checkKeys(keys [][]byte) error {
	if len(keys) == 0 || len(keys) > maxKeys {
		return fmt.Errorf("%d keys, want 1 to %d", len(keys), maxKeys)
	}
	for i, key := range keys {
		if n := len(key); memberlist.ValidateKey(key) != nil {
			return fmt.Errorf("key %d of %d: a key of %d bytes, want 16, 24 or 32", i+1, len(keys), n)
		}
		if has(keys[:i], key) {
			return fmt.Errorf("key %d of %d is the same as an earlier one", i+1, len(keys))
		}
	}
	return nil
}

// Set replaces the keys. With an error the former ones stay in force.
func (k *Keys) Set(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.ring.AddKey(keys[0]); err != nil {
		return err
	}
	if err := k.ring.UseKey(keys[0]); err != nil {
		return err
	}
	// memberlist decrypts with the slice that GetKeys returns, without a lock, and RemoveKey moves the keys behind the
	// removed one within that slice. So only the last key is ever removed. Keys that are to stay and are removed for
	// that are added again at once; a message that arrives between is sent again by gossip.
	for now := k.ring.GetKeys(); !onlyOf(now, keys); now = k.ring.GetKeys() {
		if err := k.ring.RemoveKey(now[len(now)-1]); err != nil {
			return err
		}
	}
	for _, key := range keys {
		if err := k.ring.AddKey(key); err != nil {
			return err
		}
	}
	return nil
}

// has reports whether a key is one of keys.
func has(keys [][]byte, key []byte) bool {
	return slices.ContainsFunc(keys, func(one []byte) bool { return bytes.Equal(one, key) })
}

// onlyOf reports whether all keys are among others.
func onlyOf(keys, others [][]byte) bool {
	return !slices.ContainsFunc(keys, func(key []byte) bool { return !has(others, key) })
}
