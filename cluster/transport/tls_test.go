package transport

import (
	"crypto/tls"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"licensed/internal/certs"
)

// mutual has both sides show certificates of an authority.
func mutual(a *certs.Authority) func(*Config) {
	return func(c *Config) {
		own := []tls.Certificate{a.Sign(2)}
		c.ServerTLS = &tls.Config{
			Certificates: own,
			ClientCAs:    a.Pool(),
			ClientAuth:   tls.RequireAndVerifyClientCert,
			MinVersion:   tls.VersionTLS13,
		}
		c.ClientTLS = fixed(&tls.Config{Certificates: own, RootCAs: a.Pool(), MinVersion: tls.VersionTLS13})
	}
}

// fixed is a configuration that does not change.
func fixed(c *tls.Config) func() *tls.Config { return func() *tls.Config { return c } }

// TestMutualTLS: who has no certificate of the same authority gets nowhere, in either direction.
func TestMutualTLS(t *testing.T) {
	ours, others := certs.New(t), certs.New(t)
	a, b := start(t, mutual(ours)), start(t, mutual(ours))
	foreign := start(t, mutual(others))
	strangers := map[string]*process{
		"plain":                start(t, nil),
		"of another authority": foreign,
		"without a certificate": start(t, func(c *Config) {
			c.ClientTLS = fixed(&tls.Config{RootCAs: ours.Pool(), MinVersion: tls.VersionTLS13})
		}),
		"with another's": start(t,
			func(c *Config) { mutual(ours)(c); c.ClientTLS().Certificates = []tls.Certificate{others.Sign(2)} }),
		"which trusts another's": start(t, func(c *Config) { mutual(ours)(c); c.ClientTLS().RootCAs = others.Pool() }),
	}
	a.works(t, b.Address())
	for name, p := range strangers {
		if got, err := p.execute(t.Context(), b.Address(), "x"); !errors.Is(err, ErrNotSent) {
			t.Errorf("a process %s: %q, %v", name, got, err)
		}
	}
	if _, err := a.execute(t.Context(), foreign.Address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Errorf("to a process of another authority: %v", err)
	}
	a.works(t, b.Address())
}

// TestTLSIsAskedForEachConnection: certificates that were renewed count from the next connection on.
func TestTLSIsAskedForEachConnection(t *testing.T) {
	ours, others := certs.New(t), certs.New(t)
	var now atomic.Pointer[tls.Config]
	now.Store(&tls.Config{
		Certificates: []tls.Certificate{ours.Sign(2)}, RootCAs: others.Pool(), MinVersion: tls.VersionTLS13,
	})
	b := start(t, mutual(ours))
	a := start(t, func(c *Config) { mutual(ours)(c); c.ClientTLS = now.Load })
	if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Fatalf("by an authority that is not trusted: %v", err)
	}
	now.Store(
		&tls.Config{Certificates: []tls.Certificate{ours.Sign(2)}, RootCAs: ours.Pool(), MinVersion: tls.VersionTLS13},
	)
	for {
		_, err := a.execute(t.Context(), b.Address(), "x")
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNotSent) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
