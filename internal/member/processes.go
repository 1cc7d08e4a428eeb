package member

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"licensed/cluster/transport"
	"licensed/gateway/auth"
	"licensed/internal/tlsfiles"
)

// processes tell nodes and gateways by their certificates.
type processes struct{ nodes, gateways auth.Names }

// processes returns who is who by the settings; nil where every certificate is that of a node. Errors begin with the
// name of a setting.
func (s *Settings) processes(encryption *tlsfiles.Certificates) (*processes, error) {
	if len(s.NodeSANs)+len(s.GatewaySANs) == 0 {
		return nil, nil
	}
	if encryption == nil {
		return nil, errors.New("node-sans: needs --node-tls-cert, --node-tls-key and --node-tls-ca")
	}
	if len(s.NodeSANs) == 0 {
		return nil, errors.New("node-sans: is required with --gateway-sans")
	}
	nodes, err := auth.ParseNames(s.NodeSANs)
	if err != nil {
		return nil, fmt.Errorf("node-sans: %w", err)
	}
	gateways, err := auth.ParseNames(s.GatewaySANs)
	if err != nil {
		return nil, fmt.Errorf("gateway-sans: %w", err)
	}
	return &processes{nodes, gateways}, nil
}

// identify implements transport.Config.Identify.
func (p *processes) identify(c *x509.Certificate) transport.Process {
	switch {
	case p.nodes.Fit(c):
		return transport.Node
	case p.gateways.Fit(c):
		return transport.Gateway
	}
	return transport.Stranger
}

// client returns how to connect to processes that are known by the names in their certificates, and not by the address
// at which they are reached: that may be known only when they run. That the process at an address is the one with the
// lease there, its greeting tells.
func (p *processes) client(encryption *tlsfiles.Certificates) *tls.Config {
	c := encryption.Client()
	roots := c.RootCAs
	c.InsecureSkipVerify = true // VerifyConnection does all of it but the address.
	c.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 {
			return errors.New("the process has no certificate")
		}
		intermediates := x509.NewCertPool()
		for _, between := range s.PeerCertificates[1:] {
			intermediates.AddCert(between)
		}
		leaf := s.PeerCertificates[0]
		chains, err := leaf.Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err == nil {
			err = encryption.Check(chains)
		}
		if err != nil {
			return err
		}
		if p.identify(leaf) == transport.Stranger {
			return fmt.Errorf("the names in its certificate, %v and %v, fit none of --node-sans and --gateway-sans",
				leaf.DNSNames, leaf.URIs)
		}
		return nil
	}
	return c
}

// own returns an error if the certificate of this process is not that of its role.
func (p *processes) own(files tlsfiles.Files, holds bool) error {
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return fmt.Errorf("node-tls-cert: %w", err)
	}
	switch is := p.identify(pair.Leaf); {
	case is == transport.Stranger:
		return errors.New("node-tls-cert: its names fit none of --node-sans and --gateway-sans")
	case holds && is != transport.Node:
		return errors.New("node-tls-cert: is a gateway's, and this process holds customers: its names fit none of " +
			"--node-sans")
	}
	return nil
}
