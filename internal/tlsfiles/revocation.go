package tlsfiles

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// Reasons for which certificates are refused that are signed by a CA.
var (
	// ErrRevoked: the certificate is in the revocation list of its issuer.
	ErrRevoked = errors.New("certificate is revoked")
	// ErrNoCRL: there is no revocation list of its issuer.
	ErrNoCRL = errors.New("no revocation list of the issuer of a certificate; add one to the CRL file")
	// ErrExpiredCRL: the revocation list of its issuer expired.
	ErrExpiredCRL = errors.New("revocation list expired; replace it in the CRL file")
)

// RiskExpiredCRL names the risk of revocation lists that expired, which Options.AcceptExpiredCRLs accepts: certificates
// are accepted that were revoked since.
const RiskExpiredCRL = "expired-crl"

// lists are certificate revocation lists by their issuers.
type lists struct {
	// byIssuer has the newest list of each CA of the CA file, by the bytes of its certificate.
	byIssuer map[string]*list
}

// list is one certificate revocation list.
type list struct {
	*x509.RevocationList
	revoked map[string]bool // serial numbers
}

// parseLists reads lists in PEM form, each signed by one of these certificates.
func parseLists(content []byte, cas []*x509.Certificate) (*lists, error) {
	all := &lists{byIssuer: make(map[string]*list)}
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		parsed, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate revocation list: %w", err)
		}
		if err := all.add(parsed, cas); err != nil {
			return nil, fmt.Errorf("certificate revocation list of %q: %w", parsed.Issuer, err)
		}
	}
	if len(all.byIssuer) == 0 {
		return nil, errors.New("no certificate revocation list in it (a PEM block X509 CRL)")
	}
	return all, nil
}

// add adds a list that one of the certificates signed.
func (l *lists) add(parsed *x509.RevocationList, cas []*x509.Certificate) error {
	for _, extension := range parsed.Extensions {
		if extension.Critical {
			// A list of changes, or of some certificates only: what is not in it may be revoked all the same.
			return fmt.Errorf("critical extension %v: only complete lists are supported", extension.Id)
		}
	}
	next := &list{parsed, make(map[string]bool, len(parsed.RevokedCertificateEntries))}
	for _, entry := range parsed.RevokedCertificateEntries {
		next.revoked[string(entry.SerialNumber.Bytes())] = true
	}
	signed := false
	for _, ca := range cas {
		if parsed.CheckSignatureFrom(ca) != nil {
			continue
		}
		signed = true
		if former := l.byIssuer[string(ca.Raw)]; former == nil || former.ThisUpdate.Before(parsed.ThisUpdate) {
			l.byIssuer[string(ca.Raw)] = next
		}
	}
	if !signed {
		return errors.New("no certificate of the CA file signed it, or none that may sign such lists")
	}
	return nil
}

// check returns why a chain is refused: leaf first, the CA that is trusted last, which is not checked.
func (l *lists) check(chain []*x509.Certificate, now time.Time, acceptExpired bool) error {
	for i, certificate := range chain[:len(chain)-1] {
		list := l.byIssuer[string(chain[i+1].Raw)]
		switch {
		case list == nil:
			return fmt.Errorf("%w: %q", ErrNoCRL, certificate.Issuer)
		case list.revoked[string(certificate.SerialNumber.Bytes())]:
			return fmt.Errorf("%w: %q, serial number %x", ErrRevoked, certificate.Subject, certificate.SerialNumber)
		case !acceptExpired && !list.NextUpdate.IsZero() && now.After(list.NextUpdate):
			return fmt.Errorf("%w: %q, at %v", ErrExpiredCRL, certificate.Issuer, list.NextUpdate)
		}
	}
	return nil
}

// Check returns why a connection is refused whose certificate was verified by these chains, of which one that is not
// revoked is enough; nil without chains, which is a client without a certificate. Callers that verify certificates by
// themselves call it; the configurations of this package do. Errors: ErrRevoked, ErrNoCRL, ErrExpiredCRL.
func (c *Certificates) Check(chains [][]*x509.Certificate) error {
	c.mu.Lock()
	c.look()
	lists := c.lists
	c.mu.Unlock()
	return c.check(lists, chains)
}

// check is Check by these lists; nil for none.
func (c *Certificates) check(lists *lists, chains [][]*x509.Certificate) error {
	if lists == nil || len(chains) == 0 {
		return nil
	}
	var first error
	for _, chain := range chains {
		err := lists.check(chain, c.options.Now(), c.options.AcceptExpiredCRLs)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	c.refusals.count(first)
	c.mu.Lock()
	log := c.options.Log
	c.mu.Unlock()
	log.Warn("certificate refused", "subject", chains[0][0].Subject.String(), "error", first, "crl", c.files.CRL)
	return first
}

// refusals counts refused certificates.
type refusals struct{ revoked, missing, expired atomic.Uint64 }

func (r *refusals) count(err error) {
	switch {
	case errors.Is(err, ErrRevoked):
		r.revoked.Add(1)
	case errors.Is(err, ErrNoCRL):
		r.missing.Add(1)
	default:
		r.expired.Add(1)
	}
}

// Refusals returns the number of connections that were refused by revocation lists, by reason.
func (c *Certificates) Refusals() map[string]uint64 {
	return map[string]uint64{
		"revoked": c.refusals.revoked.Load(), "no_crl": c.refusals.missing.Load(),
		"expired_crl": c.refusals.expired.Load(),
	}
}

// Kinds of Expiry.
const (
	KindCertificate = "certificate"
	KindCA          = "ca"
	KindCRL         = "crl"
)

// Expiry is the time for which something of a file is valid.
type Expiry struct {
	// Kind of what expires, its File and the name in it.
	Kind, File, Subject string
	// From and Until; From is zero if it is not known.
	From, Until time.Time
}

// Expiries returns what expires of the files as they are now: each certificate and each revocation list.
func (c *Certificates) Expiries() []Expiry {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return slices.Clone(c.expiry)
}

// maxExpiries is the number of certificates of one file above which it is a bundle of public authorities, some of
// which expire at any time.
const maxExpiries = 16

// of returns when certificates of a file expire.
func of(kind, file string, certificates []*x509.Certificate) (all []Expiry) {
	if len(certificates) > maxExpiries {
		return nil
	}
	for _, c := range certificates {
		all = append(all, Expiry{kind, file, c.Subject.String(), c.NotBefore, c.NotAfter})
	}
	return all
}

// expiry returns when the lists expire.
func (l *lists) expiry(file string) (all []Expiry) {
	seen := make(map[*list]bool)
	for _, list := range l.byIssuer {
		if !seen[list] && !list.NextUpdate.IsZero() {
			all = append(all, Expiry{KindCRL, file, list.Issuer.String(), list.ThisUpdate, list.NextUpdate})
		}
		seen[list] = true
	}
	return all
}

// parse reads certificates in PEM form. Those that cannot be read are left out, as a bundle may have some.
func parse(content []byte) (all []*x509.Certificate, err error) {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no certificate in it")
	}
	return all, nil
}
