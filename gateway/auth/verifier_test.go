package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"licensed/internal/budget"

	"licensed/messages/licensedv1"
)

// noon is when everything happens.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is a time that tests set.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Time               { return noon.Add(time.Duration(c.Load())) }
func (c *clock) after(d time.Duration) *clock { c.Store(int64(d)); return c }
func discard() *slog.Logger                   { return slog.New(slog.DiscardHandler) }
func hashOf(token string) string              { s := sha256.Sum256([]byte(token)); return hex.EncodeToString(s[:]) }
func roles(names ...string) Roles             { set, _ := ParseRoles(names); return set }
func kindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// open writes an auth file and opens it.
func open(t testing.TB, c *clock, content string) (*Verifier, string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "auth.yaml")
	write(t, name, content)
	v, err := Open(Config{File: name, Now: c.now, Poll: time.Millisecond, Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v, name
}

func write(t testing.TB, name, content string) {
	t.Helper()
	next := name + ".next"
	if err := errors.Join(os.WriteFile(next, []byte(content), 0o600), os.Rename(next, name)); err != nil {
		t.Fatal(err)
	}
}

func (v *Verifier) token(t testing.TB, token string) (*Claims, error) {
	t.Helper()
	return v.Authenticate(t.Context(), Credentials{Token: token, Source: budget.FromRemote("192.0.2.1:1")})
}

// provider is an issuer of tokens.
type provider struct {
	t    testing.TB
	url  string
	keys atomic.Pointer[map[string]crypto.Signer]
	// fetched counts the fetches of keys, and down has them fail.
	fetched atomic.Int64
	takes   atomic.Int64 // the time to answer, in nanoseconds
	down    atomic.Bool
}

func newProvider(t testing.TB) *provider {
	p := &provider{t: t}
	p.rotate("k1")
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	p.url = s.URL
	return p
}

// rotate gives the provider other keys.
func (p *provider) rotate(ids ...string) {
	keys := make(map[string]crypto.Signer)
	for _, id := range ids {
		if former := p.keys.Load(); former != nil && (*former)[id] != nil {
			keys[id] = (*former)[id]
			continue
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			p.t.Fatal(err)
		}
		keys[id] = key
	}
	p.keys.Store(&keys)
}

// jwks returns the public keys.
func (p *provider) jwks() []byte {
	set := struct {
		Keys []jwkset.JWKMarshal `json:"keys"`
	}{}
	for id, key := range *p.keys.Load() {
		jwk, err := jwkset.NewJWKFromKey(key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: id}})
		if err != nil {
			p.t.Fatal(err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	b, err := json.Marshal(set)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *provider) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.fetched.Add(1)
	time.Sleep(time.Duration(p.takes.Load()))
	if p.down.Load() {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write(p.jwks())
}

// token returns one signed by a key, with changes of its claims; nil removes one.
func (p *provider) token(key string, changes jwt.MapClaims) string {
	p.t.Helper()
	claims := jwt.MapClaims{
		"iss": "https://login.example.org", "aud": "licensed", "sub": "alice", "exp": noon.Add(time.Hour).Unix(),
		"groups": []string{"staff", "operators"},
	}
	for k, v := range changes {
		if claims[k] = v; v == nil {
			delete(claims, k)
		}
	}
	token := jwt.NewWithClaims(jwt.SigningMethodES256, claims)
	token.Header["kid"] = key
	signed, err := token.SignedString((*p.keys.Load())[key])
	if err != nil {
		p.t.Fatal(err)
	}
	return signed
}

// file returns an auth file with the provider.
func (p *provider) file() string {
	return fmt.Sprintf(`
issuers:
  - issuer: https://login.example.org
    jwks: %s
    audiences: [licensed, other]
    customer_claim: customer.id
    roles:
      - {claim: groups, value: operators, roles: [operator, auditor]}
      - {claim: scope, value: licences, roles: [customer]}
`, p.url)
}

func TestTokens(t *testing.T) {
	c := new(clock)
	v, name := open(t, c, `
tokens:
  - {subject: shop, roles: [service], sha256: `+hashOf("shop-token")+`}
  - {subject: Bayley, roles: [customer], customer: Bayley, sha256: `+hashOf("bayley-token")+`, expires: 2026-03-01T13:00:00Z}
`)
	got, err := v.token(t, "shop-token")
	if err != nil || got.Principal() != "tokens:shop" || got.Roles != roles("service") || got.Expired(noon) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = v.token(t, "bayley-token")
	if err != nil || got.Customer != "Bayley" || !got.Roles.Has(licensedv1.Role_ROLE_CUSTOMER) {
		t.Errorf("%+v, %v", got, err)
	}
	c.after(time.Hour)
	if _, err = v.token(t, "bayley-token"); kindOf(err) != Expired {
		t.Errorf("after its end: %v", err)
	}
	if _, err := v.Authenticate(t.Context(), Credentials{}); kindOf(err) != Missing {
		t.Errorf("without credentials: %v", err)
	}
	if _, err := v.token(t, strings.Repeat("x", maxToken+1)); kindOf(err) != Malformed {
		t.Errorf("too long: %v", err)
	}
	// A file with a mistake changes nothing, and the next one does.
	write(t, name, "tokens: [{subject: x}]")
	write(t, name, "tokens:\n  - {subject: new, roles: [metrics], sha256: "+hashOf("new-token")+"}\n")
	for got = nil; got == nil; got, _ = v.token(t, "new-token") {
		time.Sleep(time.Millisecond)
	}
	if _, err := v.token(t, "shop-token"); err == nil {
		t.Error("a token that was taken out is accepted")
	}
}

func TestFileErrors(t *testing.T) {
	hash := hashOf("x")
	for _, test := range []struct{ content, says string }{
		{"", "nobody could call"},
		{"tokens: [{}]", "tokens[0]: subject: is required"},
		{"users: []", "field users not found"},
		{"tokens: []\n---\na: 1", "more than one document"},
		{"tokens: [{subject: a, roles: [root], sha256: HASH}]", `"root" is no role`},
		{"tokens: [{subject: a, roles: [], sha256: HASH}]", "roles: is required"},
		{"tokens: [{subject: a, roles: [service], sha256: secret}]", "sha256: is not the hex"},
		{"tokens: [{subject: a, roles: [customer], sha256: HASH}]", "customer: is required"},
		{"certificates: [{roles: [service]}]", "exactly one of both"},
		{"certificates: [{uri: 'spiffe://*/x', roles: [service]}]", "whole host"},
		{"certificates: [{uri: 'spiffe:a', roles: [service]}]", "whole host"},
		{"certificates: [{dns: '[a', roles: [service]}]", "is not a pattern"},
		{"certificates: [{dns: a, roles: [customer]}]", "needs a token"},
		{"issuers: [{jwks: 'https://x'}]", "issuer: is required"},
		{"issuers: [{issuer: a}]", "jwks, jwks_file"},
		{"issuers: [{issuer: a, jwks: 'https://x'}]", "audiences: is required"},
		{"issuers: [{issuer: a, jwks: 'http://x', audiences: [a], roles: [{}]}]", "not an https URL"},
		{"issuers: [{issuer: a, KEYS}]", "roles: is required"},
		{"issuers: [{issuer: a, KEYS, roles: [{}]}]", "roles[0]: roles: is required"},
		{"issuers: [{issuer: a, KEYS, skew: 1h, roles: [{}]}]", "skew: is 1h0m0s"},
		{"issuers: [{issuer: a, KEYS, algorithms: [HS256], roles: [{}]}]", `"HS256" is not one of`},
		{"issuers: [{issuer: a, KEYS, roles: [{roles: [service]}]}]", "claim, value"},
		{"issuers: [{issuer: a, KEYS, roles: [{claim: a, value: b, roles: [customer]}]}]", "customer_claim"},
	} {
		content := strings.NewReplacer("HASH", hash, "KEYS", "jwks: 'https://x', audiences: [a]").Replace(test.content)
		if _, err := ParseFile([]byte(content)); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v; want %q", content, err, test.says)
		}
	}
	_, err := Open(Config{File: filepath.Join(t.TempDir(), "none"), Logger: discard()})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func TestJWT(t *testing.T) {
	p, c := newProvider(t), new(clock)
	v, _ := open(t, c, p.file())
	got, err := v.token(t, p.token("k1", nil))
	if err != nil || got.Principal() != "https://login.example.org:alice" ||
		got.Roles != roles("operator", "auditor") || !got.Expiry.Equal(noon.Add(time.Hour+defaultSkew)) {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = v.token(t, p.token("k1", jwt.MapClaims{
		"groups": nil, "scope": "openid licences", "customer": map[string]any{"id": "Bayley"},
	}))
	if err != nil || got.Roles != roles("customer") || got.Customer != "Bayley" {
		t.Errorf("a customer: %+v, %v", got, err)
	}
	others := newProvider(t) // has a key of the same name
	none := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{
		"iss": "https://login.example.org", "aud": "licensed", "sub": "a", "exp": noon.Add(time.Hour).Unix(),
	})
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	// Signed with the public key as if it were a shared secret.
	der, err := x509.MarshalPKIXPublicKey((*p.keys.Load())["k1"].Public())
	if err != nil {
		t.Fatal(err)
	}
	confused := jwt.NewWithClaims(jwt.SigningMethodHS256, none.Claims)
	confused.Header["kid"] = "k1"
	symmetric, err := confused.SignedString(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		token string
		want  Kind
	}{
		"no JWT":           {"x", Malformed},
		"other issuer":     {p.token("k1", jwt.MapClaims{"iss": "https://evil.example.org"}), Unknown},
		"no issuer":        {p.token("k1", jwt.MapClaims{"iss": nil}), Unknown},
		"issuer no string": {p.token("k1", jwt.MapClaims{"iss": 7}), Unknown},
		"other key":        {others.token("k1", nil), Forged},
		"no algorithm":     {unsigned, Forged},
		"shared secret":    {symmetric, Forged},
		"other audience":   {p.token("k1", jwt.MapClaims{"aud": "shop"}), Audience},
		"no audience":      {p.token("k1", jwt.MapClaims{"aud": nil}), Malformed},
		"expired":          {p.token("k1", jwt.MapClaims{"exp": noon.Add(-time.Minute).Unix()}), Expired},
		"no expiry":        {p.token("k1", jwt.MapClaims{"exp": nil}), Malformed},
		"not yet":          {p.token("k1", jwt.MapClaims{"nbf": noon.Add(time.Minute).Unix()}), Early},
		"from the future":  {p.token("k1", jwt.MapClaims{"iat": noon.Add(time.Minute).Unix()}), Early},
		"no subject":       {p.token("k1", jwt.MapClaims{"sub": nil}), Malformed},
		"no role":          {p.token("k1", jwt.MapClaims{"groups": "staff"}), NoRole},
		"customer unnamed": {p.token("k1", jwt.MapClaims{"groups": nil, "scope": "licences"}), NoRole},
	} {
		_, err := v.Authenticate(t.Context(), Credentials{Token: test.token})
		if kindOf(err) != test.want {
			t.Errorf("%s: %v is %q, want %q", name, err, kindOf(err), test.want)
		}
	}
	// Clocks may be apart by the skew.
	if _, err := v.token(t, p.token("k1", jwt.MapClaims{"exp": noon.Add(-20 * time.Second).Unix()})); err != nil {
		t.Errorf("within the skew: %v", err)
	}
}

// TestRemembered: a token is verified once, and not accepted longer than it says because of that.
func TestRemembered(t *testing.T) {
	p, c := newProvider(t), new(clock)
	v, _ := open(t, c, p.file())
	short := p.token("k1", jwt.MapClaims{"exp": noon.Add(time.Minute).Unix()})
	first, err := v.token(t, short)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := v.token(t, short); err != nil || again != first {
		t.Errorf("verified again: %v", err)
	}
	c.after(time.Minute + defaultSkew)
	if _, err := v.token(t, short); kindOf(err) != Expired {
		t.Errorf("after its end: %v", err)
	}
	long := p.token("k1", jwt.MapClaims{"exp": noon.Add(24 * time.Hour).Unix()})
	if first, err = v.token(t, long); err != nil {
		t.Fatal(err)
	}
	c.after(time.Minute + defaultSkew + rememberFor)
	if again, err := v.token(t, long); err != nil || again == first {
		t.Errorf("not verified again after %v: %v", rememberFor, err)
	}
}

// TestKeysRotate: a new key is fetched when a token names it, one that was withdrawn is not accepted any more, and
// unknown ones do not have keys fetched each time.
func TestKeysRotate(t *testing.T) {
	p, c := newProvider(t), new(clock)
	v, _ := open(t, c, p.file())
	old := p.token("k1", nil)
	p.rotate("k2")
	p.takes.Store(int64(20 * time.Millisecond)) // As over a network.
	if _, err := v.token(t, p.token("k2", nil)); err != nil {
		t.Errorf("a new key: %v", err)
	}
	if _, err := v.token(t, old); kindOf(err) != Forged {
		t.Errorf("a withdrawn key: %v", err)
	}
	fetched := p.fetched.Load()
	p.rotate("k2", "k3")
	for range attempts / 2 {
		if _, err := v.token(t, p.token("k3", nil)); err == nil {
			t.Error("keys were fetched twice in a moment")
		}
	}
	if n := p.fetched.Load(); n != fetched {
		t.Errorf("keys were fetched %d times for unknown keys", n-fetched)
	}
}

// TestKeysUnavailable: without the keys of an issuer its tokens are not wrong, and count against nobody.
func TestKeysUnavailable(t *testing.T) {
	p, c := newProvider(t), new(clock)
	p.down.Store(true)
	v, _ := open(t, c, p.file())
	for range 2 * attempts {
		if _, err := v.token(t, p.token("k1", nil)); kindOf(err) != Unavailable {
			t.Fatal(err)
		}
	}
}

// TestKeysOfFile: keys in a file are read again when it changes.
func TestKeysOfFile(t *testing.T) {
	p, c := newProvider(t), new(clock)
	keys := filepath.Join(t.TempDir(), "keys.json")
	write(t, keys, string(p.jwks()))
	v, _ := open(t, c, strings.Replace(p.file(), "jwks: "+p.url, "jwks_file: "+keys, 1))
	if _, err := v.token(t, p.token("k1", nil)); err != nil {
		t.Fatal(err)
	}
	p.rotate("k2")
	write(t, keys, string(p.jwks()))
	token := p.token("k2", nil)
	for _, err := v.token(t, token); err != nil; _, err = v.Authenticate(t.Context(), Credentials{Token: token}) {
		c.Add(int64(time.Second)) // for further attempts
		time.Sleep(time.Millisecond)
	}
}

// TestAttempts: an address that guesses is stopped, and neither tokens that are right nor other addresses are.
func TestAttempts(t *testing.T) {
	p, c := newProvider(t), new(clock)
	v, _ := open(t, c, p.file()+"tokens: [{subject: shop, roles: [service], sha256: "+hashOf("shop-token")+"}]\n")
	known := p.token("k1", nil)
	if _, err := v.token(t, known); err != nil {
		t.Fatal(err)
	}
	for i := range attempts {
		if _, err := v.token(t, fmt.Sprint("guess", i)); kindOf(err) != Malformed {
			t.Fatal(err)
		}
	}
	fresh := p.token("k1", jwt.MapClaims{"sub": "bob"})
	if _, err := v.token(t, fresh); kindOf(err) != TooMany {
		t.Errorf("after too many: %v", err)
	}
	for _, token := range []string{"shop-token", known} {
		if _, err := v.token(t, token); err != nil {
			t.Errorf("a right token is locked out: %v", err)
		}
	}
	other := Credentials{Token: fresh, Source: budget.FromRemote("192.0.2.2:1")}
	if _, err := v.Authenticate(t.Context(), other); err != nil {
		t.Errorf("another address is locked out: %v", err)
	}
	c.after(attemptEvery)
	if _, err := v.token(t, p.token("k1", jwt.MapClaims{"sub": "carol"})); err != nil {
		t.Errorf("after a while: %v", err)
	}
}

func TestCertificates(t *testing.T) {
	v, _ := open(t, new(clock), `
certificates:
  - {uri: "spiffe://example.org/shop/*", roles: [service]}
  - {uri: "spiffe://example.org/ops", roles: [operator]}
  - {dns: "*.monitoring.example.org", roles: [metrics]}
`)
	of := func(uri string, names ...string) *x509.Certificate {
		c := &x509.Certificate{DNSNames: names, NotAfter: noon.Add(time.Hour)}
		if uri != "" {
			u, err := url.Parse(uri)
			if err != nil {
				t.Fatal(err)
			}
			c.URIs = []*url.URL{u}
		}
		return c
	}
	for _, test := range []struct {
		cert    *x509.Certificate
		subject string
		roles   Roles
		want    Kind
	}{
		{of("spiffe://example.org/shop/web"), "spiffe://example.org/shop/web", roles("service"), ""},
		{of("spiffe://example.org/ops", "a.monitoring.example.org"), "spiffe://example.org/ops", roles("operator"), ""},
		{of("", "x", "P1.Monitoring.example.org"), "P1.Monitoring.example.org", roles("metrics"), ""},
		{of("spiffe://example.org/shop/web/admin"), "", 0, NoRole},
		{of("spiffe://example.org/shop/"), "", 0, NoRole},
		{of("spiffe://example.org/shop"), "", 0, NoRole},
		{of("spiffe://example.org/shop/web?x"), "", 0, NoRole},
		{of("spiffe://example.org/shop/a%2Fb"), "", 0, NoRole},
		{of("spiffe://evil.example.org/shop/web"), "", 0, NoRole},
		{of("", "a.b.monitoring.example.org", ".monitoring.example.org"), "", 0, NoRole},
		{of(""), "", 0, NoRole},
		{&x509.Certificate{DNSNames: []string{"a.monitoring.example.org"}, NotAfter: noon}, "", 0, Expired},
	} {
		got, err := v.Authenticate(t.Context(), Credentials{Certificates: []*x509.Certificate{test.cert}})
		if kindOf(err) != test.want || err == nil && (got.Subject != test.subject || got.Roles != test.roles) {
			t.Errorf("%v %v: %+v, %v", test.cert.URIs, test.cert.DNSNames, got, err)
		}
	}
	// A wrong token is not overridden.
	if _, err := v.Authenticate(t.Context(), Credentials{
		Token: "x", Certificates: []*x509.Certificate{of("spiffe://example.org/ops")},
	}); kindOf(err) != Malformed {
		t.Errorf("a wrong token beside a certificate: %v", err)
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	p, c := newProvider(b), new(clock)
	v, _ := open(b, c, p.file()+"tokens: [{subject: shop, roles: [service], sha256: "+hashOf("shop-token")+"}]\n"+
		"certificates: [{uri: 'spiffe://example.org/shop/*', roles: [service]}]\n")
	u, _ := url.Parse("spiffe://example.org/shop/web")
	for name, credentials := range map[string]Credentials{
		"token":       {Token: "shop-token"},
		"jwt":         {Token: p.token("k1", nil)},
		"certificate": {Certificates: []*x509.Certificate{{URIs: []*url.URL{u}, NotAfter: noon.Add(time.Hour)}}},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Authenticate(context.Background(), credentials); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzFile: no file has the parser panic, and one that is accepted gives no role that does not exist.
func FuzzFile(f *testing.F) {
	f.Add([]byte("tokens: [{subject: a, roles: [service], sha256: " + hashOf("x") + "}]"))
	f.Add([]byte("certificates: [{uri: 'spiffe://example.org/*', roles: [service]}, {dns: '*.a', roles: [metrics]}]"))
	f.Add([]byte("issuers: [{issuer: a, jwks: 'https://x/y', audiences: [a], " +
		"roles: [{claim: a, value: b, roles: [auditor]}]}]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ParseFile(b)
		if err != nil {
			return
		}
		for i := range file.Certificates {
			if p, err := newPattern(&file.Certificates[i]); err != nil || p.roles == 0 {
				t.Errorf("%+v: %v", file.Certificates[i], err)
			}
		}
	})
}

// FuzzToken: no bearer token is accepted that the file does not have, and none has the verifier panic.
func FuzzToken(f *testing.F) {
	p, c := newProvider(f), new(clock)
	v, _ := open(f, c, p.file()+"tokens: [{subject: shop, roles: [service], sha256: "+hashOf("shop-token")+"}]\n")
	genuine := p.token("k1", nil)
	head, rest, _ := strings.Cut(genuine, ".")
	body, signature, _ := strings.Cut(rest, ".")
	f.Add(genuine)
	f.Add("shop-token")
	f.Add(head + "." + body + ".")
	f.Add(body + "." + head + "." + signature)
	f.Add("eyJhbGciOiJub25lIn0." + body + "." + signature)
	f.Fuzz(func(t *testing.T, token string) {
		claims, err := v.Authenticate(t.Context(), Credentials{Token: token})
		// The last bits of the encoding of a signature have no meaning.
		if err == nil && token != "shop-token" && !strings.HasPrefix(token, head+"."+body+"."+signature[:80]) {
			t.Errorf("%q is accepted as %+v", token, claims)
		}
	})
}

// FuzzPattern: a name that fits has as many segments as the pattern, and the host of it.
func FuzzPattern(f *testing.F) {
	f.Add("spiffe://example.org/shop/*", "spiffe://example.org/shop/web")
	f.Add("spiffe://example.org/*/?", "spiffe://example.org/a/b")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := newPattern(&Certificate{URI: text, Roles: []string{"service"}})
		if err != nil || !p.fits(name) {
			return
		}
		want, got := strings.Split(text, "/"), strings.Split(name, "/")
		if len(want) != len(got) || want[0] != got[0] || want[2] != got[2] {
			t.Errorf("%q fits %q", name, text)
		}
	})
}
