package transport

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// authority signs certificates for 127.0.0.1.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	_, a.key, _ = ed25519.GenerateKey(rand.Reader)
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, a.key.Public(), a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) sign() tls.Certificate {
	public, key, _ := ed25519.GenerateKey(rand.Reader)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// mutual has both sides show certificates of an authority.
func (a *authority) mutual(c *Config) {
	own := []tls.Certificate{a.sign()}
	c.ServerTLS = &tls.Config{Certificates: own, ClientCAs: a.pool(), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	c.ClientTLS = fixed(&tls.Config{Certificates: own, RootCAs: a.pool(), MinVersion: tls.VersionTLS13})
}

// fixed is a configuration that does not change.
func fixed(c *tls.Config) func() *tls.Config { return func() *tls.Config { return c } }

// TestMutualTLS: who has no certificate of the same authority gets nowhere, in either direction.
func TestMutualTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	a, b := start(t, ours.mutual), start(t, ours.mutual)
	foreign := start(t, others.mutual)
	strangers := map[string]*process{
		"plain":                start(t, nil),
		"of another authority": foreign,
		"without a certificate": start(t, func(c *Config) {
			c.ClientTLS = fixed(&tls.Config{RootCAs: ours.pool(), MinVersion: tls.VersionTLS13})
		}),
		"with another's":         start(t, func(c *Config) { ours.mutual(c); c.ClientTLS().Certificates = []tls.Certificate{others.sign()} }),
		"which trusts another's": start(t, func(c *Config) { ours.mutual(c); c.ClientTLS().RootCAs = others.pool() }),
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
	ours, others := newAuthority(t), newAuthority(t)
	var now atomic.Pointer[tls.Config]
	now.Store(&tls.Config{Certificates: []tls.Certificate{ours.sign()}, RootCAs: others.pool(), MinVersion: tls.VersionTLS13})
	b := start(t, ours.mutual)
	a := start(t, func(c *Config) { ours.mutual(c); c.ClientTLS = now.Load })
	if _, err := a.execute(t.Context(), b.Address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Fatalf("by an authority that is not trusted: %v", err)
	}
	now.Store(&tls.Config{Certificates: []tls.Certificate{ours.sign()}, RootCAs: ours.pool(), MinVersion: tls.VersionTLS13})
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
