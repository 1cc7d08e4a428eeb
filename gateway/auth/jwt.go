package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

// Bounds of fetching keys.
const (
	// keysRefresh is the interval at which the keys of an issuer are fetched. A key that the issuer withdrew is
	// accepted for that long at most, and tokens that were verified for rememberFor longer.
	keysRefresh = 10 * time.Minute
	// keysUnknown is the interval at which keys are fetched because a token names one that is not known.
	keysUnknown = 10 * time.Second
	keysTimeout = 5 * time.Second
)

// maxToken is the length of the longest bearer token.
const maxToken = 8 << 10

// issuer verifies tokens of one issuer.
type issuer struct {
	Issuer
	parser *jwt.Parser
	keys   keyfunc.Keyfunc
	skew   time.Duration
	roles  []Roles // of the entries of Issuer.Roles
	// failing says that the keys could not be fetched the last time.
	failing *atomic.Bool
}

// newIssuer returns the verifier of an issuer that was checked, with the content of its JWKSFile, if it has one. Keys
// from a URL are refreshed until ctx ends. Errors: the file of keys cannot be used. Keys that cannot be fetched now are
// logged, and fetched later.
func newIssuer(
	ctx context.Context, c Issuer, file []byte, now func() time.Time, log *slog.Logger,
) (*issuer, error) {
	i := &issuer{Issuer: c, skew: defaultSkew, failing: new(atomic.Bool)}
	if c.Skew != nil {
		i.skew = *c.Skew
	}
	algorithms := c.Algorithms
	if len(algorithms) == 0 {
		algorithms = defaultAlgorithms
	}
	i.parser = jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithIssuer(c.Issuer),
		jwt.WithAudience(c.Audiences...), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(i.skew), jwt.WithTimeFunc(now))
	for _, r := range c.Roles {
		roles, _ := ParseRoles(r.Roles) // was checked
		i.roles = append(i.roles, roles)
	}
	var err error
	if c.JWKSFile != "" {
		i.keys, err = keyfunc.NewJWKSetJSON(file)
	} else {
		i.keys, err = i.fetched(ctx, log)
	}
	if err != nil {
		return nil, fmt.Errorf("issuer %s: keys: %w", c.Issuer, err)
	}
	return i, nil
}

// fetched returns keys from the issuer's URL, which are fetched again from time to time.
func (i *issuer) fetched(ctx context.Context, log *slog.Logger) (keyfunc.Keyfunc, error) {
	client := &http.Client{
		Transport: watched{&http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: keysTimeout, MaxIdleConns: 1,
			IdleConnTimeout: time.Minute,
		}, i.failing},
		// A redirect could lead to an address that nobody agreed to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	keys, err := jwkset.NewStorageFromHTTP(i.JWKS, jwkset.HTTPClientStorageOptions{
		Client: client, Ctx: ctx, HTTPTimeout: keysTimeout, RefreshInterval: keysRefresh,
		NoErrorReturnFirstHTTPReq: true,
		RefreshErrorHandler: func(_ context.Context, err error) {
			i.failing.Store(true)
			log.Error("keys of an issuer not fetched, those fetched before stay in force",
				"issuer", i.Issuer.Issuer, "url", i.JWKS, "error", err)
		},
	})
	if err != nil {
		return nil, err
	}
	all, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{i.JWKS: keys},
		RefreshUnknownKID: rate.NewLimiter(rate.Every(keysUnknown), 1),
		// It also bounds the fetch. One token at most waits for the limiter, less than that: others would have to wait
		// for keysUnknown more, and are refused at once.
		RateLimitWaitMax: keysTimeout,
	})
	if err != nil {
		return nil, err
	}
	return keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: all})
}

// watched bounds the bodies of answers, and notes whether the last request was answered.
type watched struct {
	http.RoundTripper
	failing *atomic.Bool
}

// RoundTrip implements http.RoundTripper.
func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := w.RoundTripper.RoundTrip(r)
	w.failing.Store(err != nil || res.StatusCode != http.StatusOK)
	if err != nil {
		return nil, err
	}
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(res.Body, maxFile), res.Body}
	return res, nil
}

// unverified reads tokens to find their issuer.
var unverified = jwt.NewParser()

// ofJWT returns the claims of a JSON Web Token.
func (s *state) ofJWT(ctx context.Context, token string) (*Claims, *Error) {
	claims := jwt.MapClaims{}
	if _, _, err := unverified.ParseUnverified(token, claims); err != nil {
		return nil, failed(Malformed, "the bearer token is neither one of the auth file nor a JSON Web Token")
	}
	iss, err := claims.GetIssuer()
	i := s.issuers[iss]
	if err != nil || i == nil {
		return nil, failed(Unknown, "no issuer of the auth file issued this token")
	}
	return i.claims(ctx, token)
}

// claims verifies a token.
func (i *issuer) claims(ctx context.Context, token string) (*Claims, *Error) {
	all := jwt.MapClaims{}
	if _, err := i.parser.ParseWithClaims(token, all, i.keys.KeyfuncCtx(ctx)); err != nil {
		return nil, i.failure(err)
	}
	subject, err := all.GetSubject()
	expiry, expiryErr := all.GetExpirationTime()
	if err != nil || expiryErr != nil || !isName(subject) {
		return nil, failed(Malformed, "the token has no subject (claim sub) of at most %d bytes without control "+
			"characters", maxName)
	}
	c := &Claims{Subject: subject, Issuer: i.Issuer.Issuer, Expiry: expiry.Add(i.skew)}
	for n, r := range i.Issuer.Roles {
		if holds(claim(all, r.Claim), r.Value) {
			c.Roles |= i.roles[n]
		}
	}
	if i.CustomerClaim != "" {
		c.Customer, _ = claim(all, i.CustomerClaim).(string)
	}
	if c.Customer == "" {
		c.Roles &^= customer
	}
	if c.Roles == 0 {
		return nil, failed(NoRole, "no claim of this token gives it a role")
	}
	return c, nil
}

// failure returns what an error of package jwt means.
func (i *issuer) failure(err error) *Error {
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return failed(Expired, "the token expired; get a new one")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return failed(Early, "the token is not valid yet; are the clocks right?")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return failed(Audience, "the token is for another audience (claim aud)")
	case errors.Is(err, jwt.ErrTokenUnverifiable) && i.failing.Load():
		return failed(Unavailable, "the keys of the token's issuer cannot be fetched; retry later")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return failed(Forged, "the signature of the token is not accepted")
	}
	return failed(Malformed, "the token lacks a claim that it needs (exp, iss, aud), or one has a wrong form")
}

// claim returns a claim by its name; dots lead into objects, unless there is a claim of the whole name.
func claim(all map[string]any, name string) any {
	if v, ok := all[name]; ok {
		return v
	}
	object, rest, ok := strings.Cut(name, ".")
	if inner, isObject := all[object].(map[string]any); ok && isObject {
		return claim(inner, rest)
	}
	return nil
}

// holds reports whether a claim has a value.
func holds(claim any, value string) bool {
	switch c := claim.(type) {
	case string:
		if c == value {
			return true
		}
		for word := range strings.FieldsSeq(c) {
			if word == value {
				return true
			}
		}
	case []any:
		for _, v := range c {
			if v == any(value) {
				return true
			}
		}
	case bool, float64, json.Number:
		return fmt.Sprint(c) == value
	}
	return false
}
