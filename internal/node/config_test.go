package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"licensed/internal/storage"
	"licensed/internal/tlsfiles"
)

func TestValidate(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const url = "cassandra://user@10.0.0.1,10.0.0.2/licensed"
	member := func() Config {
		c := DefaultConfig()
		c.Store = url
		return c
	}
	good := map[string]func(*Config){
		"as it is":          func(*Config) {},
		"embedded, alone":   func(c *Config) { c.Store, c.Cluster.Alone = "", true },
		"another archive":   func(c *Config) { c.Archive = "cassandra://10.0.0.9/archive" },
		"no archive":        func(c *Config) { c.Archive = storage.ArchiveOff },
		"alone, a folder":   func(c *Config) { c.Archive, c.Cluster.Alone = dir, true },
		"a password":        func(c *Config) { c.StorePasswordFile = file("password", "secret\n") },
		"a key":             func(c *Config) { c.Cluster.KeyFile = file("key", "MDEyMzQ1Njc4OWFiY2RlZg==\n") },
		"confirmed by read": func(c *Config) { c.Cluster.Confirm = "read" },
	}
	for name, change := range good {
		c := member()
		change(&c)
		if err := c.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for says, change := range map[string]func(*Config){
		"store: is required":                 func(c *Config) { c.Store = "" },
		"data: is required":                  func(c *Config) { c.Store, c.Data, c.Cluster.Alone = "", "", true },
		`store: begins with "postgres://"`:   func(c *Config) { c.Store = "postgres://user:secret@x" },
		"store: does not begin with":         func(c *Config) { c.Store = "user:secret@x" },
		`archive: begins with "casandra://"`: func(c *Config) { c.Archive = "casandra://user:secret@x/k" },
		"store: cassandra URL":               func(c *Config) { c.Store = url + "?speed=high" },
		"password file":                      func(c *Config) { c.StorePasswordFile = filepath.Join(dir, "none") },
		"archive: cassandra URL":             func(c *Config) { c.Archive = "cassandra://h/UPPER" },
		"archive: is a directory":            func(c *Config) { c.Archive = dir },
		"gossip-key-file: stat":              func(c *Config) { c.Cluster.KeyFile = filepath.Join(dir, "none") },
		`member-networks: "10.0.0.1/8" has`:  func(c *Config) { c.Cluster.Networks = []string{"10.0.0.1/8"} },
		"a key of 3 bytes":                   func(c *Config) { c.Cluster.KeyFile = file("short", "MDEy") },
		"is not base64":                      func(c *Config) { c.Cluster.KeyFile = file("text", "not base64!") },
		"tls-cert, tls-key: both":            func(c *Config) { c.APITLS.Cert = "x" },
		"tls-cert: open":                     func(c *Config) { c.APITLS = tlsfiles.Files{Cert: "none", Key: "none"} },
		"node-tls-cert, node-tls-":           func(c *Config) { c.Cluster.NodeTLS.CA = "x" },
	} {
		c := member()
		change(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want it to say %q", err, says)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is shown: %v", err)
		}
	}
}
