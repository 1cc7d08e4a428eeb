package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"licensed/actors"
	"licensed/internal/certs"
	"licensed/internal/networks"
	"licensed/persistence"
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

// TestMutualTLS: a process without a certificate of the same authority is refused, in either direction.
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

// TestProcesses: a process whose certificate has no role can neither send nor receive requests, a gateway receives no
// requests for nodes, and a handler learns the role of the process that sent the request.
func TestProcesses(t *testing.T) {
	a := certs.New(t)
	// Serial numbers stand for names: 10 is a node, 11 a gateway.
	roles := map[int64]Process{10: Node, 11: Gateway}
	who := persistence.NewIncarnation()
	begin := func(serial int64, says persistence.Incarnation) *process {
		return start(t, func(c *Config) {
			mutual(a)(c)
			own := []tls.Certificate{a.Sign(serial)}
			c.ServerTLS.Certificates, c.ClientTLS().Certificates = own, own
			c.Identify = func(of *x509.Certificate) Process { return roles[of.SerialNumber.Int64()] }
			c.Incarnation = func() persistence.Incarnation { return says }
		})
	}
	node := begin(10, who)
	gateway, stranger := begin(11, persistence.Incarnation{}), begin(12, persistence.Incarnation{})
	impostor := begin(11, who)
	var asks []Process
	node.handler.query = func(ctx context.Context, _ string, q any) (actors.Answer, error) {
		asks = append(asks, ProcessOf(ctx))
		return actors.Answer{Value: q}, nil
	}
	for _, from := range []*process{gateway, begin(10, who)} {
		if _, err := from.Query(t.Context(), node.Address(), "K", "x", "q"); err != nil {
			t.Error(err)
		}
	}
	if want := []Process{Gateway, Node}; !slices.Equal(asks, want) {
		t.Errorf("%v asked, want %v", asks, want)
	}
	for name, to := range map[string]*process{"a gateway as a node": impostor, "a stranger": stranger} {
		to.handler.query = func(context.Context, string, any) (actors.Answer, error) {
			t.Errorf("%s was asked", name)
			return actors.Answer{}, nil
		}
		if _, err := node.Query(t.Context(), to.Address(), "K", "x", "q"); !errors.Is(err, ErrNotSent) ||
			!strings.Contains(err.Error(), "--node-sans") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := stranger.Query(t.Context(), node.Address(), "K", "x", "q"); !errors.Is(err, ErrNotSent) {
		t.Errorf("asked by a stranger: %v", err)
	}
	if len(asks) != 2 || node.journal.count("certificate of another role") == 0 {
		t.Errorf("%d asked; %v", len(asks), node.journal.said)
	}
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

// TestNetworks: a connection from another network is closed before anything of it is read.
func TestNetworks(t *testing.T) {
	elsewhere, err := networks.Parse([]string{"192.0.2.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := start(t, func(c *Config) { c.Networks = elsewhere }), start(t, func(*Config) {})
	if _, err := b.execute(t.Context(), a.Address(), "x"); !errors.Is(err, ErrNotSent) {
		t.Errorf("%v, want ErrNotSent", err)
	}
	if a.journal.count(networks.ErrOutside.Error()) == 0 {
		t.Errorf("not told: %v", a.journal.said)
	}
	a.works(t, b.Address())
}
