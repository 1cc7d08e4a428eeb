// Package throwaway makes certificates and tokens for trying things out: an authority of its own that signs for a year,
// and an auth file with a token for each role. A reader of the directory can be anybody; nothing of it is for
// production.
package throwaway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"

	"licensed/gateway/auth"
	"licensed/messages/licensedv1"
)

// Files of Tokens and Certs, below their directory. A token is in a file ROLE.token, and the certificate of a client
// for a role in ROLE.pem and ROLE-key.pem.
const (
	AuthFile      = "auth.yaml"
	CA            = "ca.pem"
	ServerCert    = "server.pem"
	ServerKey     = "server-key.pem"
	GossipKeyFile = "gossip.key"
)

// Customer is whom the token of the role customer is about.
const Customer = "Bayley"

// valid is the time for which certificates are valid.
const valid = 365 * 24 * time.Hour

// Tokens writes a token for each role, one for all of them but the customer's (all.token), and the auth file that has
// their hashes and the names in certificates of Certs. Errors: those of writing, and fs.ErrExist if there is an auth
// file.
func Tokens(dir string) error {
	if err := create(dir, AuthFile); err != nil {
		return err
	}
	var f auth.File
	add := func(name, customer string, roles ...string) error {
		token := rand.Text() + rand.Text()
		sum := sha256.Sum256([]byte(token))
		f.Tokens = append(f.Tokens, auth.Token{
			Subject: "dev-" + name, Roles: roles, SHA256: hex.EncodeToString(sum[:]), Customer: customer,
		})
		return write(dir, name+".token", []byte(token+"\n"))
	}
	var all []string
	for _, role := range auth.AllRoles() {
		name, about := auth.RoleName(role), ""
		if role == licensedv1.Role_ROLE_CUSTOMER {
			about = Customer
		} else {
			all = append(all, name)
			f.Certificates = append(f.Certificates, auth.Certificate{URI: uriOf(name), Roles: []string{name}})
		}
		if err := add(name, about, name); err != nil {
			return err
		}
	}
	if err := add("all", "", all...); err != nil {
		return err
	}
	content, err := yaml.Marshal(&f)
	if err != nil {
		return err
	}
	return write(dir, AuthFile, append([]byte("# For trying things out; see docs/guide/security.md.\n"), content...))
}

// uriOf returns the name in the certificate of a client for a role.
func uriOf(role string) string { return "spiffe://licensed.dev/" + role }

// NodeSAN and GatewaySAN are the names in the certificates of Certs for the node ports of nodes (node.pem) and of
// gateways (gateway.pem).
const (
	NodeSAN    = "spiffe://licensed.dev/process/node"
	GatewaySAN = "spiffe://licensed.dev/process/gateway"
)

// Certs writes an authority, a certificate of it for servers at these hosts beside this machine, one each for the node
// ports of nodes and of gateways, one for a client of each role, and a key for gossip. Errors: those of writing, and
// fs.ErrExist if there is an authority.
func Certs(dir string, hosts []string) error {
	if err := create(dir, CA); err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "licensed throw-away authority"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(valid),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	key, err := sign(dir, CA, "", ca, ca, nil)
	if err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "licensed"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, host)
		}
	}
	if _, err := sign(dir, ServerCert, ServerKey, server, ca, key); err != nil {
		return err
	}
	// They are also known by name, whatever the addresses are that they run at.
	for _, process := range []string{"node", "gateway"} {
		of := *server
		of.URIs = []*url.URL{{Scheme: "spiffe", Host: "licensed.dev", Path: "/process/" + process}}
		if _, err := sign(dir, process+".pem", process+"-key.pem", &of, ca, key); err != nil {
			return err
		}
	}
	for _, role := range auth.AllRoles() {
		name := auth.RoleName(role)
		uri, err := url.Parse(uriOf(name))
		if err != nil {
			return err
		}
		client := &x509.Certificate{
			Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, URIs: []*url.URL{uri},
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if _, err := sign(dir, name+".pem", name+"-key.pem", client, ca, key); err != nil {
			return err
		}
	}
	gossip := make([]byte, 32)
	_, _ = rand.Read(gossip) // It never fails.
	return write(dir, GossipKeyFile, []byte(base64.StdEncoding.EncodeToString(gossip)+"\n"))
}

// create makes a directory that has no file of that name.
func create(dir, name string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w; choose another directory, or remove it", filepath.Join(dir, name), fs.ErrExist)
	}
	return nil
}

// sign writes a certificate with a new key, which it returns. Without a signer it signs itself; without a name its key
// is not written.
func sign(
	dir, name, keyName string, template, parent *x509.Certificate, signer *ecdsa.PrivateKey,
) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	if err := write(dir, name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})); err != nil {
		return nil, err
	}
	if keyName == "" {
		return key, nil
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, write(dir, keyName, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// write writes a file that only its owner can read.
func write(dir, name string, content []byte) error {
	return os.WriteFile(filepath.Join(dir, name), content, 0o600)
}
