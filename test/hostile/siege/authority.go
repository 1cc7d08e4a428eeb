package siege

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"licensed/internal/throwaway"
)

// authority signs certificates. Unlike that of `licensed certs dev`, its key is kept, so that certificates that are
// almost right can be made.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority returns an authority that nobody trusts yet.
func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(48 * time.Hour),
		IsCA:     true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert, key}, err
}

// pool trusts this authority alone.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// identity says what a certificate is for.
type identity struct {
	// uri is a name in it; empty for none.
	uri string
	// hosts are the addresses that it is valid for.
	hosts []string
	// expired says that it is no longer valid.
	expired bool
}

// sign returns a new certificate, and its key in PEM form.
func (a *authority) sign(of identity) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "siege"}, NotBefore: time.Now().Add(-24 * time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if of.expired {
		t.NotAfter = time.Now().Add(-time.Hour)
	}
	if of.uri != "" {
		u, err := url.Parse(of.uri)
		if err != nil {
			return tls.Certificate{}, nil, err
		}
		t.URIs = []*url.URL{u}
	}
	for _, host := range of.hosts {
		t.IPAddresses = append(t.IPAddresses, net.ParseIP(host))
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), err
}

// Names in certificates.
const (
	nodeURI    = throwaway.NodeSAN
	gatewayURI = throwaway.GatewaySAN
)

// What JSON Web Tokens of the siege have.
const (
	issuer   = "https://siege.example.org"
	audience = "licensed"
	keyID    = "siege-1"
)

// secrets is all that a cluster needs to know its callers, below a directory, and what an attacker may have got hold
// of.
type secrets struct {
	dir           string
	ca, foreign   *authority
	node, gateway tls.Certificate
	issuer        *rsa.PrivateKey
	// canaries must not appear in anything that a process writes or answers, by what they are.
	canaries map[string]string
}

// newSecrets writes the files of a cluster whose members have these addresses.
func newSecrets(dir string, hosts []string) (*secrets, error) {
	if err := throwaway.Tokens(dir); err != nil {
		return nil, err
	}
	s := &secrets{dir: dir, canaries: make(map[string]string)}
	var err error
	if s.ca, err = newAuthority("siege"); err != nil {
		return nil, err
	}
	if s.foreign, err = newAuthority("siege"); err != nil { // the same name: only the key differs
		return nil, err
	}
	if err := s.writeCertificates(hosts); err != nil {
		return nil, err
	}
	if err := s.writeIssuer(); err != nil {
		return nil, err
	}
	gossip, token := make([]byte, 32), rand.Text()+rand.Text()
	_, _ = rand.Read(gossip) // It never fails.
	s.canaries["the gossip key"], s.canaries["the admin token"] = base64.StdEncoding.EncodeToString(gossip), token
	for role, what := range map[string]string{
		"service": "the service's token", "operator": "the operator's token", "customer": "the customer's token",
	} {
		if s.canaries[what], err = s.token(role); err != nil {
			return nil, err
		}
	}
	return s, errors.Join(
		s.write("gossip.key", []byte(s.canaries["the gossip key"])), s.write("admin.token", []byte(token)),
	)
}

func (s *secrets) path(name string) string { return filepath.Join(s.dir, name) }

func (s *secrets) write(name string, content []byte) error {
	return os.WriteFile(s.path(name), content, 0o600)
}

// token returns the static token of a role.
func (s *secrets) token(role string) (string, error) {
	b, err := os.ReadFile(s.path(role + ".token"))
	return string(trimmed(b)), err
}

// writeCertificates signs those of the ports.
func (s *secrets) writeCertificates(hosts []string) error {
	err := s.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.ca.cert.Raw}))
	for name, uri := range map[string]string{"server": "", "node": nodeURI, "gateway": gatewayURI} {
		pair, key, signErr := s.ca.sign(identity{uri: uri, hosts: hosts})
		if err = errors.Join(err, signErr); err != nil {
			return err
		}
		switch name {
		case "node":
			s.node = pair
		case "gateway":
			s.gateway = pair
		}
		// A line of the key stands for all of it.
		s.canaries["the private key of "+name] = string(key[len("-----BEGIN PRIVATE KEY-----\n"):][:64])
		err = errors.Join(s.write(name+"-key.pem", key), s.write(name+".pem",
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	}
	return err
}

// writeIssuer adds an issuer of JSON Web Tokens to the auth file.
func (s *secrets) writeIssuer() error {
	var err error
	if s.issuer, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return err
	}
	text := base64.RawURLEncoding.EncodeToString
	keys, err := json.Marshal(map[string]any{"keys": []any{map[string]string{
		"kty": "RSA", "kid": keyID, "use": "sig", "alg": "RS256", "n": text(s.issuer.N.Bytes()),
		"e": text(big.NewInt(int64(s.issuer.E)).Bytes()),
	}}})
	if err != nil {
		return err
	}
	auth, err := os.ReadFile(s.path(throwaway.AuthFile))
	if err != nil {
		return err
	}
	auth = fmt.Appendf(auth, "issuers:\n  - issuer: %s\n    jwks_file: %s\n    audiences: [%s]\n"+
		"    customer_claim: customer\n    roles:\n      - {claim: scope, value: customer, roles: [customer]}\n"+
		"      - {claim: scope, value: service, roles: [service]}\n",
		issuer, s.path("jwks.json"), audience)
	return errors.Join(s.write("jwks.json", keys), s.write(throwaway.AuthFile, auth))
}

// claims returns those of a token that is in order, with changes; nil removes one.
func claims(changes jwt.MapClaims) jwt.MapClaims {
	now := time.Now()
	c := jwt.MapClaims{
		"iss": issuer, "aud": audience, "sub": "siege", "scope": "service", "iat": now.Add(-time.Minute).Unix(),
		"exp": now.Add(time.Hour).Unix(),
	}
	for name, value := range changes {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	return c
}

// signed returns a token, with headers beside those that are needed.
func signed(method jwt.SigningMethod, key any, c jwt.MapClaims, headers map[string]any) (string, error) {
	t := jwt.NewWithClaims(method, c)
	t.Header["kid"] = keyID
	for name, value := range headers {
		t.Header[name] = value
	}
	return t.SignedString(key)
}
