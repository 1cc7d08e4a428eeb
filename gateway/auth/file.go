package auth

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// File is the content of an auth file.
type File struct {
	// Tokens that are accepted as they are.
	Tokens []Token `yaml:"tokens,omitempty"`
	// Certificates of clients by the names in them. The first entry that fits decides.
	Certificates []Certificate `yaml:"certificates,omitempty"`
	// Issuers of JSON Web Tokens.
	Issuers []Issuer `yaml:"issuers,omitempty"`
}

// Token is a static token.
type Token struct {
	Subject string   `yaml:"subject"`
	Roles   []string `yaml:"roles,flow"`
	// SHA256 of the token, in hex. A token must be random: a hash of a word can be guessed.
	SHA256 string `yaml:"sha256"`
	// Customer that the role customer is about.
	Customer string `yaml:"customer,omitempty"`
	// Expires is when the token ends; zero for never.
	Expires time.Time `yaml:"expires,omitempty"`
}

// Certificate gives roles to certificates with a name. The name that fits is the subject.
type Certificate struct {
	// URI or DNS is the pattern of a name: spiffe://example.org/shop/* or *.example.org. A star stands for one
	// segment of a path, or one label of a name, or a part of it. Exactly one of both is given.
	URI   string   `yaml:"uri,omitempty"`
	DNS   string   `yaml:"dns,omitempty"`
	Roles []string `yaml:"roles,flow"`
}

// Issuer of JSON Web Tokens.
type Issuer struct {
	// Issuer is the claim iss of its tokens.
	Issuer string `yaml:"issuer"`
	// JWKS is the URL of its keys (https, or http on this machine), and JWKSFile a file of them. One is given.
	JWKS     string `yaml:"jwks,omitempty"`
	JWKSFile string `yaml:"jwks_file,omitempty"`
	// Audiences are the values of aud of which a token must have one.
	Audiences []string `yaml:"audiences,flow"`
	// Algorithms of signatures that are accepted; without any RS256, PS256, ES256, ES384 and EdDSA.
	Algorithms []string `yaml:"algorithms,omitempty,flow"`
	// Skew is how far the clocks of issuer and gateway may be apart, at most 5 minutes; without one 30 seconds.
	Skew *time.Duration `yaml:"skew,omitempty"`
	// CustomerClaim has the id that the role customer is about.
	CustomerClaim string `yaml:"customer_claim,omitempty"`
	// Roles by claims. A token has those of each entry that fits.
	Roles []ClaimRoles `yaml:"roles"`
}

// ClaimRoles gives roles to tokens with a claim.
type ClaimRoles struct {
	// Claim is the name of a claim; dots lead into objects (realm_access.roles). It has the value if it is equal to
	// it, a list with it, or words with it between spaces, like scope.
	Claim string   `yaml:"claim"`
	Value string   `yaml:"value"`
	Roles []string `yaml:"roles,flow"`
}

// Bounds of an auth file.
const (
	maxFile = 4 << 20 // also of keys, in bytes
	maxSkew = 5 * time.Minute
)

// defaultSkew is the skew of an issuer that has none.
const defaultSkew = 30 * time.Second

// algorithms of signatures that an issuer may use. All have a public key.
var (
	allAlgorithms = []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
	defaultAlgorithms = []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}
)

// readFile reads a file of at most maxFile bytes.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d MiB", name, maxFile>>20)
	}
	return b, err
}

// ParseFile reads an auth file. Errors name the entry and what is wrong with it.
func ParseFile(b []byte) (*File, error) {
	f := &File{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := d.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("has more than one document")
	}
	return f, f.check()
}

// check returns what is wrong with the entries.
func (f *File) check() error {
	if len(f.Tokens)+len(f.Certificates)+len(f.Issuers) == 0 {
		return errors.New("has no tokens, certificates or issuers, so nobody could call the API")
	}
	for i := range f.Tokens {
		if err := f.Tokens[i].check(); err != nil {
			return fmt.Errorf("tokens[%d]: %w", i, err)
		}
	}
	for i := range f.Certificates {
		if err := f.Certificates[i].check(); err != nil {
			return fmt.Errorf("certificates[%d]: %w", i, err)
		}
	}
	issuers := make(map[string]bool)
	for i := range f.Issuers {
		err := f.Issuers[i].check()
		if err == nil && issuers[f.Issuers[i].Issuer] {
			err = fmt.Errorf("issuer %q appears twice", f.Issuers[i].Issuer)
		}
		if err != nil {
			return fmt.Errorf("issuers[%d]: %w", i, err)
		}
		issuers[f.Issuers[i].Issuer] = true
	}
	return nil
}

// errNoName is the error for a field that is to have the name of an issuer or a subject.
func errNoName(field string) error {
	return fmt.Errorf("%s: is required, with at most %d bytes and without control characters", field, maxName)
}

func (t *Token) check() error {
	roles, err := someRoles(t.Roles)
	hash, notHex := hex.DecodeString(t.SHA256)
	switch {
	case !isName(t.Subject):
		return errNoName("subject")
	case err != nil:
		return err
	case notHex != nil || len(hash) != 32:
		return errors.New("sha256: is not the hex of 32 bytes; printf %s TOKEN | sha256sum prints it")
	case roles&customer != 0 && t.Customer == "":
		return errors.New("customer: is required with the role customer")
	}
	return nil
}

func (c *Certificate) check() error {
	if (c.URI == "") == (c.DNS == "") {
		return errors.New("uri, dns: exactly one of both is required")
	}
	roles, err := someRoles(c.Roles)
	if err == nil && roles&customer != 0 {
		err = errors.New("roles: the role customer needs a token, which names the customer")
	}
	if err == nil {
		_, err = newPattern(c)
	}
	return err
}

func (i *Issuer) check() error {
	switch {
	case !isName(i.Issuer):
		return errNoName("issuer")
	case (i.JWKS == "") == (i.JWKSFile == ""):
		return errors.New("jwks, jwks_file: exactly one of both is required")
	case len(i.Audiences) == 0:
		return errors.New("audiences: is required; without one, tokens for other services would be accepted")
	case len(i.Roles) == 0:
		return errors.New("roles: is required; without them no token would be of use")
	case i.Skew != nil && (*i.Skew < 0 || *i.Skew > maxSkew):
		return fmt.Errorf("skew: is %v, must be 0 to %v", *i.Skew, maxSkew)
	}
	if i.JWKS != "" {
		u, err := url.Parse(i.JWKS)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLocal(u.Hostname())) {
			return fmt.Errorf("jwks: %q is not an https URL", i.JWKS)
		}
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(allAlgorithms, a) {
			return fmt.Errorf("algorithms: %q is not one of %s", a, strings.Join(allAlgorithms, ", "))
		}
	}
	for n, r := range i.Roles {
		roles, err := someRoles(r.Roles)
		switch {
		case err != nil:
		case r.Claim == "" || r.Value == "":
			err = errors.New("claim, value: are required")
		case roles&customer != 0 && i.CustomerClaim == "":
			err = errors.New("customer_claim: is required for the role customer")
		}
		if err != nil {
			return fmt.Errorf("roles[%d]: %w", n, err)
		}
	}
	return nil
}

// someRoles returns a set that is not empty.
func someRoles(names []string) (Roles, error) {
	roles, err := ParseRoles(names)
	if err != nil {
		return 0, fmt.Errorf("roles: %w", err)
	}
	if roles == 0 {
		return 0, errors.New("roles: is required")
	}
	return roles, nil
}
