package cassandra_test

import (
	"context"
	"crypto/tls"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"licensed/persistence"
	"licensed/persistence/cassandra"
	"licensed/persistence/cassandra/cassandratest"
)

// copyFile replaces a file as an operator does: under another name first.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	check(t, err)
	check(t, os.WriteFile(to+".new", content, 0o600))
	check(t, os.Rename(to+".new", to))
}

// TestRotation: CA, client certificate and password for Cassandra are rotated while a store is open, and new
// connections use the new ones. Connections without a certificate of Cassandra's clients are refused.
func TestRotation(t *testing.T) {
	c := cassandratest.Start(t, cassandratest.Config{Password: true, Mutual: true, Env: []string{"TIMEOUT=20s"}})
	base := c.Options()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"ca.pem", "client.pem", "client-key.pem"} {
		copyFile(t, c.Certificates(name), file(name))
	}
	parsed, err := cassandra.ParseURL("cassandra://a?" + url.Values{
		"tls_ca": {file("ca.pem")}, "tls_cert": {file("client.pem")}, "tls_key": {file("client-key.pem")},
	}.Encode())
	check(t, err)
	base.TLS, base.Certificates = parsed.TLS, parsed.Certificates
	o := cassandratest.Keyspace(t, base, 1)
	var password atomic.Pointer[string]
	password.Store(new("first"))
	bare := base
	bare.Keyspace = "system"
	root := cassandratest.Connect(t, bare)
	check(t, root.Exec("CREATE ROLE rotated WITH LOGIN = true AND PASSWORD = 'first' AND SUPERUSER = true"))
	o.Username, o.Password = "rotated", "first"
	o.ReadPassword = func() string { return *password.Load() }
	s := open(t, o)
	works := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for {
			_, err := s.Shards(ctx)
			if err == nil {
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	works("at first")

	without := o
	without.TLS = func() *tls.Config {
		c := parsed.TLS()
		c.GetClientCertificate = nil
		return c
	}
	without.Timeout, without.ConnectTimeout = 3*time.Second, 3*time.Second
	wantOpenError(t, without, persistence.ErrUnavailable, "")

	// The password: existing connections continue with the former one.
	check(t, root.Exec("ALTER ROLE rotated WITH PASSWORD = 'second'"))
	password.Store(new("second"))
	root.Close()

	// Certificates and CA on both sides. Cassandra starts anew, so that all connections are new ones.
	c.Certify(t)
	c.Do(t, "stop", "1")
	for _, name := range []string{"ca.pem", "client.pem", "client-key.pem"} {
		copyFile(t, c.Certificates(name), file(name))
	}
	c.Do(t, "start", "1")
	works("with another CA, another certificate and another password")
}
