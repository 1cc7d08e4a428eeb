package licensetoken

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const issuer = "licensed"

// newKey returns a key that is the same in every run.
func newKey(seed byte) SigningKey {
	return NewSigningKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize))))
}

func sample() License {
	acquired := time.Date(2026, 11, 30, 12, 0, 0, 123e6, time.UTC)
	return License{
		CustomerID: "Bayley", DeviceID: "iphone", TitleID: "GlowS01E01", AcquiredAt: acquired,
		IssuedAt: acquired.Truncate(time.Second), ExpiresAt: acquired.Truncate(time.Second).AddDate(0, 0, 30),
		Offline: []string{Play, Release},
	}
}

func sign(t testing.TB, l License, key SigningKey) string {
	t.Helper()
	token, err := Sign(issuer, l, key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func setOf(keys ...SigningKey) KeySet {
	set := make(KeySet)
	for _, k := range keys {
		set[k.ID] = k.Public()
	}
	return set
}

func TestRoundTrip(t *testing.T) {
	key, want := newKey('a'), sample()
	token := sign(t, want, key)
	if again := sign(t, want, key); again != token {
		t.Errorf("equal claims result in\n%s and\n%s", token, again)
	}
	// The keys are those of the public set.
	keys, err := ParseJWKS(setOf(key, newKey('b')).JWKS())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(token, issuer, keys)
	if err != nil {
		t.Fatal(err)
	}
	want.KeyID = key.ID
	if !reflect.DeepEqual(*got, want) {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	if got.Number() != 1_796_040_000_123 || !got.May(Play) || got.May("copy") {
		t.Errorf("number %d, %q", got.Number(), got.Offline)
	}
}

// TestPlayHours: the hours after the first playback are a claim, and end the licence unless it ends before.
func TestPlayHours(t *testing.T) {
	key, l := newKey('a'), sample()
	l.PlayHours = 48
	got, err := Verify(sign(t, l, key), issuer, setOf(key))
	if err != nil || got.PlayHours != 48 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for played, want := range map[time.Time]time.Time{
		{}:                                 got.ExpiresAt,
		got.IssuedAt:                       got.IssuedAt.Add(48 * time.Hour),
		got.ExpiresAt.Add(-48 * time.Hour): got.ExpiresAt,
		got.ExpiresAt.Add(-time.Hour):      got.ExpiresAt,
	} {
		if end := got.EndsAt(played); !end.Equal(want) {
			t.Errorf("played first at %v, the licence ends at %v, want %v", played, end, want)
		}
	}
	without := sample()
	if end := without.EndsAt(without.IssuedAt); !end.Equal(without.ExpiresAt) {
		t.Errorf("without hours the licence ends at %v", end)
	}
}

// TestClaims: the form of a token, which devices rely on.
func TestClaims(t *testing.T) {
	key := newKey('a')
	parts := strings.Split(sign(t, sample(), key), ".")
	for i, want := range []string{
		`{"alg":"EdDSA","kid":"` + key.ID + `","typ":"license+jwt"}`,
		`{"iss":"licensed","sub":"Bayley","aud":["licensed-device"],"exp":1798632000,"nbf":1796039700,"iat":1796040000,` +
			`"device_id":"iphone","title_id":"GlowS01E01","license":1796040000123,"offline":["play","release"]}`,
	} {
		if got, err := base64.RawURLEncoding.DecodeString(parts[i]); err != nil || string(got) != want {
			t.Errorf("part %d is %s, %v, want %s", i, got, err, want)
		}
	}
}

// TestLargest: with the longest ids a token is as small as MaxBytes says.
func TestLargest(t *testing.T) {
	l := sample()
	id := strings.Repeat("x", 128)
	l.CustomerID, l.DeviceID, l.TitleID = id, id, id
	if n := len(sign(t, l, newKey('a'))); n > 1536 {
		t.Errorf("%d bytes", n)
	}
}

func TestThumbprint(t *testing.T) {
	// The example of RFC 8037, appendix A.3.
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	if got := KeyID(x); got != "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" {
		t.Error(got)
	}
}

func TestCheck(t *testing.T) {
	l := sample()
	for at, want := range map[time.Time]error{
		l.IssuedAt:                          nil,
		l.IssuedAt.Add(-ClockAllowance):     nil,
		l.IssuedAt.Add(-ClockAllowance - 1): ErrNotYetValid,
		l.ExpiresAt.Add(-time.Nanosecond):   nil,
		l.ExpiresAt:                         ErrExpired,
		l.ExpiresAt.AddDate(100, 0, 0):      ErrExpired,
		{}:                                  ErrNotYetValid,
		l.IssuedAt.In(time.FixedZone("", 3600*9)): nil,
	} {
		if got := l.Check(at); !errors.Is(got, want) {
			t.Errorf("at %v: %v, want %v", at, got, want)
		}
	}
}

// other returns a token with other claims or another header than Sign gives.
func other(t *testing.T, method jwt.SigningMethod, key any, header, changed map[string]any) string {
	t.Helper()
	c := jwt.MapClaims{
		"iss": issuer, "aud": Audience, "sub": "Bayley", "device_id": "iphone", "title_id": "GlowS01E01",
		"license": 1, "iat": 1, "nbf": 1, "exp": int64(1 << 40), "offline": []string{Play},
	}
	for name, value := range changed {
		if c[name] = value; value == nil {
			delete(c, name)
		}
	}
	token := jwt.NewWithClaims(method, c)
	token.Header["typ"] = tokenType
	maps.Copy(token.Header, header)
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestRefused(t *testing.T) {
	key, stranger := newKey('a'), newKey('b')
	keys := setOf(key)
	id := map[string]any{"kid": key.ID}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(name string, value any) string {
		return other(t, jwt.SigningMethodEdDSA, key.Private, id, map[string]any{name: value})
	}
	good := sign(t, sample(), key)
	altered := sample()
	altered.ExpiresAt = altered.ExpiresAt.AddDate(1, 0, 0)
	parts, forged := strings.Split(good, "."), strings.Split(sign(t, altered, stranger), ".")
	if _, err := Verify(other(t, jwt.SigningMethodEdDSA, key.Private, id, nil), issuer, keys); err != nil {
		t.Fatal(err)
	}
	eddsa := func(key SigningKey, header map[string]any) string {
		return other(t, jwt.SigningMethodEdDSA, key.Private, header, nil)
	}
	inside := map[string]any{"jwk": json.RawMessage(setOf(stranger).JWKS())}
	none := jwt.UnsafeAllowNoneSignatureType
	for name, test := range map[string]struct {
		token string
		want  error
	}{
		"no algorithm":               {other(t, jwt.SigningMethodNone, none, id, nil), ErrMalformed},
		"HS256 with the public key":  {other(t, jwt.SigningMethodHS256, []byte(key.Public()), id, nil), ErrMalformed},
		"HS256 with the key set":     {other(t, jwt.SigningMethodHS256, keys.JWKS(), id, nil), ErrMalformed},
		"RS256":                      {other(t, jwt.SigningMethodRS256, rsaKey, id, nil), ErrMalformed},
		"a key inside the token":     {eddsa(stranger, inside), ErrUnknownKey},
		"an unknown key":             {sign(t, sample(), stranger), ErrUnknownKey},
		"the name of another key":    {eddsa(stranger, id), ErrSignature},
		"no name of a key":           {eddsa(key, nil), ErrUnknownKey},
		"a name that is no text":     {eddsa(key, map[string]any{"kid": 1}), ErrUnknownKey},
		"other claims":               {parts[0] + "." + forged[1] + "." + parts[2], ErrSignature},
		"no signature":               {parts[0] + "." + parts[1] + ".", ErrSignature},
		"half a signature":           {good[:len(good)-42], ErrSignature},
		"a token of another type":    {eddsa(key, map[string]any{"kid": key.ID, "typ": "JWT"}), ErrMalformed},
		"another issuer":             {claim("iss", "staging"), ErrMalformed},
		"another audience":           {claim("aud", "api"), ErrMalformed},
		"one more audience":          {claim("aud", []string{Audience, "api"}), ErrMalformed},
		"no audience":                {claim("aud", nil), ErrMalformed},
		"no customer":                {claim("sub", nil), ErrMalformed},
		"no device":                  {claim("device_id", nil), ErrMalformed},
		"no title":                   {claim("title_id", ""), ErrMalformed},
		"no expiry":                  {claim("exp", nil), ErrMalformed},
		"an expiry that is no time":  {claim("exp", "never"), ErrMalformed},
		"no time of issue":           {claim("iat", nil), ErrMalformed},
		"a number that is no number": {claim("license", "x"), ErrMalformed},
		"nothing":                    {"", ErrMalformed},
		"two parts":                  {parts[0] + "." + parts[1], ErrMalformed},
		"padding":                    {parts[0] + "=." + parts[1] + "." + parts[2], ErrMalformed},
		"a large one":                {strings.Repeat("a", MaxBytes) + good, ErrMalformed},
	} {
		if l, err := Verify(test.token, issuer, keys); !errors.Is(err, test.want) || l != nil {
			t.Errorf("%s: %+v, %v, want %v", name, l, err, test.want)
		}
	}
}

func TestParseJWKS(t *testing.T) {
	key := newKey('a')
	good := strings.TrimPrefix(strings.TrimSuffix(string(setOf(key).JWKS()), "]}"), `{"keys":[`)
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"one":              {`{"keys":[` + good + `]}`, true},
		"other keys":       {`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"OKP","crv":"X25519","x":"AA"},` + good + `]}`, true},
		"another use":      {`{"keys":[` + strings.Replace(good, `"use":"sig"`, `"use":"enc"`, 1) + `]}`, false},
		"a key cut short":  {`{"keys":[` + strings.Replace(good, `"x":"`, `"x":"AA`, 1) + `]}`, false},
		"none":             {`{"keys":[]}`, false},
		"no set":           {`[]`, false},
		"a page of errors": {`<html>`, false},
	} {
		keys, err := ParseJWKS([]byte(test.text))
		if (err == nil) != test.ok || test.ok && !reflect.DeepEqual(keys, setOf(key)) {
			t.Errorf("%s: %v, %v", name, keys, err)
		}
	}
}

// FuzzVerify: what is accepted was signed by the key, and says what the token says.
func FuzzVerify(f *testing.F) {
	key := newKey('a')
	keys, good := setOf(key), sign(f, sample(), key)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(strings.ReplaceAll(good, ".", ".."))
	f.Add("e30.e30.e30")
	f.Add(sign(f, sample(), newKey('b')))
	f.Fuzz(func(t *testing.T, token string) {
		l, err := Verify(token, issuer, keys)
		switch {
		case err == nil && token != good:
			t.Errorf("%q passes as %+v", token, l)
		case err == nil, errors.Is(err, ErrMalformed), errors.Is(err, ErrUnknownKey), errors.Is(err, ErrSignature):
		default:
			t.Errorf("%q: an error of no kind: %v", token, err)
		}
	})
}

// FuzzParseJWKS: what is read is written and read again.
func FuzzParseJWKS(f *testing.F) {
	f.Add(setOf(newKey('a'), newKey('b')).JWKS())
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParseJWKS(text)
		if err != nil {
			return
		}
		if again, err := ParseJWKS(keys.JWKS()); err != nil || !reflect.DeepEqual(again, keys) {
			t.Errorf("%q: %v, then %v, %v", text, keys, again, err)
		}
	})
}
