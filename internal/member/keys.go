package member

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"licensed/cluster/membership"
	"licensed/internal/signingkeys"
)

// gossipKeys are the keys of a file, which is read again while the process runs.
type gossipKeys struct {
	file string
	read []byte // what is in force, or was last found to be of no use
	ring *membership.Keys
}

const (
	// lookForKeys is the interval at which the file of keys is read.
	lookForKeys = time.Second
	// maxKeyFile is the size of such a file, in bytes.
	maxKeyFile = 64 << 10
)

// gossipKeys returns the keys that encrypt gossip; nil for none. Errors begin with the name of the setting.
func (s *Settings) gossipKeys() (*gossipKeys, error) {
	if s.KeyFile == "" {
		return nil, nil
	}
	k := &gossipKeys{file: s.KeyFile}
	keys, err := k.load()
	if err == nil {
		k.ring, err = membership.NewKeys(keys)
	}
	if err != nil {
		return nil, fmt.Errorf("gossip-key-file: %w", err)
	}
	return k, nil
}

// load reads the file.
func (k *gossipKeys) load() ([][]byte, error) {
	info, err := os.Stat(k.file)
	if err != nil {
		return nil, err
	}
	if err := signingkeys.CheckMode(k.file, info); err != nil {
		return nil, fmt.Errorf("%s: %w", k.file, err)
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s: %d bytes, at most %d are accepted", k.file, info.Size(), maxKeyFile)
	}
	if k.read, err = os.ReadFile(k.file); err != nil {
		return nil, err
	}
	keys, err := parseKeys(k.read)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", k.file, err)
	}
	return keys, nil
}

// parseKeys returns the keys in a text: one a line in base64. Empty lines and those that begin with # are comments.
func parseKeys(text []byte) (keys [][]byte, err error) {
	number := 0
	for line := range bytes.Lines(text) {
		number++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil {
			// The error of the package would show a part of the key.
			return nil, fmt.Errorf("line %d is not base64", number)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it; make one with: head -c 32 /dev/urandom | base64")
	}
	return keys, nil
}

// watch puts the keys into force that the file has, until ctx ends. A file that cannot be used changes nothing.
func (k *gossipKeys) watch(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(lookForKeys)
	defer tick.Stop()
	failed := "" // logged once
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := k.read
		keys, err := k.load()
		if err == nil && failed == "" && bytes.Equal(before, k.read) {
			continue
		}
		if err == nil {
			err = k.ring.Set(keys)
		}
		switch {
		case err == nil:
			failed = ""
			log.Info("gossip keys reloaded", "file", k.file, "keys", len(keys))
		case err.Error() != failed:
			failed = err.Error()
			log.Error("gossip keys not reloaded, the former ones stay in force", "error", err)
		}
	}
}
