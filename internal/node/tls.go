package node

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// TLSFiles are PEM files. Without any, connections are not encrypted.
type TLSFiles struct {
	// Cert and Key are the certificate, with its chain, and its private key.
	Cert, Key string
	// CA has the certificates that the other side's must be signed by.
	CA string
}

// server returns how to be connected to; nil for unencrypted. Errors begin with the name of a flag.
func (f TLSFiles) server(flag string) (*tls.Config, error) {
	if f == (TLSFiles{}) {
		return nil, nil
	}
	if f.Cert == "" || f.Key == "" {
		return nil, fmt.Errorf("%s-cert, %s-key: both are needed for TLS", flag, flag)
	}
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("%s-cert, %s-key: %w", flag, flag, err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if f.CA != "" {
		if c.ClientCAs, err = pool(f.CA); err != nil {
			return nil, fmt.Errorf("%s-ca: %w", flag, err)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// mutual returns how to be connected to by other processes of the cluster, and how to connect to them. A
// CA is needed: the one side must know the other.
func (f TLSFiles) mutual(flag string) (server, client *tls.Config, err error) {
	if server, err = f.server(flag); server == nil || err != nil {
		return nil, nil, err
	}
	if f.CA == "" {
		return nil, nil, fmt.Errorf("%s-ca: is needed, so that processes know each other", flag)
	}
	return server, &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: server.Certificates, RootCAs: server.ClientCAs,
	}, nil
}

func pool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", file)
	}
	return p, nil
}
