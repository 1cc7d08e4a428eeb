package auth

import (
	"crypto/x509"
	"fmt"
	"net"
	"path"
	"strings"
)

// certificateIssuer is the issuer of claims from certificates.
const certificateIssuer = "certificate"

// pattern gives roles to the certificates with a name.
type pattern struct {
	// segments of the name between separators; each is a pattern of package path.
	segments  []string
	separator string
	dns       bool
	roles     Roles
}

// newPattern returns the pattern of an entry. Errors: the pattern is malformed.
func newPattern(c *Certificate) (pattern, error) {
	p := pattern{separator: "/"}
	text := c.URI
	if c.DNS != "" {
		p.separator, p.dns, text = ".", true, strings.ToLower(c.DNS)
	}
	p.segments = strings.Split(text, p.separator)
	for _, s := range p.segments {
		if _, err := path.Match(s, ""); err != nil {
			return p, fmt.Errorf("%q is not a pattern: %w", text, err)
		}
	}
	if !p.dns && (len(p.segments) < 3 || strings.ContainsAny(p.segments[0]+p.segments[2], `*?[\`)) {
		return p, fmt.Errorf("uri: %q does not begin with a scheme and a whole host, like spiffe://example.org/", text)
	}
	p.roles, _ = ParseRoles(c.Roles) // was checked
	return p, nil
}

// fits reports whether a name fits: as many segments, and each one does.
func (p *pattern) fits(name string) bool {
	segments := strings.Split(name, p.separator)
	if len(segments) != len(p.segments) {
		return false
	}
	for i, s := range segments {
		if ok, err := path.Match(p.segments[i], s); err != nil || !ok || s == "" && p.segments[i] != "" {
			return false
		}
	}
	return true
}

// name returns the first name of a certificate that fits; empty if none does.
func (p *pattern) name(c *x509.Certificate) string {
	if p.dns {
		for _, name := range c.DNSNames {
			if p.fits(strings.ToLower(name)) {
				return name
			}
		}
		return ""
	}
	for _, u := range c.URIs {
		// A name in another form than usual must not pass for a path that it does not have.
		if u.RawQuery == "" && u.Fragment == "" && u.User == nil && u.RawPath == "" && p.fits(u.String()) {
			return u.String()
		}
	}
	return ""
}

// Names are patterns of names in certificates.
type Names []pattern

// ParseNames returns patterns of URIs ("spiffe://example.org/node/*") and of DNS names ("*.nodes.example.org"), with
// stars as in an auth file. Errors: one is malformed.
func ParseNames(patterns []string) (all Names, err error) {
	for _, text := range patterns {
		c := Certificate{DNS: text}
		if strings.Contains(text, "://") {
			c = Certificate{URI: text}
		}
		p, err := newPattern(&c)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// Fit reports whether a name of a certificate fits a pattern.
func (n Names) Fit(c *x509.Certificate) bool {
	for i := range n {
		if n[i].name(c) != "" {
			return true
		}
	}
	return false
}

// ofCertificate returns the claims of a client with a certificate.
func (s *state) ofCertificate(chain []*x509.Certificate) (*Claims, error) {
	for i := range s.patterns {
		if name := s.patterns[i].name(chain[0]); isName(name) {
			return &Claims{
				Subject: name, Issuer: certificateIssuer, Roles: s.patterns[i].roles, Expiry: chain[0].NotAfter,
			}, nil
		}
	}
	return nil, failed(NoRole, "no entry under certificates of the auth file fits the names of this client certificate")
}

// isLocal reports whether a host is this machine.
func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
